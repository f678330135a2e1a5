//! One thread that writes as fast as it can and two that read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use super::super::*;
use super::{action, key, known_hash, number_of};

/// Flows that stay all the time, whatever is moved around them.
const STAY: u32 = 3000;
/// Flows that come and go.
const GUESTS: u32 = 4000;
const CAPACITY: u32 = 5461;
/// Things that the writer does.
const STEPS: u32 = 400_000;
const BATCH: usize = 64;

/// The number that an action carries tells the flow that it was made for.
fn belongs(action: &Action, number: u32) -> bool {
    number_of(action) % (STAY + GUESTS) == number
}

struct Seen {
    looked: u64,
    guests: u64,
    stayed: u64,
}

/// Looks up flows, some that stay and some that may be there, and checks what it gets while it may hold the indices.
fn read(mut reader: Reader, tables: &Receiver<Arc<Table>>, back: &Sender<Arc<Table>>, end: &AtomicBool) -> Seen {
    let mut state = 0x1234_5678_9abc_def1_u64 + reader.number() as u64;
    let mut seen = Seen { looked: 0, guests: 0, stayed: 0 };
    let mut keys = Vec::with_capacity(BATCH);
    let mut numbers = Vec::with_capacity(BATCH);
    let mut found = [None; BATCH];
    while !end.load(Ordering::Acquire) {
        keys.clear();
        numbers.clear();
        for _ in 0..BATCH {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let number = u32::try_from(state >> 40).unwrap() % (STAY + GUESTS);
            numbers.push(number);
            keys.push(key(number));
        }
        reader.lookup(&keys, &mut found);
        for (number, (key, index)) in numbers.iter().zip(keys.iter().zip(found)) {
            seen.looked += 1;
            let Some(index) = index else {
                assert!(*number >= STAY, "flow {number} is there all the time");
                continue;
            };
            seen.guests += u64::from(*number >= STAY);
            seen.stayed += u64::from(*number < STAY);
            assert_eq!(reader.key(index), Some(*key));
            assert!(belongs(&reader.action(index), *number), "{number}: {:?}", reader.action(index));
            reader.count(index, 1, 64, 1);
        }
        reader.quiesce();
        while let Ok(table) = tables.try_recv() {
            back.send(reader.swap(table)).unwrap();
        }
        if state.is_multiple_of(61) {
            reader.sleep();
            thread::yield_now();
            reader.wake();
        }
    }
    seen
}

/// Inserts, removes, replaces; now and then builds a table anew.
fn write(writer: &mut Writer, readers: &[Sender<Arc<Table>>], back: &Receiver<Arc<Table>>) -> u64 {
    let mut state = 0xfeed_5eed_u64;
    let mut changes = 0;
    let mut refused = 0_u64;
    for step in 0..STEPS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let number = STAY + u32::try_from(state >> 40).unwrap() % GUESTS;
        // Another action each time, of the same flow.
        let action = action(number + step % 1000 * (STAY + GUESTS));
        match writer.find(&key(number)) {
            None => match writer.insert(&key(number), &action, FlowState::Active, 0) {
                Ok(_) => {}
                Err(Refused::Full { .. }) => {
                    refused += 1;
                    thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            },
            Some(index) if state.is_multiple_of(3) => match writer.replace(index, &action, FlowState::Active) {
                Ok(_) | Err(Refused::Full { .. }) => {}
                Err(error) => panic!("{error}"),
            },
            Some(index) => {
                let flow = writer.remove(index).unwrap();
                assert!(belongs(&flow.action, number));
            }
        }
        if step.is_multiple_of(20_000) {
            writer.begin(CAPACITY).unwrap();
        }
        if step.is_multiple_of(50)
            && writer.step(100, |_, _| Fate::Stay).unwrap() == Progress::Ready
            && writer.commit().is_ok_and(|change| {
                readers.iter().for_each(|reader| reader.send(change.table.clone()).unwrap());
                true
            })
        {
            changes += 1;
        }
        back.try_iter().for_each(drop);
    }
    assert!(refused < u64::from(STEPS) / 2, "{refused} refused");
    changes
}

#[test]
fn readers_never_get_a_flow_that_they_did_not_ask_for_and_never_miss_one_that_is_there() {
    let (mut writer, readers) = Writer::with_hash(CAPACITY, 2, known_hash(9)).unwrap();
    for number in 0..STAY {
        writer.insert(&key(number), &action(number), FlowState::Active, 0).unwrap();
    }
    let end = AtomicBool::new(false);
    let (guests, stayed) = (AtomicU64::new(0), AtomicU64::new(0));
    let (give_back, back) = mpsc::channel();
    let looked = thread::scope(|scope| {
        let mut inboxes = Vec::new();
        let threads: Vec<_> = readers
            .into_iter()
            .map(|reader| {
                let (send, receive) = mpsc::channel();
                inboxes.push(send);
                let (give_back, end) = (give_back.clone(), &end);
                scope.spawn(move || read(reader, &receive, &give_back, end))
            })
            .collect();
        let changes = write(&mut writer, &inboxes, &back);
        assert!(changes >= 10, "{changes} changes");
        end.store(true, Ordering::Release);
        threads
            .into_iter()
            .map(|thread| {
                let seen = thread.join().unwrap();
                guests.fetch_add(seen.guests, Ordering::Relaxed);
                stayed.fetch_add(seen.stayed, Ordering::Relaxed);
                seen.looked
            })
            .sum::<u64>()
    });
    assert!(looked > 10_000 && guests.load(Ordering::Relaxed) > 1_000, "{looked} looked up");
    // With the readers gone everything is free again, and what they counted for flows that stayed is there.
    back.try_iter().for_each(drop);
    writer.collect();
    assert_eq!(writer.usage().waiting, 0);
    let counts = (0..STAY).map(|number| writer.get(writer.find(&key(number)).unwrap()).unwrap().counts.packets);
    assert_eq!(counts.sum::<u64>(), stayed.load(Ordering::Relaxed));
}
