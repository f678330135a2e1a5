//! A card and its driver on one thread, taking turns, on a clock that only waiting moves.
#![allow(dead_code, reason = "each suite uses a part")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use drivers::bus::Clock;
use drivers::nic::{self, Nic, NicError, QueuePair, RxQueue, TxQueue};
use drivers::virtio::{self, RingChoice, VirtioNet};
use hugemem::{Batch, Checksum, DmaArray, Iova, Packet, PacketPool};
use models::virtio_net::{self, Config, Control, Device, Features, Frame, Function, QueueWire};
use models::{StepClock, watched_region};

/// Room of each buffer.
pub(crate) const ROOM: usize = 2048;
const CANARY: u64 = 0xca9a_55ca_9a55_0000;

pub(crate) type Pair =
    QueuePair<virtio::Rx<virtio_net::Window>, virtio::Tx<virtio_net::Window>, models::EventInterrupt>;
pub(crate) type Card = Arc<Mutex<Device<QueueWire>>>;

/// Ends the process, saying where, when a test does not end in time: a driver that hangs cannot be stopped otherwise.
pub(crate) struct Watchdog {
    /// What is being done; `None` at the end.
    step: Arc<Mutex<(Instant, Option<String>)>>,
}

impl Watchdog {
    /// Watches a test whose first step is `what`.
    pub(crate) fn new(what: String) -> Self {
        let step = Arc::new(Mutex::new((Instant::now(), Some(what))));
        let seen = Arc::clone(&step);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(100));
                let (since, what) = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let Some(what) = what else { return };
                if since.elapsed() > Duration::from_secs(40) {
                    eprintln!("\n{what}: hangs");
                    std::process::exit(1);
                }
            }
        });
        Self { step }
    }

    /// The next step begins, with time of its own.
    pub(crate) fn next(&self, what: String) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), Some(what));
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.step.lock().unwrap_or_else(PoisonError::into_inner).1 = None;
    }
}

/// A card with its driver and the memory of both.
pub(crate) struct Bench {
    pub(crate) card: Card,
    pub(crate) control: Control,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) nic: VirtioNet<Function>,
    pub(crate) queues: Vec<Pair>,
    pub(crate) sources: PacketPool,
    /// Words between what the device is lent, and packets that it never is.
    canaries: Vec<DmaArray<AtomicU64>>,
    kept: Vec<Packet>,
    watches: Vec<(&'static str, Weak<()>)>,
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
        let (rings, rings_watch) = watched_region(plan.driver.ring_memory() + (8 << 10), Iova::new(0x20_0000));
        let (data, data_watch) =
            watched_region((pairs * plan.buffers + 300) * (ROOM + 256) + (64 << 10), Iova::new(0x4000_0000));
        let mut canaries = vec![rings.array::<AtomicU64>(64, 64).unwrap(), data.array::<AtomicU64>(64, 64).unwrap()];
        let pools: Vec<PacketPool> = (0..pairs)
            .map(|_| {
                let pool = data.packets(plan.buffers, ROOM).unwrap();
                canaries.push(data.array::<AtomicU64>(8, 64).unwrap());
                pool
            })
            .collect();
        let mut sources = data.packets(256, ROOM).unwrap();
        for word in canaries.iter().flat_map(|words| words.iter()) {
            word.store(CANARY, Ordering::Relaxed);
        }
        let kept: Vec<Packet> = (0..8)
            .map(|_| {
                let mut packet = sources.take().unwrap();
                packet.write(&[0x5a; 1500]).unwrap();
                packet
            })
            .collect();
        let watches = vec![("rings", rings_watch), ("buffers", data_watch)];
        match VirtioNet::open(function, Arc::clone(&clock), &rings, pools, plan.driver.clone()) {
            Ok(mut nic) => {
                nic.map(&data).unwrap();
                Ok(Self { card, control, clock, nic, queues: Vec::new(), sources, canaries, kept, watches })
            }
            Err(error) => {
                drop((rings, data, canaries, kept, sources));
                for (name, watch) in watches {
                    assert!(watch.upgrade().is_none(), "opening failed ({error}) and kept memory of the {name}");
                }
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
            frames.extend(batch.iter().map(look_at));
            batch.clear();
        }
        frames
    }

    /// A packet with these bytes, spread over several buffers when there are many.
    pub(crate) fn packet(&mut self, bytes: &[u8]) -> Packet {
        let mut chunks = bytes.chunks(ROOM);
        let mut packet = self.sources.take().unwrap();
        packet.write(chunks.next().unwrap_or(&[])).unwrap();
        for chunk in chunks {
            let mut tail = self.sources.take().unwrap();
            tail.write(chunk).unwrap();
            packet.append(tail).unwrap();
        }
        packet
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

    pub(crate) fn canaries_are_whole(&self) {
        for word in self.canaries.iter().flat_map(|words| words.iter()) {
            assert_eq!(word.load(Ordering::Relaxed), CANARY, "memory beside what was lent was written to");
        }
        for packet in &self.kept {
            assert!(packet.bytes().iter().all(|byte| *byte == 0x5a), "a packet that was never lent was written to");
        }
    }

    /// The card saw no broken rule and no stray access.
    pub(crate) fn was_honest(&self) {
        assert_eq!(self.control.violations(), Vec::<String>::new());
        assert_eq!(self.control.faults(), vec![]);
    }

    /// Drops everything and checks that all memory, maps and vectors are back.
    pub(crate) fn end(self) {
        let Self { card, control, clock, nic, queues, sources, canaries, kept, watches } = self;
        drop(queues);
        drop(nic);
        assert_eq!((control.mapped_regions(), control.enabled_vectors()), (0, 0));
        drop((card, clock, sources, canaries, kept));
        for (name, watch) in watches {
            assert!(watch.upgrade().is_none(), "memory of the {name} is still held: a buffer was lost");
        }
    }
}

/// What a received packet holds, checked for what no device may bring about.
pub(crate) fn look_at(packet: &Packet) -> Frame {
    let mut bytes = vec![0; packet.len()];
    assert_eq!(packet.copy_to(0, &mut bytes), bytes.len());
    assert!(
        packet.segments().all(|segment| segment.len() <= ROOM + hugemem::HEADROOM),
        "a segment longer than its buffer"
    );
    if let Checksum::Partial { start, offset } = packet.metadata().checksum {
        assert!(usize::from(start) + usize::from(offset) + 2 <= packet.len(), "a checksum beyond the packet");
    }
    if let Some(segmentation) = packet.metadata().segmentation {
        assert_ne!(segmentation.size, 0, "segments of no bytes");
    }
    Frame::plain(bytes)
}

/// Frame `number` of a stream: its length and bytes follow from the number.
pub(crate) fn frame(number: usize, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| u8::try_from((at * 7 + number * 13) % 256).unwrap()).collect();
    bytes[..6].copy_from_slice(&[0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    bytes
}
