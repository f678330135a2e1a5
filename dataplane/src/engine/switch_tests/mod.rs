//! Engines that switch.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod rounds;
mod running;
mod several;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use drivers::nic::{Counters, DropReason, Offloads, RxQueue, TxQueue};
use hugemem::{Batch, Foreign, Iova, PacketPool, Region};
use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::clock::cycles;
use crate::config::{CoreList, Poll};
use crate::flow::{Action, Domain, FlowKey, FlowState, Output, Writer};
use crate::headers::parse;
use crate::overlay::Terminations;
use crate::stats::{PortCells, QueueStatistics};
use crate::switch::{Desk, Layout, NatTable, Pipeline, PipelineOptions, PortFacts, PortSlot, Reason, SwitchStatistics};

/// Ports that there can be.
const PORTS: u16 = 8;

fn pool(count: usize) -> PacketPool {
    Region::on_heap(count * 2304 + 65_536, Iova::new(0)).unwrap().packets(count, 2048).unwrap()
}

/// A datagram of flow `flow`, the `number`th, with both in its payload.
fn frame(flow: u32, number: u32) -> Vec<u8> {
    let [_, b, c, d] = (flow / 8).to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 46, 0, 1, 0x40, 0, 64, 17, 0, 0];
    frame.extend([10, b, c, d, 11, 0, 0, 1]);
    frame.extend([3, (flow % 8).to_be_bytes()[3], 7, 208, 0, 26, 0, 0]);
    frame.extend(flow.to_be_bytes());
    frame.extend(number.to_be_bytes());
    frame.resize(60, 0);
    frame
}

/// What the test and a receive queue share.
struct Feed {
    /// Packets that may be received, in all.
    supply: AtomicU64,
    received: AtomicU64,
    armed: AtomicBool,
    event: OwnedFd,
}

impl Feed {
    fn supply(&self, packets: u64) {
        self.supply.fetch_add(packets, Ordering::SeqCst);
        if self.armed.load(Ordering::SeqCst) {
            rustix::io::write(&self.event, &1_u64.to_ne_bytes()).unwrap();
        }
    }

    fn is_used_up(&self) -> bool {
        self.received.load(Ordering::SeqCst) == self.supply.load(Ordering::SeqCst)
    }
}

/// Gives numbered packets of some flows in turn, as far as there is supply.
struct FeedQueue {
    feed: Arc<Feed>,
    flows: Vec<u32>,
    numbers: Vec<u32>,
    turn: usize,
    pool: PacketPool,
    /// Packets end in memory elsewhere, as those of virtual machines do.
    foreign: bool,
    out: usize,
    counters: Counters,
}

impl FeedQueue {
    fn sweep(&mut self) {
        let Self { pool, out, .. } = self;
        pool.sweep(|_| *out -= 1);
    }
}

impl RxQueue for FeedQueue {
    fn receive(&mut self, batch: &mut Batch) -> usize {
        if self.foreign {
            self.sweep();
        }
        let mut received = 0;
        while batch.room() > 0 && !self.feed.is_used_up() {
            let Some(mut packet) = self.pool.take() else { break };
            packet.write(&frame(self.flows[self.turn], self.numbers[self.turn])).unwrap();
            if self.foreign {
                static REST: [u8; 40] = [7; 40];
                #[expect(unsafe_code, reason = "pieces are addresses")]
                // SAFETY: the bytes are never freed, and are only read.
                let piece = unsafe { Foreign::new(std::ptr::NonNull::from(&REST).cast(), 40) };
                assert!(packet.attach(piece));
                self.out += 1;
            }
            self.numbers[self.turn] += 1;
            self.turn = (self.turn + 1) % self.flows.len();
            batch.push(packet).unwrap();
            self.feed.received.fetch_add(1, Ordering::SeqCst);
            received += 1;
        }
        self.counters.packets += received as u64;
        received
    }

    fn arm(&mut self) -> bool {
        self.feed.armed.store(true, Ordering::SeqCst);
        self.feed.is_used_up()
    }

    fn disarm(&mut self) {
        self.feed.armed.store(false, Ordering::SeqCst);
    }

    fn gives_foreign(&self) -> bool {
        self.foreign
    }

    fn underway(&mut self) -> usize {
        if self.foreign {
            self.sweep();
        }
        self.out
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

/// What the test and a transmit queue share.
#[derive(Default)]
struct Sink {
    /// Packets that it takes, in all.
    room: AtomicU64,
    taken: AtomicU64,
    /// Cycles that a packet costs, and all that were spent.
    cost: AtomicU64,
    spent: AtomicU64,
    panics: AtomicBool,
    /// The next number expected of each flow.
    next: Mutex<HashMap<u32, u32>>,
    /// What went wrong.
    wrong: Mutex<Option<String>>,
}

impl Sink {
    fn taken(&self) -> u64 {
        assert_eq!(*self.wrong.lock().unwrap(), None);
        self.taken.load(Ordering::SeqCst)
    }

    /// The flows that came here, in order of their numbers.
    fn flows(&self) -> Vec<u32> {
        let mut flows: Vec<u32> = self.next.lock().unwrap().keys().copied().collect();
        flows.sort_unstable();
        flows
    }
}

/// Checks that the packets of each flow come in order; some may be missing.
struct SinkQueue {
    sink: Arc<Sink>,
    takes_foreign: bool,
    counters: Counters,
}

impl TxQueue for SinkQueue {
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        assert!(!self.sink.panics.load(Ordering::SeqCst), "the queue panics");
        let room = self.sink.room.load(Ordering::SeqCst).saturating_sub(self.sink.taken.load(Ordering::SeqCst));
        let count = batch.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let (start, cost) = (cycles(), self.sink.cost.load(Ordering::SeqCst));
        let mut next = self.sink.next.lock().unwrap();
        for packet in batch.drain_front(count) {
            let word = |at: usize| u32::from_be_bytes(packet.bytes()[at..at + 4].try_into().unwrap());
            let (flow, number) = (word(42), word(46));
            let expected = next.entry(flow).or_default();
            if number < *expected || (!self.takes_foreign && packet.may_be_foreign()) {
                let said = format!("{packet:?}: number {number} of flow {flow} instead of {expected}");
                self.sink.wrong.lock().unwrap().get_or_insert(said);
            }
            *expected = number + 1;
        }
        while cycles().wrapping_sub(start) < cost * count as u64 {
            std::hint::spin_loop();
        }
        self.sink.spent.fetch_add(cycles().wrapping_sub(start), Ordering::SeqCst);
        self.counters.packets += count as u64;
        self.sink.taken.fetch_add(count as u64, Ordering::SeqCst);
        count
    }

    fn takes_foreign(&self) -> bool {
        self.takes_foreign
    }

    fn offloads(&self) -> Offloads {
        Offloads::empty()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

/// A port with one queue in each direction.
struct Port {
    number: u16,
    feed: Arc<Feed>,
    sink: Arc<Sink>,
    cells: Arc<PortCells>,
}

impl Port {
    fn new(number: u16) -> Self {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
        let (supply, received) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            number,
            feed: Arc::new(Feed { supply, received, armed: AtomicBool::new(false), event }),
            sink: Arc::new(Sink { room: AtomicU64::new(u64::MAX), ..Sink::default() }),
            cells: Arc::new(PortCells::new(usize::from(number), format!("port {number}"), 1)),
        }
    }

    fn id(&self) -> QueueId {
        QueueId { port: usize::from(self.number), queue: 0 }
    }

    fn slot(&self) -> PortSlot {
        PortSlot(self.number)
    }

    /// Receives packets of these flows.
    fn receiver(&self, flows: &[u32], foreign: bool) -> Receiver {
        let region = Region::on_heap(2048 * 512 + 65_536, Iova::new(0)).unwrap();
        let rx = FeedQueue {
            feed: Arc::clone(&self.feed),
            flows: flows.to_vec(),
            numbers: vec![0; flows.len()],
            turn: 0,
            pool: if foreign {
                region.packets_with_foreign(1024, 128, 1).unwrap()
            } else {
                region.packets(1024, 128).unwrap()
            },
            foreign,
            out: 0,
            counters: Counters::default(),
        };
        let wake = Wake::event(self.feed.event.try_clone().unwrap());
        Receiver { id: self.id(), rx: Box::new(rx), wake: Some(wake) }
    }

    fn input(&self, receiver: Receiver) -> Input {
        Input::new(receiver, self.slot(), 32, Arc::clone(&self.cells))
    }

    fn transmitter(&self, takes_foreign: bool, pool: Option<PacketPool>) -> Transmitter {
        let tx = SinkQueue { sink: Arc::clone(&self.sink), takes_foreign, counters: Counters::default() };
        Transmitter { id: self.id(), tx: Box::new(tx), pool, desk: None }
    }

    fn sender(&self, transmitter: Transmitter) -> Sender {
        Sender::new(transmitter, Arc::clone(&self.cells))
    }

    fn outlet(&self) -> Outlet {
        Outlet::to_queue(self.slot(), self.id())
    }

    /// Its way out alone, which takes everything as it is.
    fn exit(&self) -> Load {
        let sender = self.sender(self.transmitter(true, None));
        Load { senders: vec![sender], outlets: vec![self.outlet()], ..Load::default() }
    }

    /// All of it; it gives packets of these flows.
    fn load(&self, flows: &[u32]) -> Load {
        Load { inputs: vec![self.input(self.receiver(flows, false))], ..self.exit() }
    }

    fn sent(&self) -> QueueStatistics {
        self.cells.read().tx_total()
    }
}

fn together(loads: impl IntoIterator<Item = Load>) -> Load {
    loads.into_iter().fold(Load::default(), |mut all, load| {
        all.lanes.extend(load.lanes);
        all.senders.extend(load.senders);
        all.inputs.extend(load.inputs);
        all.outlets.extend(load.outlets);
        all.switching = all.switching.or(load.switching);
        all
    })
}

/// Control's side of the switch.
struct World {
    writer: Writer,
    desks: Vec<Desk>,
    bell: Arc<Bell>,
    clock: CycleClock,
}

impl World {
    /// A switch of that many engines between ports that have these shares.
    fn new(engines: usize, shares: &[u16]) -> (Self, Vec<Pipeline>) {
        let facts = |(number, share): (usize, &u16)| PortFacts {
            domain: domain(u16::try_from(number).unwrap()),
            underlay: false,
            mtu: 0,
            upcalls: 100,
            share: *share,
        };
        let layout = Arc::new(Layout {
            ports: shares.iter().enumerate().map(facts).map(Some).collect(),
            tunnels: Vec::new(),
            sets: Vec::new(),
            terminations: Terminations::default(),
            mirrors: [None; crate::switch::MOST_MIRRORS],
            translations: Arc::new(NatTable::new(16)),
        });
        let clock = CycleClock::calibrate();
        let (writer, readers) = Writer::new(4096, engines).unwrap();
        let options = PipelineOptions::new(PORTS, clock);
        let (pipelines, desks) =
            readers.into_iter().map(|reader| Pipeline::new(reader, Arc::clone(&layout), pool(512), &options)).unzip();
        (Self { writer, desks, bell: Arc::new(Bell::new().unwrap()), clock }, pipelines)
    }

    /// A switch of one engine between ports that share alike.
    fn of_one() -> (Self, Load) {
        let (world, mut pipelines) = Self::new(1, &[1; PORTS as usize]);
        let switching = world.switching(pipelines.remove(0), Peers::default());
        (world, Load { switching: Some(switching), ..Load::default() })
    }

    fn switching(&self, pipeline: Pipeline, peers: Peers) -> Box<Switching> {
        Box::new(Switching::new(pipeline, PORTS, Arc::clone(&self.bell), peers))
    }

    /// From now on these flows go from port to port.
    fn learn(&mut self, flows: &[u32], from: &Port, to: &Port) {
        for flow in flows {
            let frame = frame(*flow, 0);
            let key = FlowKey::of(&parse(&frame, frame.len()), &frame, domain(from.number));
            self.writer.insert(&key, &action(to), FlowState::Active, cycles()).unwrap();
        }
    }

    /// An engine on the core of that number among those there are.
    fn start(&self, number: usize, load: Load, poll: Poll, hold: Duration, bell: Arc<Bell>) -> Running {
        let cores: Vec<usize> = CoreList::available().unwrap().iter().collect();
        let config = EngineConfig { burst: 32, poll, hold, ..EngineConfig::default() };
        let core = cores[number % cores.len()];
        Engine { number, core, config, load, clock: self.clock, bell }.start().map_err(|(error, _)| error).unwrap()
    }
}

fn domain(port: u16) -> Domain {
    Domain::port(u32::from(port))
}

fn action(to: &Port) -> Action {
    Action::to(Output::Port(to.number))
}

/// Every packet that these ports received is accounted for, and nothing is underway.
#[track_caller]
fn assert_conserved(ports: &[&Port], statistics: &[SwitchStatistics]) {
    let sum = |number: fn(&SwitchStatistics) -> u64| statistics.iter().map(number).sum::<u64>();
    let flowing = statistics.iter().map(|one| one.flowing).collect::<Vec<_>>();
    assert!(statistics.iter().all(SwitchStatistics::is_balanced), "{flowing:?}");
    let received: u64 = ports.iter().map(|port| port.feed.received.load(Ordering::SeqCst)).sum();
    assert_eq!(sum(|one| one.flowing.received), received, "{flowing:?}");
    assert_eq!(sum(|one| one.flowing.passed_on), sum(|one| one.flowing.taken_over), "{flowing:?}");
    let sent = ports.iter().map(|port| port.sent().counters);
    let sent: u64 = sent.map(|counters| counters.packets + counters.dropped_total()).sum();
    assert_eq!(sum(|one| one.flowing.delivered), sent, "{flowing:?}");
    let taken: u64 = ports.iter().map(|port| port.sink.taken()).sum();
    assert_eq!(ports.iter().map(|port| port.sent().counters.packets).sum::<u64>(), taken);
}

fn dropped(statistics: &SwitchStatistics, reason: Reason) -> u64 {
    statistics.drops[reason as usize]
}

#[track_caller]
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_micros(200));
    }
}
