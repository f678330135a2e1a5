//! A driver that does anything at all.

use drivers::bus::{Bar, PciFunction};

use super::mini::{BASE, COMPLETE, DATA, IDLE, Mini, at};
use crate::Random;
use crate::ioat::{Config, Doorbells, Fault, Planned, When};

/// An address that leads somewhere, mostly.
fn address(random: &mut Random) -> u64 {
    match random.below(32) {
        0 => random.bits(),
        1 => u64::MAX - random.below(64),
        2 => BASE + (4 << 20) - random.below(128),
        3 => BASE + 64 * random.below(256),
        _ => DATA + random.below(1 << 20),
    }
}

/// A descriptor that is right in most of its parts.
fn descriptor(mini: &Mini, random: &mut Random) {
    let at = BASE + 64 * random.below(256);
    let control = match random.below(16) {
        0 => random.bits() & 0xffff_ffff,
        1..4 => random.bits() & 0x0100_00ff,
        _ => random.bits() & 0xff,
    };
    let bytes = if random.chance(250) { random.below(10_000) } else { random.bits() & 0xffff_ffff };
    let words = [control << 32 | bytes, address(random), address(random), 0, address(random), address(random)];
    words.into_iter().enumerate().for_each(|(index, word)| mini.put(at + 8 * index as u64, word));
    mini.put(at + 24, if random.chance(230) { BASE + 64 * random.below(256) } else { address(random) });
}

/// A register access of any width, mostly to registers that there are.
fn access(mini: &Mini, random: &mut Random) {
    let offset = if random.chance(240) { random.below(0x180) } else { random.below(0x5000) };
    let offset = u32::try_from(offset).unwrap();
    let value = match random.below(4) {
        0 => random.bits(),
        1 => 1 << random.below(64),
        _ => address(random) & !0x3f,
    };
    match random.below(8) {
        0 => drop(mini.bar.load::<u64>(offset & !7)),
        1 => drop(mini.bar.load::<u32>(offset & !3)),
        2 => drop(mini.bar.load::<u16>(offset & !1)),
        3 => drop(mini.bar.load::<u8>(offset)),
        4 => mini.bar.store(offset & !7, value),
        5 => mini.bar.store(offset & !3, u32::try_from(value & 0xffff_ffff).unwrap()),
        6 => mini.bar.store(offset & !1, u16::try_from(value & 0xffff).unwrap()),
        _ => mini.bar.store(offset, u8::try_from(value & 0xff).unwrap()),
    }
}

/// Whatever is written where, the engine goes on, does a bounded piece of work in each poll, and works once the driver has come to its senses.
#[test]
fn nothing_that_a_driver_does_breaks_the_engine() {
    for seed in 0..6 {
        let mut random = Random::new(seed);
        let doorbells = if seed % 2 == 0 { Doorbells::Shared } else { Doorbells::Trapped };
        let mut mini = Mini::new(Config { channels: 2, doorbells, ..Config::default() });
        for round in 0..3000_u32 {
            if round % 4 == 0 {
                mini.recover_quietly(0);
                mini.recover_quietly(1);
            }
            if seed > 3 && round % 100 == 0 {
                // And it lies too.
                let fault = Fault::ALL[usize::try_from(random.below(Fault::ALL.len() as u64)).unwrap()];
                let plan = Planned::new(fault, When::Random { seed, chance: 60 });
                if !matches!(fault, Fault::Removed | Fault::Absent) {
                    mini.control.with(|chip, _| chip.set_faults(&[plan]));
                }
            }
            (0..4).for_each(|_| descriptor(&mini, &mut random));
            if random.chance(40) {
                access(&mini, &mut random);
            }
            mini.bar
                .store(at::DMACOUNT + 0x80 * u32::from(random.chance(128)), u16::try_from(random.below(40)).unwrap());
            mini.device.poll();
        }
        mini.control.with(|chip, _| chip.set_faults(&[]));
        mini.function.write_config(0x180, u32::MAX).unwrap();
        mini.device.poll();
        mini.recover(0);
        mini.fill(DATA, 64, seed);
        let last = mini.push(0, 64, COMPLETE, DATA, DATA + 64);
        mini.ring(0);
        mini.settle();
        assert_eq!(mini.completion(0), last | IDLE);
        assert_eq!(mini.bytes(DATA, 64), mini.bytes(DATA + 64, 64));
        let counts = mini.control.with(|chip, _| chip.counts());
        assert!(counts.descriptors > 100 && counts.bytes > 1 << 17, "it did little of what it was told: {counts:?}");
    }
}
