//! Descriptors and settings that are wrong.

use drivers::bus::{Bar, PciFunction};
use hugemem::{Iova, Region};

use super::mini::{ARMED, BASE, COMPLETE, DATA, FILL, HALTED, IDLE, Mini, at};
use crate::DmaFault;
use crate::ioat::Config;
use crate::memory::Access;

fn started() -> Mini {
    let mut mini = Mini::new(Config::default());
    mini.start(0);
    mini.fill(DATA, 64, 1);
    mini
}

/// Gives the ring a good descriptor, a bad one, and a good one; the channel halts at the second, and goes on from it after recovery.
fn second_is_bad(bytes: u64, control: u64, source: u64, target: u64, bits: u32) -> Mini {
    let mut mini = started();
    let good = mini.push(0, 8, COMPLETE, DATA, DATA + 64);
    mini.push(0, bytes, control | COMPLETE, source, target);
    mini.push(0, 8, COMPLETE, DATA, DATA + 128);
    mini.ring(0);
    mini.settle();
    assert_eq!((mini.status(0), mini.errors(0)), (good | HALTED, bits));
    assert_eq!(mini.completion(0), good | HALTED, "the last good one, and that it halted");
    assert_eq!((mini.get(DATA + 64), mini.get(DATA + 128)), (mini.get(DATA), 0));
    assert_eq!(mini.function.read_config(0x180).unwrap(), bits);
    // Nothing happens until the driver recovers it.
    mini.ring(0);
    mini.settle();
    assert_eq!(mini.status(0), good | HALTED);
    mini.recover(0);
    let last = mini.push(0, 8, COMPLETE, DATA, DATA + 192);
    mini.ring(0);
    mini.settle();
    assert_eq!((mini.completion(0), mini.get(DATA + 192)), (last | IDLE, mini.get(DATA)));
    assert!(mini.control.violations().is_empty());
    mini
}

#[test]
fn bad_descriptors_halt_the_channel_with_their_bit() {
    for (bytes, control, source, target, bits) in [
        (0, 0, DATA, DATA, 1 << 11),
        ((1 << 20) + 1, 0, DATA, DATA, 1 << 11),
        (8, 1 << 12, DATA, DATA, 1 << 10),
        (8, 0x87 << 24, DATA, DATA, 1 << 10),
        (8, 0, 1 << 60, DATA, 1),
        (8, 0, DATA, u64::MAX, 2),
    ] {
        assert!(second_is_bad(bytes, control, source, target, bits).is_clean());
    }
}

#[test]
fn memory_that_is_not_mapped_is_refused_and_recorded() {
    let outside = BASE - 4096;
    for (control, source, target, bits, access) in [
        (0, outside, DATA, 1 << 8, Access::Read),
        (0, DATA, outside, 1 << 9, Access::Write),
        (FILL, 7, outside, 1 << 9, Access::Write),
    ] {
        let mini = second_is_bad(8, control, source, target, bits);
        assert_eq!(mini.control.faults(), [DmaFault { address: outside, bytes: 8, access }]);
    }
    // Half of it is mapped.
    let mini = second_is_bad(16, 0, DATA, BASE + (4 << 20) - 8, 1 << 9);
    assert_eq!(mini.control.fault_count(), 1);
}

#[test]
fn copies_across_maps_are_whole() {
    let mut mini = started();
    let next = Region::on_heap(4096, Iova::new(BASE + (4 << 20))).unwrap();
    mini.function.map(&next).unwrap();
    mini.fill(DATA, 64, 1);
    let end = BASE + (4 << 20);
    mini.push(0, 64, COMPLETE, DATA, end - 31);
    mini.push(0, 64, COMPLETE, end - 31, DATA + 128);
    mini.ring(0);
    mini.settle();
    assert_eq!(mini.bytes(DATA, 64), mini.bytes(DATA + 128, 64));
    mini.function.unmap(&next).unwrap();
    mini.push(0, 64, COMPLETE, end - 31, DATA + 256);
    mini.ring(0);
    mini.settle();
    assert_eq!((mini.errors(0), mini.control.fault_count()), (1 << 8, 1));
}

#[test]
fn chains_that_lead_nowhere_halt() {
    // The chain's own address.
    for (chain, bits, faults) in [(BASE + 8, 1 << 4, 0), (1 << 60, 1 << 4, 0), (BASE - 64, 1 << 8, 1)] {
        let mut mini = started();
        mini.bar.store(at::CHAINADDR, chain);
        mini.push(0, 8, COMPLETE, DATA, DATA + 64);
        mini.ring(0);
        mini.settle();
        assert_eq!((mini.status(0), mini.completion(0), mini.errors(0)), (HALTED, HALTED, bits));
        assert_eq!(mini.control.fault_count(), faults);
    }
    // A pointer to the next one: what has it is done.
    for (next, bits, faults) in [(BASE + 8, 1 << 2, 0), (1 << 60, 1 << 2, 0), (BASE - 64, 1 << 8, 1)] {
        let mut mini = started();
        let first = mini.push(0, 8, COMPLETE, DATA, DATA + 64);
        mini.put(first + 24, next);
        mini.ring(0);
        mini.settle();
        assert_eq!(mini.completion(0), first | IDLE, "nobody looks before it has to");
        mini.push(0, 8, COMPLETE, DATA, DATA + 128);
        mini.ring(0);
        mini.settle();
        assert_eq!((mini.completion(0), mini.errors(0)), (first | HALTED, bits));
        assert_eq!((mini.get(DATA + 128), mini.control.fault_count()), (0, faults));
    }
}

#[test]
fn a_completion_needs_a_place() {
    for (place, faults) in [(None, 0), (Some(BASE + 4), 0), (Some(BASE - 8), 1)] {
        let mut mini = Mini::new(Config::default());
        mini.start(0);
        mini.bar.store(at::CHANCMD, 0x20_u8);
        mini.bar.store(at::CHANCTRL, 0x1d_u16);
        if let Some(place) = place {
            mini.bar.store(at::CHANCMP, place);
        }
        mini.bar.store(at::CHAINADDR, Mini::descriptor(0, 0));
        let at = mini.push(0, 8, COMPLETE, DATA, DATA + 64);
        mini.ring(0);
        mini.settle();
        assert_eq!((mini.status(0), mini.errors(0)), (at | HALTED, 1 << 12), "{place:x?}");
        assert_eq!((mini.completion(0), mini.control.fault_count()), (0, faults));
    }
}

#[test]
fn commands_that_are_none_halt() {
    for command in [0x01_u8, 0x02, 0x24, 0x40, 0xff] {
        let mini = started();
        mini.bar.store(at::CHANCMD, command);
        assert_eq!((mini.status(0), mini.errors(0)), (HALTED, 0x20));
        assert_eq!(mini.control.violations().len(), 1);
    }
}

#[test]
fn an_error_that_is_not_cleared_keeps_the_channel_halted() {
    let mut mini = started();
    mini.push(0, 0, COMPLETE, DATA, DATA);
    mini.ring(0);
    mini.settle();
    mini.bar.store(at::CHANCMD, 0x20_u8);
    mini.bar.store(at::CHAINADDR, Mini::descriptor(0, 0));
    assert_eq!((mini.status(0), mini.errors(0)), (HALTED, 1 << 11));
    assert_eq!(mini.control.violations().len(), 1);
    mini.bar.store(at::CHANERR, u32::MAX);
    assert_eq!(mini.errors(0), 0);
    mini.bar.store(at::CHAINADDR, Mini::descriptor(0, 0));
    assert_eq!(mini.status(0), ARMED);
}

#[test]
fn errors_report_as_they_are_asked_to() {
    for (control, completion) in [(0x1d_u16, HALTED), (0x00, 0), (0x18, 0), (0x04, HALTED)] {
        let mut mini = started();
        let _interrupts = mini.function.interrupts(1).unwrap();
        mini.bar.store(0x03, 0x09_u8);
        mini.bar.store(at::CHANCTRL, control);
        mini.push(0, 0, COMPLETE, DATA, DATA);
        mini.ring(0);
        mini.settle();
        assert_eq!((mini.status(0), mini.completion(0)), (HALTED, completion));
        assert_eq!(mini.control.interrupts(), u64::from(control & 0x10 != 0));
    }
    // Masked: it halts, and shows in CHANERR alone.
    let mut mini = started();
    let _interrupts = mini.function.interrupts(1).unwrap();
    mini.bar.store(0x03, 0x09_u8);
    mini.bar.store(at::CHANERRMSK, 1_u32 << 11);
    mini.push(0, 0, COMPLETE, DATA, DATA);
    mini.ring(0);
    mini.settle();
    assert_eq!((mini.status(0), mini.errors(0)), (HALTED, 1 << 11));
    assert_eq!((mini.control.interrupts(), mini.function.read_config(0x180).unwrap()), (0, 0));
}

#[test]
fn configuration_space_shows_errors_until_they_are_cleared() {
    let mut mini = started();
    mini.function.write_config(0x184, 1 << 10).unwrap();
    assert_eq!(mini.function.read_config(0x184).unwrap(), 1 << 10);
    mini.push(0, 0, COMPLETE, DATA, DATA);
    mini.ring(0);
    mini.settle();
    assert_eq!(mini.function.read_config(0x180).unwrap(), 1 << 11);
    assert_eq!(mini.function.read_config(0x18c).unwrap(), 11, "the first error");
    assert_eq!(mini.function.read_config(0x148).unwrap(), 1 << 10);
    mini.function.write_config(0x180, 1 << 11).unwrap();
    mini.function.write_config(0x148, u32::MAX).unwrap();
    assert_eq!(mini.function.read_config(0x180).unwrap() | mini.function.read_config(0x148).unwrap(), 0);
    mini.recover(0);
    mini.push(0, 8, COMPLETE | 1 << 12, DATA, DATA);
    mini.ring(0);
    mini.settle();
    assert_eq!((mini.errors(0), mini.function.read_config(0x180).unwrap()), (1 << 10, 0), "masked there");
}
