//! What was measured, as text and as JSON.

use std::fmt::Write;

use dataplane::clock::CycleClock;
use serde_json::{Value, json};

use super::load::{RoundTrips, Throughput};
use super::modes::{Cores, Mode, NEEDS_DMA};
use crate::report::round;
use crate::table::{Table, time};

/// How many times better Andromeda became from before 2.0 to 2.2, with a DMA engine (NSDI 2018).
pub(super) const PAPER: Paper = Paper { throughput: 19.0, latency: 7.0, cycles: 16.0 };

/// Multiples in the paper.
pub(super) struct Paper {
    /// Throughput.
    pub(super) throughput: f64,
    /// Round trips, of TCP.
    pub(super) latency: f64,
    /// Cycles of the host for a byte.
    pub(super) cycles: f64,
}

/// One rung.
pub(super) struct Rung {
    pub(super) mode: Mode,
    pub(super) throughputs: Vec<Throughput>,
    pub(super) round_trips: RoundTrips,
}

/// All rungs that were measured.
pub(super) struct Ladder {
    pub(super) clock: CycleClock,
    pub(super) cores: Cores,
    pub(super) rungs: Vec<Rung>,
}

impl Throughput {
    fn bytes_per_second(&self) -> f64 {
        self.packets_per_second * bytes(self)
    }

    fn gigabits(&self) -> f64 {
        self.bytes_per_second() * 8.0 / 1e9
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    fn cycles_per_packet(&self, clock: CycleClock) -> f64 {
        self.host_seconds * clock.cycles_per_second() as f64 / (self.frames.max(1) as f64)
    }

    /// Cycles of the host's cores for a byte of a frame.
    pub(super) fn cycles_per_byte(&self, clock: CycleClock) -> f64 {
        self.cycles_per_packet(clock) / bytes(self)
    }

    /// Cores that the host kept busy.
    fn host_cores(&self) -> f64 {
        self.host_seconds / self.seconds.max(1e-9)
    }

    /// Part of the host's time in which an engine found nothing to do.
    fn idle_share(&self) -> f64 {
        (self.idle_seconds / self.host_seconds.max(1e-9)).min(1.0)
    }
}

fn bytes(throughput: &Throughput) -> f64 {
    u32::try_from(throughput.size.bytes()).unwrap_or(u32::MAX).into()
}

impl RoundTrips {
    /// Half of them took no longer, in nanoseconds.
    pub(super) fn median(&self) -> u64 {
        self.times.quantile(0.5).unwrap_or(0)
    }

    /// One in a hundred took longer.
    fn high(&self) -> u64 {
        self.times.quantile(0.99).unwrap_or(0)
    }
}

impl Ladder {
    /// What the others are compared with.
    pub(super) fn kernel(&self) -> Option<&Rung> {
        self.rungs.iter().find(|rung| rung.mode == Mode::Kernel)
    }

    /// How many times the throughput of kernel mode a rung has, at the same length.
    pub(super) fn throughput_gain(&self, of: &Throughput) -> Option<f64> {
        let kernel = self.same_length(of)?;
        Some(of.packets_per_second / kernel.packets_per_second.max(1e-9))
    }

    /// How many times fewer cycles a byte takes than in kernel mode, at the same length.
    pub(super) fn cycle_gain(&self, of: &Throughput) -> Option<f64> {
        let kernel = self.same_length(of)?;
        Some(kernel.cycles_per_byte(self.clock) / of.cycles_per_byte(self.clock).max(1e-9))
    }

    /// How many times shorter a round trip is than in kernel mode.
    pub(super) fn latency_gain(&self, of: &RoundTrips) -> Option<f64> {
        let nanoseconds = |trips: &RoundTrips| f64::from(u32::try_from(trips.median()).unwrap_or(u32::MAX));
        Some(nanoseconds(&self.kernel()?.round_trips) / nanoseconds(of).max(1.0))
    }

    fn same_length(&self, of: &Throughput) -> Option<&Throughput> {
        self.kernel()?.throughputs.iter().find(|other| other.size == of.size)
    }

    /// A rung as JSON. Multiples are there when kernel mode was measured.
    pub(super) fn rung(&self, rung: &Rung) -> Value {
        let throughput = |of: &Throughput| {
            json!({
                "frame_bytes": of.size.bytes(),
                "mpps": round(of.packets_per_second / 1e6, 6),
                "gbit_per_second": round(of.gigabits(), 4),
                "host_cycles_per_byte": round(of.cycles_per_byte(self.clock), 4),
                "host_cycles_per_packet": round(of.cycles_per_packet(self.clock), 1),
                "host_cores": round(of.host_cores(), 3),
                "host_idle_share": round(of.idle_share(), 3),
                "frames": of.frames,
                "frames_checked_whole": of.whole,
                "seconds": round(of.seconds, 3),
                "times_kernel_throughput": self.throughput_gain(of).map(|gain| round(gain, 3)),
                "times_fewer_cycles": self.cycle_gain(of).map(|gain| round(gain, 3)),
            })
        };
        let trips = &rung.round_trips;
        json!({
            "type": "rung",
            "mode": rung.mode.name(),
            "stage": rung.mode.stage(),
            "path": rung.mode.path(),
            "throughput": rung.throughputs.iter().map(throughput).collect::<Vec<_>>(),
            "round_trip": {
                "frame_bytes": 64,
                "count": trips.times.count(),
                "p50_ns": trips.median(),
                "p99_ns": trips.high(),
                "times_lower_latency": self.latency_gain(trips).map(|gain| round(gain, 3)),
            },
        })
    }

    /// The rest of what there is to say, as JSON.
    pub(super) fn summary(&self) -> Value {
        json!({
            "type": "ladder",
            "rungs": self.rungs.iter().map(|rung| rung.mode.name()).collect::<Vec<_>>(),
            "machines_core": self.cores.machines,
            "host_cores": self.cores.host_list(),
            "cycles_per_second": self.clock.cycles_per_second(),
            "paper": {
                "throughput": PAPER.throughput,
                "latency": PAPER.latency,
                "cycles_per_byte": PAPER.cycles,
            },
        })
    }

    /// All of it as text.
    pub(super) fn text(&self) -> String {
        let gain = |gain: Option<f64>| gain.map_or_else(String::new, times);
        let mut passed = Table::new(
            2,
            ["mode", "frame", "Mpps", "Gbit/s", "x kernel", "cycles/B", "x fewer", "cycles/packet", "cores", "idle"],
        );
        let mut trips = Table::new(2, ["mode", "Andromeda", "round trip p50", "p99", "x shorter"]);
        for rung in &self.rungs {
            let mut name = rung.mode.name();
            for of in &rung.throughputs {
                passed.row([
                    name.to_owned(),
                    of.size.name().to_owned(),
                    format!("{:.3}", of.packets_per_second / 1e6),
                    format!("{:.2}", of.gigabits()),
                    gain(self.throughput_gain(of)),
                    format!("{:.3}", of.cycles_per_byte(self.clock)),
                    gain(self.cycle_gain(of)),
                    format!("{:.0}", of.cycles_per_packet(self.clock)),
                    format!("{:.2}", of.host_cores()),
                    format!("{:.0} %", of.idle_share() * 100.0),
                ]);
                name = "";
            }
            trips.row([
                rung.mode.name().to_owned(),
                rung.mode.stage().to_owned(),
                time(rung.round_trips.median()),
                time(rung.round_trips.high()),
                gain(self.latency_gain(&rung.round_trips)),
            ]);
        }
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "One machine sends to the other:\n{}", passed.render(2));
        let _ = writeln!(text, "A frame of 64 bytes goes to and fro:\n{}", trips.render(2));
        let _ = writeln!(
            text,
            "The paper, from before 2.0 to 2.2 with a DMA engine: {:.0} x the throughput, {:.0} x shorter, {:.0} x fewer cycles for a byte.",
            PAPER.throughput, PAPER.latency, PAPER.cycles
        );
        if !self.rungs.iter().any(|rung| rung.mode == Mode::Dma) {
            let _ = writeln!(text, "Its last step, 2.2, was not measured: {NEEDS_DMA}.");
        }
        let _ = writeln!(
            text,
            "Both machines are played by one thread on core {}, everything between them runs on core {}; cycles are all that these took ({:.2} GHz), of\n\
             which idle is an engine's polling. Multiples are of kernel mode. Every frame arrived, in order.",
            self.cores.machines,
            self.cores.host_list(),
            round(frequency(self.clock), 2),
        );
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn frequency(clock: CycleClock) -> f64 {
    clock.cycles_per_second() as f64 / 1e9
}

/// A multiple, as exact as it is of use.
pub(super) fn times(multiple: f64) -> String {
    if multiple < 9.95 { format!("{multiple:.1} x") } else { format!("{multiple:.0} x") }
}
