//! A running engine: lanes come and go, and nobody else notices.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dataplane::bell::Bell;
use dataplane::clock::CycleClock;
use dataplane::config::{EngineConfig, Poll, Scheduler};
use dataplane::engine::plan::QueueId;
use dataplane::engine::{Engine, EngineError, Finished, Lane, Load, Receiver, Running, Sender, Transmitter};
use dataplane::port::Wake;
use dataplane::stats::{PortCells, QueueStatistics};
use drivers::nic::{Counters, Offloads, RxQueue, TxQueue};
use hugemem::{Batch, Checksum, PacketPool, Segmentation, SegmentationKind};
use rustix::event::{EventfdFlags, eventfd};

use support::{cores, pool};

/// What a test and the queues of one port share.
struct Link {
    /// Packets that may be received.
    supply: AtomicU64,
    polls: AtomicU64,
    armed: AtomicBool,
    event: OwnedFd,
    /// The numbers that arrived.
    arrived: AtomicU64,
    /// What went wrong with them.
    wrong: Mutex<Option<String>>,
}

impl Link {
    fn new(supply: u64) -> Arc<Self> {
        Arc::new(Self {
            supply: AtomicU64::new(supply),
            polls: AtomicU64::new(0),
            armed: AtomicBool::new(false),
            event: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap(),
            arrived: AtomicU64::new(0),
            wrong: Mutex::new(None),
        })
    }

    fn supply(&self, packets: u64) {
        self.supply.fetch_add(packets, Ordering::SeqCst);
        if self.armed.load(Ordering::SeqCst) {
            rustix::io::write(&self.event, &1_u64.to_ne_bytes()).unwrap();
        }
    }

    fn arrived(&self) -> u64 {
        assert_eq!(*self.wrong.lock().unwrap(), None);
        self.arrived.load(Ordering::SeqCst)
    }
}

/// Numbers packets, as far as there is supply.
struct Source {
    link: Arc<Link>,
    next: u64,
    pool: PacketPool,
    counters: Counters,
    /// Payload of large packets, to be cut.
    large: Option<usize>,
}

impl RxQueue for Source {
    fn receive(&mut self, batch: &mut Batch) -> usize {
        self.link.polls.fetch_add(1, Ordering::SeqCst);
        let mut received = 0;
        while batch.room() > 0 && self.next < self.link.supply.load(Ordering::SeqCst) {
            let Some(mut packet) = self.pool.take() else { break };
            let mut frame = vec![0; 60];
            frame[12..14].copy_from_slice(&[8, 0]);
            frame[14] = 0x45;
            frame[46] = 0x50;
            frame[0..8].copy_from_slice(&self.next.to_be_bytes());
            if let Some(payload) = self.large {
                frame.resize(54 + payload, 7);
                let metadata = packet.metadata_mut();
                metadata.checksum = Checksum::Partial { start: 34, offset: 16 };
                let kind = SegmentationKind::TcpV4;
                metadata.segmentation = Some(Segmentation { kind, size: 100, header_len: 54, ecn: false });
            }
            packet.write(&frame).unwrap();
            batch.push(packet).unwrap();
            self.next += 1;
            received += 1;
        }
        self.counters.packets += received as u64;
        received
    }

    fn arm(&mut self) -> bool {
        self.link.armed.store(true, Ordering::SeqCst);
        self.next == self.link.supply.load(Ordering::SeqCst)
    }

    fn disarm(&mut self) {
        self.link.armed.store(false, Ordering::SeqCst);
    }

    fn gives_foreign(&self) -> bool {
        self.large.is_some()
    }

    fn gives_large(&self) -> bool {
        self.large.is_some()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

/// Checks that numbers come without gaps, and keeps some packets underway.
struct Sink {
    link: Arc<Link>,
    next: u64,
    kept: Vec<hugemem::Packet>,
    counters: Counters,
    large: bool,
}

impl TxQueue for Sink {
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        let count = batch.len().min(20);
        self.kept.clear();
        for packet in batch.drain_front(count) {
            let number = u64::from_be_bytes(*packet.bytes().first_chunk().unwrap());
            if number != self.next && !self.large {
                let said = format!("{number} came instead of {}", self.next);
                self.link.wrong.lock().unwrap().get_or_insert(said);
            }
            self.next += 1;
            self.kept.push(packet);
        }
        self.counters.packets += count as u64;
        self.link.arrived.fetch_add(count as u64, Ordering::SeqCst);
        count
    }

    fn offloads(&self) -> Offloads {
        if self.large { Offloads::empty() } else { Offloads::all() }
    }

    fn reclaim(&mut self) -> usize {
        let underway = self.kept.len();
        self.kept.clear();
        underway
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

/// A port that sends to itself, so to say: one lane.
struct OneWay {
    link: Arc<Link>,
    from: QueueId,
    to: QueueId,
    cells: [Arc<PortCells>; 2],
}

impl OneWay {
    fn new(number: usize, supply: u64) -> Self {
        let ports = [2 * number, 2 * number + 1];
        let [from, to] = ports.map(|port| QueueId { port, queue: 0 });
        let cells = ports.map(|port| Arc::new(PortCells::new(port, format!("port {port}"), 1)));
        Self { link: Link::new(supply), from, to, cells }
    }

    fn receiver(&self, large: Option<usize>) -> Receiver {
        let link = Arc::clone(&self.link);
        let wake = Wake::event(link.event.try_clone().unwrap());
        let rx = Source { link, next: 0, pool: pool(200), counters: Counters::default(), large };
        Receiver { id: self.from, rx: Box::new(rx), wake: Some(wake) }
    }

    fn transmitter(&self, large: bool) -> Transmitter {
        let link = Arc::clone(&self.link);
        let tx = Sink { link, next: 0, kept: Vec::with_capacity(32), counters: Counters::default(), large };
        Transmitter { id: self.to, tx: Box::new(tx), pool: large.then(|| pool(30)), desk: None }
    }

    fn lane(&self, receiver: Receiver) -> Lane {
        Lane::new(receiver, self.to, 32, Arc::clone(&self.cells[0]))
    }

    fn sender(&self, transmitter: Transmitter) -> Sender {
        Sender::new(transmitter, Arc::clone(&self.cells[1]))
    }

    fn parts(&self) -> Load {
        load(vec![self.lane(self.receiver(None))], vec![self.sender(self.transmitter(false))])
    }

    fn ports(&self) -> [usize; 2] {
        [self.from.port, self.to.port]
    }

    /// What was published: received, and sent.
    fn published(&self) -> (QueueStatistics, QueueStatistics) {
        (self.cells[0].read().rx_total(), self.cells[1].read().tx_total())
    }
}

fn load(lanes: Vec<Lane>, senders: Vec<Sender>) -> Load {
    Load { lanes, senders, ..Load::default() }
}

fn start(poll: Poll, scheduler: Scheduler, ways: &[&OneWay]) -> Running {
    let mut load = Load::default();
    for way in ways {
        let Load { lanes, senders, .. } = way.parts();
        load.lanes.extend(lanes);
        load.senders.extend(senders);
    }
    let config = EngineConfig { burst: 32, poll, hold: Duration::from_secs(60), scheduler };
    let core = cores().iter().last().unwrap();
    let (clock, bell) = (CycleClock::calibrate(), Arc::new(Bell::new().unwrap()));
    let engine = Engine { number: 0, core, config, load, clock, bell };
    engine.start().map_err(|(error, _)| error).unwrap()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn one<T>(mut all: Vec<T>) -> T {
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn lanes_come_and_go_under_load_and_nothing_is_lost() {
    for (poll, scheduler) in [(Poll::Always, Scheduler::LeastCpu), (Poll::Adaptive, Scheduler::Off)] {
        let bystander = OneWay::new(0, u64::MAX);
        let guest = OneWay::new(1, u64::MAX);
        let mut engine = start(poll, scheduler, &[&bystander]);
        let mut parts = guest.parts();
        for _ in 0..50 {
            let (arrived, others) = (guest.link.arrived(), bystander.link.arrived());
            engine.add(parts).unwrap();
            wait_for("traffic", || guest.link.arrived() > arrived + 100);
            let Finished { receivers, transmitters, panic, unfinished, .. } = engine.remove(&guest.ports()).unwrap();
            assert!(panic.is_none() && !unfinished);
            let (receiver, transmitter) = (one(receivers), one(transmitters));
            let (received, sent) = (receiver.rx.counters().packets, transmitter.tx.counters().packets);
            assert_eq!(received, sent, "everything that was received was sent");
            let published = guest.published();
            assert_eq!((published.0.counters.packets, published.1.counters.packets), (received, sent));
            assert_eq!(published.1.counters.dropped_total(), 0);
            wait_for("the others' traffic", || bystander.link.arrived() > others);
            parts = load(vec![guest.lane(receiver)], vec![guest.sender(transmitter)]);
        }
        drop(parts);
        let finished = engine.stop();
        let (receiver, transmitter) = (one(finished.receivers), one(finished.transmitters));
        assert_eq!(receiver.rx.counters().packets, transmitter.tx.counters().packets);
        assert_eq!(bystander.link.arrived(), transmitter.tx.counters().packets, "all in order");
    }
}

#[test]
fn counters_go_on_over_a_queue_that_was_made_anew() {
    let way = OneWay::new(0, 1000);
    let mut engine = start(Poll::Adaptive, Scheduler::LeastCpu, &[&way]);
    wait_for("the first queue's packets", || way.link.arrived() == 1000);
    drop(engine.remove(&way.ports()).unwrap());
    // New queues count from nothing, and give the same thousand numbers once more.
    engine.add(way.parts()).unwrap();
    wait_for("the second queue's packets", || way.link.arrived() == 2000);
    let _ = engine.stop();
    let (received, sent) = way.published();
    assert_eq!((received.counters.packets, sent.counters.packets), (2000, 2000));
}

#[test]
fn an_engine_without_lanes_sleeps_and_serves_what_it_is_given() {
    for poll in [Poll::Always, Poll::Adaptive] {
        let mut engine = start(poll, Scheduler::LeastCpu, &[]);
        assert!(engine.remove(&[7]).unwrap().receivers.is_empty(), "what is not there is not given back");
        let way = OneWay::new(0, 0);
        engine.add(way.parts()).unwrap();
        for round in 1..=30 {
            // Now and then long enough for the engine to fall asleep.
            std::thread::sleep(Duration::from_micros(100 * round));
            way.link.supply(3);
            wait_for("a wake-up", || way.link.arrived() == 3 * round);
        }
        assert_eq!(one(engine.remove(&way.ports()).unwrap().receivers).id, way.from);
        assert!(engine.stop().receivers.is_empty());
    }
}

#[test]
fn a_lane_that_has_nothing_lets_the_engine_sleep() {
    let (silent, busy) = (OneWay::new(0, 0), OneWay::new(1, 0));
    let mut engine = start(Poll::Adaptive, Scheduler::LeastCpu, &[&silent]);
    engine.add(busy.parts()).unwrap();
    drop(engine.remove(&busy.ports()).unwrap());
    wait_for("sleep", || silent.link.armed.load(Ordering::SeqCst));
    let before = silent.link.polls.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(300));
    // An engine that is awake polls millions of times. A sleeping one looks up once a second, for some hundred polls.
    let polls = silent.link.polls.load(Ordering::SeqCst) - before;
    assert!(polls < 20_000, "{polls} polls while there was nothing to do");
    let _ = engine.stop();
}

#[test]
fn removing_one_port_takes_along_what_feeds_it() {
    // Three lanes into one transmit queue.
    let ways: Vec<OneWay> = (0..3).map(|number| OneWay::new(number, 0)).collect();
    let mut engine = start(Poll::Adaptive, Scheduler::LeastCpu, &[&ways[0]]);
    let more = ways[1..].iter().map(|way| Lane::new(way.receiver(None), ways[0].to, 32, Arc::clone(&way.cells[0])));
    engine.add(load(more.collect(), Vec::new())).unwrap();
    let left = engine.remove(&[ways[2].from.port]).unwrap();
    assert_eq!((one(left.receivers).id, left.transmitters.len()), (ways[2].from, 0));
    let left = engine.remove(&[ways[0].to.port]).unwrap();
    let ids: BTreeMap<usize, QueueId> = left.receivers.iter().map(|receiver| (receiver.id.port, receiver.id)).collect();
    assert_eq!(ids.into_values().collect::<Vec<_>>(), [ways[0].from, ways[1].from]);
    assert_eq!(one(left.transmitters).id, ways[0].to);
    assert!(engine.stop().receivers.is_empty());
}

#[test]
fn what_is_made_whole_and_cut_on_the_way_is_conserved() {
    for scheduler in [Scheduler::LeastCpu, Scheduler::Off] {
        let bystander = OneWay::new(0, u64::MAX);
        let vm = OneWay::new(1, 5000);
        let mut engine = start(Poll::Always, scheduler, &[&bystander]);
        // Seven segments each.
        engine.add(load(vec![vm.lane(vm.receiver(Some(640)))], vec![vm.sender(vm.transmitter(true))])).unwrap();
        wait_for("the last segment", || vm.link.arrived() == 5000 * 7);
        let finished = engine.remove(&vm.ports()).unwrap();
        assert_eq!(one(finished.transmitters).pool.unwrap().available(), 30, "all buffers are home");
        let (received, sent) = vm.published();
        assert_eq!((received.counters.packets, sent.counters.dropped_total()), (5000, 0));
        assert_eq!(received.counters.packets + sent.cut, sent.counters.packets);
        let _ = engine.stop();
        bystander.link.arrived();
    }
}

/// A source whose device has broken.
struct Broken;

impl RxQueue for Broken {
    fn receive(&mut self, _batch: &mut Batch) -> usize {
        panic!("scripted panic");
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

#[test]
fn an_engine_that_has_ended_says_so_and_gives_everything_back() {
    let way = OneWay::new(0, u64::MAX);
    let mut engine = start(Poll::Always, Scheduler::LeastCpu, &[&way]);
    let broken = OneWay::new(1, 0);
    let receiver = Receiver { id: broken.from, rx: Box::new(Broken), wake: None };
    // It may have ended before it could answer.
    let _ = engine.add(load(vec![broken.lane(receiver)], vec![broken.sender(broken.transmitter(false))]));
    wait_for("the panic", || engine.has_failed());
    let late = OneWay::new(2, 0);
    let (error, returned) = engine.add(late.parts()).unwrap_err();
    assert!(matches!(error, EngineError::Ended { engine: 0 }), "{error}");
    assert!(matches!(engine.remove(&way.ports()), Err(EngineError::Ended { .. })));
    let mut finished = engine.stop();
    assert_eq!(finished.panic.as_deref(), Some("scripted panic"));
    finished.receivers.extend(returned.receivers);
    finished.transmitters.extend(returned.transmitters);
    assert_eq!((finished.receivers.len(), finished.transmitters.len()), (3, 3), "no queue is lost");
}
