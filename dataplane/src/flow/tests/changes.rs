//! Many flows changed at once, growth, and what becomes of flows that come and go meanwhile.

use super::super::*;
use super::{action, key, known_hash, look, number_of};

fn build(writer: &mut Writer, budget: u32, mut fate: impl FnMut(FlowIndex, &Flow) -> Fate) {
    while writer.step(budget, &mut fate).unwrap() == Progress::Building {}
}

#[test]
fn a_reader_sees_all_of_a_change_or_nothing_of_it() {
    let (mut writer, mut readers) = Writer::new(1000, 2).unwrap();
    let indices: Vec<_> =
        (0..300).map(|number| writer.insert(&key(number), &action(1), FlowState::Active, 0).unwrap()).collect();
    readers[0].count(indices[1], 5, 500, 3);
    writer.begin(1000).unwrap();
    assert!(matches!(writer.begin(1000), Err(TableError::Busy)));
    assert!(matches!(writer.commit(), Err(TableError::NotReady)));
    build(&mut writer, 7, |index, _| match index.number() % 3 {
        0 => Fate::Stay,
        1 => Fate::Become(action(2)),
        _ => Fate::Go,
    });
    let seen = |reader: &mut Reader| -> Vec<Option<u32>> {
        let keys: Vec<_> = (0..300).map(key).collect();
        let mut found = vec![None; keys.len()];
        reader.lookup(&keys, &mut found);
        found.into_iter().map(|index| index.map(|index| number_of(&reader.action(index)))).collect()
    };
    let before = vec![Some(1); 300];
    assert_eq!(seen(&mut readers[0]), before);
    let change = writer.commit().unwrap();
    assert_eq!((change.moved.len(), change.gone.len(), writer.len()), (100, 100, 200));
    assert_eq!(seen(&mut readers[0]), before, "an engine that has not taken it yet");
    let old = readers[1].swap(change.table.clone());
    let after: Vec<_> = (0..300).map(|number| [Some(1), Some(2), None][number % 3]).collect();
    assert_eq!(seen(&mut readers[1]), after);
    assert_eq!(seen(&mut readers[0]), before);
    // No index is used again before the old table is back from all.
    drop(old);
    readers[1].quiesce();
    readers[0].quiesce();
    writer.collect();
    assert_eq!(writer.usage().waiting, 200);
    drop(readers[0].swap(change.table.clone()));
    writer.collect();
    assert_eq!(writer.usage().waiting, 0);
    assert_eq!(seen(&mut readers[0]), after);
    let moved = writer.find(&key(1)).unwrap();
    assert_eq!(writer.get(moved).unwrap().counts, Counts { packets: 5, bytes: 500, last_seen: 3 });
}

#[test]
fn flows_come_and_go_while_a_change_is_built() {
    let (mut writer, mut readers) = Writer::new(1000, 1).unwrap();
    for number in 0..100 {
        writer.insert(&key(number), &action(1), FlowState::Active, 0).unwrap();
    }
    writer.begin(1000).unwrap();
    let fate =
        |_: FlowIndex, flow: &Flow| if number_of(&flow.action) == 1 { Fate::Become(action(2)) } else { Fate::Stay };
    // Memory first, then half of the flows.
    assert_eq!(writer.step(1, fate).unwrap(), Progress::Building);
    assert_eq!(writer.step(50, fate).unwrap(), Progress::Building);
    for number in [10, 60] {
        let index = writer.find(&key(number)).unwrap();
        writer.remove(index).unwrap();
    }
    for number in [20, 70] {
        let index = writer.find(&key(number)).unwrap();
        writer.replace(index, &action(3), FlowState::Active).unwrap();
    }
    writer.insert(&key(200), &action(4), FlowState::Active, 0).unwrap();
    build(&mut writer, 50, fate);
    writer.insert(&key(201), &action(5), FlowState::Active, 0).unwrap();
    assert_eq!(look(&mut readers[0], &key(201)).map(|index| readers[0].action(index)), Some(action(5)));
    let change = writer.commit().unwrap();
    drop(readers[0].swap(change.table));
    for number in 0..202 {
        let expected = match number {
            10 | 60 => None,
            20 | 70 => Some(3),
            200 => Some(4),
            201 => Some(5),
            0..100 => Some(2),
            _ => None,
        };
        let got = look(&mut readers[0], &key(number)).map(|index| number_of(&readers[0].action(index)));
        assert_eq!(got, expected, "{number}");
    }
    assert_eq!(writer.len(), 100);
}

#[test]
fn a_change_that_is_abandoned_leaves_nothing() {
    let (mut writer, mut readers) = Writer::new(200, 1).unwrap();
    for number in 0..100 {
        writer.insert(&key(number), &action(1), FlowState::Active, 0).unwrap();
    }
    for _ in 0..10 {
        writer.begin(200).unwrap();
        build(&mut writer, 1000, |_, _| Fate::Become(action(2)));
        writer.abandon();
    }
    assert!(matches!(writer.commit(), Err(TableError::NotReady)));
    assert_eq!(look(&mut readers[0], &key(1)).map(|index| readers[0].action(index)), Some(action(1)));
    for number in 100..200 {
        writer.insert(&key(number), &action(1), FlowState::Active, 0).unwrap();
    }
}

#[test]
fn a_table_grows_and_its_flows_stay_where_they_are() {
    let (mut writer, mut readers) = Writer::with_hash(1000, 1, known_hash(3)).unwrap();
    let indices: Vec<_> =
        (0..1000).map(|number| writer.insert(&key(number), &action(number), FlowState::Active, 0).unwrap()).collect();
    assert!(matches!(writer.insert(&key(1000), &action(0), FlowState::Active, 0), Err(Refused::Full { .. })));
    writer.begin(200_000).unwrap();
    build(&mut writer, 100, |_, _| Fate::Stay);
    drop(readers[0].swap(writer.commit().unwrap().table));
    for number in 1000..200_000 {
        writer.insert(&key(number), &action(number), FlowState::Active, 0).unwrap();
    }
    for (number, index) in (0..).zip(&indices) {
        assert_eq!(look(&mut readers[0], &key(number)), Some(*index));
    }
    assert!(look(&mut readers[0], &key(199_999)).is_some());
    assert!(matches!(writer.begin(1 << 25), Err(TableError::Capacity(_))));
}

#[test]
fn a_change_for_which_no_index_is_free_lets_flows_go() {
    let (mut writer, _readers) = Writer::new(100, 1).unwrap();
    for number in 0..80 {
        writer.insert(&key(number), &action(1), FlowState::Active, 0).unwrap();
    }
    writer.begin(100).unwrap();
    build(&mut writer, 100, |_, _| Fate::Become(action(2)));
    let change = writer.commit().unwrap();
    assert_eq!((change.moved.len(), change.gone.len(), writer.len()), (20, 60, 20));
}

#[test]
fn wide_flows_are_found_after_a_change() {
    let (mut writer, mut readers) = Writer::new(100, 1).unwrap();
    writer.insert(&key(0).wide(), &action(1), FlowState::Active, 0).unwrap();
    writer.begin(100).unwrap();
    build(&mut writer, 100, |_, _| Fate::Become(action(2)));
    drop(readers[0].swap(writer.commit().unwrap().table));
    assert_eq!(look(&mut readers[0], &key(5)).map(|index| readers[0].action(index)), Some(action(2)));
    let index = writer.lookup(&key(5)).unwrap();
    writer.remove(index).unwrap();
    assert_eq!(look(&mut readers[0], &key(5)), None);
    assert_eq!(readers[0].lookups().wide, 1);
}

#[test]
fn a_pending_flow_is_changed_when_it_is_active() {
    let (mut writer, mut readers) = Writer::new(100, 1).unwrap();
    let pending = writer.insert(&key(0), &action(1), FlowState::Pending(1), 0).unwrap();
    let other = writer.insert(&key(1), &action(1), FlowState::Pending(1), 0).unwrap();
    let fate = |_: FlowIndex, _: &Flow| Fate::Become(action(2));
    writer.begin(100).unwrap();
    for _ in 0..10 {
        assert_eq!(writer.step(100, fate).unwrap(), Progress::Building);
    }
    assert!(matches!(writer.commit(), Err(TableError::NotReady)));
    readers[0].activate(pending);
    assert_eq!(writer.step(100, fate).unwrap(), Progress::Building);
    // The index of one that goes meanwhile is another flow's then, which knows the new rules.
    writer.remove(other).unwrap();
    readers[0].quiesce();
    writer.collect();
    let came = writer.insert(&key(2), &action(3), FlowState::Pending(1), 0).unwrap();
    assert_eq!(came, other);
    assert_eq!(writer.step(100, fate).unwrap(), Progress::Ready);
    let change = writer.commit().unwrap();
    assert_eq!((change.moved.len(), change.gone.len()), (1, 0));
    drop(readers[0].swap(change.table));
    let found = look(&mut readers[0], &key(0)).unwrap();
    assert_eq!((readers[0].action(found), readers[0].state(found)), (action(2), FlowState::Active));
    assert_eq!(look(&mut readers[0], &key(2)), Some(came));
    assert_eq!(look(&mut readers[0], &key(1)), None);
}
