//! Registers, configuration and commands.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use drivers::bus::{Bar, Interrupt, PciFunction};

use super::mini::{DATA, INTERRUPT, Mini, TOLD, at, command, operation};
use crate::dsa::{Config, Fault, ResetKind, State, Version};

/// GENSTS.
const DISABLED: u32 = 0;
const ENABLED: u32 = 1;
const HALTED: u32 = 3;

#[test]
fn the_capabilities_are_those_of_the_configuration() {
    let config =
        Config { queues: 5, groups: 2, engines: 3, entries: 77, longest: 21, largest_batch: 7, ..Config::default() };
    for (version, device, register, bytes) in [(Version::One, 0x0b25, 0x100, 0), (Version::Two, 0x11fb, 0x200, 1)] {
        let mini = Mini::new(Config { version, ..config.clone() });
        assert_eq!((mini.function.id().vendor, mini.function.id().device), (0x8086, device));
        assert_eq!((mini.function.id().class, mini.function.interrupt_count()), (0x08_8000, 6));
        assert_eq!(mini.bar.load::<u32>(0), register);
        let general: u64 = mini.bar.load(0x10);
        assert_eq!((general >> 16 & 0x1f, general >> 21 & 0xf, general >> 31), (21, 7, 1));
        let queues: u64 = mini.bar.load(0x20);
        assert_eq!((queues & 0xffff, queues >> 16 & 0xff, queues >> 24 & 0xf), (77, 5, bytes));
        assert_eq!(queues >> 48 & 0x3, 3, "shared and dedicated");
        assert_eq!(mini.bar.load::<u64>(0x30) & 0xff, 2);
        assert_eq!(mini.bar.load::<u64>(0x38), 3);
        assert_eq!(mini.bar.load::<u64>(0x40), 0x1_0000_027f);
        assert_eq!(mini.bar.load::<u32>(0xb0), 0x1ffe);
        // Halves and bytes of it are the same.
        assert_eq!(mini.bar.load::<u8>(0x22), 5);
        assert_eq!(u64::from(mini.bar.load::<u32>(0x24)), queues >> 32);
        assert_eq!(mini.state(), DISABLED);
        // Portals read all ones, four pages for each queue.
        assert_eq!((mini.portals.size(), mini.portals.load::<u32>(0)), (0x2_0000, u32::MAX));
        assert!(mini.is_clean());
        assert_eq!(mini.bar.load::<u32>(0x2000), 0);
        assert_eq!(mini.control.violations().len(), 1, "there is no such register");
    }
}

#[test]
fn translation_services_are_in_configuration_space() {
    let mut mini = Mini::new(Config::default());
    let ids = [0x100_u16, 0x110, 0x120].map(|offset| mini.function.read_config(offset).unwrap());
    assert_eq!(ids, [0x1101_000f, 0x1201_001b, 0x0001_0013]);
    // PASID enable and privileged mode; nothing else can be written.
    mini.function.write_config(0x114, u32::MAX).unwrap();
    assert_eq!(mini.function.read_config(0x114).unwrap(), 0x0005_1404);
    mini.function.reset().unwrap();
    assert_eq!(mini.function.read_config(0x114).unwrap(), 0x1404);
}

#[test]
fn a_device_is_enabled_when_its_configuration_makes_sense() {
    let mut mini = Mini::new(Config::default());
    mini.configure(&[64, 64]);
    let enable = |mini: &Mini| mini.command(command::ENABLE_DEVICE, 0);
    mini.function.set_bus_master(false).unwrap();
    assert_eq!(enable(&mini), 0x12);
    mini.function.set_bus_master(true).unwrap();
    mini.bar.store(mini.queue(1), 65_u32);
    assert_eq!(enable(&mini), 0x14, "too many entries");
    mini.bar.store(mini.queue(1), 64_u32);
    for (offset, value, status) in [
        (32, 0_u64, 0x15),
        (0, 0, 0x15),
        (0, 3, 0x16),
        (0, 0x100, 0x16),
        (32, 3, 0x17),
        (32, 0x10, 0x17),
        (40, 97 << 8, 0x18),
    ] {
        let at = mini.group(1) + offset;
        let before: u64 = mini.bar.load(at);
        mini.bar.store(at, value);
        assert_eq!(enable(&mini), status, "{offset}: {value:#x}");
        mini.bar.store(at, before);
    }
    assert_eq!(enable(&mini), 0);
    assert_eq!((mini.state(), enable(&mini)), (ENABLED, 0x10));
    assert!(mini.is_clean());
    // What is enabled does not change.
    mini.bar.store(mini.queue(1), 1_u32);
    mini.bar.store(mini.group(1), 0_u64);
    mini.bar.store(0x80, 1_u32);
    assert_eq!((mini.bar.load::<u32>(mini.queue(1)), mini.bar.load::<u64>(mini.group(1))), (64, 2));
    assert_eq!(mini.control.violations().len(), 3, "{:?}", mini.control.violations());
}

#[test]
fn a_queue_is_enabled_when_its_configuration_makes_sense() {
    let mini = Mini::new(Config { longest: 20, largest_batch: 5, ..Config::default() });
    mini.configure(&[8, 0]);
    mini.bar.store(mini.queue(0) + 12, 5 << 5 | 20_u32);
    let enable = |number| mini.command(command::ENABLE_WQ, number);
    assert_eq!(enable(0), 0x20, "the device is not enabled");
    assert_eq!(mini.command(command::ENABLE_DEVICE, 0), 0);
    assert_eq!((enable(8), enable(1)), (0x02, 0x22));
    for (word, value, status) in
        [(2, 0x01_u32, 0x23), (2, 0x10, 0x26), (2, 0x1000_0051, 0x26), (3, 6 << 5 | 20, 0x27), (3, 5 << 5 | 21, 0x28)]
    {
        let at = mini.queue(0) + 4 * word;
        let before: u32 = mini.bar.load(at);
        mini.bar.store(at, value);
        assert_eq!(enable(0), status, "word {word}: {value:#x}");
        mini.bar.store(at, before);
    }
    assert_eq!(enable(0), 0);
    assert_eq!(mini.bar.load::<u32>(mini.queue(0) + 24) >> 30, 1);
    assert_eq!(enable(0), 0x21);
    assert!(mini.is_clean());
    mini.bar.store(mini.queue(0) + 12, 0_u32);
    assert_eq!(mini.control.violations().len(), 1);
    // Commands on queues that are none, or not enabled, or of a device that is not.
    for command in [command::DISABLE_WQ, command::DRAIN_WQ, command::ABORT_WQ, command::RESET_WQ] {
        assert_eq!([0, 2, 0x100, 1 << 16 | 1].map(|operand| mini.command(command, operand)), [0x02, 0x32, 0x02, 0x02]);
    }
    assert_eq!(mini.command(31, 0), 0x01);
    assert_eq!(mini.command(command::DISABLE_DEVICE, 0), 0);
    assert_eq!(mini.command(command::DRAIN_ALL, 0), 0x31);
}

/// Eight copies in queue 0, and one in queue 1.
fn busy() -> Mini {
    let mini = Mini::lying(&[]);
    mini.copies(10, 8).iter().for_each(|copy| mini.submit(0, copy));
    mini.submit(1, &Mini::descriptor(30, operation::NOOP, TOLD, 0, 0, 0));
    mini
}

#[test]
fn draining_waits_and_disabling_closes_the_door() {
    let mut mini = busy();
    assert_eq!(mini.command(command::DRAIN_WQ, 1), 1 << 31, "it takes its time");
    mini.settle();
    assert_eq!(mini.bar.load::<u32>(at::CMDSTS), 0);
    assert!((10..18).all(|number| mini.status(number) == 1));
    let mut mini = busy();
    assert_eq!(mini.command(command::DISABLE_WQ, 1), 1 << 31);
    mini.submit(0, &Mini::descriptor(40, operation::NOOP, TOLD, 0, 0, 0));
    mini.settle();
    assert_eq!(mini.bar.load::<u32>(at::CMDSTS), 0);
    assert_eq!((mini.status(17), mini.status(40)), (1, 0), "what came too late is not taken");
    assert_eq!(mini.control.with(|chip, _| (chip.queue(0), chip.queue(1))), (Some((false, 0)), Some((true, 0))));
    assert_eq!(mini.control.with(|chip, _| chip.counts().dropped), 1);
    assert_eq!(mini.command(command::ENABLE_WQ, 0), 0);
    let mut mini = busy();
    assert_eq!(mini.command(command::DISABLE_DEVICE, 0), 1 << 31);
    assert_eq!(mini.state(), 2, "draining");
    mini.settle();
    assert_eq!((mini.state(), mini.bar.load::<u32>(at::CMDSTS), mini.status(17)), (DISABLED, 0, 1));
}

#[test]
fn aborting_drops_and_resetting_forgets() {
    for (number, operand) in
        [(command::ABORT_WQ, 1), (command::ABORT_ALL, 0), (command::RESET_WQ, 1), (command::RESET_DEVICE, 0)]
    {
        let mut mini = busy();
        assert_eq!(mini.command(number, operand), 0);
        mini.settle();
        assert!((10..18).all(|number| mini.status(number) == 0), "no record is written");
        let alone = operand == 1;
        assert_eq!(mini.status(30) == 1, alone, "command {number}");
        let (mode, reset) =
            (mini.bar.load::<u32>(mini.queue(0) + 8), number == command::RESET_WQ || number == command::RESET_DEVICE);
        assert_eq!(mode == 0, reset);
        assert_eq!(mini.state(), if number == command::RESET_DEVICE { DISABLED } else { ENABLED });
        if number == command::ABORT_WQ {
            mini.copies(10, 1).iter().for_each(|copy| mini.submit(0, copy));
            mini.settle();
            assert_eq!(mini.right(0), 100, "it goes on");
        }
        assert!(mini.is_clean());
    }
}

#[test]
fn commands_interrupt_and_handles_are_given_out() {
    let mut mini = Mini::new(Config { interrupt_handles: true, ..Config::default() });
    let mut interrupts = mini.function.interrupts(3).unwrap();
    mini.start(&[8]);
    assert_eq!(mini.bar.load::<u32>(0xb0), 0x7ffe);
    mini.command(command::DRAIN_ALL | 1 << 11, 0);
    assert!(interrupts[0].wait(Duration::ZERO).unwrap());
    assert_eq!(mini.bar.load::<u32>(at::INTCAUSE), 2);
    mini.bar.store(at::INTCAUSE, 2_u32);
    let answer = mini.command(command::REQUEST_HANDLE, 2);
    let handle = answer >> 8;
    assert!(answer & 0xff == 0 && handle != 2);
    assert_eq!(mini.command(command::REQUEST_HANDLE, 99), 0x41);
    assert_eq!(mini.command(command::REQUEST_HANDLE, 1 << 16 | 1), 0x42, "there is no other table");
    let mut ask = |handle: u32| {
        let mut noop = Mini::descriptor(0, operation::NOOP, TOLD | INTERRUPT, 0, 0, 0);
        noop[4] = u64::from(handle) << 32;
        mini.put(Mini::place(0), 0);
        mini.submit(0, &noop);
        mini.settle();
        (mini.status(0), interrupts[2].wait(Duration::ZERO).unwrap())
    };
    assert_eq!((ask(handle), ask(2), ask(handle + 1)), ((1, true), (0x19, false), (0x19, false)));
    // The vector belongs to an address space that is not the queue's.
    mini.bar.store(mini.permission(2), 7_u32 << 12 | 1 << 3);
    let mut again = Mini::descriptor(1, operation::NOOP, TOLD | INTERRUPT, 0, 0, 0);
    again[4] = u64::from(handle) << 32;
    mini.submit(0, &again);
    mini.settle();
    assert_eq!(mini.status(1), 0x19);
    assert_eq!(mini.command(command::RELEASE_HANDLE, handle), 0);
    assert_eq!(mini.command(command::RELEASE_HANDLE, handle), 0x43);
    assert!(mini.is_clean());
}

#[test]
fn one_command_at_a_time() {
    let mut mini = busy();
    mini.command(command::DRAIN_ALL, 0);
    mini.command(command::ABORT_ALL, 0);
    assert_eq!((mini.error().0, mini.control.violations().len()), (0x52, 1));
    mini.settle();
    assert_eq!(mini.status(17), 1, "the second one was not carried out");
}

#[test]
fn halting_stops_everything_until_the_right_reset() {
    for needs in [ResetKind::Software, ResetKind::Function] {
        let mut mini = busy();
        let mut interrupts = mini.function.interrupts(1).unwrap();
        assert_eq!(mini.command(command::DRAIN_ALL, 0), 1 << 31);
        mini.control.with(|chip, bus| chip.halt(bus, needs));
        mini.settle();
        assert!(interrupts[0].wait(Duration::ZERO).unwrap());
        assert_eq!(mini.bar.load::<u32>(at::INTCAUSE), 0x10);
        assert_eq!(mini.state(), HALTED | (needs as u32) << 2);
        assert_eq!(mini.bar.load::<u32>(at::CMDSTS), 0x03, "the command has failed");
        assert!((10..18).all(|number| mini.status(number) == 0));
        assert_eq!(mini.command(command::ENABLE_WQ, 0), 0x03);
        mini.submit(0, &Mini::descriptor(40, operation::NOOP, TOLD, 0, 0, 0));
        assert_eq!(mini.command(command::RESET_DEVICE, 0), if needs == ResetKind::Software { 0 } else { 0x03 });
        if needs == ResetKind::Function {
            mini.function.reset().unwrap();
            mini.function.set_bus_master(true).unwrap();
        }
        assert_eq!(mini.state(), DISABLED);
        mini.start(&[8]);
        mini.copies(10, 1).iter().for_each(|copy| mini.submit(0, copy));
        mini.settle();
        assert_eq!((mini.right(0), mini.status(40)), (100, 0));
        assert!(mini.is_clean(), "{:?}", mini.control.violations());
    }
}

#[test]
fn taking_the_bus_away_halts() {
    let mut mini = busy();
    mini.function.set_bus_master(false).unwrap();
    mini.settle();
    assert_eq!((mini.state(), mini.error().0), (HALTED | 1 << 2, 0x51));
    assert_eq!(mini.control.fault_count(), 0, "it has not tried");
    assert_eq!(mini.control.with(|chip, _| chip.state()), State::Halted);
}

#[test]
fn occupancy_interrupts_once() {
    let mut mini = Mini::lying(&[]);
    let mut interrupts = mini.function.interrupts(1).unwrap();
    mini.bar.store(mini.queue(0) + 20, 1 << 16 | 3_u32);
    mini.copies(10, 8).iter().for_each(|copy| mini.submit(0, copy));
    assert_eq!(mini.bar.load::<u32>(mini.queue(0) + 24) & 0xffff, 8);
    mini.settle();
    assert!(interrupts[0].wait(Duration::ZERO).unwrap());
    assert_eq!((mini.bar.load::<u32>(at::INTCAUSE), mini.bar.load::<u32>(mini.queue(0) + 24)), (4, 0x6001_0000));
    mini.bar.store(mini.queue(0) + 24, 1_u32 << 16);
    assert_eq!(mini.bar.load::<u32>(mini.queue(0) + 24), 0x6000_0000);
}

#[test]
fn the_second_version_has_operations_of_each_queue() {
    let mut mini = Mini::new(Config { version: Version::Two, ..Config::default() });
    let queue = |mini: &Mini| mini.queue(0);
    mini.configure(&[8]);
    mini.bar.store(queue(&mini) + 32, 1_u64 << 3 | 1);
    assert_eq!(mini.command(command::ENABLE_DEVICE, 0), 0);
    assert_eq!(mini.command(command::ENABLE_WQ, 0), 0);
    mini.submit(0, &Mini::descriptor(0, operation::MOVE, TOLD, DATA, DATA + 64, 8));
    mini.submit(0, &Mini::descriptor(1, operation::FILL, TOLD, 1, DATA, 8));
    mini.settle();
    assert_eq!((mini.status(0), mini.status(1)), (1, 0x10));
}

#[test]
fn commands_can_fail_to_end() {
    for (fault, number, status) in [
        (Fault::CommandStuck, command::ENABLE_DEVICE, 1 << 31),
        (Fault::CommandFails, command::ENABLE_DEVICE, 0x03),
        (Fault::ResetNeverDone, command::RESET_DEVICE, 1 << 31),
        (Fault::EnableRefused, command::ENABLE_DEVICE, 0x11),
    ] {
        let mut mini = Mini::new(Config { faults: vec![fault.into()], ..Config::default() });
        mini.configure(&[8]);
        assert_eq!(mini.command(number, 0), status, "{fault}");
        mini.settle();
        assert_eq!(mini.bar.load::<u32>(at::CMDSTS), status, "{fault}");
    }
    let mini = Mini::new(Config { faults: vec![Fault::QueueRefused.into()], ..Config::default() });
    mini.configure(&[8]);
    assert_eq!((mini.command(command::ENABLE_DEVICE, 0), mini.command(command::ENABLE_WQ, 0)), (0, 0x22));
    let mut mini = Mini::lying(&[Fault::DrainStuck.into()]);
    assert_eq!(mini.command(command::DRAIN_ALL, 0), 1 << 31);
    mini.settle();
    assert_eq!(mini.bar.load::<u32>(at::CMDSTS), 1 << 31);
}
