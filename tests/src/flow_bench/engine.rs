//! An engine that does nothing but look flows up, and its flows.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dataplane::clock::{CycleClock, cycles};
use dataplane::flow::{Action, Domain, FlowIndex, FlowKey, FlowState, KeyFields, Output, Reader, Writer};
use drivers::nic::MacAddress;
use rustix::thread::{CpuSet, sched_setaffinity};

/// The batch of an engine.
pub(super) const BATCH: usize = 128;
/// How long each case is measured.
const TIME: Duration = Duration::from_millis(300);
/// Repetitions of a case, of which the median counts.
const RUNS: usize = 3;

/// Cost of a packet with a number of flows.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) flows: u32,
    /// Look-up and action.
    pub(super) lookup_ns: f64,
    /// Look-up, action and counting.
    pub(super) counted_ns: f64,
}

/// What the keys of all flows have in common.
pub(super) fn fields() -> KeyFields {
    KeyFields {
        domain: Domain::port(1),
        destination_mac: MacAddress([2, 0, 0, 0, 0, 2]),
        source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        vlans: [None, None],
        ether_type: 0x0800,
        addresses: None,
        protocol: 17,
        source_port: 1,
        destination_port: 53,
        later_fragment: false,
    }
}

/// The key of flow `number`: addresses and ports differ.
pub(super) fn key(number: u32) -> FlowKey {
    let [a, b, c, d] = number.to_be_bytes();
    FlowKey::from(&KeyFields {
        addresses: Some((Ipv4Addr::new(10, b, c, d).into(), Ipv4Addr::new(11, d, a, c).into())),
        source_port: u16::from_be_bytes([d, c]),
        ..fields()
    })
}

/// A table with so many flows.
pub(super) fn table(flows: u32) -> Result<(Writer, Reader)> {
    // Room for those that come during the measurement.
    let (mut writer, mut readers) = Writer::new(flows.max(1_000) + flows / 4, 1)?;
    for number in 0..flows {
        writer.insert(&key(number), &Action::to(Output::Port(1)), FlowState::Active, 0)?;
    }
    Ok((writer, readers.pop().context("a table with one reader has none")?))
}

/// An engine that does nothing but look up. Its time is that of the calls alone: keys are made between them.
pub(super) struct Engine {
    pub(super) reader: Reader,
    flows: u32,
    random: u64,
    /// The key of each flow.
    key: Box<dyn Fn(u32) -> FlowKey + Send>,
    keys: Vec<FlowKey>,
    found: [Option<FlowIndex>; BATCH],
    pub(super) lost: u64,
    /// Cycles that reading the counter twice takes.
    overhead: u64,
}

impl Engine {
    /// An engine that looks the first `flows` keys up, at random.
    pub(super) fn new(reader: Reader, flows: u32, key: impl Fn(u32) -> FlowKey + Send + 'static) -> Self {
        let pair = || {
            let before = cycles();
            cycles().saturating_sub(before)
        };
        let overhead = (0..1000).map(|_| pair()).min().unwrap_or(0);
        let keys = Vec::with_capacity(BATCH);
        Self {
            reader,
            flows,
            random: 0x1234_5678_9abc_def1,
            key: Box::new(key),
            keys,
            found: [None; BATCH],
            lost: 0,
            overhead,
        }
    }

    /// Looks up a batch of flows chosen at random, reads their actions and counts, when told to. Cycles that took.
    #[inline]
    pub(super) fn batch(&mut self, size: usize, counted: bool) -> u64 {
        self.keys.clear();
        for _ in 0..size {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let number = ((self.random >> 32) * u64::from(self.flows)) >> 32;
            self.keys.push((self.key)(u32::try_from(number).unwrap_or(0)));
        }
        let before = cycles();
        self.reader.lookup(&self.keys, &mut self.found);
        let mut outputs = 0_u64;
        for found in self.found.iter().take(size) {
            let Some(index) = *found else {
                self.lost += 1;
                continue;
            };
            if let Output::Port(slot) = self.reader.action(index).output {
                outputs += u64::from(slot);
            }
            if counted {
                self.reader.count(index, 1, 64, before);
            }
        }
        std::hint::black_box(outputs);
        let took = cycles().saturating_sub(before).saturating_sub(self.overhead);
        self.reader.quiesce();
        took
    }

    /// Nanoseconds a packet, the median of some runs.
    pub(super) fn cost(&mut self, clock: CycleClock, size: usize, counted: bool) -> f64 {
        let mut runs: Vec<f64> = (0..RUNS)
            .map(|_| {
                let (start, mut took, mut packets) = (Instant::now(), 0, 0);
                while start.elapsed() < TIME {
                    for _ in 0..64 {
                        took += self.batch(size, counted);
                        packets += size as u64;
                    }
                }
                clock.nanoseconds(took) as f64 / packets as f64
            })
            .collect();
        runs.sort_by(f64::total_cmp);
        runs.get(RUNS / 2).copied().unwrap_or(f64::NAN)
    }

    /// Cost of a packet in whole batches.
    pub(super) fn lookup(&mut self, clock: CycleClock) -> Lookup {
        let lookup_ns = self.cost(clock, BATCH, false);
        Lookup { flows: self.flows, lookup_ns, counted_ns: self.cost(clock, BATCH, true) }
    }
}

/// Keeps this thread on a core.
pub(super) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on core {core}"))
}
