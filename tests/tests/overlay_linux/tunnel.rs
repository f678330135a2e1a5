//! Our end of the tunnel: two TAPs, an engine between them, and queues around those of the TAPs that put frames into the tunnel and take them out.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use dataplane::bell::Bell;
use dataplane::clock::CycleClock;
use dataplane::config::{CoreList, EngineConfig};
use dataplane::engine::plan::QueueId;
use dataplane::engine::{Engine, Lane, Load, Receiver, Running, Sender, Transmitter};
use dataplane::headers::{Headers, parse};
use dataplane::overlay::neighbour::{Purpose, answer, read};
use dataplane::overlay::{
    Addresses, Arrival, Encapsulation, Reason, Template, Termination, Terminations, TunnelKind, decapsulate,
    encapsulate, mtu,
};
use dataplane::port::tap::{Tap, TapControl};
use dataplane::port::{PortQueue, TapSpec};
use dataplane::stats::PortCells;
use drivers::nic::{Counters, MacAddress, RxQueue};
use hugemem::{Batch, Iova, Packet, PacketPool, Region};
use lab::namespace::Namespace;

use crate::scene::Underlay;

const VNI: u32 = 42;
/// Address of our end on the network between hosts.
const MAC: MacAddress = MacAddress([0x02, 0x6d, 0x69, 0, 0, 1]);
const BURST: usize = 32;
const BUFFERS: usize = 512;

/// A running tunnel. Dropping it stops the engine.
pub(crate) struct Tunnel {
    running: Option<Running>,
    shared: Arc<Shared>,
    wire: Arc<PortCells>,
    _taps: [TapControl; 2],
}

/// What both directions share.
#[derive(Default)]
struct Shared {
    /// Frames of ours to the network between hosts, and to the one inside.
    out: Mutex<VecDeque<Vec<u8>>>,
    back: Mutex<VecDeque<Vec<u8>>>,
    unknown: AtomicU64,
}

fn push(queue: &Mutex<VecDeque<Vec<u8>>>, frame: &[u8]) {
    queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(frame.to_vec());
}

fn pool() -> Result<PacketPool> {
    let region = Region::on_heap(BUFFERS * 2304 + 65_536, Iova::new(0)).context("no memory")?;
    Ok(region.packets(BUFFERS, 2048)?)
}

impl Tunnel {
    /// Joins `lan0`, a new interface of `near`, to a tunnel that goes out to `wire0`, a new one of `far`.
    pub(crate) fn open(underlay: Underlay, near: &Namespace, far: &Namespace) -> Result<Self> {
        let lan = near.enter(|| open_tap("lan0"))?;
        let wire = far.enter(|| open_tap("wire0"))?;
        let far_mac = wire.mac().context("the tap has no address")?;
        let [local, remote] = underlay.addresses().map(str::parse::<IpAddr>);
        let (local, remote) = (local?, remote?);
        let addresses = Addresses::new(local, remote).context("mixed addresses")?;
        let mut encapsulation = Encapsulation::new(TunnelKind::Vxlan, VNI, addresses, MAC, far_mac);
        encapsulation.checksum = underlay != Underlay::V4;
        encapsulation.mtu = underlay.mtu();
        let termination = Termination {
            kind: TunnelKind::Vxlan,
            vni: VNI,
            addresses,
            zero_checksum: false,
            arrival: Arrival { network: 1, tunnel: 1 },
        };
        let shared = Arc::new(Shared::default());
        let (lan_queues, lan_control) = lan.start(vec![pool()?]);
        let (wire_queues, wire_control) = wire.start(vec![pool()?]);
        let (lan, wire) = (one(lan_queues)?, one(wire_queues)?);
        let entrance = Entrance {
            rx: lan.rx,
            scratch: Batch::new(BURST),
            pool: pool()?,
            template: encapsulation.template()?,
            shared: Arc::clone(&shared),
        };
        let exit = Exit {
            rx: wire.rx,
            scratch: Batch::new(BURST),
            pool: pool()?,
            terminations: Terminations::new([termination]),
            address: local,
            shared: Arc::clone(&shared),
        };
        let ids = [0, 1].map(|port| QueueId { port, queue: 0 });
        let cells = [(0, "lan"), (1, "wire")].map(|(id, name)| Arc::new(PortCells::new(id, name, 1)));
        let [lan_id, wire_id] = ids;
        let [lan_cells, wire_cells] = &cells;
        let entering = Receiver { id: lan_id, rx: Box::new(entrance), wake: lan.wake };
        let leaving = Receiver { id: wire_id, rx: Box::new(exit), wake: wire.wake };
        let lanes = vec![
            Lane::new(entering, wire_id, 2 * BURST, Arc::clone(lan_cells)),
            Lane::new(leaving, lan_id, 2 * BURST, Arc::clone(wire_cells)),
        ];
        let senders = vec![
            Sender::new(Transmitter { id: lan_id, tx: lan.tx, pool: Some(pool()?), desk: None }, Arc::clone(lan_cells)),
            Sender::new(
                Transmitter { id: wire_id, tx: wire.tx, pool: Some(pool()?), desk: None },
                Arc::clone(wire_cells),
            ),
        ];
        let core = CoreList::available()?.iter().next().context("no core")?;
        let load = Load { lanes, senders, ..Load::default() };
        let (config, clock, bell) = (EngineConfig::default(), CycleClock::calibrate(), Arc::new(Bell::new()?));
        let engine = Engine { number: 0, core, config, load, clock, bell };
        let running = engine.start().map_err(|(error, _)| anyhow!(error))?;
        let [_, wire] = cells;
        Ok(Self { running: Some(running), shared, wire, _taps: [lan_control, wire_control] })
    }

    /// Segments that were cut out of larger packets on the way into the tunnel.
    pub(crate) fn cut(&self) -> u64 {
        self.wire.read().tx.iter().map(|queue| queue.cut).sum()
    }

    /// Datagrams of tunnels that do not end here.
    pub(crate) fn unknown(&self) -> u64 {
        self.shared.unknown.load(Ordering::Relaxed)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            // What it gives back goes with the taps.
            drop(running.stop());
        }
    }
}

fn open_tap(name: &str) -> Result<Tap> {
    Ok(Tap::open(name, &TapSpec { name: name.to_owned(), queues: 1 })?)
}

fn one(queues: Vec<PortQueue>) -> Result<PortQueue> {
    queues.into_iter().next().context("the tap has no queue")
}

/// Puts a short frame of ours into a batch.
fn supply(queue: &Mutex<VecDeque<Vec<u8>>>, pool: &mut PacketPool, batch: &mut Batch) -> usize {
    let mut count = 0;
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    while batch.room() > BURST
        && let Some(frame) = queue.pop_front()
    {
        if let Some(mut packet) = pool.take()
            && packet.write(&frame).is_ok()
            && batch.push(packet).is_ok()
        {
            count += 1;
        }
    }
    count
}

fn nothing_waits(queue: &Mutex<VecDeque<Vec<u8>>>) -> bool {
    queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
}

fn headers_of(packet: &Packet) -> Headers {
    parse(packet.bytes(), packet.len())
}

/// From the network inside into the tunnel.
struct Entrance {
    rx: Box<dyn RxQueue>,
    scratch: Batch,
    pool: PacketPool,
    template: Template,
    shared: Arc<Shared>,
}

impl RxQueue for Entrance {
    fn receive(&mut self, batch: &mut Batch) -> usize {
        let mut count = supply(&self.shared.out, &mut self.pool, batch);
        self.scratch.clear();
        if batch.room() >= BURST {
            self.rx.receive(&mut self.scratch);
        }
        for mut packet in self.scratch.drain_front(BURST) {
            let hash = packet
                .bytes()
                .iter()
                .skip(26)
                .take(12)
                .fold(0_u32, |hash, byte| hash.wrapping_mul(31) ^ u32::from(*byte));
            match encapsulate(&mut packet, &self.template, hash) {
                Ok(()) => count += usize::from(batch.push(packet).is_ok()),
                Err(Reason::TooBig) => {
                    let headers = headers_of(&packet);
                    let room = self.template.room() - usize::from(headers.network_at);
                    if let Some(mut told) = self.pool.take()
                        && mtu::too_big(&packet, &headers, room, &mut told)
                    {
                        push(&self.shared.back, told.bytes());
                    }
                }
                Err(_) => {}
            }
        }
        count
    }

    fn arm(&mut self) -> bool {
        nothing_waits(&self.shared.out) && self.rx.arm()
    }

    fn disarm(&mut self) {
        self.rx.disarm();
    }

    fn gives_tunnels(&self) -> bool {
        true
    }

    fn counters(&self) -> Counters {
        self.rx.counters()
    }
}

/// Out of the tunnel to the network inside.
struct Exit {
    rx: Box<dyn RxQueue>,
    scratch: Batch,
    pool: PacketPool,
    terminations: Terminations,
    /// Ours, on the network between hosts.
    address: IpAddr,
    shared: Arc<Shared>,
}

impl RxQueue for Exit {
    fn receive(&mut self, batch: &mut Batch) -> usize {
        let mut count = supply(&self.shared.back, &mut self.pool, batch);
        self.scratch.clear();
        if batch.room() >= BURST {
            self.rx.receive(&mut self.scratch);
        }
        for mut packet in self.scratch.drain_front(BURST) {
            let headers = headers_of(&packet);
            match decapsulate(&mut packet, &headers, &self.terminations) {
                Ok(Some(_)) => count += usize::from(batch.push(packet).is_ok()),
                Ok(None) => {
                    let asked = read(packet.bytes(), &headers)
                        .is_some_and(|message| message.purpose == Purpose::Question && message.about == self.address);
                    if asked && let Some(frame) = answer(packet.bytes(), &headers, MAC) {
                        push(&self.shared.out, frame.bytes());
                    }
                }
                Err(Reason::UnknownTunnel) => {
                    self.shared.unknown.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {}
            }
        }
        count
    }

    fn arm(&mut self) -> bool {
        nothing_waits(&self.shared.back) && self.rx.arm()
    }

    fn disarm(&mut self) {
        self.rx.disarm();
    }

    fn counters(&self) -> Counters {
        self.rx.counters()
    }
}
