//! Tests of the flow table.
#![allow(clippy::unwrap_used, reason = "tests")]

mod ageing;
mod attack;
mod changes;
mod keys;
mod model;
mod runs;
mod threads;

use std::net::Ipv4Addr;

use drivers::nic::MacAddress;

use super::*;

/// A hash whose results repeat.
pub(super) fn known_hash(seed: u64) -> KeyedHash {
    let mut state = seed;
    KeyedHash::with_secrets(std::array::from_fn(|_| {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }))
}

/// The key of a UDP flow from one of many addresses and ports.
pub(super) fn key(number: u32) -> FlowKey {
    FlowKey::from(&KeyFields {
        domain: Domain::port(1),
        destination_mac: MacAddress([2, 0, 0, 0, 0, 2]),
        source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        vlans: [None, None],
        ether_type: 0x0800,
        addresses: Some((Ipv4Addr::from(0x0a00_0000 + number / 16).into(), Ipv4Addr::from(0x0b00_0000).into())),
        protocol: 17,
        source_port: u16::try_from(1000 + number % 16).unwrap(),
        destination_port: 53,
        later_fragment: false,
    })
}

/// An action that can be told from others.
pub(super) fn action(number: u32) -> Action {
    Action { rewrite: Rewrite { translation: Some(number), ..Rewrite::default() }, ..Action::to(Output::Port(7)) }
}

/// What tells it from others.
pub(super) fn number_of(action: &Action) -> u32 {
    action.rewrite.translation.unwrap()
}

/// Looks up one key.
pub(super) fn look(reader: &mut Reader, key: &FlowKey) -> Option<FlowIndex> {
    let mut found = [None];
    reader.lookup(&[*key], &mut found);
    found[0]
}

#[test]
fn what_is_inserted_is_found_until_it_is_removed() {
    let (mut writer, mut readers) = Writer::new(1000, 1).unwrap();
    let reader = &mut readers[0];
    assert!(writer.is_empty());
    assert_eq!(look(reader, &key(1)), None);
    let index = writer.insert(&key(1), &action(5), FlowState::Pending(1), 10).unwrap();
    assert_eq!(look(reader, &key(1)), Some(index));
    assert_eq!(look(reader, &key(2)), None);
    assert_eq!((reader.action(index), reader.key(index)), (action(5), Some(key(1))));
    assert!(reader.state(index).holds(0) && !reader.state(index).holds(1));
    reader.activate(index);
    assert_eq!(reader.state(index), FlowState::Active);
    assert_eq!(writer.insert(&key(1), &action(6), FlowState::Active, 11), Err(Refused::Exists(index)));
    reader.count(index, 3, 300, 20);
    let flow = writer.remove(index).unwrap();
    assert_eq!(flow.counts, Counts { packets: 3, bytes: 300, last_seen: 20 });
    assert_eq!((flow.key, flow.created), (key(1), 10));
    assert_eq!(look(reader, &key(1)), None);
    assert_eq!((writer.remove(index), writer.len()), (None, 0));
    assert_eq!(reader.lookups(), Lookups { wide: 0, narrow: 1, missed: 3 });
}

#[test]
fn a_wide_flow_comes_first_and_serves_all_ports_and_fragments() {
    let (mut writer, mut readers) = Writer::new(1000, 1).unwrap();
    let reader = &mut readers[0];
    let narrow = writer.insert(&key(0), &action(1), FlowState::Active, 0).unwrap();
    assert_eq!(look(reader, &key(0)), Some(narrow));
    let wide = writer.insert(&key(0).wide(), &action(2), FlowState::Active, 0).unwrap();
    // Sixteen neighbours have the same addresses and other ports.
    let keys: Vec<_> = (0..40).map(key).collect();
    let mut found = vec![Some(narrow); keys.len()];
    reader.lookup(&keys, &mut found);
    for (number, found) in found.iter().enumerate() {
        assert_eq!(*found, (number < 16).then_some(wide), "{number}");
    }
    assert_eq!(writer.lookup(&key(3)), Some(wide));
    assert_eq!(writer.find(&key(3)), None);
    assert_eq!(reader.lookups(), Lookups { wide: 16, narrow: 1, missed: 24 });
    writer.remove(wide).unwrap();
    assert_eq!(look(reader, &key(0)), Some(narrow));
    assert_eq!(look(reader, &key(1)), None);
}

#[test]
fn an_onlooker_looks_up_and_counts_nothing() {
    for engines in 1..4 {
        let (mut writer, mut readers) = Writer::with_onlookers(100, engines, 1).unwrap();
        assert_eq!(readers.len(), engines + 1);
        let index = writer.insert(&key(1), &action(1), FlowState::Active, 0).unwrap();
        for (number, reader) in (1..).zip(&mut readers) {
            assert_eq!(look(reader, &key(1)), Some(index));
            reader.count(index, number, number * 100, number);
        }
        let counts = writer.get(index).unwrap().counts;
        let engines = engines as u64;
        let packets = engines * (engines + 1) / 2;
        assert_eq!(counts, Counts { packets, bytes: packets * 100, last_seen: engines });
    }
}

#[test]
fn an_index_is_not_used_again_while_a_reader_may_hold_it() {
    let (mut writer, mut readers) = Writer::new(2, 2).unwrap();
    let first = writer.insert(&key(0), &action(0), FlowState::Active, 0).unwrap();
    let second = writer.insert(&key(1), &action(1), FlowState::Active, 0).unwrap();
    let full = Refused::Full { used: 2, capacity: 2 };
    assert_eq!(writer.insert(&key(2), &action(2), FlowState::Active, 0), Err(full));
    writer.remove(first).unwrap();
    // Both readers may have looked it up before.
    assert_eq!(writer.insert(&key(2), &action(2), FlowState::Active, 0), Err(full));
    assert_eq!(readers[0].key(first), Some(key(0)));
    readers[0].quiesce();
    assert_eq!(writer.insert(&key(2), &action(2), FlowState::Active, 0), Err(full));
    readers[1].sleep();
    assert_eq!(writer.insert(&key(2), &action(2), FlowState::Active, 0), Ok(first));
    // One that is gone or asleep is not waited for, and one that woke up is.
    readers[1].wake();
    writer.remove(second).unwrap();
    readers[0].quiesce();
    assert_eq!(writer.usage().waiting, 1);
    writer.collect();
    assert_eq!(writer.usage().waiting, 1);
    readers.truncate(1);
    writer.collect();
    assert_eq!(writer.usage().waiting, 0);
    assert_eq!(writer.insert(&key(3), &action(3), FlowState::Active, 0), Ok(second));
}

#[test]
fn counts_begin_anew_when_an_index_is_used_again() {
    let (mut writer, mut readers) = Writer::new(1, 2).unwrap();
    let index = writer.insert(&key(0), &action(0), FlowState::Active, 5).unwrap();
    readers[0].count(index, 1, 100, 7);
    readers[1].count(index, 2, 300, 6);
    assert_eq!(writer.get(index).unwrap().counts, Counts { packets: 3, bytes: 400, last_seen: 7 });
    writer.remove(index).unwrap();
    readers.iter_mut().for_each(Reader::quiesce);
    let index = writer.insert(&key(1), &action(0), FlowState::Active, 9).unwrap();
    assert_eq!(writer.get(index).unwrap().counts, Counts { packets: 0, bytes: 0, last_seen: 9 });
    readers[1].count(index, 4, 400, 12);
    let new = writer.replace(index, &action(1), FlowState::Active);
    assert_eq!(new, Err(Refused::Full { used: 1, capacity: 1 }), "a new action needs an index of its own");
    assert_eq!(writer.get(index).unwrap().counts, Counts { packets: 4, bytes: 400, last_seen: 12 });
}

#[test]
fn a_replaced_action_takes_its_counts_along() {
    let (mut writer, mut readers) = Writer::new(4, 1).unwrap();
    let reader = &mut readers[0];
    let old = writer.insert(&key(0), &action(0), FlowState::Active, 5).unwrap();
    reader.count(old, 1, 100, 7);
    let new = writer.replace(old, &action(1), FlowState::Active).unwrap().unwrap();
    assert_ne!(new, old);
    assert_eq!(look(reader, &key(0)), Some(new));
    assert_eq!((reader.action(new), reader.action(old)), (action(1), action(0)));
    reader.count(new, 1, 50, 8);
    let flow = writer.get(new).unwrap();
    assert_eq!((flow.counts, flow.created), (Counts { packets: 2, bytes: 150, last_seen: 8 }, 5));
    assert_eq!((writer.get(old), writer.len()), (None, 1));
    assert_eq!(writer.replace(old, &action(1), FlowState::Active), Ok(None));
}

#[test]
fn what_cannot_be_made_is_refused() {
    assert!(matches!(Writer::new(0, 1), Err(TableError::Capacity(0))));
    assert!(matches!(Writer::new((1 << 24) + 1, 1), Err(TableError::Capacity(_))));
    assert!(matches!(Writer::new(10, 65), Err(TableError::Engines(65))));
}

#[test]
fn a_million_flows_come_and_go() {
    const FLOWS: u32 = 1_000_000;
    let (mut writer, mut readers) = Writer::with_hash(FLOWS, 1, known_hash(1)).unwrap();
    let reader = &mut readers[0];
    let indices: Vec<_> =
        (0..FLOWS).map(|number| writer.insert(&key(number), &action(number), FlowState::Active, 0).unwrap()).collect();
    let usage = writer.usage();
    assert_eq!((usage.flows, usage.capacity), (FLOWS, FLOWS));
    let bytes = usage.bytes / FLOWS as usize;
    assert!((128..=300).contains(&bytes), "{bytes} bytes for a flow");
    let numbers: Vec<u32> = (0..FLOWS).map(|number| number.wrapping_mul(611_953) % FLOWS).collect();
    let mut found = [None; 128];
    for numbers in numbers.chunks(128) {
        let keys: Vec<_> = numbers.iter().map(|number| key(*number)).collect();
        reader.lookup(&keys, &mut found);
        for (number, found) in numbers.iter().zip(found) {
            let index = found.unwrap();
            assert_eq!(index, indices[*number as usize]);
            assert_eq!(reader.action(index), action(*number));
        }
    }
    assert_eq!(look(reader, &key(FLOWS)), None);
    for index in indices {
        writer.remove(index).unwrap();
    }
    assert_eq!(writer.usage().flows, 0);
    assert_eq!(look(reader, &key(7)), None);
    reader.quiesce();
    writer.collect();
    assert_eq!(writer.usage().waiting, 0);
}
