//! The ways in which the device lies, each at the place where it was asked to.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use drivers::bus::{Bar, Interrupt, PciFunction};

use super::mini::{DATA, END, INTERRUPT, Mini, TOLD, at, command, operation};
use crate::dsa::{Config, Fault, Planned, State, When};
use crate::plan::Lie;

/// Five copies, one by one, of which the third one is struck.
fn five(fault: Fault) -> Mini {
    let mut mini = Mini::struck(fault);
    mini.copies(10, 5).iter().for_each(|copy| mini.submit(0, copy));
    mini.settle();
    mini
}

fn statuses(mini: &Mini) -> Vec<u64> {
    (10..15).map(|number| mini.status(number)).collect()
}

fn copied(mini: &Mini) -> Vec<usize> {
    (0..5).map(|number| mini.right(number)).collect()
}

/// The status that a fault gives a copy, and how many of its bytes are there; none without a record.
fn expected(fault: Fault) -> Option<(u64, usize)> {
    let status = u64::from(fault.error()?.0);
    Some(match fault {
        Fault::ErrorPredicate => (status, 100),
        Fault::ErrorRecordPageFault | Fault::ErrorRecordAlignment => (0, 100),
        Fault::CopyPartial => (status | 0x80, 50),
        Fault::ErrorPageFaultWrite => (status | 0x80, 0),
        _ => (status, 0),
    })
}

#[test]
fn each_error_strikes_one_descriptor() {
    for fault in Fault::ALL {
        let Some((status, bytes)) = expected(*fault) else { continue };
        let mini = five(*fault);
        assert_eq!(statuses(&mini), [1, 1, status, 1, 1], "{fault}");
        assert_eq!(copied(&mini), [100, 100, bytes, 100, 100], "{fault}");
        if status == 0 {
            assert_eq!(mini.error().0, u64::from(fault.error().unwrap().0), "{fault}: SWERR tells");
        } else {
            assert_eq!(mini.error().1, 0, "{fault}");
        }
        assert!(mini.is_clean(), "{fault}");
    }
    let (_, _, count, address, _) = five(Fault::CopyPartial).record(12);
    assert_eq!((count, address), (50, Mini::target(2) + 50));
    assert_eq!(five(Fault::ErrorPageFault).record(12).3, DATA + 202);
    assert_eq!(five(Fault::ErrorPageFaultWrite).record(12).3, Mini::target(2));
}

#[test]
fn each_error_strikes_at_each_place_of_a_batch() {
    for fault in Fault::ALL {
        let Some((status, bytes)) = expected(*fault) else { continue };
        for place in 0..4 {
            // The batch itself is descriptor 0.
            let mut mini = Mini::lying(&[Planned::new(*fault, When::Once(place + 1))]);
            let list = mini.copies(10, 4);
            let batch = mini.batch(1, &list);
            mini.submit(0, &batch);
            mini.settle();
            assert_eq!(mini.record(1), (5, 0, 4, 0, 0), "{fault} at {place}");
            for number in 0..4 {
                let (want, right) = if number == place { (status, bytes) } else { (1, 100) };
                assert_eq!((mini.status(10 + number), mini.right(number)), (want, right), "{fault} at {place}");
            }
        }
    }
}

#[test]
fn a_batch_itself_can_be_struck() {
    let strike = |fault| {
        let mut mini = Mini::lying(&[Planned::new(fault, When::Once(0))]);
        let list = mini.copies(10, 4);
        let batch = mini.batch(1, &list);
        mini.submit(0, &batch);
        mini.settle();
        let (status, _, count, ..) = mini.record(1);
        (status, count, (0..4).filter(|number| mini.right(*number) == 100).count())
    };
    assert_eq!(strike(Fault::ErrorBatch), (5, 4, 4));
    assert_eq!(strike(Fault::ErrorBatchPageFault), (6, 2, 2));
    assert_eq!(strike(Fault::ErrorHardware), (0x20, 0, 0));
    assert_eq!(strike(Fault::ErrorCount), (0x14, 0, 0));
    assert_eq!(strike(Fault::CompleteNever), (0, 0, 4));
}

#[test]
fn records_can_lie() {
    for (fault, record, right) in [
        (Fault::CompleteNever, (0, 0, 0, 0, 0), 100),
        (Fault::CompletionZero, (0, 0, 0, 0, 0), 100),
        (Fault::CompletionOnes, (0xff, 0xff, 0xffff_ffff, u64::MAX, u64::MAX), 100),
        (Fault::CompletionStatus, (0x3f, 0, 0, 0, 0), 100),
        (Fault::CompletionBytes, (1, 0, 0xffff_fff0, 0, 0), 100),
        (Fault::CompletionAddress, (3, 0, 0, 0x7fff_ffff_f000, 0), 100),
        (Fault::CompletionOther, (0, 0, 0, 0, 0), 100),
        (Fault::DescriptorLost, (0, 0, 0, 0, 0), 0),
        (Fault::CopySkipped, (1, 0, 0, 0, 0), 0),
        (Fault::CopyWrong, (1, 0, 0, 0, 0), 99),
    ] {
        let mini = five(fault);
        assert_eq!(mini.record(12), record, "{fault}");
        assert_eq!(copied(&mini), [100, 100, right, 100, 100], "{fault}");
        assert_eq!([10, 11, 13, 14].map(|number| mini.status(number)), [1; 4], "{fault}");
        assert!(mini.is_clean(), "{fault}");
    }
    let mini = five(Fault::CompletionWild);
    assert_eq!((mini.status(12), mini.error().0, mini.control.fault_count()), (0, 0x1a, 1));
}

#[test]
fn records_can_come_late_in_reverse_and_early() {
    // One is overtaken by all others.
    let mut mini = Mini::struck(Fault::CompleteLate);
    mini.copies(10, 5).iter().for_each(|copy| mini.submit(0, copy));
    mini.device.poll();
    mini.device.poll();
    assert_eq!((statuses(&mini), copied(&mini)), (vec![1, 1, 0, 1, 1], vec![100; 5]));
    // A drain waits for it.
    mini.submit(0, &Mini::descriptor(20, operation::DRAIN, TOLD, 0, 0, 0));
    mini.device.poll();
    assert_eq!(mini.status(20), 0);
    mini.settle();
    assert_eq!((mini.status(12), mini.status(20)), (1, 1));
    // In reverse: with one interrupt each, the last one comes first.
    let mut mini = Mini::lying(&[Planned::new(Fault::CompleteReverse, When::From(0))]);
    let mut list = mini.copies(10, 3);
    list.iter_mut().for_each(|copy| copy[1] = Mini::place(10));
    // All write to the same record, so the one that is left was written last.
    list[0][4] = 0;
    list.iter().for_each(|copy| mini.submit(0, copy));
    mini.device.poll();
    assert_eq!(mini.status(10), 0);
    mini.settle();
    assert_eq!(mini.status(10), 0x13, "the first descriptor's record");
    // Members of a batch are told before the batch is.
    let list = mini.copies(10, 5);
    let batch = mini.batch(1, &list);
    mini.submit(1, &batch);
    mini.settle();
    assert_eq!((mini.record(1), statuses(&mini)), ((1, 0, 5, 0, 0), vec![1; 5]));
    // Early: done before there is a byte.
    let mut mini = Mini::struck(Fault::CompleteEarly);
    mini.copies(10, 5).iter().for_each(|copy| mini.submit(0, copy));
    mini.device.poll();
    assert_eq!((mini.status(12), mini.right(2)), (1, 0));
    mini.settle();
    assert_eq!((statuses(&mini), copied(&mini)), (vec![1; 5], vec![100; 5]));
}

#[test]
fn halts_and_hangs_stop_where_they_are_told_to() {
    for (fault, halted, right) in [
        (Fault::Halt, 3, 0),
        (Fault::HaltPartial, 3, 50),
        (Fault::HaltFunction, 7, 0),
        (Fault::HaltSilent, 3, 0),
        (Fault::Hang, 1, 0),
    ] {
        let mut mini = Mini::struck(fault);
        let mut interrupts = mini.function.interrupts(1).unwrap();
        mini.copies(10, 5).iter().for_each(|copy| mini.submit(0, copy));
        mini.settle();
        assert_eq!((mini.state(), statuses(&mini)), (halted, vec![1, 1, 0, 0, 0]), "{fault}");
        assert_eq!(mini.right(2), right, "{fault}");
        let told = !matches!(fault, Fault::Hang | Fault::HaltSilent);
        assert_eq!(interrupts[0].wait(Duration::ZERO).unwrap(), told, "{fault}");
        if fault == Fault::Hang {
            mini.submit(1, &Mini::descriptor(20, operation::NOOP, TOLD, 0, 0, 0));
            assert_eq!(mini.command(command::DRAIN_WQ, 1), 1 << 31);
            mini.settle();
            assert_eq!((mini.status(20), mini.bar.load::<u32>(at::CMDSTS)), (1, 1 << 31), "the other queue works");
        }
        mini.function.reset().unwrap();
        mini.function.set_bus_master(true).unwrap();
        mini.start(&[8]);
        mini.copies(10, 5).iter().for_each(|copy| mini.submit(0, copy));
        mini.settle();
        assert_eq!((statuses(&mini), copied(&mini)), (vec![1; 5], vec![100; 5]), "{fault}");
    }
    let mini = five(Fault::QueueDisabled);
    assert_eq!(mini.control.with(|chip, _| (chip.queue(0), chip.queue(1))), (Some((false, 0)), Some((true, 0))));
    let mini = five(Fault::ResetSpontaneous);
    assert_eq!((mini.state(), statuses(&mini)), (0, vec![1, 1, 0, 0, 0]));
    assert_eq!(mini.bar.load::<u32>(mini.queue(0)), 0, "its configuration is gone");
}

#[test]
fn registers_can_lie() {
    let with = |fault: Fault| Mini::new(Config { faults: vec![fault.into()], ..Config::default() });
    let load = |fault, offset| with(fault).bar.load::<u64>(offset);
    assert_eq!(load(Fault::VersionZero, 0) & 0xffff_ffff, 0);
    assert_eq!(load(Fault::LimitsOne, 0x10) >> 16 & 0x1ff, 0);
    assert_eq!(load(Fault::ConfigurationFixed, 0x10) >> 31 & 1, 0);
    assert_eq!(load(Fault::QueuesNone, 0x20) >> 16 & 0xff, 0);
    assert_eq!(load(Fault::QueuesMany, 0x20) >> 16 & 0xff, 255);
    assert_eq!(load(Fault::EntriesNone, 0x20) & 0xffff, 0);
    assert_eq!(load(Fault::DedicatedNone, 0x20) >> 48 & 0x3, 1);
    assert_eq!(load(Fault::GroupsNone, 0x30) & 0xff, 0);
    assert_eq!(load(Fault::EnginesNone, 0x38) & 0xff, 0);
    assert_eq!(load(Fault::OperationsNone, 0x40), 0);
    assert_eq!(load(Fault::OffsetsWild, 0x60), 0xffff_ffff_ffff);
    let mini = Mini::lying(&[Planned::new(Fault::StatusOnes, When::From(0))]);
    assert_eq!(mini.state(), u32::MAX);
    let mini = with(Fault::Absent);
    assert_eq!((mini.bar.load::<u32>(0), mini.function.read_config(0).unwrap()), (u32::MAX, u32::MAX));
    let mini = five(Fault::Removed);
    assert_eq!((mini.bar.load::<u32>(0), statuses(&mini)), (u32::MAX, vec![1, 1, 0, 0, 0]));
}

#[test]
fn memory_and_interrupts_can_fail() {
    let mut mini = Mini::lying(&[Planned::new(Fault::DmaRefused, When::From(3))]);
    mini.copies(10, 5).iter().for_each(|copy| mini.submit(0, copy));
    mini.settle();
    mini.copies(20, 1).iter().for_each(|copy| mini.submit(0, copy));
    mini.settle();
    assert_eq!((mini.status(20), mini.error().0), (0, 0x1a));
    mini.control.with(|chip, _| chip.set_faults(&[]));
    mini.copies(21, 1).iter().for_each(|copy| mini.submit(0, copy));
    mini.settle();
    assert_eq!(mini.status(21), 1, "memory is back");
    let mini = five(Fault::DmaStray);
    assert_eq!((statuses(&mini), mini.control.fault_count()), (vec![1; 5], 1));
    assert_eq!(mini.control.faults()[0].address, 0xdead_d000);
    for (fault, fires) in [(Fault::InterruptsLost, false), (Fault::InterruptsStorm, true)] {
        let mut mini = Mini::lying(&[fault.into()]);
        let mut interrupts = mini.function.interrupts(2).unwrap();
        let mut noop = Mini::descriptor(0, operation::NOOP, TOLD | INTERRUPT, 0, 0, 0);
        noop[4] = 1 << 32;
        mini.submit(0, &noop);
        mini.device.poll();
        mini.device.poll();
        assert_eq!(mini.status(0), 1);
        assert_eq!(interrupts[0].wait(Duration::ZERO).unwrap(), fires, "{fault}");
        assert_eq!(interrupts[1].wait(Duration::ZERO).unwrap(), fires, "{fault}");
    }
}

#[test]
fn faults_of_one_queue_leave_the_other_alone() {
    let mut mini = Mini::lying(&[Planned::new(Fault::ErrorHardware, When::From(0)).on(1)]);
    for queue in [0, 1] {
        mini.copies(10 + 10 * u64::from(queue), 3).iter().for_each(|copy| mini.submit(queue, copy));
    }
    mini.settle();
    assert_eq!((10..13).map(|number| mini.status(number)).collect::<Vec<_>>(), [1; 3]);
    assert_eq!((20..23).map(|number| mini.status(number)).collect::<Vec<_>>(), [0x20; 3]);
    let outside = Mini::descriptor(0, operation::MOVE, TOLD, END, DATA, 8);
    mini.submit(0, &outside);
    mini.settle();
    assert_eq!((mini.status(0), mini.control.with(|chip, _| chip.state())), (3, State::Enabled));
}
