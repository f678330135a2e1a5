//! Memory that changes while it is read: a thread turns bits of rings, tables and headers as fast as it can.
//!
//! Whatever comes of it is allowed but for the law.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use lab::hostile::{Format, LAYOUT_BUFFERS, Machine, Memory, SIZE, Setup, layout};

use crate::Offence;
use crate::rings::{finish_sending, table};
use crate::scene::Case;

pub(crate) const ALL: &[(&str, Offence)] = &[
    ("descriptors", descriptors),
    ("indices", indices),
    ("indirect-tables", tables),
    ("headers", headers),
    ("everything", everything),
];

/// Rounds of a case: most end in a queue that is stopped.
const ROUNDS: u64 = 6;
/// How long one goes on.
const TIME: Duration = Duration::from_millis(60);

/// The generator SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Turns bits of random words in `range` of the memory and back, so that traffic mostly goes on, until told to end.
fn turn_bits(memory: &Memory, range: &Range<u64>, stride: u64, seed: u64, ends: &AtomicBool) {
    let mut random = Random(seed);
    while !ends.load(Ordering::Relaxed) {
        let places = (range.end - range.start) / stride;
        let place = range.start + random.below(places) * stride;
        // The first 16 bytes of what lies at each stride.
        let word = memory.word16(place + 2 * random.below(8.min(stride / 2)));
        let bits = match random.below(3) {
            0 => 1 << random.below(16),
            1 => u16::MAX,
            _ => u16::try_from(random.below(1 << 16)).unwrap_or(1),
        };
        word.fetch_xor(bits, Ordering::AcqRel);
        for _ in 0..random.below(64) {
            std::hint::spin_loop();
        }
        if random.below(64) > 0 {
            word.fetch_xor(bits, Ordering::AcqRel);
        }
    }
}

/// Runs machines one after the other, each with `work` going on while bits are turned.
fn race(case: &Case<'_>, format: Format, ranges: &[(Range<u64>, u64)], work: fn(&mut Machine)) -> Result<()> {
    for round in 0..ROUNDS {
        let mut machine = case.scene.machine(Setup::new(format))?;
        finish_sending(&mut machine)?;
        for (range, stride) in ranges {
            let ends = AtomicBool::new(false);
            // Another mapping of the same pages.
            let memory = machine.memory.again()?;
            std::thread::scope(|scope| {
                scope.spawn(|| turn_bits(&memory, range, *stride, round, &ends));
                let until = std::time::Instant::now() + TIME;
                while std::time::Instant::now() < until {
                    work(&mut machine);
                    machine.kick(0);
                    machine.kick(1);
                    std::thread::sleep(Duration::from_micros(100));
                }
                ends.store(true, Ordering::Relaxed);
            });
        }
    }
    Ok(())
}

fn turn(machine: &mut Machine) {
    machine.turn();
}

fn descriptors(case: &Case<'_>, format: Format) -> Result<()> {
    for ring in [0, 1] {
        let at = layout(ring).descriptors;
        race(case, format, &[(at..at + 16 * u64::from(SIZE), 16)], turn)?;
    }
    Ok(())
}

fn indices(case: &Case<'_>, format: Format) -> Result<()> {
    for ring in [0, 1] {
        let areas = layout(ring);
        race(case, format, &[(areas.driver..areas.driver + 16, 16), (areas.device..areas.device + 16, 16)], turn)?;
        race(case, format, &[(areas.driver..areas.driver + 2 * u64::from(SIZE), 2)], turn)?;
    }
    Ok(())
}

fn tables(case: &Case<'_>, format: Format) -> Result<()> {
    let at = layout(1).tables;
    race(case, format, &[(at..at + 16 * 16, 16)], |machine| {
        machine.take();
        machine.refill();
        let part = lab::hostile::Descriptor { address: LAYOUT_BUFFERS, len: 90, flags: 0 };
        let descriptor = table(machine, 1, &[part; 16]);
        for _ in 0..32 {
            let Machine { rings: [_, ring], memory, .. } = machine;
            ring.post(memory, &[descriptor]);
        }
    })
}

fn headers(case: &Case<'_>, format: Format) -> Result<()> {
    let both = 2 * u64::from(SIZE) * 2048;
    race(case, format, &[(LAYOUT_BUFFERS..LAYOUT_BUFFERS + both, 2048)], turn)
}

fn everything(case: &Case<'_>, format: Format) -> Result<()> {
    let (first, last) = (layout(0), layout(1));
    race(case, format, &[(first.descriptors..last.tables + 0x4000, 2)], turn)
}
