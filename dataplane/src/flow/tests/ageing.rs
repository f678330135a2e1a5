//! Quotas, expiry, eviction.

use super::super::*;
use super::{action, key, look};

fn owned(owner: u16) -> Action {
    Action { owner, ..action(0) }
}

#[test]
fn a_slice_has_no_more_flows_than_its_quota() {
    let (mut writer, _readers) = Writer::new(1000, 1).unwrap();
    writer.set_quota(3, Some(2));
    let first = writer.insert(&key(0), &owned(3), FlowState::Active, 0).unwrap();
    writer.insert(&key(1), &owned(3), FlowState::Active, 0).unwrap();
    let refused = Refused::Quota { owner: 3, quota: 2 };
    assert_eq!(writer.insert(&key(2), &owned(3), FlowState::Active, 0), Err(refused));
    let other = writer.insert(&key(2), &owned(4), FlowState::Active, 0).unwrap();
    assert_eq!(writer.replace(other, &owned(3), FlowState::Active), Err(refused), "not by changing hands either");
    assert_eq!((writer.owned(3), writer.owned(4)), (2, 1));
    writer.remove(first).unwrap();
    writer.insert(&key(3), &owned(3), FlowState::Active, 0).unwrap();
    writer.set_quota(3, Some(1));
    assert_eq!(writer.owned(3), 2, "what is there stays");
    assert!(writer.insert(&key(4), &owned(3), FlowState::Active, 0).is_err());
    writer.set_quota(3, None);
    writer.insert(&key(4), &owned(3), FlowState::Active, 0).unwrap();
}

#[test]
fn idle_flows_expire_in_bounded_pieces() {
    let (mut writer, mut readers) = Writer::new(1000, 1).unwrap();
    let indices: Vec<_> =
        (0..100).map(|number| writer.insert(&key(number), &action(0), FlowState::Active, 50).unwrap()).collect();
    let pending = writer.insert(&key(100), &action(0), FlowState::Pending(1), 50).unwrap();
    for index in indices.iter().step_by(2) {
        readers[0].count(*index, 1, 60, 90);
    }
    let mut gone = Vec::new();
    assert_eq!(writer.expire(149, 100, 1000, |index, _| gone.push(index)), 0);
    assert_eq!(writer.expire(150, 100, 10, |index, _| gone.push(index)), 5, "of ten looked at");
    assert_eq!(writer.expire(150, 100, 1000, |index, _| gone.push(index)), 45);
    gone.sort_unstable();
    assert_eq!(gone, indices.iter().skip(1).step_by(2).copied().collect::<Vec<_>>());
    assert_eq!(writer.expire(189, 100, 1000, |_, _| {}), 0);
    assert_eq!(writer.expire(190, 100, 1000, |_, flow| assert_eq!(flow.counts.packets, 1)), 50);
    assert_eq!(writer.len(), 1, "the pending flow has an engine that waits for it");
    writer.activate(pending);
    assert_eq!(writer.expire(190, 100, 1000, |_, _| {}), 1);
}

#[test]
fn eviction_takes_what_was_not_used() {
    let (mut writer, mut readers) = Writer::new(1000, 1).unwrap();
    let busy: Vec<_> =
        (0..10).map(|number| writer.insert(&key(number), &owned(1), FlowState::Active, 1).unwrap()).collect();
    let idle = writer.insert(&key(10), &owned(1), FlowState::Active, 1).unwrap();
    let other = writer.insert(&key(11), &owned(2), FlowState::Active, 0).unwrap();
    let use_busy = |reader: &mut Reader, now| busy.iter().for_each(|index| reader.count(*index, 1, 60, now));
    use_busy(&mut readers[0], 2);
    // Nothing has been visited, so of all that are looked at the one that was used least recently goes.
    assert_eq!(writer.evict(Some(1)).map(|(index, _)| index), Some(idle));
    assert_eq!(look(&mut readers[0], &key(10)), None);
    // All busy ones are used again but one.
    for index in busy.iter().filter(|index| **index != busy[4]) {
        readers[0].count(*index, 1, 60, 3);
    }
    assert_eq!(writer.evict(None).map(|(index, _)| index), Some(busy[4]), "of whoever has most");
    assert_eq!(writer.evict(Some(2)).map(|(index, _)| index), Some(other));
    assert_eq!(writer.evict(Some(2)), None);
    assert_eq!((writer.owned(1), writer.owned(2)), (9, 0));
    while writer.evict(None).is_some() {}
    assert!(writer.is_empty());
}

#[test]
fn pending_flows_are_not_evicted() {
    let (mut writer, _readers) = Writer::new(1000, 1).unwrap();
    writer.insert(&key(0), &owned(1), FlowState::Pending(1), 0).unwrap();
    assert_eq!(writer.evict(Some(1)), None);
    let active = writer.insert(&key(1), &owned(1), FlowState::Active, 9).unwrap();
    assert_eq!(writer.evict(Some(1)).map(|(index, _)| index), Some(active));
}

#[test]
fn eviction_looks_at_few_flows_however_many_there_are() {
    let (mut writer, mut readers) = Writer::new(20_000, 1).unwrap();
    for number in 0..20_000 {
        let index = writer.insert(&key(number), &owned(1), FlowState::Active, 0).unwrap();
        readers[0].count(index, 1, 60, u64::from(number) + 1);
    }
    // The oldest come first in the owner's list.
    for expected in 0..50 {
        let (_, flow) = writer.evict(Some(1)).unwrap();
        assert!(flow.counts.last_seen <= expected * 64 + 64, "{expected}: {flow:?}");
    }
}
