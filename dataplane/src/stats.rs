//! Counters that engines write and control reads, and what control makes of them.
//!
//! Each queue and direction has one [`QueueCell`], written by one engine with plain relaxed stores and padded to its own
//! cache lines. Control takes a [`Statistics`] snapshot; the difference of two ([`Statistics::since`]) gives rates.
//! Names follow the usual `xstats`: `rx_packets`, `rx_q0_bytes`, `rx_bad_length`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drivers::nic::{Counters, DropReason};

use crate::clock::CycleClock;
use crate::histogram::Histogram;
use crate::switch::SwitchStatistics;

/// What has been counted for one queue in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct QueueStatistics {
    /// Packets, bytes and drops.
    pub counters: Counters,
    /// Cycles spent in calls that moved packets.
    pub busy_cycles: u64,
    /// Calls that moved packets.
    pub busy_polls: u64,
    /// Receive calls that found nothing; transmit calls that found no room.
    pub empty_polls: u64,
    /// Cycles spent in those.
    pub empty_cycles: u64,
    /// Packets that there are more because large ones were cut in software before they were sent: received and cut equals
    /// sent and dropped.
    pub cut: u64,
}

impl QueueStatistics {
    /// What came since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            counters: map_counters(self.counters, earlier.counters, u64::wrapping_sub),
            busy_cycles: self.busy_cycles.wrapping_sub(earlier.busy_cycles),
            busy_polls: self.busy_polls.wrapping_sub(earlier.busy_polls),
            empty_polls: self.empty_polls.wrapping_sub(earlier.empty_polls),
            empty_cycles: self.empty_cycles.wrapping_sub(earlier.empty_cycles),
            cut: self.cut.wrapping_sub(earlier.cut),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            counters: map_counters(self.counters, other.counters, u64::wrapping_add),
            busy_cycles: self.busy_cycles.wrapping_add(other.busy_cycles),
            busy_polls: self.busy_polls.wrapping_add(other.busy_polls),
            empty_polls: self.empty_polls.wrapping_add(other.empty_polls),
            empty_cycles: self.empty_cycles.wrapping_add(other.empty_cycles),
            cut: self.cut.wrapping_add(other.cut),
        }
    }

    /// Cycles spent in all calls.
    #[must_use]
    pub fn cycles(&self) -> u64 {
        self.busy_cycles.wrapping_add(self.empty_cycles)
    }

    /// Cycles that the calls spent on one packet. `None` when there was none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn cycles_per_packet(&self) -> Option<f64> {
        (self.counters.packets > 0).then(|| self.busy_cycles as f64 / self.counters.packets as f64)
    }

    /// Nanoseconds that the calls spent on one packet. `None` when there was none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn ns_per_packet(&self, clock: CycleClock) -> Option<f64> {
        self.cycles_per_packet().map(|cycles| cycles * 1e9 / clock.cycles_per_second() as f64)
    }

    /// Packets in each call that moved any. `None` when there was none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn packets_per_poll(&self) -> Option<f64> {
        (self.busy_polls > 0).then(|| self.counters.packets as f64 / self.busy_polls as f64)
    }
}

fn map_counters(left: Counters, right: Counters, combine: impl Fn(u64, u64) -> u64) -> Counters {
    let mut result = Counters::default();
    result.packets = combine(left.packets, right.packets);
    result.bytes = combine(left.bytes, right.bytes);
    for reason in DropReason::ALL {
        result.drop_packets(reason, combine(left.dropped(reason), right.dropped(reason)));
    }
    result
}

const REASONS: usize = DropReason::ALL.len();

/// Where an engine publishes the counters of one queue in one direction.
///
/// One thread stores, any thread loads. Each number is exact; numbers of one snapshot may be a few packets apart
/// while the engine runs, and agree once it has stopped.
#[derive(Default, Debug)]
#[repr(align(128))]
pub struct QueueCell {
    packets: AtomicU64,
    bytes: AtomicU64,
    drops: [AtomicU64; REASONS],
    busy_cycles: AtomicU64,
    busy_polls: AtomicU64,
    empty_polls: AtomicU64,
    empty_cycles: AtomicU64,
    cut: AtomicU64,
}

impl QueueCell {
    /// Publishes `statistics`. For the one thread that owns the queue.
    #[inline]
    pub fn publish(&self, statistics: &QueueStatistics) {
        self.packets.store(statistics.counters.packets, Ordering::Relaxed);
        self.bytes.store(statistics.counters.bytes, Ordering::Relaxed);
        for (cell, reason) in self.drops.iter().zip(DropReason::ALL) {
            cell.store(statistics.counters.dropped(reason), Ordering::Relaxed);
        }
        self.busy_cycles.store(statistics.busy_cycles, Ordering::Relaxed);
        self.busy_polls.store(statistics.busy_polls, Ordering::Relaxed);
        self.empty_polls.store(statistics.empty_polls, Ordering::Relaxed);
        self.empty_cycles.store(statistics.empty_cycles, Ordering::Relaxed);
        self.cut.store(statistics.cut, Ordering::Relaxed);
    }

    /// What was published last.
    #[must_use]
    pub fn read(&self) -> QueueStatistics {
        let mut counters = Counters::default();
        counters.packets = self.packets.load(Ordering::Relaxed);
        counters.bytes = self.bytes.load(Ordering::Relaxed);
        for (cell, reason) in self.drops.iter().zip(DropReason::ALL) {
            counters.drop_packets(reason, cell.load(Ordering::Relaxed));
        }
        QueueStatistics {
            counters,
            busy_cycles: self.busy_cycles.load(Ordering::Relaxed),
            busy_polls: self.busy_polls.load(Ordering::Relaxed),
            empty_polls: self.empty_polls.load(Ordering::Relaxed),
            empty_cycles: self.empty_cycles.load(Ordering::Relaxed),
            cut: self.cut.load(Ordering::Relaxed),
        }
    }
}

/// The cells of one port.
#[derive(Debug)]
pub struct PortCells {
    /// The port's number, which no other port ever had or will have.
    pub id: usize,
    /// The port's name.
    pub name: String,
    /// One cell for each receive queue.
    pub rx: Vec<QueueCell>,
    /// One cell for each transmit queue.
    pub tx: Vec<QueueCell>,
}

impl PortCells {
    /// Cells of value zero for port number `id`, of `queues` queue pairs.
    #[must_use]
    pub fn new(id: usize, name: impl Into<String>, queues: usize) -> Self {
        let cells = || (0..queues).map(|_| QueueCell::default()).collect();
        Self { id, name: name.into(), rx: cells(), tx: cells() }
    }

    /// What was published last.
    #[must_use]
    pub fn read(&self) -> PortStatistics {
        let read = |cells: &[QueueCell]| cells.iter().map(QueueCell::read).collect();
        PortStatistics {
            id: self.id,
            name: self.name.clone(),
            rx: read(&self.rx),
            tx: read(&self.tx),
            ..PortStatistics::default()
        }
    }
}

/// What has been counted for one port.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct PortStatistics {
    /// The port's number, which no other port ever had or will have.
    pub id: usize,
    /// The port's name.
    pub name: String,
    /// Receive queues.
    pub rx: Vec<QueueStatistics>,
    /// Transmit queues.
    pub tx: Vec<QueueStatistics>,
    /// Nanoseconds from generation to arrival, for ports that measure it.
    pub latency: Option<Histogram>,
    /// Counters of the device itself, by name.
    pub device: Vec<(&'static str, u64)>,
}

impl PortStatistics {
    /// All receive queues together.
    #[must_use]
    pub fn rx_total(&self) -> QueueStatistics {
        total(&self.rx)
    }

    /// All transmit queues together.
    #[must_use]
    pub fn tx_total(&self) -> QueueStatistics {
        total(&self.tx)
    }

    /// Cycles of all engines that the port has cost: to poll it, and to deliver to it.
    #[must_use]
    pub fn cpu_cycles(&self) -> u64 {
        self.rx_total().cycles().wrapping_add(self.tx_total().cycles())
    }

    /// The port's counters over all its queues, by name, those of value zero too.
    #[must_use]
    pub fn totals(&self) -> Vec<(String, u64)> {
        let mut names = Vec::new();
        for (direction, queues) in [("rx", &self.rx), ("tx", &self.tx)] {
            let sum = total(queues).counters;
            names.push((format!("{direction}_packets"), sum.packets));
            names.push((format!("{direction}_bytes"), sum.bytes));
            names.push((format!("{direction}_dropped"), sum.dropped_total()));
            for reason in DropReason::ALL {
                names.push((format!("{direction}_{}", reason.name()), sum.dropped(reason)));
            }
        }
        names.push(("tx_cut".to_owned(), total(&self.tx).cut));
        names.push(("cpu_cycles".to_owned(), self.cpu_cycles()));
        names
    }

    /// Every counter by name: [`PortStatistics::totals`], then those of each queue.
    #[must_use]
    pub fn xstats(&self) -> Vec<(String, u64)> {
        let mut names = self.totals();
        for (direction, queues) in [("rx", &self.rx), ("tx", &self.tx)] {
            for (index, queue) in queues.iter().enumerate() {
                names.push((format!("{direction}_q{index}_packets"), queue.counters.packets));
                names.push((format!("{direction}_q{index}_bytes"), queue.counters.bytes));
                names.push((format!("{direction}_q{index}_dropped"), queue.counters.dropped_total()));
                names.push((format!("{direction}_q{index}_empty_polls"), queue.empty_polls));
            }
        }
        names
    }
}

/// What device counters gained. A name that was not there before counts from 0.
fn since(now: &[(&'static str, u64)], then: &[(&'static str, u64)]) -> Vec<(&'static str, u64)> {
    let before = |name| then.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value);
    now.iter().map(|(name, value)| (*name, value.saturating_sub(before(*name)))).collect()
}

fn total(queues: &[QueueStatistics]) -> QueueStatistics {
    queues.iter().fold(QueueStatistics::default(), |sum, queue| sum.plus(queue))
}

/// A snapshot of everything that is counted.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Statistics {
    /// Since the forwarder started, or between the two snapshots that this is the difference of.
    pub elapsed: Duration,
    /// In the order in which the ports were given.
    pub ports: Vec<PortStatistics>,
    /// What ports that are gone had received and sent: without it, sums would not be exact.
    pub gone: [QueueStatistics; 2],
    /// All engines' parts of the switch together, when it is on.
    pub switch: Option<SwitchStatistics>,
    /// Of the device that copies to virtual machines, by name; empty without one.
    pub copying: Vec<(&'static str, u64)>,
}

impl Statistics {
    /// What came since `earlier`, a snapshot of the same forwarder.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |now: &[QueueStatistics], then: &[QueueStatistics]| {
            let missing = QueueStatistics::default();
            now.iter().enumerate().map(|(index, queue)| queue.since(then.get(index).unwrap_or(&missing))).collect()
        };
        let missing = PortStatistics::default();
        let ports = self.ports.iter().map(|port| {
            let then = earlier.ports.iter().find(|then| then.id == port.id).unwrap_or(&missing);
            PortStatistics {
                id: port.id,
                name: port.name.clone(),
                rx: difference(&port.rx, &then.rx),
                tx: difference(&port.tx, &then.tx),
                latency: port.latency.as_ref().map(|now| match &then.latency {
                    Some(then) => now.since(then),
                    None => now.clone(),
                }),
                device: since(&port.device, &then.device),
            }
        });
        let switch = self.switch.as_ref().map(|now| match &earlier.switch {
            Some(then) => now.since(then),
            None => now.clone(),
        });
        let elapsed = self.elapsed.saturating_sub(earlier.elapsed);
        let copying = since(&self.copying, &earlier.copying);
        let since = Self { elapsed, ports: ports.collect(), gone: Default::default(), switch, copying };
        // What the ports that are there do not account for is of those that went in between.
        let (received, sent) = (self.received().since(&earlier.received()), self.sent().since(&earlier.sent()));
        Self { gone: [received.since(&since.received()), sent.since(&since.sent())], ..since }
    }

    /// All receive queues of all ports together, those that are gone too.
    #[must_use]
    pub fn received(&self) -> QueueStatistics {
        let [gone, _] = self.gone;
        self.ports.iter().fold(gone, |sum, port| sum.plus(&port.rx_total()))
    }

    /// All transmit queues of all ports together, those that are gone too.
    #[must_use]
    pub fn sent(&self) -> QueueStatistics {
        let [_, gone] = self.gone;
        self.ports.iter().fold(gone, |sum, port| sum.plus(&port.tx_total()))
    }

    /// The part of the cycles which all ports have cost that `port` has, from 0 to 1. `None` when there were none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn cpu_share(&self, port: &PortStatistics) -> Option<f64> {
        let all: u64 = self.ports.iter().map(PortStatistics::cpu_cycles).sum();
        (all > 0).then(|| port.cpu_cycles() as f64 / all as f64)
    }

    /// Cycles from a full receive queue to a transmit queue for one packet: receiving plus sending. `None` when none was received.
    #[must_use]
    pub fn cycles_per_packet(&self) -> Option<f64> {
        Some(self.received().cycles_per_packet()? + self.sent().cycles_per_packet().unwrap_or(0.0))
    }

    /// Latencies of all ports that measure it, together. `None` when no port does.
    #[must_use]
    pub fn latency(&self) -> Option<Histogram> {
        let mut ports = self.ports.iter().filter_map(|port| port.latency.as_ref());
        let mut all = ports.next()?.clone();
        ports.for_each(|latency| all.merge(latency));
        Some(all)
    }

    /// `packets` in [`Statistics::elapsed`], in millions a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn mpps(&self, packets: u64) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { packets as f64 / seconds / 1e6 } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn sample(packets: u64) -> QueueStatistics {
        let mut counters = Counters::default();
        counters.packets = packets;
        counters.bytes = packets * 64;
        counters.drop_packets(DropReason::BadLength, packets / 10);
        QueueStatistics {
            counters,
            busy_cycles: packets * 50,
            busy_polls: packets / 4,
            empty_polls: 7,
            empty_cycles: 70,
            cut: 3,
        }
    }

    #[test]
    fn a_cell_gives_back_what_was_published() {
        let cell = QueueCell::default();
        cell.publish(&sample(100));
        assert_eq!(cell.read(), sample(100));
    }

    #[test]
    fn cells_do_not_share_cache_lines() {
        assert_eq!(size_of::<QueueCell>() % 128, 0);
        assert_eq!(align_of::<QueueCell>(), 128);
    }

    #[test]
    fn differences_and_totals_agree() {
        let port =
            |a, b| PortStatistics { name: "p".into(), rx: vec![sample(a), sample(b)], ..PortStatistics::default() };
        let before = Statistics { elapsed: Duration::from_secs(1), ports: vec![port(10, 20)], ..Statistics::default() };
        let mut after =
            Statistics { elapsed: Duration::from_secs(3), ports: vec![port(110, 220)], ..Statistics::default() };
        after.ports[0].device = vec![("rx_crc_errors", 3)];
        let between = after.since(&before);
        assert_eq!(between.elapsed, Duration::from_secs(2));
        assert_eq!(between.received().counters.packets, 300);
        assert_eq!(between.ports[0].device, [("rx_crc_errors", 3)]);
        assert_eq!(after.since(&after).ports[0].device, [("rx_crc_errors", 0)]);
        assert_eq!(between.received().counters.dropped(DropReason::BadLength), 30);
        assert_eq!(between.received().cycles_per_packet(), Some(50.0));
        assert!((between.mpps(4_000_000) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn ports_are_known_by_their_number() {
        let port = |id, packets| PortStatistics { id, rx: vec![sample(packets)], ..PortStatistics::default() };
        let before = Statistics { ports: vec![port(1, 10), port(2, 20)], ..Statistics::default() };
        let after = Statistics { ports: vec![port(2, 25), port(3, 7)], ..Statistics::default() };
        let between = after.since(&before);
        let gained: Vec<u64> = between.ports.iter().map(|port| port.rx_total().counters.packets).collect();
        assert_eq!(gained, [5, 7]);
        // Port 1 received 3 more before it went.
        let after = Statistics { gone: [sample(13), QueueStatistics::default()], ..after };
        assert_eq!(after.since(&before).gone[0].counters.packets, 3);
        assert_eq!(after.since(&before).received().counters.packets, 15);
    }

    #[test]
    fn shares_add_up() {
        let port = |packets| PortStatistics { rx: vec![sample(packets)], ..PortStatistics::default() };
        let all = Statistics { ports: vec![port(10), port(30)], ..Statistics::default() };
        let shares: f64 = all.ports.iter().filter_map(|port| all.cpu_share(port)).sum();
        assert!((shares - 1.0).abs() < 1e-9);
        assert_eq!(Statistics::default().cpu_share(&port(1)), None);
    }

    #[test]
    fn names_are_those_of_xstats() {
        let port = PortStatistics { name: "p".into(), rx: vec![sample(100)], ..PortStatistics::default() };
        let names = port.xstats();
        let value = |name: &str| names.iter().find(|(found, _)| found == name).map(|(_, value)| *value);
        assert_eq!(value("rx_packets"), Some(100));
        assert_eq!(value("rx_q0_bytes"), Some(6400));
        assert_eq!(value("rx_bad_length"), Some(10));
        assert_eq!(value("tx_packets"), Some(0));
        assert_eq!(value("cpu_cycles"), Some(5070));
    }

    #[test]
    fn nothing_received_has_no_cost() {
        assert_eq!(Statistics::default().cycles_per_packet(), None);
        assert_eq!(QueueStatistics::default().ns_per_packet(CycleClock::with_rate(1)), None);
        assert!(Statistics::default().mpps(5).abs() < f64::EPSILON);
    }
}
