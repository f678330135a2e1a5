//! Windows of time, what passed in each, and what that says.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use dataplane::clock::cycles;
use serde_json::{Value, json};

use super::Plan;
use super::direction::Direction;
use super::ports::Ports;
use crate::peer_bench::histogram::Histogram;
use crate::peer_bench::scheduling::{Patience, Thread};

/// How long a frame may be on its way, with a bounded number of them in flight.
const LOST: Duration = Duration::from_millis(50);
/// Part of a window that a thread may have waited for its core, in thousandths.
const DIRTY: u64 = 10;

/// What a window counted.
#[derive(Clone, Copy, Debug)]
struct Window {
    packets_per_second: f64,
    clean: bool,
}

impl Ports {
    pub(super) fn measure(&mut self, plan: &Plan) -> Result<Value> {
        let mut patience = Vec::new();
        for thread in plan.watch.iter().chain([&Thread::current()]) {
            patience.push(Patience::of(*thread)?);
        }
        self.wait_for_link()?;
        let acquainted = self.acquaint()?;
        let measured = self.windows(plan, &mut patience);
        self.report(plan, &measured, acquainted)
    }

    fn windows(&mut self, plan: &Plan, patience: &mut [Patience]) -> Measured {
        let lost_after = self.clock.cycles_in(LOST);
        let length = self.clock.cycles_in(plan.window);
        let mut measured = Measured::default();
        let mut latency = Histogram::default();
        let mut start = cycles();
        let mut edge = start + self.clock.cycles_in(plan.warm);
        let (mut warm, mut before, mut steps, mut step) = (false, 0, 0_u64, start);
        self.directions.iter_mut().for_each(|direction| direction.last = start);
        loop {
            steps += 1;
            let mut busy = false;
            for direction in &mut self.directions {
                if direction.sends {
                    busy |= direction.receive(&mut latency);
                    busy |= direction.send(plan.in_flight, lost_after);
                } else if steps.is_multiple_of(1024) {
                    direction.receive(&mut latency);
                }
            }
            let now = cycles();
            let took = now.saturating_sub(std::mem::replace(&mut step, now));
            measured.idle += if busy { 0 } else { took };
            measured.time += took;
            if now < edge {
                continue;
            }
            let nanoseconds = self.clock.nanoseconds(now - start).max(1);
            let received: u64 = self.directions.iter().map(|direction| direction.received).sum();
            let waited = patience.iter_mut().map(Patience::since).max().unwrap_or(0);
            let clean = waited * 1000 <= nanoseconds * DIRTY;
            if warm {
                #[expect(clippy::cast_precision_loss, reason = "a rate")]
                let packets_per_second = (received - before) as f64 * 1e9 / nanoseconds as f64;
                measured.windows.push(Window { packets_per_second, clean });
                if clean {
                    measured.latency.join(&latency);
                }
            } else {
                (measured.idle, measured.time) = (0, 0);
                self.directions.iter_mut().for_each(|direction| (direction.full, direction.tries) = (0, 0));
            }
            warm = true;
            latency.clear();
            let clean = measured.windows.iter().filter(|window| window.clean).count();
            if clean >= plan.clean || measured.windows.len() >= plan.most {
                return measured;
            }
            before = self.directions.iter().map(|direction| direction.received).sum();
            start = cycles();
            edge = start + length;
        }
    }

    fn report(&mut self, plan: &Plan, measured: &Measured, acquainted: Duration) -> Result<Value> {
        self.settle();
        let sum = |count: fn(&Direction) -> u64| self.directions.iter().map(count).sum::<u64>();
        let strangers = sum(|direction| direction.strangers);
        ensure!(strangers == 0, "{strangers} frames arrived that were not sent, or were damaged");
        let clean: Vec<f64> = rates(&measured.windows, true);
        let rates = if clean.is_empty() { rates(&measured.windows, false) } else { clean.clone() };
        let (Some(low), Some(high)) = (rates.first(), rates.last()) else { bail!("no window was counted") };
        let median = rates.get(rates.len() / 2).copied().unwrap_or_default();
        let micros = |of_thousand| {
            let cycles = measured.latency.quantile(of_thousand);
            cycles.map(|cycles| {
                let nanoseconds = u32::try_from(self.clock.nanoseconds(cycles)).unwrap_or(u32::MAX);
                f64::from(nanoseconds) / 1000.0
            })
        };
        let (full, tries) = (sum(|direction| direction.full), sum(|direction| direction.tries));
        Ok(json!({
            "mpps": median / 1e6, "low": low / 1e6, "high": high / 1e6,
            "clean_windows": clean.len(), "windows": measured.windows.len(),
            "p50_us": micros(500), "p99_us": micros(990),
            "sent": sum(|direction| direction.sent), "received": sum(|direction| direction.received),
            "gaps": sum(|direction| direction.gaps), "lost": sum(|direction| direction.lost),
            "full_percent": percent(full, tries), "idle_percent": percent(measured.idle, measured.time),
            "flows": plan.flows, "acquainted_ms": acquainted.as_secs_f64() * 1e3,
            "size": plan.size, "port": self.description, "notice": self.notice,
        }))
    }
}

/// What all windows gave.
#[derive(Default)]
struct Measured {
    windows: Vec<Window>,
    latency: Histogram,
    /// Cycles of steps in which nothing moved, and of all.
    idle: u64,
    time: u64,
}

fn rates(windows: &[Window], clean: bool) -> Vec<f64> {
    let chosen = windows.iter().filter(|window| window.clean || !clean);
    let mut rates: Vec<f64> = chosen.map(|window| window.packets_per_second).collect();
    rates.sort_by(f64::total_cmp);
    rates
}

#[expect(clippy::cast_precision_loss, reason = "a percentage")]
fn percent(part: u64, whole: u64) -> f64 {
    (part as f64 * 1000.0 / whole.max(1) as f64).round() / 10.0
}
