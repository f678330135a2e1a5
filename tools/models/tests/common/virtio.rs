//! A virtio-net card and its driver on one thread, taking turns, on a clock that only waiting moves.

use std::sync::{Arc, Mutex, PoisonError};

use drivers::bus::Clock;
use drivers::nic::{self, Nic, NicError, QueuePair, RxQueue, TxQueue};
use drivers::virtio::{self, Pci, PciDoorbell, RingChoice, VirtioNet};
use hugemem::{Batch, Packet};
use models::StepClock;
use models::virtio_net::{self, Config, Control, Device, Features, Frame, Function, QueueWire};

use super::{Memory, look_at};

pub(crate) type Pair = QueuePair<
    virtio::Rx<PciDoorbell<virtio_net::Window>>,
    virtio::Tx<PciDoorbell<virtio_net::Window>>,
    models::EventInterrupt,
>;
pub(crate) type Card = Arc<Mutex<Device<QueueWire>>>;

/// A card with its driver and the memory of both.
pub(crate) struct Bench {
    pub(crate) card: Card,
    pub(crate) control: Control,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) nic: VirtioNet<Pci<Function>>,
    pub(crate) queues: Vec<Pair>,
    pub(crate) memory: Memory,
}

/// What a test asks for.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) card: Config,
    pub(crate) driver: virtio::Config,
    /// Buffers of each receive pool.
    pub(crate) buffers: usize,
}

impl Plan {
    pub(crate) fn new(packed: bool) -> Self {
        let features = if packed { Config::USUAL | Features::RING_PACKED } else { Config::USUAL };
        let ring = if packed { RingChoice::Packed } else { RingChoice::Split };
        Self {
            card: Config { features, ..Config::default() },
            driver: virtio::Config {
                ring,
                nic: nic::Config { ring_size: 32, interrupts: true, ..nic::Config::default() },
            },
            buffers: 96,
        }
    }
}

pub(crate) fn poll(card: &Card) -> virtio_net::Work {
    card.lock().unwrap_or_else(PoisonError::into_inner).poll()
}

impl Bench {
    /// Opens the card; all memory must be back when that fails.
    pub(crate) fn open(plan: &Plan) -> Result<Self, NicError> {
        let (function, device) = virtio_net::new(plan.card.clone(), QueueWire::default());
        let control = device.control();
        let card = Arc::new(Mutex::new(device));
        let polled = Arc::clone(&card);
        let clock: Arc<dyn Clock> = Arc::new(StepClock::new(move || {
            poll(&polled);
        }));
        let pairs = usize::from(plan.driver.nic.queue_pairs);
        let (memory, pools) = Memory::new(plan.driver.ring_memory(), pairs, plan.buffers);
        match VirtioNet::open(function, Arc::clone(&clock), &memory.rings, pools, plan.driver.clone()) {
            Ok(mut nic) => {
                nic.map(&memory.data).unwrap();
                Ok(Self { card, control, clock, nic, queues: Vec::new(), memory })
            }
            Err(error) => {
                memory.end(&format!("opening failed ({error})"));
                assert_eq!((control.mapped_regions(), control.enabled_vectors()), (0, 0));
                Err(error)
            }
        }
    }

    pub(crate) fn start(&mut self) -> Result<(), NicError> {
        self.queues = self.nic.start()?;
        Ok(())
    }

    pub(crate) fn stop(&mut self) -> Result<(), NicError> {
        let queues = self.queues.drain(..).map(|pair| (pair.rx, pair.tx)).collect();
        self.nic.stop(queues)
    }

    pub(crate) fn poll(&self) -> virtio_net::Work {
        poll(&self.card)
    }

    pub(crate) fn incoming(&self, frame: Frame) {
        self.card.lock().unwrap().wire_mut().incoming.push_back(frame);
    }

    pub(crate) fn outgoing(&self) -> Vec<Frame> {
        self.card.lock().unwrap().wire_mut().outgoing.drain(..).collect()
    }

    pub(crate) fn clear_wire(&self) {
        let mut card = self.card.lock().unwrap();
        card.wire_mut().incoming.clear();
        card.wire_mut().outgoing.clear();
    }

    /// Everything that queue pair `pair` has received, after letting the card work.
    pub(crate) fn receive(&mut self, pair: usize) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut batch = Batch::new(64);
        for _ in 0..8 {
            poll(&self.card);
            if self.queues[pair].rx.receive(&mut batch) == 0 {
                break;
            }
            frames.extend(batch.iter().map(look_at).map(Frame::plain));
            batch.clear();
        }
        frames
    }

    /// A packet with these bytes, spread over several buffers when there are many.
    pub(crate) fn packet(&mut self, bytes: &[u8]) -> Packet {
        self.memory.packet(bytes)
    }

    /// Sends packets on queue pair `pair`, letting the card work; returns how many the driver took.
    pub(crate) fn send(&mut self, pair: usize, packets: Vec<Packet>) -> usize {
        let mut batch = Batch::new(64);
        let mut taken = 0;
        for packet in packets {
            batch.push(packet).unwrap();
            taken += self.queues[pair].tx.transmit(&mut batch);
            batch.clear();
        }
        poll(&self.card);
        self.queues[pair].tx.reclaim();
        taken
    }

    /// The card saw no broken rule and no stray access.
    pub(crate) fn was_honest(&self) {
        assert_eq!(self.control.violations(), Vec::<String>::new());
        assert_eq!(self.control.faults(), vec![]);
    }

    /// Drops everything and checks that all memory, maps and vectors are back.
    pub(crate) fn end(self) {
        let Self { card, control, clock, nic, queues, memory } = self;
        drop(queues);
        drop(nic);
        assert_eq!((control.mapped_regions(), control.enabled_vectors()), (0, 0));
        drop((card, clock));
        memory.end("in the end");
    }
}
