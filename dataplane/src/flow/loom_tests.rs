//! The table under every interleaving of a writer and a reader (as far as two preemptions go).
#![allow(clippy::unwrap_used, reason = "tests")]

use loom::thread;

use super::*;

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 20_000;
    builder.check(check);
}

fn table(capacity: u32) -> (Writer, Reader) {
    let hash =
        KeyedHash::with_secrets(std::array::from_fn(|place| 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(place as u64 + 1)));
    let (writer, mut readers) = Writer::with_hash(capacity, 1, hash).unwrap();
    (writer, readers.pop().unwrap())
}

fn key(number: u64) -> FlowKey {
    FlowKey([number, 0, 0, 0, number, 0, 0, 0])
}

fn action(number: u32) -> Action {
    Action { owner: u16::try_from(number).unwrap(), ..Action::to(Output::Port(1)) }
}

/// Looks for a flow; when it is there, its entry must be that of `number` or `other`. Which of them, then.
fn look(reader: &mut Reader, number: u32, other: u32) -> Option<u32> {
    let mut found = [None];
    reader.lookup(&[key(number.into())], &mut found);
    let index = found[0]?;
    assert_eq!(reader.key(index), Some(key(number.into())));
    let got = reader.action(index);
    assert!(got == action(number) || got == action(other), "{got:?}");
    Some(got.owner.into())
}

#[test]
fn loom_a_flow_that_is_found_is_complete() {
    model(|| {
        let (mut writer, mut reader) = table(1);
        let thread = thread::spawn(move || {
            let first = look(&mut reader, 1, 1);
            let second = look(&mut reader, 1, 1);
            assert!(first.is_none() || second.is_some(), "it stays");
        });
        writer.insert(&key(1), &action(1), FlowState::Active, 0).unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn loom_an_entry_that_a_reader_may_hold_is_not_written() {
    model(|| {
        let (mut writer, mut reader) = table(1);
        let index = writer.insert(&key(1), &action(1), FlowState::Active, 0).unwrap();
        let thread = thread::spawn(move || {
            look(&mut reader, 1, 1);
            reader.quiesce();
            look(&mut reader, 2, 2);
        });
        writer.remove(index).unwrap();
        // There is but one index: it may be taken again, or not yet.
        let _ = writer.insert(&key(2), &action(2), FlowState::Active, 0);
        thread.join().unwrap();
    });
}

#[test]
fn loom_a_reader_that_wakes_up_is_waited_for() {
    model(|| {
        let (mut writer, mut reader) = table(1);
        let index = writer.insert(&key(1), &action(1), FlowState::Active, 0).unwrap();
        reader.sleep();
        let thread = thread::spawn(move || {
            reader.wake();
            look(&mut reader, 1, 1);
            reader.sleep();
        });
        writer.remove(index).unwrap();
        let _ = writer.insert(&key(2), &action(2), FlowState::Active, 0);
        thread.join().unwrap();
    });
}

#[test]
fn loom_a_flow_that_is_moved_is_never_missed() {
    model(|| {
        let (mut writer, mut reader) = table(2);
        let index = writer.insert(&key(1), &action(1), FlowState::Active, 0).unwrap();
        let thread = thread::spawn(move || assert_eq!(look(&mut reader, 1, 1), Some(1)));
        // There and back.
        writer.table.shift(index).unwrap();
        writer.table.shift(index).unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn loom_a_flow_that_is_replaced_is_never_missed() {
    model(|| {
        let (mut writer, mut reader) = table(2);
        let index = writer.insert(&key(1), &action(1), FlowState::Active, 0).unwrap();
        let thread = thread::spawn(move || {
            let first = look(&mut reader, 1, 2).unwrap();
            let second = look(&mut reader, 1, 2).unwrap();
            assert!(second >= first, "what was seen to change does not change back");
        });
        writer.replace(index, &action(2), FlowState::Active).unwrap().unwrap();
        thread.join().unwrap();
    });
}
