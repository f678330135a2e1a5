//! What the flow table costs: look-ups with 1 to a million flows, inserts beside them, memory, and the swap of tables; what flows cost that were
//! chosen to do harm; and what the whole pipeline of the switch costs.
//!
//! One thread is an engine that does nothing but look keys up, read actions and count, in batches; another is control. Keys are made from numbers
//! between the calls that are timed, so that no list of keys is read from memory along with the table. Flows come in random order; with one flow, all keys of a
//! batch are the same, and are looked up once.
//!
//! `--json` prints one object:
//!
//! | field | what |
//! |---|---|
//! | `lookups[]` | `flows`; nanoseconds a packet for look-up and action, `lookup_ns`, and with counting, `counted_ns`; by how much that is more than with one flow, `added_ns` |
//! | `batches[]` | `batch`, `counted_ns`: sizes of batches, with the most flows |
//! | `bytes_per_flow` | memory of the table, divided by its flows |
//! | `inserts_per_second` | flows that control takes in with nobody looking |
//! | `under_inserts` | look-ups beside `new_flows_per_second` |
//! | `swap` | tables that are built and taken under load: `longest_take_us`, the longest batch behind it, `longest_batch_us`, and look-ups that found nothing, `lost` |
//! | `attacks[]` | `name`, `flows`; nanoseconds a packet with counting, of random flows, `random_ns`, of those that were chosen, `chosen_ns`, and if the attacker knew the secrets of the hash, `known_ns` |
//! | `switch[]` | the whole pipeline, port to port, 64 bytes, known flows: `flows`; cycles a packet by size of batch, `batches[]`; how many times as fast the best of them is as packets one by one, `gain`, and `paper_gain`, which Andromeda's authors reported; cycles of each element in batches of 32, `elements` |
//! | `mhz` | cycles in a microsecond |

mod attacks;
mod changes;
mod engine;
mod sweep;

use std::fmt;

use anyhow::{Context, Result, ensure};
use attacks::{Attack, attacks};
use changes::{Swaps, beside_inserts, inserts, swaps};
use dataplane::clock::CycleClock;
use engine::{Engine, Lookup, key, pin, table};
use serde_json::{Value, json};
use sweep::{Sweep, sweep};

/// Numbers of flows.
const FLOWS: [u32; 4] = [1, 1_000, 100_000, 1_000_000];
/// Sizes of batches that are compared.
const BATCHES: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
/// Flows per second that have to be taken in beside the look-ups.
const NEW_FLOWS: u32 = 10_000;
/// Tables that are built and swapped.
const SWAPS: usize = 10;
/// What batches gained in the paper on Andromeda (Dalton and others, NSDI 2018).
const PAPER_GAIN: f64 = 2.4;
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
    attacks: Vec<Attack>,
    switch: Vec<Sweep>,
    mhz: u64,
}

impl Outcome {
    /// The outcome as one object.
    #[must_use]
    pub fn json(&self) -> Value {
        let one = self.one_flow();
        let lookup = |lookup: &Lookup| {
            let Lookup { flows, lookup_ns, counted_ns } = lookup;
            json!({"flows": flows, "lookup_ns": lookup_ns, "counted_ns": counted_ns, "added_ns": counted_ns - one})
        };
        let attack = |attack: &Attack| {
            let Attack { name, flows, random_ns, chosen_ns, known_ns } = attack;
            json!({"name": name, "flows": flows, "random_ns": random_ns, "chosen_ns": chosen_ns, "known_ns": known_ns})
        };
        let switch = |sweep: &Sweep| {
            let batches = sweep.batches.iter().map(|(size, cycles)| json!({"batch": size, "cycles": cycles}));
            let elements = sweep.elements.iter().map(|(name, cycles)| ((*name).to_owned(), json!(cycles)));
            json!({
                "flows": sweep.flows,
                "batches": batches.collect::<Vec<_>>(),
                "gain": sweep.gain(),
                "paper_gain": PAPER_GAIN,
                "elements": elements.collect::<serde_json::Map<_, _>>(),
            })
        };
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
            "attacks": self.attacks.iter().map(attack).collect::<Vec<_>>(),
            "switch": self.switch.iter().map(switch).collect::<Vec<_>>(),
            "mhz": self.mhz,
        })
    }

    /// Nanoseconds of a packet with one flow.
    fn one_flow(&self) -> f64 {
        self.lookups.first().map_or(f64::NAN, |first| first.counted_ns)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "     flows  look-up ns  with counting ns  more than one flow")?;
        let one = self.one_flow();
        for lookup in &self.lookups {
            let Lookup { flows, lookup_ns, counted_ns } = lookup;
            writeln!(f, "{flows:>10}  {lookup_ns:>10.1}  {counted_ns:>16.1}  {:>+18.1}", counted_ns - one)?;
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
        writeln!(
            f,
            "{count} swaps of a table of {flows} flows, built in {build_ms:.0} ms each: taken in {longest_take_us:.2} us at the longest, \
             the batch after it {longest_batch_us:.1} us at the longest (without: {median_batch_us:.1}), {lost} look-ups lost"
        )?;
        for Attack { name, flows, random_ns, chosen_ns, known_ns } in &self.attacks {
            write!(f, "{name}: {chosen_ns:.1} ns a packet of {flows} chosen flows, {random_ns:.1} of random ones")?;
            match known_ns {
                Some(known) => writeln!(f, "; {known:.1} if the attacker knew the hash")?,
                None => writeln!(f)?,
            }
        }
        write!(
            f,
            "the whole pipeline, cycles a packet at {} MHz (gain of batches; the paper's: {PAPER_GAIN})\n{:>10}",
            self.mhz, "flows"
        )?;
        BATCHES.iter().try_for_each(|size| write!(f, "{size:>8}"))?;
        write!(f, "{:>8}", "gain")?;
        for sweep in &self.switch {
            write!(f, "\n{:>10}", sweep.flows)?;
            sweep.batches.iter().try_for_each(|(_, cycles)| write!(f, "{cycles:>8.1}"))?;
            write!(f, "{:>7.2}x", sweep.gain())?;
        }
        for sweep in &self.switch {
            write!(f, "\nof which in batches of 32 with {} flows:", sweep.flows)?;
            sweep.elements.iter().try_for_each(|(name, cycles)| write!(f, " {name} {cycles:.1}"))?;
        }
        Ok(())
    }
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
        let mut engine = Engine::new(reader, flows, key);
        lookups.push(engine.lookup(clock));
        ensure!(engine.lost == 0, "{} look-ups of {flows} flows found nothing", engine.lost);
    }
    let flows = FLOWS.into_iter().max().context("no numbers of flows")?;
    let (mut writer, reader) = table(flows)?;
    let bytes_per_flow = writer.usage().bytes / flows as usize;
    let mut engine = Engine::new(reader, flows, key);
    let batches = BATCHES.iter().map(|size| (*size, engine.cost(clock, *size, true))).collect();
    let inserts_per_second = inserts(&mut writer, &mut engine.reader, flows)?;
    let (under_inserts, engine) = beside_inserts(&mut writer, engine, clock)?;
    let swaps = swaps(&mut writer, engine, clock)?;
    drop(writer);
    pin(CORES[0])?;
    let attacks = attacks(clock)?;
    let switch = FLOWS.iter().map(|flows| sweep(*flows, clock)).collect::<Result<_>>()?;
    let mhz = clock.cycles_per_second() / 1_000_000;
    Ok(Outcome { lookups, batches, bytes_per_flow, inserts_per_second, under_inserts, swaps, attacks, switch, mhz })
}
