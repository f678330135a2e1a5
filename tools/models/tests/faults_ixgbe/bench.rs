//! A card and its driver on one thread, taking turns, on a clock that only waiting moves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drivers::bus::{Bar, Clock, PciFunction};
use drivers::ixgbe::{Config, Ixgbe, Rx, Tx};
use drivers::nic::{self, Counters, DropReason, Nic, NicError, QueuePair, RxQueue, TxQueue};
use hugemem::Batch;
use models::StepClock;
use models::card::{self, Control, Device, Function, Options, Time};
use models::ixgbe::{self as chip, Chaos, Doorbells, Fault};
use models::wire::QueueWire;

use crate::common::{Memory, look_at};
use crate::flows;

/// The card's name.
pub(crate) const NAME: &str = "model7";
/// Descriptors of a ring. The card holds one buffer less.
const RING: u16 = 64;
const BUFFERS: usize = 160;
/// Longest that anything asked of the driver may take, by its own clock.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

type Card = Arc<Mutex<Device<chip::Ixgbe, QueueWire>>>;
pub(crate) type Pair<F> =
    QueuePair<Rx<<F as PciFunction>::Bar>, Tx<<F as PciFunction>::Bar>, <F as PciFunction>::Interrupt>;

/// What a test asks for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) chip: chip::Config,
    pub(crate) chaos: Option<Chaos>,
    pub(crate) pairs: u16,
}

impl Plan {
    pub(crate) fn new(pairs: u16, doorbells: Doorbells) -> Self {
        Self { chip: chip::Config { doorbells, ..chip::Config::default() }, chaos: None, pairs }
    }

    /// One and two queue pairs, with shared and with trapped doorbells.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let pairs = [1, 2].into_iter();
        pairs.flat_map(|pairs| [Doorbells::Shared, Doorbells::Trapped].map(|doorbells| Self::new(pairs, doorbells)))
    }
}

/// What went in and came out, since the card was made or [`Bench::settle`].
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Count {
    /// Frames put on the wire for the card.
    pub(crate) offered: u64,
    /// Of these, the driver received.
    pub(crate) received: u64,
    /// Received, with other bytes than any frame that was offered.
    pub(crate) strange: u64,
    /// Packets that the driver took to send.
    pub(crate) taken: u64,
    /// Frames that the card sent.
    pub(crate) sent: u64,
}

/// A card with its driver and the memory of both.
pub(crate) struct Bench<F: PciFunction = Function<chip::Ixgbe>> {
    card: Card,
    pub(crate) control: Control<chip::Ixgbe>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) nic: Ixgbe<F>,
    pub(crate) queues: Vec<Pair<F>>,
    pub(crate) memory: Memory,
    pub(crate) count: Count,
    next: u64,
    statistics: Vec<(&'static str, u64)>,
}

fn poll(card: &Card) {
    card.lock().unwrap_or_else(PoisonError::into_inner).poll();
}

impl Bench {
    /// Opens the card; all memory must be back when that fails.
    pub(crate) fn open(plan: &Plan) -> Result<Self, NicError> {
        Bench::open_on(plan, |function| function)
    }
}

impl<F: PciFunction> Bench<F>
where
    F::Bar: Bar,
{
    /// As [`Bench::open`], on another bus.
    pub(crate) fn open_on(plan: &Plan, bus: impl FnOnce(Function<chip::Ixgbe>) -> F) -> Result<Self, NicError> {
        // A millisecond passes for the card whenever the driver waits, however short.
        let options = Options { time: Time::PerPoll(Duration::from_millis(1)), ..Options::named(NAME) };
        let mut chip = chip::Ixgbe::new(plan.chip.clone());
        if plan.chaos.is_some() {
            chip.set_chaos(plan.chaos);
        }
        let (function, device) = card::new(options, chip, QueueWire::default()).unwrap();
        let control = device.control();
        let card = Arc::new(Mutex::new(device));
        let polled = Arc::clone(&card);
        let clock: Arc<dyn Clock> = Arc::new(StepClock::new(move || poll(&polled)));
        let config = Config {
            nic: nic::Config { queue_pairs: plan.pairs, ring_size: RING, interrupts: true, ..nic::Config::default() },
            ..Config::default()
        };
        let (memory, pools) = Memory::new(config.ring_memory(), plan.pairs.into(), BUFFERS);
        let opened =
            timed(&*clock, "open", || Ixgbe::open(bus(function), Arc::clone(&clock), &memory.rings, pools, config));
        match opened {
            Ok(mut nic) => {
                nic.map(&memory.data).unwrap();
                let (queues, count, statistics) = (Vec::new(), Count::default(), Vec::new());
                Ok(Self { card, control, clock, nic, queues, memory, count, next: 0, statistics })
            }
            Err(error) => {
                memory.is_whole();
                memory.end(&format!("opening failed ({error})"));
                assert_eq!((control.mapped(), control.enabled_vectors()), (0, 0));
                Err(error)
            }
        }
    }

    /// Starts the card, and gives its link time to come up.
    pub(crate) fn start(&mut self) -> Result<(), NicError> {
        let (nic, clock) = (&mut self.nic, &*self.clock);
        self.queues = timed(clock, "start", || nic.start())?;
        for pair in &mut self.queues {
            // The card has a ring full of buffers, and the pool all others.
            assert_eq!(pair.rx.pool().available(), BUFFERS - usize::from(RING - 1), "buffers were lost");
        }
        self.pass(40);
        Ok(())
    }

    pub(crate) fn stop(&mut self) -> Result<(), NicError> {
        let queues = self.queues.drain(..).map(|pair| (pair.rx, pair.tx)).collect();
        let (nic, clock) = (&mut self.nic, &*self.clock);
        timed(clock, "stop", || nic.stop(queues))
    }

    pub(crate) fn check(&mut self) -> Result<(), NicError> {
        let (nic, clock) = (&mut self.nic, &*self.clock);
        timed(clock, "check", || nic.check())
    }

    pub(crate) fn fault(&self, fault: Option<Fault>) {
        self.control.with(|chip, _| chip.set_fault(fault));
    }

    /// Lets the card work for so many milliseconds of its time.
    pub(crate) fn pass(&self, milliseconds: usize) {
        (0..milliseconds).for_each(|_| poll(&self.card));
    }

    /// Puts a frame on the wire for the card.
    pub(crate) fn offer(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.count.offered += 1;
        self.card.lock().unwrap().wire_mut().incoming.push_back(flows::flow(number));
        number
    }

    /// What every queue received, by number, in order.
    pub(crate) fn receive(&mut self) -> Vec<Vec<u64>> {
        let mut all = Vec::new();
        let mut batch = Batch::new(64);
        for pair in &mut self.queues {
            let mut numbers = Vec::new();
            // Work is bounded, whatever the card does.
            for _ in 0..8 {
                if pair.rx.receive(&mut batch) == 0 {
                    break;
                }
                for packet in batch.iter() {
                    match flows::number(&look_at(packet)) {
                        Some(number) => numbers.push(number),
                        None => self.count.strange += 1,
                    }
                    self.count.received += 1;
                }
                batch.clear();
            }
            all.push(numbers);
        }
        all
    }

    /// Hands queue pair `pair` up to `packets` to send; those that it does not take are gone. Returns their numbers.
    pub(crate) fn send(&mut self, pair: usize, packets: u64) -> Vec<u64> {
        let mut batch = Batch::new(64);
        let mut numbers = Vec::new();
        while (numbers.len() as u64) < packets && self.memory.sources.available() > 0 {
            let packet = self.memory.packet(&flows::flow(self.next));
            numbers.push(self.next);
            self.next += 1;
            batch.push(packet).unwrap();
        }
        let taken = self.queues[pair].tx.transmit(&mut batch);
        numbers.truncate(taken);
        self.count.taken += taken as u64;
        numbers
    }

    /// What the card sent, by number, in order.
    pub(crate) fn sent(&mut self) -> Vec<u64> {
        let frames: Vec<_> = self.card.lock().unwrap().wire_mut().outgoing.drain(..).collect();
        self.count.sent += frames.len() as u64;
        frames.iter().map(|frame| flows::number(frame).unwrap_or(u64::MAX)).collect()
    }

    /// Frames on the wire that the card has not looked at.
    pub(crate) fn waiting(&self) -> u64 {
        self.card.lock().unwrap().wire_mut().incoming.len() as u64
    }

    /// Packets that the card holds to be sent.
    pub(crate) fn held(&mut self) -> usize {
        self.queues.iter_mut().map(|pair| pair.tx.reclaim()).sum()
    }

    /// Both directions for about a second, without any expectation of what comes through.
    pub(crate) fn use_it(&mut self) -> Result<(), NicError> {
        for _ in 0..4 {
            for pair in 0..self.queues.len() {
                for _ in 0..3 {
                    self.offer();
                }
                self.send(pair, 3);
                if self.queues[pair].rx.arm() {
                    self.queues[pair].rx.disarm();
                }
            }
            self.pass(8);
            self.receive();
            self.sent();
            self.conserves();
        }
        let _link = self.nic.link();
        self.counts_on();
        self.clock.pause(Duration::from_secs(1));
        let checked = self.check();
        self.memory.is_whole();
        checked
    }

    /// No packet is lost, wherever it is now.
    fn conserves(&mut self) {
        let held = self.held();
        assert_eq!(self.memory.sources.available() + held, Memory::SENDABLE, "packets to send were lost");
        let counted: u64 = self.queues.iter().map(|pair| pair.tx.counters().packets).sum();
        assert!(self.queues.is_empty() || counted == self.count.taken, "{counted} counted, {:?}", self.count);
        assert!(self.count.sent <= self.count.taken, "more frames than were sent: {:?}", self.count);
        assert!(self.count.received <= self.count.offered, "more frames than there were: {:?}", self.count);
    }

    /// The card's counters have the same names, and none goes back.
    pub(crate) fn counts_on(&mut self) {
        let now = self.nic.statistics();
        assert!(!now.is_empty());
        for ((name, before), (other, after)) in self.statistics.iter().zip(&now) {
            assert_eq!(name, other);
            assert!(after >= before, "{name} goes back from {before} to {after}");
        }
        self.statistics = now;
    }

    /// One of the card's counters.
    pub(crate) fn statistic(&mut self, name: &str) -> u64 {
        self.counts_on();
        self.statistics.iter().find(|(found, _)| *found == name).unwrap().1
    }

    /// Received frames that were dropped, by reason.
    pub(crate) fn drops(&self) -> Vec<(DropReason, u64)> {
        let counters: Vec<Counters> = self.queues.iter().map(|pair| pair.rx.counters()).collect();
        let sum = |reason| counters.iter().map(|counters| counters.dropped(reason)).sum();
        DropReason::ALL.into_iter().map(|reason| (reason, sum(reason))).filter(|(_, count)| *count > 0).collect()
    }

    /// Clears the wire, and counts anew.
    pub(crate) fn settle(&mut self) {
        let mut card = self.card.lock().unwrap();
        card.wire_mut().incoming.clear();
        card.wire_mut().outgoing.clear();
        drop(card);
        let taken = self.queues.iter().map(|pair| pair.tx.counters().packets).sum();
        self.count = Count { taken, sent: taken, ..Count::default() };
    }

    /// Frames pass byte for byte and in order, both ways and on every queue, and all are accounted for.
    pub(crate) fn works(&mut self, what: &str) {
        self.settle();
        let before = self.count.taken;
        let mut spread = vec![0; self.queues.len()];
        for round in 0..30 {
            let offered: Vec<u64> = (0..8).map(|_| self.offer()).collect();
            let mut given: Vec<u64> = Vec::new();
            for pair in 0..self.queues.len() {
                given.extend(self.send(pair, 4));
            }
            self.pass(4);
            let received = self.receive();
            assert!(received.iter().all(|numbers| numbers.is_sorted()), "{what}, round {round}: {received:?}");
            for (spread, numbers) in spread.iter_mut().zip(&received) {
                *spread += numbers.len();
            }
            let mut received = received.concat();
            received.sort_unstable();
            assert_eq!(received, offered, "{what}, round {round}: received");
            let mut sent = self.sent();
            sent.sort_unstable();
            assert_eq!(sent, given, "{what}, round {round}: sent");
        }
        assert!(spread.iter().all(|count| *count > 10), "{what}: {spread:?}");
        assert_eq!(self.count.taken - before, 120 * self.queues.len() as u64, "{what}");
        self.conserves();
        assert_eq!(self.held(), 0, "{what}");
        self.check().unwrap_or_else(|error| panic!("{what}: {error}"));
    }

    /// The card behaves from now on: stopping and starting mends everything, and in the end nothing is lost.
    pub(crate) fn recovers(mut self, what: &str) {
        self.control.with(|chip, _| chip.set_chaos(None));
        self.stop().unwrap_or_else(|error| panic!("{what}: the card, which behaves, cannot be stopped: {error}"));
        assert_eq!(self.memory.sources.available(), Memory::SENDABLE, "{what}: packets stay with a card that stopped");
        self.settle();
        self.start().unwrap_or_else(|error| panic!("{what}: the card, which behaves, cannot be started: {error}"));
        self.works(what);
        self.stop().unwrap_or_else(|error| panic!("{what}: {error}"));
        self.memory.is_whole();
        self.end();
    }

    /// Drops everything and checks that all memory, maps and vectors are back.
    pub(crate) fn end(self) {
        let Self { card, control, clock, nic, queues, memory, .. } = self;
        drop(queues);
        timed(&*clock, "drop", || drop(nic));
        assert_eq!((control.mapped(), control.enabled_vectors()), (0, 0));
        drop((card, clock, control));
        memory.end("in the end");
    }
}

/// Does something that the driver has to be done with in time.
fn timed<T>(clock: &dyn Clock, what: &str, work: impl FnOnce() -> T) -> T {
    let start = clock.now();
    let result = work();
    let took = clock.now() - start;
    assert!(took <= LIMIT, "{what} took {took:?}");
    result
}
