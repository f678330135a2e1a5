//! The table beside a map that does the same, with readers that hold indices.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::*;
use super::{action, key, known_hash, number_of};

const READERS: usize = 2;
const CAPACITY: u32 = 48;
/// More keys than fit.
const KEYS: u32 = 64;

#[derive(Clone, Debug)]
enum Step {
    Insert(u32),
    Remove(u32),
    Replace(u32),
    Look(usize),
    Quiesce(usize),
    Sleep(usize),
    Begin,
    Build(u32),
    Commit,
    Abandon,
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let reader = 0..READERS;
    prop_oneof![
        8 => (0..KEYS).prop_map(Step::Insert),
        5 => (0..KEYS).prop_map(Step::Remove),
        2 => (0..KEYS).prop_map(Step::Replace),
        4 => reader.clone().prop_map(Step::Look),
        4 => reader.clone().prop_map(Step::Quiesce),
        1 => reader.clone().prop_map(Step::Sleep),
        1 => Just(Step::Begin),
        3 => (1..40_u32).prop_map(Step::Build),
        2 => Just(Step::Commit),
        1 => Just(Step::Abandon),
        2 => reader.prop_map(Step::Take),
    ]
}

/// What a change makes of a flow: told by the number of its action, so that the model knows.
fn fate(number: u32) -> Fate {
    match number % 3 {
        0 => Fate::Stay,
        1 => Fate::Go,
        _ => Fate::Become(action(number + 1_000_000)),
    }
}

/// A reader, the table that waits for it, what it saw last and still holds.
struct Side {
    reader: Reader,
    waiting: Vec<Arc<Table>>,
    held: Vec<(FlowIndex, FlowKey, Action)>,
    asleep: bool,
    /// What it sees, as long as it has not taken a newer table: nothing to compare with.
    stale: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn the_table_does_what_a_map_does(seed in any::<u64>(), steps in proptest::collection::vec(step(), 1..400)) {
        let (mut writer, readers) = Writer::with_hash(CAPACITY, READERS, known_hash(seed)).unwrap();
        let mut sides: Vec<_> = readers
            .into_iter()
            .map(|reader| Side { reader, waiting: Vec::new(), held: Vec::new(), asleep: false, stale: false })
            .collect();
        let mut model: HashMap<u32, u32> = HashMap::new();
        let mut numbers = 0_u32;
        let keys: Vec<_> = (0..KEYS).map(key).collect();
        for step in steps {
            numbers += 1;
            match step {
                Step::Insert(name) => match writer.insert(&keys[name as usize], &action(numbers), FlowState::Active, 0) {
                    Ok(_) => prop_assert_eq!(model.insert(name, numbers), None),
                    Err(Refused::Exists(_)) => prop_assert!(model.contains_key(&name)),
                    Err(_) => {
                        prop_assert!(!model.contains_key(&name));
                        let usage = writer.usage();
                        let building = usage.waiting > 0 || usage.flows == CAPACITY || writer.is_changing();
                        prop_assert!(building, "there is room: {:?}", usage);
                    }
                },
                Step::Remove(name) => {
                    let index = writer.find(&keys[name as usize]);
                    let removed = index.and_then(|index| writer.remove(index));
                    prop_assert_eq!(removed.map(|flow| number_of(&flow.action)), model.remove(&name));
                }
                Step::Replace(name) => {
                    if let Some(index) = writer.find(&keys[name as usize])
                        && let Ok(Some(_)) = writer.replace(index, &action(numbers), FlowState::Active)
                    {
                        prop_assert!(model.insert(name, numbers).is_some());
                    }
                }
                Step::Look(number) => {
                    let side = &mut sides[number];
                    if side.asleep {
                        side.reader.wake();
                        side.asleep = false;
                    }
                    let mut found = vec![None; keys.len()];
                    side.reader.lookup(&keys, &mut found);
                    for ((name, key), index) in (0..).zip(&keys).zip(found) {
                        if let Some(index) = index {
                            prop_assert_eq!(side.reader.key(index), Some(*key));
                            side.held.push((index, *key, side.reader.action(index)));
                        }
                        if !side.stale {
                            let got = index.map(|index| number_of(&side.reader.action(index)));
                            prop_assert_eq!(got, model.get(&name).copied());
                        }
                    }
                }
                Step::Quiesce(number) if !sides[number].asleep => {
                    sides[number].held.clear();
                    sides[number].reader.quiesce();
                }
                Step::Quiesce(_) => {}
                Step::Sleep(number) => {
                    sides[number].held.clear();
                    sides[number].reader.sleep();
                    sides[number].asleep = true;
                }
                Step::Begin => {
                    let busy = writer.is_changing();
                    prop_assert_eq!(writer.begin(CAPACITY).is_err(), busy);
                }
                Step::Build(budget) => {
                    writer.step(budget, |_, flow| fate(number_of(&flow.action))).unwrap();
                }
                Step::Commit => {
                    if let Ok(change) = writer.commit() {
                        // What was moved or is gone: the rest stayed, whether it was asked about or not.
                        for (old, new) in &change.moved {
                            prop_assert_eq!(writer.get(*old), None);
                            let flow = writer.get(*new).unwrap();
                            let name = (0..).zip(&keys).find(|(_, key)| **key == flow.key).unwrap().0;
                            let before = model.insert(name, number_of(&flow.action)).unwrap();
                            prop_assert_eq!(fate(before), Fate::Become(flow.action));
                        }
                        let gone = |name: &u32| writer.find(&keys[*name as usize]).is_none();
                        let lost: Vec<_> = model.keys().copied().filter(gone).collect();
                        prop_assert_eq!(lost.len(), change.gone.len());
                        for name in lost {
                            let before = model.remove(&name).unwrap();
                            prop_assert!(fate(before) != Fate::Stay);
                        }
                        for side in &mut sides {
                            side.waiting.push(change.table.clone());
                            side.stale = true;
                        }
                    }
                }
                Step::Abandon => writer.abandon(),
                Step::Take(number) => {
                    let side = &mut sides[number];
                    side.held.clear();
                    for table in side.waiting.drain(..) {
                        drop(side.reader.swap(table));
                    }
                    side.stale = false;
                    if !side.asleep {
                        side.reader.quiesce();
                    }
                }
            }
            prop_assert_eq!(writer.len() as usize, model.len());
            for side in &sides {
                for (index, key, action) in &side.held {
                    prop_assert_eq!(side.reader.key(*index), Some(*key), "an index that is held stays the flow that it was");
                    prop_assert_eq!(side.reader.action(*index), *action);
                }
            }
        }
    }
}
