//! Registers by themselves.

use std::time::Duration;

use drivers::bus::{Bar, Interrupt, PciFunction};

use super::mini::{ARMED, COMPLETE, DATA, HALTED, IDLE, INTERRUPT, Mini, at};
use crate::ioat::{Config, Doorbells, Kind};

#[test]
fn what_the_engine_is() {
    for (kind, device, version) in
        [(Kind::IceLake, 0x0b00, 0x34_u8), (Kind::Skylake, 0x2021, 0x33), (Kind::Broadwell(3), 0x6f23, 0x32)]
    {
        let mini = Mini::new(Config { kind, channels: 2, longest: 16, ..Config::default() });
        let id = mini.function.id();
        assert_eq!((id.vendor, id.device, id.class), (0x8086, device, 0x08_8000));
        assert_eq!(Kind::with_device(device), Some(kind));
        assert_eq!((mini.bar.load::<u8>(0x00), mini.bar.load::<u8>(0x01), mini.bar.load::<u8>(0x08)), (2, 16, version));
        assert_eq!(mini.bar.load::<u32>(0x10), 0x41, "pages break, blocks are filled");
        assert_eq!((mini.bar.load::<u16>(0x0a), mini.bar.load::<u16>(0x14)), (0, 0), "neither ports nor DCA");
        assert_eq!(mini.bar.load::<u16>(0x0e), 0x08);
        assert_eq!(mini.bar.load::<u16>(0x82), 6);
        assert_eq!(mini.status(0), HALTED);
        assert!(mini.is_clean());
    }
    assert_eq!(Kind::with_device(0x1521), None);
}

#[test]
fn halves_bytes_and_wholes_are_the_same_register() {
    let mini = Mini::new(Config::default());
    mini.bar.store(at::CHAINADDR, 0x1234_5640_u32);
    mini.bar.store(at::CHAINADDR + 4, 0x9a_u32);
    assert_eq!(mini.bar.load::<u64>(at::CHAINADDR), 0x9a_1234_5640);
    assert_eq!(mini.status(0), ARMED);
    mini.bar.store(at::CHANCMP, 0x55_0000_0040_u64);
    assert_eq!((mini.bar.load::<u32>(at::CHANCMP), mini.bar.load::<u32>(at::CHANCMP + 4)), (0x40, 0x55));
    mini.bar.store(at::CHANERRMSK, u32::MAX);
    assert_eq!(mini.bar.load::<u32>(at::CHANERRMSK) & 0xff_ffff, 0x7_ffff);
    mini.bar.store(at::CHANERRMSK + 1, 0_u8);
    assert_eq!(mini.bar.load::<u32>(at::CHANERRMSK) & 0xff_ffff, 0x7_00ff);
    assert!(mini.is_clean());
}

#[test]
fn a_channel_is_claimed_by_looking() {
    let mini = Mini::new(Config::default());
    assert_eq!(mini.bar.load::<u16>(at::CHANCTRL) & 0x100, 0);
    assert_eq!(mini.bar.load::<u16>(at::CHANCTRL) & 0x100, 0x100);
    mini.bar.store(at::CHANCTRL, 0_u16);
    assert_eq!(mini.bar.load::<u16>(at::CHANCTRL) & 0x100, 0);
    // What does not touch the bit does not claim.
    mini.bar.store(at::CHANCTRL, 0_u16);
    assert_eq!(mini.bar.load::<u8>(at::CHANCTRL), 0);
    assert_eq!(mini.bar.load::<u16>(at::CHANCTRL) & 0x100, 0);
}

#[test]
fn count_and_command_share_a_word_and_not_their_bytes() {
    for doorbells in [Doorbells::Shared, Doorbells::Trapped] {
        let mut mini = Mini::new(Config { doorbells, ..Config::default() });
        mini.start(0);
        mini.fill(DATA, 64, 1);
        let at = mini.push(0, 8, COMPLETE, DATA, DATA + 64);
        mini.ring(0);
        assert_eq!(mini.bar.load::<u16>(at::DMACOUNT), 1);
        assert_eq!(mini.bar.load::<u32>(at::CHANCMD), 1 << 16);
        assert_eq!(mini.status(0), 0, "active at once");
        mini.settle();
        assert_eq!(mini.completion(0), at | IDLE);
        // A new chain starts to count at 0.
        mini.start(0);
        assert_eq!((mini.bar.load::<u16>(at::DMACOUNT), mini.status(0)), (0, ARMED));
        mini.settle();
        assert_eq!(mini.status(0), ARMED);
    }
}

#[test]
fn an_interrupt_waits_for_the_driver() {
    let mut mini = Mini::new(Config::default());
    let mut interrupts = mini.function.interrupts(1).unwrap();
    mini.bar.store(0x03, 0x09_u8);
    mini.start(0);
    mini.fill(DATA, 64, 1);
    let one = |mini: &mut Mini| {
        mini.push(0, 8, INTERRUPT | COMPLETE, DATA, DATA + 64);
        mini.ring(0);
        mini.settle();
    };
    let mut arrived = || interrupts[0].wait(Duration::ZERO).unwrap();
    one(&mut mini);
    assert!(arrived());
    assert_eq!(mini.bar.load::<u16>(at::CHANCTRL) & 1, 1, "disabled until the driver says so");
    one(&mut mini);
    one(&mut mini);
    assert!(!arrived());
    // What is owed comes at once, and once.
    mini.bar.store(at::CHANCTRL, 0x1d_u16);
    assert!(arrived());
    mini.bar.store(at::CHANCTRL, 0x1d_u16);
    assert!(!arrived());
    mini.bar.store(0x03, 0_u8);
    one(&mut mini);
    assert!(!arrived(), "switched off for the whole function");
}

#[test]
fn without_vectors_the_master_enable_is_taken_by_reading() {
    let mut mini = Mini::new(Config { channels: 2, ..Config::default() });
    let mut interrupts = mini.function.interrupts(2).unwrap();
    mini.start(1);
    mini.bar.store(0x03, 1_u8);
    mini.push(1, 8, INTERRUPT | COMPLETE, DATA, DATA + 64);
    mini.ring(1);
    mini.settle();
    assert!(interrupts[0].wait(Duration::ZERO).unwrap(), "all channels have the first vector");
    assert_eq!(mini.bar.load::<u8>(0x03), 0x07);
    assert_eq!(mini.bar.load::<u8>(0x03), 0x02);
    assert_eq!(mini.bar.load::<u32>(0x04), 2);
    assert_eq!((mini.bar.load::<u32>(0x04), mini.bar.load::<u8>(0x03)), (0, 0));
}

fn polls(mini: &mut Mini, count: u32) {
    for _ in 0..count {
        mini.device.poll();
    }
}

#[test]
fn interrupts_are_delayed_and_gathered() {
    let mut mini = Mini::new(Config::default());
    let mut interrupts = mini.function.interrupts(1).unwrap();
    mini.bar.store(0x03, 0x09_u8);
    mini.bar.store(0x0c, 1000_u16);
    assert_eq!(mini.bar.load::<u16>(0x0c), 0x8000 | 1000);
    mini.start(0);
    mini.push(0, 8, INTERRUPT | COMPLETE, DATA, DATA + 64);
    mini.ring(0);
    polls(&mut mini, 5);
    assert_ne!(mini.completion(0), 0);
    assert!(!interrupts[0].wait(Duration::ZERO).unwrap());
    polls(&mut mini, 10);
    assert!(interrupts[0].wait(Duration::ZERO).unwrap());
}

#[test]
fn reserved_registers_are_noted_once() {
    let mini = Mini::new(Config { kind: Kind::Skylake, ..Config::default() });
    for _ in 0..2 {
        mini.bar.store(0x48, 1_u32);
        assert_eq!(mini.bar.load::<u32>(0x100), 0);
        mini.bar.store(0x13c, 1_u8);
    }
    let violations = mini.control.violations();
    assert_eq!(violations.len(), 3, "{violations:?}");
    // Version 3.4 has more.
    let mini = Mini::new(Config::default());
    mini.bar.store(0x13c, 1_u8);
    mini.bar.store(0x140, 0x8800_u32);
    mini.bar.store(0x4c, 5_u8);
    assert_eq!((mini.bar.load::<u32>(0x140), mini.bar.load::<u8>(0x4c)), (0x8800, 5));
    assert!(mini.is_clean());
}

#[test]
fn a_function_level_reset_leaves_errors() {
    let mut mini = Mini::new(Config::default());
    mini.start(0);
    mini.bar.store(at::CHANCMD, 0x41_u8);
    assert_eq!(mini.errors(0), 0x20);
    mini.function.write_config(0xa8, 0x8000).unwrap();
    assert_eq!((mini.status(0), mini.errors(0)), (HALTED, 0x20));
    assert_eq!(mini.bar.load::<u64>(at::CHAINADDR), 0);
    assert_eq!(mini.bar.load::<u16>(at::DMACOUNT), 0);
}
