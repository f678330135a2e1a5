//! What the flow table costs: look-ups with 1 to a million flows, inserts beside them, memory, and the swap of tables.
//!
//! One thread is an engine that does nothing but look keys up, read actions and count, in batches; another is control. Keys are made from numbers
//! in the loop, so that no list of keys is read from memory along with the table.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use dataplane::clock::{CycleClock, cycles};
use dataplane::flow::{
    Action, Domain, Fate, FlowIndex, FlowKey, FlowState, KeyFields, Output, Progress, Reader, Table, Writer,
};
use drivers::nic::MacAddress;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};

/// Numbers of flows.
const FLOWS: [u32; 4] = [1, 1_000, 100_000, 1_000_000];
/// Sizes of batches that are compared.
const BATCHES: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
/// The batch of an engine.
const BATCH: usize = 128;
/// How long each case is measured.
const TIME: Duration = Duration::from_millis(300);
/// Repetitions of a case, of which the median counts.
const RUNS: usize = 3;
/// Flows per second that have to be taken in beside the look-ups.
const NEW_FLOWS: u32 = 10_000;
/// Tables that are built and swapped.
const SWAPS: usize = 10;
/// Cores of engine and control.
const CORES: [usize; 2] = [0, 1];

/// What was measured.
#[derive(Debug)]
pub struct Outcome {
    lookups: Vec<Lookup>,
    batches: Vec<(usize, f64)>,
    bytes_per_flow: usize,
    inserts_per_second: f64,
    under_inserts: Lookup,
    swaps: Swaps,
}

/// Cost of a packet with a number of flows.
#[derive(Debug)]
struct Lookup {
    flows: u32,
    /// Look-up and action.
    lookup_ns: f64,
    /// Look-up, action and counting.
    counted_ns: f64,
}

/// What swaps of tables did to the engine.
#[derive(Debug)]
struct Swaps {
    count: usize,
    /// Longest time that taking a table took.
    longest_take_us: f64,
    /// Longest batch with a swap before it, look-ups included.
    longest_batch_us: f64,
    /// A batch without a swap.
    median_batch_us: f64,
    /// Look-ups that found nothing: each flow was there all the time.
    lost: u64,
    /// How long control took to build a table.
    build_ms: f64,
}

impl Outcome {
    /// The outcome as one object.
    #[must_use]
    pub fn json(&self) -> Value {
        let lookup = |lookup: &Lookup| json!({"flows": lookup.flows, "lookup_ns": lookup.lookup_ns, "counted_ns": lookup.counted_ns});
        json!({
            "lookups": self.lookups.iter().map(lookup).collect::<Vec<_>>(),
            "batches": self.batches.iter().map(|(size, ns)| json!({"batch": size, "counted_ns": ns})).collect::<Vec<_>>(),
            "bytes_per_flow": self.bytes_per_flow,
            "inserts_per_second": self.inserts_per_second,
            "under_inserts": {"new_flows_per_second": NEW_FLOWS, "lookup": lookup(&self.under_inserts)},
            "swap": {
                "count": self.swaps.count,
                "flows": FLOWS.last(),
                "longest_take_us": self.swaps.longest_take_us,
                "longest_batch_us": self.swaps.longest_batch_us,
                "median_batch_us": self.swaps.median_batch_us,
                "lost": self.swaps.lost,
                "build_ms": self.swaps.build_ms,
            },
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "     flows  look-up ns  with counting ns  times one flow")?;
        let one = self.lookups.first().map_or(1.0, |first| first.counted_ns);
        for lookup in &self.lookups {
            let Lookup { flows, lookup_ns, counted_ns } = lookup;
            writeln!(f, "{flows:>10}  {lookup_ns:>10.1}  {counted_ns:>16.1}  {:>14.2}", counted_ns / one)?;
        }
        let flows = FLOWS.last().copied().unwrap_or_default();
        let first = self.batches.first().map_or(1.0, |(_, ns)| *ns);
        for (size, ns) in &self.batches {
            writeln!(
                f,
                "batch of {size:>3}: {ns:.1} ns a packet with {flows} flows, {:.2} times as fast as one by one",
                first / ns
            )?;
        }
        writeln!(f, "memory: {} bytes a flow", self.bytes_per_flow)?;
        writeln!(f, "inserts: {:.0} a second at most", self.inserts_per_second)?;
        writeln!(
            f,
            "beside {NEW_FLOWS} new flows a second: {:.1} ns a packet with counting",
            self.under_inserts.counted_ns
        )?;
        let Swaps { count, longest_take_us, longest_batch_us, median_batch_us, lost, build_ms } = self.swaps;
        write!(
            f,
            "{count} swaps of a table of {flows} flows, built in {build_ms:.0} ms each: taken in {longest_take_us:.2} us at the longest, \
             the batch after it {longest_batch_us:.1} us at the longest (without: {median_batch_us:.1}), {lost} look-ups lost"
        )
    }
}

/// The key of flow `number`: addresses and ports differ.
fn key(number: u32) -> FlowKey {
    let [a, b, c, d] = number.to_be_bytes();
    FlowKey::from(&KeyFields {
        domain: Domain::port(1),
        destination_mac: MacAddress([2, 0, 0, 0, 0, 2]),
        source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        vlans: [None, None],
        ether_type: 0x0800,
        addresses: Some((Ipv4Addr::new(10, b, c, d).into(), Ipv4Addr::new(11, d, a, c).into())),
        protocol: 17,
        source_port: u16::from_be_bytes([d, c]),
        destination_port: 53,
        later_fragment: false,
    })
}

fn table(flows: u32) -> Result<(Writer, Reader)> {
    // Room for those that come during the measurement.
    let (mut writer, mut readers) = Writer::new(flows.max(1_000) + flows / 4, 1)?;
    for number in 0..flows {
        writer.insert(&key(number), &Action::to(Output::Port(1)), FlowState::Active, 0)?;
    }
    Ok((writer, readers.pop().context("a table with one reader has none")?))
}

/// An engine that does nothing but look up. Its time is that of the calls alone: keys are made between them.
struct Engine {
    reader: Reader,
    flows: u32,
    random: u64,
    keys: Vec<FlowKey>,
    found: [Option<FlowIndex>; BATCH],
    lost: u64,
    /// Cycles that reading the counter twice takes.
    overhead: u64,
}

impl Engine {
    fn new(reader: Reader, flows: u32) -> Self {
        let pair = || {
            let before = cycles();
            cycles().saturating_sub(before)
        };
        let overhead = (0..1000).map(|_| pair()).min().unwrap_or(0);
        let keys = Vec::with_capacity(BATCH);
        Self { reader, flows, random: 0x1234_5678_9abc_def1, keys, found: [None; BATCH], lost: 0, overhead }
    }

    /// Looks up a batch of flows chosen at random, reads their actions and counts, when told to. Cycles that took.
    #[inline]
    fn batch(&mut self, size: usize, counted: bool) -> u64 {
        self.keys.clear();
        for _ in 0..size {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let number = ((self.random >> 32) * u64::from(self.flows)) >> 32;
            self.keys.push(key(u32::try_from(number).unwrap_or(0)));
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
    fn cost(&mut self, clock: CycleClock, size: usize, counted: bool) -> f64 {
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

    fn lookup(&mut self, clock: CycleClock) -> Lookup {
        let lookup_ns = self.cost(clock, BATCH, false);
        Lookup { flows: self.flows, lookup_ns, counted_ns: self.cost(clock, BATCH, true) }
    }
}

/// Keeps this thread on a core.
fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on core {core}"))
}

/// Measures everything.
///
/// # Errors
/// When there is no memory for a million flows, or a thread fails.
pub fn run() -> Result<Outcome> {
    pin(CORES[0])?;
    let clock = CycleClock::calibrate();
    let mut lookups = Vec::new();
    for flows in FLOWS {
        let (_writer, reader) = table(flows)?;
        let mut engine = Engine::new(reader, flows);
        lookups.push(engine.lookup(clock));
        ensure!(engine.lost == 0, "{} look-ups of {flows} flows found nothing", engine.lost);
    }
    let flows = FLOWS.into_iter().max().context("no numbers of flows")?;
    let (mut writer, reader) = table(flows)?;
    let bytes_per_flow = writer.usage().bytes / flows as usize;
    let mut engine = Engine::new(reader, flows);
    let batches = BATCHES.iter().map(|size| (*size, engine.cost(clock, *size, true))).collect();
    let inserts_per_second = inserts(&mut writer, &mut engine.reader, flows)?;
    let (under_inserts, engine) = beside_inserts(&mut writer, engine, clock)?;
    let swaps = swaps(&mut writer, engine, clock)?;
    Ok(Outcome { lookups, batches, bytes_per_flow, inserts_per_second, under_inserts, swaps })
}

/// Flows a second that one thread takes in and takes out again with nobody looking.
fn inserts(writer: &mut Writer, reader: &mut Reader, flows: u32) -> Result<f64> {
    const COUNT: u32 = 100_000;
    let start = Instant::now();
    for number in flows..flows + COUNT {
        writer.insert(&key(number), &Action::to(Output::Port(1)), FlowState::Active, 0)?;
    }
    let rate = f64::from(COUNT) / start.elapsed().as_secs_f64();
    for number in flows..flows + COUNT {
        let index = writer.find(&key(number)).context("a flow is gone")?;
        writer.remove(index);
    }
    reader.quiesce();
    writer.collect();
    Ok(rate)
}

/// Look-ups while another thread takes in [`NEW_FLOWS`] a second, and takes out as many.
fn beside_inserts(writer: &mut Writer, mut engine: Engine, clock: CycleClock) -> Result<(Lookup, Engine)> {
    let end = AtomicBool::new(false);
    let (lookup, engine, inserted, seconds) = thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            let _ = pin(CORES[0]);
            let lookup = engine.lookup(clock);
            end.store(true, Ordering::Release);
            (lookup, engine)
        });
        pin(CORES[1])?;
        let start = Instant::now();
        let mut inserted = 0_u32;
        while !end.load(Ordering::Acquire) {
            let due = u32::try_from(start.elapsed().as_micros() * u128::from(NEW_FLOWS) / 1_000_000)?;
            while inserted < due {
                let new = 10_000_000 + inserted;
                writer.insert(&key(new), &Action::to(Output::Port(1)), FlowState::Active, 0)?;
                if let Some(index) = new.checked_sub(1_000).and_then(|old| writer.find(&key(old))) {
                    writer.remove(index);
                }
                inserted += 1;
            }
            thread::sleep(Duration::from_micros(200));
        }
        let (lookup, engine) = measuring.join().map_err(|_| anyhow!("the engine's thread failed"))?;
        anyhow::Ok((lookup, engine, inserted, start.elapsed().as_secs_f64()))
    })?;
    let rate = f64::from(inserted) / seconds;
    ensure!(rate > f64::from(NEW_FLOWS) * 0.95, "only {rate:.0} new flows a second were taken in");
    Ok((lookup, engine))
}

/// Tables that control builds and the engine takes while it looks up.
fn swaps(writer: &mut Writer, mut engine: Engine, clock: CycleClock) -> Result<Swaps> {
    let (send, tables) = mpsc::channel::<Arc<Table>>();
    let (give_back, back) = mpsc::channel();
    let (lost, takes, mut after, mut without, build) = thread::scope(|scope| {
        let engine = scope.spawn(move || {
            let _ = pin(CORES[0]);
            engine.lost = 0;
            let (mut takes, mut after, mut without) = (Vec::new(), Vec::new(), Vec::new());
            loop {
                match tables.try_recv() {
                    Ok(table) => {
                        let before = cycles();
                        let old = engine.reader.swap(table);
                        takes.push(cycles().saturating_sub(before));
                        let _ = give_back.send(old);
                        after.push(engine.batch(BATCH, true));
                    }
                    Err(mpsc::TryRecvError::Empty) => {
                        let took = engine.batch(BATCH, true);
                        if without.len() < 1_000_000 {
                            without.push(took);
                        }
                    }
                    Err(mpsc::TryRecvError::Disconnected) => return (engine.lost, takes, after, without),
                }
            }
        });
        pin(CORES[1])?;
        let mut build = Duration::ZERO;
        for _ in 0..SWAPS {
            let start = Instant::now();
            writer.begin(0)?;
            while writer.step(1_000, |_, _| Fate::Stay)? == Progress::Building {}
            let change = writer.commit()?;
            build += start.elapsed();
            send.send(change.table).map_err(|_| anyhow!("the engine's thread failed"))?;
            drop(back.recv().context("the engine's thread failed")?);
            writer.collect();
        }
        drop(send);
        let (lost, takes, after, without) = engine.join().map_err(|_| anyhow!("the engine's thread failed"))?;
        anyhow::Ok((lost, takes, after, without, build))
    })?;
    let microseconds = |cycles: u64| clock.nanoseconds(cycles) as f64 / 1e3;
    after.sort_unstable();
    without.sort_unstable();
    Ok(Swaps {
        count: takes.len(),
        longest_take_us: microseconds(takes.iter().copied().max().unwrap_or(0)),
        longest_batch_us: microseconds(after.last().copied().unwrap_or(0)),
        median_batch_us: microseconds(without.get(without.len() / 2).copied().unwrap_or(0)),
        lost,
        build_ms: build.as_secs_f64() * 1e3 / SWAPS as f64,
    })
}
