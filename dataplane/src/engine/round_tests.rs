#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};

use drivers::nic::{Counters, RxQueue, TxQueue};
use hugemem::{Batch, Iova, PacketPool, Region};

use super::*;
use crate::clock::cycles;
use crate::engine::plan::QueueId;
use crate::engine::roster::Counts;
use crate::engine::{Lane, Receiver, Sender, Transmitter};
use crate::stats::PortCells;

/// Who received or was given how many packets, in order.
type Log = Arc<Mutex<Vec<(usize, usize)>>>;

/// Always has packets.
struct Greedy {
    port: usize,
    pool: PacketPool,
    log: Log,
}

impl RxQueue for Greedy {
    fn receive(&mut self, batch: &mut Batch) -> usize {
        let before = batch.len();
        while batch.room() > 0 {
            let Some(packet) = self.pool.take() else { break };
            batch.push(packet).unwrap();
        }
        let received = batch.len() - before;
        self.log.lock().unwrap().push((self.port, received));
        received
    }

    fn gives_large(&self) -> bool {
        false
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// Takes everything, and a while for each packet.
struct Costly {
    port: usize,
    cycles: u64,
    log: Log,
}

impl TxQueue for Costly {
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        let sent = batch.len();
        let start = cycles();
        while cycles().wrapping_sub(start) < self.cycles * sent as u64 {
            std::hint::spin_loop();
        }
        batch.clear();
        self.log.lock().unwrap().push((self.port, sent));
        sent
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

struct Field {
    roster: Roster,
    log: Log,
    clock: CycleClock,
}

impl Field {
    /// Ports 0, 1, 2 and so on, each with so many queues that give to ports 100, 101, 102 and so on, where a packet
    /// costs so much time.
    fn new(ports: &[(usize, Duration)], scheduler: Scheduler) -> (Self, Pace) {
        let clock = CycleClock::calibrate();
        let log = Log::default();
        let mut roster = Roster::with_room(Counts { lanes: 32, senders: 32, ..Counts::default() });
        for (from, (queues, cost)) in ports.iter().enumerate() {
            let to = 100 + from;
            let cells = [from, to].map(|port| Arc::new(PortCells::new(port, "", *queues)));
            for queue in 0..*queues {
                let region = Region::on_heap(1 << 16, Iova::new(0)).unwrap();
                let rx = Greedy { port: from, pool: region.packets(40, 128).unwrap(), log: Arc::clone(&log) };
                let receiver = Receiver { id: QueueId { port: from, queue }, rx: Box::new(rx), wake: None };
                let id = QueueId { port: to, queue };
                let mut lane =
                    Roster { lanes: vec![Lane::new(receiver, id, 32, Arc::clone(&cells[0]))], ..Roster::default() };
                let tx = Costly { port: to, cycles: clock.cycles_in(*cost), log: Arc::clone(&log) };
                let transmitter = Transmitter { id, tx: Box::new(tx), pool: None, desk: None };
                let mut sender = Sender::new(transmitter, Arc::clone(&cells[1]));
                if scheduler == Scheduler::Off {
                    sender.unslice();
                }
                lane.senders.push(sender);
                roster.absorb(&mut lane);
            }
        }
        let config = EngineConfig { scheduler, ..EngineConfig::default() };
        (Self { roster, log, clock }, Pace::new(&config, clock))
    }

    /// One round, scheduled if rounds ever are, and what it did.
    fn round(&mut self, pace: &Pace) -> Vec<(usize, usize)> {
        let mut now = cycles();
        self.roster.long = pace.least_cpu;
        round(&mut self.roster, &mut now, pace);
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

/// Packets given to `port`.
fn given(done: &[(usize, usize)], port: usize) -> usize {
    done.iter().filter(|(to, _)| *to == port).map(|(_, packets)| packets).sum()
}

#[test]
fn every_queue_is_polled_in_turn_for_a_bounded_burst() {
    let (mut field, pace) = Field::new(&[(3, Duration::ZERO), (1, Duration::ZERO)], Scheduler::LeastCpu);
    for _ in 0..10 {
        let polled: Vec<_> = field.round(&pace).into_iter().filter(|(port, _)| *port < 100).collect();
        assert_eq!(polled, [(0, 32), (0, 32), (0, 32), (1, 32)]);
    }
}

#[test]
fn a_costly_port_delays_nobody_else() {
    // Four queues into a port where a packet costs 50 us, and one into a port where it costs next to nothing.
    let ports = [(4, Duration::from_micros(50)), (1, Duration::ZERO)];
    let (mut field, pace) = Field::new(&ports, Scheduler::LeastCpu);
    // So much that nothing which happens to this thread meanwhile changes who has used more.
    field.roster.accounts.iter_mut().filter(|account| account.port == 100).for_each(|account| account.used = 1 << 60);
    for _ in 0..50 {
        let done = field.round(&pace);
        let first = done.iter().find(|(port, _)| *port >= 100).unwrap();
        assert_eq!(first.0, 101, "who costs least goes first");
        assert!(given(&done, 100) <= 32, "at most one slice of who costs much: {done:?}");
    }

    let (mut field, pace) = Field::new(&ports, Scheduler::Off);
    for _ in 0..5 {
        let done = field.round(&pace);
        assert_eq!((given(&done, 100), given(&done, 101)), (128, 32), "in turn, and all at once");
        assert_eq!(done.last().unwrap().0, 101, "the cheap port waits for 6 ms of the other's work");
    }
}

#[test]
fn long_rounds_are_scheduled_and_short_ones_are_not() {
    // One delivery of 32 packets alone takes more than a round may.
    let (mut field, pace) = Field::new(&[(1, Duration::from_micros(50))], Scheduler::LeastCpu);
    let mut now = cycles();
    assert!(!field.roster.long);
    round(&mut field.roster, &mut now, &pace);
    assert!(field.roster.long);
    // With nothing to do the counter is not even read.
    field.roster.lanes.clear();
    round(&mut field.roster, &mut now, &pace);
    assert!(!field.roster.long);

    let (mut field, pace) = Field::new(&[(1, Duration::from_micros(50))], Scheduler::Off);
    round(&mut field.roster, &mut now, &pace);
    assert!(!field.roster.long);
}

#[test]
fn a_costly_port_gets_its_share() {
    // Two ports that alone take all the time that there is, and one where a packet costs much more.
    let micros = Duration::from_micros;
    let (mut field, pace) = Field::new(&[(1, micros(10)), (1, micros(10)), (1, micros(100))], Scheduler::LeastCpu);
    let interval = field.clock.cycles_in(Duration::from_millis(1));
    let (mut totals, mut faded) = ([0; 3], cycles());
    let mut idle_rounds = 0;
    for _ in 0..1000 {
        let done = field.round(&pace);
        for (total, port) in totals.iter_mut().zip(100..) {
            *total += given(&done, port);
        }
        idle_rounds += usize::from(done.iter().all(|(port, _)| *port < 100));
        let milliseconds = cycles().wrapping_sub(faded) / interval;
        faded += milliseconds * interval;
        field.roster.fade(milliseconds);
    }
    assert_eq!(idle_rounds, 0, "every round delivers something");
    let [first, second, costly] = totals;
    assert!(costly > 0, "nobody starves");
    assert!(first > costly && second > costly, "time is shared, not packets: {totals:?}");
}

#[test]
fn the_queues_of_a_costly_port_take_turns() {
    let (mut field, pace) = Field::new(&[(4, Duration::from_micros(50))], Scheduler::LeastCpu);
    let mut last = Vec::new();
    for round in 0..40 {
        let polled = field.round(&pace);
        // Each slice is longer than a round may be. A queue that was served out is polled again in the next round.
        assert_eq!(polled.iter().filter(|(port, _)| *port >= 100).count(), 1, "round {round}: {polled:?}");
        last = field.roster.lanes.iter().map(|lane| lane.waiting.delivered).collect();
        last.sort_unstable();
        last.dedup();
    }
    assert_eq!(last.len(), 4, "all were served, each at a time of its own");
    assert!(last.iter().all(|delivered| *delivered > 0));
}

#[test]
fn accounts_fade() {
    let (mut field, pace) = Field::new(&[(1, Duration::from_micros(10))], Scheduler::LeastCpu);
    field.round(&pace);
    let used = |field: &Field| field.roster.accounts.iter().map(|account| account.used).max().unwrap();
    let before = used(&field);
    assert!(before > 0);
    field.roster.fade(11);
    assert!(used(&field) < before * 6 / 10 && used(&field) > before * 4 / 10, "half is forgotten after 11 ms");
    field.roster.fade(10_000);
    assert_eq!(used(&field), 0);
}
