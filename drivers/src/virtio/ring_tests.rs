//! Both ring formats against a device that follows the rules in any order, and one that does not.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]
use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::vec::Vec;

/// A part as the device sees it: address, length, writable.
pub(in super::super) type Seen = (u64, u32, bool);

/// A buffer for tests: a number and parts made from it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(in super::super) struct Numbered {
    number: u32,
    parts: u32,
}

impl Numbered {
    fn part(&self, index: u32) -> Seen {
        (u64::from(self.number) << 16 | u64::from(index), self.number % 1000 + index + 1, index + 1 == self.parts)
    }

    fn seen(&self) -> Vec<Seen> {
        (0..self.parts).map(|index| self.part(index)).collect()
    }
}

impl Parts for Numbered {
    fn count(&self) -> usize {
        self.parts as usize
    }

    fn each(&self, mut visit: impl FnMut(Part)) {
        for (iova, len, writable) in self.seen() {
            visit(Part { iova: Iova::new(iova), len, writable });
        }
    }
}

/// The device's side of a ring, which is written beside each format, where the ring's memory can be seen.
pub(in super::super) trait Peer: Default {
    /// The driver's side.
    type Ring: Ring<Numbered>;
    /// Takes the next available buffer: its identifier, descriptors and parts.
    fn take(&mut self, ring: &Self::Ring) -> Option<(u16, u16, Vec<Seen>)>;
    /// Returns a buffer.
    fn give(&mut self, ring: &Self::Ring, identifier: u16, descriptors: u16, len: u32);
    /// Asks for a notification about the next buffer, or for none.
    fn want_notification(&mut self, ring: &Self::Ring, wanted: bool, event_index: bool);
    /// Whether the driver wants an interrupt for the buffers returned since `old`.
    fn interrupt_wanted(&self, ring: &Self::Ring, event_index: bool) -> bool;
}

/// Follows one end of a descriptor chain's table.
pub(in super::super) fn table_parts(ring_tables: &Tables, iova: u64, bytes: u32) -> Vec<(u64, u64)> {
    let count = bytes as usize / size_of::<Descriptor>();
    let first = (iova - ring_tables.0.iova().raw()) as usize / size_of::<Descriptor>();
    ring_tables.0[first..first + count]
        .iter()
        .map(|[address, rest]| (address.load(Ordering::Relaxed), rest.load(Ordering::Acquire)))
        .collect()
}

fn ring<R: Ring<Numbered>>(size: u16, event_index: bool, indirect: bool) -> R {
    let memory = Region::on_heap(1 << 20, Iova::new(0x10_0000)).unwrap();
    let mut ring = R::new(&memory, size, true).unwrap();
    ring.start(&Stopped::confirmed(), event_index, indirect);
    ring
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Post(u32),
    Take,
    Give(usize),
    Pop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1_u32..4).prop_map(Step::Post),
        3 => Just(Step::Take),
        3 => any::<usize>().prop_map(Step::Give),
        3 => Just(Step::Pop),
    ]
}

/// Plays `steps`: whatever the order in which the device returns buffers, the driver gets back exactly what was
/// returned, in that order, and the device sees exactly what was posted.
fn play<P: Peer>(power: u32, event_index: bool, indirect: bool, steps: &[Step]) {
    let size = 1_u16 << power;
    let mut ring = ring::<P::Ring>(size, event_index, indirect);
    let mut peer = P::default();
    let (mut posted, mut held, mut given) = (VecDeque::new(), Vec::new(), VecDeque::new());
    let mut number = 0_u32;
    for step in steps {
        match *step {
            Step::Post(parts) => {
                let token = Numbered { number, parts };
                let needed = ring.descriptors_for(token.count());
                let room = needed.is_some_and(|needed| needed <= ring.free());
                let posted_now = if parts == 1 {
                    let (iova, len, writable) = token.part(0);
                    ring.post(Part { iova: Iova::new(iova), len, writable }, token.clone())
                } else {
                    ring.post_parts(token.clone())
                };
                assert_eq!(posted_now.is_ok(), room);
                if room {
                    posted.push_back(token);
                    number += 1;
                    ring.publish();
                }
            }
            Step::Take => {
                let taken = peer.take(&ring);
                let expected = posted.pop_front();
                assert_eq!(taken.is_some(), expected.is_some());
                if let (Some((identifier, descriptors, parts)), Some(token)) = (taken, expected) {
                    assert_eq!(parts, token.seen());
                    held.push((identifier, descriptors, token));
                }
            }
            Step::Give(which) if !held.is_empty() => {
                let (identifier, descriptors, token) = held.swap_remove(which % held.len());
                peer.give(&ring, identifier, descriptors, token.number ^ 0x55);
                given.push_back(token);
            }
            Step::Give(_) => {}
            Step::Pop => {
                ring.poll().unwrap();
                let popped = ring.pop().unwrap();
                assert_eq!(popped.as_ref().map(|returned| &returned.token), given.front());
                if let (Some(returned), Some(token)) = (popped, given.pop_front()) {
                    assert_eq!(returned.len, token.number ^ 0x55);
                }
            }
        }
        assert_eq!(usize::from(ring.outstanding()), posted.len() + held.len() + given.len());
    }
    let outstanding = usize::from(ring.outstanding());
    assert_eq!(ring.drain(&Stopped::confirmed()).count(), outstanding);
    ring.start(&Stopped::confirmed(), event_index, indirect);
    assert_eq!((ring.free(), ring.outstanding()), (size, 0));
}

fn notifications<P: Peer>() {
    for event_index in [false, true] {
        let mut ring = ring::<P::Ring>(4, event_index, false);
        let mut peer = P::default();
        // Several times round the ring, so that events lie on either side of the wrap.
        for round in 0..40_u32 {
            let post = |ring: &mut P::Ring| {
                let token = Numbered { number: round, parts: 1 };
                assert!(ring.post_parts(token).is_ok());
            };
            let wanted = round % 3 != 0;
            peer.want_notification(&ring, wanted, event_index);
            assert!(!ring.publish(), "nothing was posted");
            post(&mut ring);
            assert_eq!(ring.publish(), wanted, "round {round}, event index {event_index}");
            let (identifier, descriptors, _) = peer.take(&ring).unwrap();
            ring.disable_interrupt();
            assert!(!peer.interrupt_wanted(&ring, event_index), "round {round}");
            assert!(ring.enable_interrupt());
            assert!(peer.interrupt_wanted(&ring, event_index), "round {round}");
            peer.give(&ring, identifier, descriptors, 0);
            assert!(!ring.enable_interrupt(), "a buffer is waiting");
            ring.poll().unwrap();
            assert!(ring.pop().unwrap().is_some());
        }
    }
}

fn lies<P: Peer>() {
    let filled = || {
        let mut ring = ring::<P::Ring>(4, false, false);
        for number in 0..2 {
            assert!(ring.post_parts(Numbered { number, parts: 1 }).is_ok());
        }
        ring.publish();
        (ring, P::default())
    };
    let outcome = |ring: &mut P::Ring| {
        ring.poll()?;
        ring.pop().map(|returned| returned.is_some())
    };
    let (mut ring, mut peer) = filled();
    peer.give(&ring, 4, 1, 0);
    assert_eq!(outcome(&mut ring), Err(Fault::NoSuchIdentifier));
    let (mut ring, mut peer) = filled();
    peer.give(&ring, 3, 1, 0);
    assert_eq!(outcome(&mut ring), Err(Fault::NotOutstanding));
    let (mut ring, mut peer) = filled();
    peer.give(&ring, 1, 1, 0);
    peer.give(&ring, 1, 1, 0);
    assert_eq!(outcome(&mut ring), Ok(true));
    assert_eq!(outcome(&mut ring), Err(Fault::NotOutstanding));
    // What the device holds by our own record is still there for the reset.
    assert_eq!(ring.drain(&Stopped::confirmed()).count(), 1);
}

fn chain_lengths<P: Peer>() {
    for (event_index, indirect) in [(false, false), (true, true)] {
        let mut ring = ring::<P::Ring>(4, event_index, indirect);
        assert_eq!(ring.descriptors_for(4), Some(if indirect { 1 } else { 4 }));
        assert_eq!(ring.descriptors_for(5), None, "indirect {indirect}");
        assert!(ring.post_parts(Numbered { number: 0, parts: 5 }).is_err());
        assert_eq!((ring.free(), ring.outstanding()), (4, 0));
    }
    let ring = ring::<P::Ring>(64, false, true);
    assert_eq!(ring.descriptors_for(usize::from(TABLE)), Some(1));
    assert_eq!(ring.descriptors_for(usize::from(TABLE) + 1), Some(TABLE + 1));
}

macro_rules! both_formats {
    ($format:ident, $peer:ty) => {
        mod $format {
            use super::*;

            proptest! {
                #[test]
                fn buffers_come_back_in_the_order_in_which_the_device_returns_them(
                    power in 1_u32..5,
                    event_index: bool,
                    indirect: bool,
                    steps in prop::collection::vec(step(), 0..400),
                ) {
                    play::<$peer>(power, event_index, indirect, &steps);
                }
            }

            #[test]
            fn notifications_and_interrupts_are_asked_for_and_suppressed() {
                notifications::<$peer>();
            }

            #[test]
            fn no_chain_is_longer_than_the_queue() {
                chain_lengths::<$peer>();
            }

            #[test]
            fn what_the_device_cannot_have_is_a_fault() {
                lies::<$peer>();
            }
        }
    };
}
both_formats!(split, super::super::super::split::tests::Device);
both_formats!(packed, super::super::super::packed::tests::Device);
