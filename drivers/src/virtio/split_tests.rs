#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]
use super::super::ring::tests::{Numbered, Peer, Seen, table_parts};
use super::*;
use std::vec::Vec;

/// The device's side.
#[derive(Default)]
pub(in super::super) struct Device {
    available_next: u16,
    used_next: u16,
}

fn part(address: u64, rest: u64) -> Seen {
    (address, rest as u32, rest >> 32 & WRITE != 0)
}

impl Peer for Device {
    type Ring = Split<Numbered>;

    fn take(&mut self, ring: &Self::Ring) -> Option<(u16, u16, Vec<Seen>)> {
        if ring.available[1].load(Ordering::Acquire) == self.available_next {
            return None;
        }
        let head = ring.available[2 + usize::from(self.available_next % ring.size())].load(Ordering::Relaxed);
        self.available_next = self.available_next.wrapping_add(1);
        let mut parts = Vec::new();
        let mut next = head;
        loop {
            let [address, rest] = ring.descriptors[usize::from(next)].each_ref().map(|w| w.load(Ordering::Relaxed));
            if rest >> 32 & INDIRECT != 0 {
                let table = table_parts(ring.tables.as_ref().unwrap(), address, rest as u32);
                for (index, (_, rest)) in (1_u64..).zip(&table) {
                    let last = index == table.len() as u64;
                    assert_eq!(rest >> 32 & NEXT != 0, !last);
                    assert!(last || rest >> 48 == index);
                }
                parts.extend(table.into_iter().map(|(address, rest)| part(address, rest)));
                break;
            }
            parts.push(part(address, rest));
            if rest >> 32 & NEXT == 0 {
                break;
            }
            next = (rest >> 48) as u16;
        }
        Some((head, parts.len() as u16, parts))
    }

    fn give(&mut self, ring: &Self::Ring, identifier: u16, _: u16, len: u32) {
        let entry = 1 + 2 * usize::from(self.used_next % ring.size());
        ring.used[entry].store(identifier.into(), Ordering::Relaxed);
        ring.used[entry + 1].store(len, Ordering::Relaxed);
        self.used_next = self.used_next.wrapping_add(1);
        let flags = ring.used[0].load(Ordering::Relaxed) & 0xffff;
        ring.used[0].store(u32::from(self.used_next) << 16 | flags, Ordering::Release);
    }

    fn want_notification(&mut self, ring: &Self::Ring, wanted: bool, event_index: bool) {
        if event_index {
            let event = if wanted { self.available_next } else { self.available_next.wrapping_sub(1) };
            ring.used.last().unwrap().store(event.into(), Ordering::Relaxed);
        } else {
            let index = ring.used[0].load(Ordering::Relaxed) & 0xffff_0000;
            ring.used[0].store(index | if wanted { 0 } else { NO_NOTIFY }, Ordering::Relaxed);
        }
    }

    fn interrupt_wanted(&self, ring: &Self::Ring, event_index: bool) -> bool {
        if event_index {
            let event = ring.available.last().unwrap().load(Ordering::Relaxed);
            return event_passed(event, self.used_next.wrapping_add(1), self.used_next);
        }
        ring.available[0].load(Ordering::Relaxed) & NO_INTERRUPT == 0
    }
}

#[test]
fn an_index_that_jumps_is_a_fault() {
    let memory = Region::on_heap(1 << 16, hugemem::Iova::new(0)).unwrap();
    for jump in [2_u16, 5, 0x8000, u16::MAX] {
        let mut ring = Split::<Numbered>::new(&memory, 4, false).unwrap();
        ring.start(&Stopped::confirmed(), false, false);
        let part = Part { iova: hugemem::Iova::new(0), len: 1, writable: true };
        let token = Numbered::default();
        assert!(ring.post(part, token).is_ok());
        ring.used[0].store(u32::from(jump) << 16, Ordering::Release);
        assert_eq!(ring.poll(), Err(Fault::IndexJump), "{jump}");
        assert!(ring.pop().unwrap().is_none());
    }
}

#[test]
fn a_device_that_works_in_order_never_sees_its_copy_of_the_available_ring_change() {
    let memory = Region::on_heap(1 << 16, hugemem::Iova::new(0)).unwrap();
    let mut ring = Split::<Numbered>::new(&memory, 4, false).unwrap();
    ring.start(&Stopped::confirmed(), false, false);
    let mut device = Device::default();
    // What a store would overwrite: the driver never reads it back.
    ring.available[2..6].iter().for_each(|entry| entry.store(77, Ordering::Relaxed));
    for _ in 0..11 {
        let part = Part { iova: hugemem::Iova::new(0), len: 1, writable: true };
        assert!(ring.post(part, Numbered::default()).is_ok());
        let head = ring.shown[usize::from(ring.published % 4)];
        ring.publish();
        device.give(&ring, head, 1, 1);
        ring.poll().unwrap();
        assert!(ring.pop().unwrap().is_some());
    }
    assert!(ring.available[2..6].iter().all(|entry| entry.load(Ordering::Relaxed) == 77));
}
