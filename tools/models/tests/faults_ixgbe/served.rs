//! A card on a vfio-user socket, whose server dies or falls silent under traffic.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use drivers::ixgbe::{Config, Ixgbe};
use drivers::nic::{self, Nic, NicError, RxQueue, TxQueue};
use hugemem::Batch;
use models::WallClock;
use models::card::{self, Control, Options, Served};
use models::ixgbe as chip;
use models::wire::Loopback;
use vfio::user::Function;
use vfio::user::server::Server;

use crate::bench::{NAME, Pair};
use crate::common::{Memory, look_at};
use crate::expected::Kind;
use crate::flows;

/// How long the server may take for an answer.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Far more than a loaded machine needs for anything here.
const AGES: Duration = Duration::from_secs(20);
const PAIRS: u16 = 2;

/// How the server reaches memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dma {
    /// It maps files.
    Shared,
    /// It asks for each piece.
    Message,
}

/// What becomes of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Death {
    /// It hangs up.
    Ends,
    /// It stops to answer, and goes on after a while.
    FallsSilent,
}

/// A driver and its card, on a socket whose wire is a loop.
struct Bench {
    served: Option<Served<chip::Ixgbe>>,
    nic: Ixgbe<Function>,
    queues: Vec<Pair<Function>>,
    memory: Memory,
}

impl Bench {
    fn new(dma: Dma, folder: &std::path::Path) -> Self {
        let path = folder.join("card");
        let server = Server::bind(&path).unwrap();
        let chip = chip::Ixgbe::new(chip::Config::default());
        let served = card::serve(server, Options::named(NAME), chip, Loopback::<Vec<u8>>::default()).unwrap();
        let options =
            vfio::user::Options { name: Some(NAME.to_owned()), timeout: TIMEOUT, message_dma: dma == Dma::Message };
        let function = Function::connect(&path, options).unwrap();
        let nic = nic::Config { queue_pairs: PAIRS, ring_size: 64, interrupts: true, ..nic::Config::default() };
        let config = Config { nic, ..Config::default() };
        let make = if dma == Dma::Shared { Memory::from_files } else { Memory::new };
        let (memory, pools) = make(config.ring_memory(), PAIRS.into(), 160);
        let mut nic = Ixgbe::open(function, Arc::new(WallClock::default()), &memory.rings, pools, config).unwrap();
        nic.map(&memory.data).unwrap();
        let queues = nic.start().unwrap();
        Self { served: Some(served), nic, queues, memory }
    }

    /// Sends and receives for a while; returns how many frames came back.
    fn traffic(&mut self, rounds: u64) -> usize {
        let (mut batch, mut received) = (Batch::new(64), 0);
        for number in 0..rounds {
            for pair in &mut self.queues {
                if self.memory.sources.available() > 0 {
                    let packet = self.memory.packet(&flows::flow(number));
                    let mut one = Batch::new(1);
                    one.push(packet).unwrap();
                    pair.tx.transmit(&mut one);
                }
                pair.tx.reclaim();
                received += pair.rx.receive(&mut batch);
                assert!(batch.iter().all(|packet| flows::number(&look_at(packet)).is_some()));
                batch.clear();
                if pair.rx.arm() {
                    pair.rx.disarm();
                }
            }
            std::thread::yield_now();
        }
        received
    }
}

/// Holds a card still, so that its server, which needs it, answers nobody.
struct Silence {
    over: Option<Sender<()>>,
    holder: Option<JoinHandle<()>>,
}

impl Silence {
    fn of(control: Control<chip::Ixgbe>) -> Self {
        let (over, waits) = channel::<()>();
        let (begun, begins) = channel();
        let holder = std::thread::spawn(move || {
            control.with(|_, _| {
                begun.send(()).unwrap();
                // Ends when the other end is dropped.
                let _over = waits.recv();
            });
        });
        begins.recv().unwrap();
        Self { over: Some(over), holder: Some(holder) }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.over = None;
        let _panicked = self.holder.take().map(JoinHandle::join);
    }
}

/// Something that the driver has to be done with, and to fail at, within a few deadlines of the bus.
fn fails<T>(what: &str, work: impl FnOnce() -> Result<T, NicError>) {
    let start = Instant::now();
    let Err(error) = work() else { panic!("{what}: goes on without a server") };
    assert!(start.elapsed() < AGES, "{what} took {:?}", start.elapsed());
    assert_eq!(Kind::of(&error, what), Kind::Gone, "{what}: {error}");
}

/// The server dies in one way, under traffic.
pub(crate) fn the_server_dies(death: Death, dma: Dma) {
    let what = format!("{death:?}, {dma:?}");
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dma, folder.path());
    let start = Instant::now();
    let mut received = 0;
    while received < 50 {
        received += bench.traffic(20);
        bench.nic.check().unwrap_or_else(|error| panic!("{what}: before: {error}"));
        assert!(start.elapsed() < AGES, "{what}: no frame comes back");
    }
    let served = bench.served.take().unwrap();
    if death == Death::Ends {
        served.stop().unwrap();
        return after(bench, death, dma, &what);
    }
    // Ends before the server does, which waits for it.
    let silence = Silence::of(served.control());
    after(bench, death, dma, &what);
    drop(silence);
    served.stop().unwrap();
}

/// What has to hold without a server.
fn after(mut bench: Bench, death: Death, dma: Dma, what: &str) {
    bench.traffic(40);
    let Bench { mut nic, mut queues, mut memory, .. } = bench;
    fails(&format!("{what}: check"), || nic.check());
    assert!(!nic.link().up, "{what}");
    let before = nic.statistics();
    fails(&format!("{what}: stop"), || nic.stop(queues.drain(..).map(|pair| (pair.rx, pair.tx)).collect()));
    assert_eq!(nic.statistics(), before, "{what}: what a server that is gone answers is no count");
    fails(&format!("{what}: start"), || nic.start());
    memory.is_whole();
    // A silent server may still write to files that it has mapped: what it was lent stays away.
    let back = death == Death::Ends || dma == Dma::Message;
    assert_eq!(memory.sources.available() == Memory::SENDABLE, back, "{what}");
    drop(nic);
    memory.end(what);
}
