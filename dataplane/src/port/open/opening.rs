//! A port on its way to being open.

use std::sync::Arc;

use drivers::nic::Offloads;
use hugemem::{HEADROOM, IovaRange, PacketPool, Region};

use super::super::nic::NicPort;
use super::super::pci::PciDevice;
use super::super::tap::Tap;
use super::super::{
    Port, PortControl, PortError, PortKind, PortQueue, PortSpec, generator, null, pcap, vhost_user, virtio_user,
};
use super::{ALIGNMENT, BUFFER_ROOM, MAKING_BUFFERS, RECEIVING_BUFFERS};
use crate::clock::CycleClock;
use crate::copy::Copying;

/// What is known of the other side: a port, or the switch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// It passes large segments on as they are.
    takes_large: bool,
    /// Its queue pairs; `None` for one that has as many as this side.
    queues: Option<usize>,
}

impl Peer {
    /// Anything: what does not take large segments gets them cut.
    pub(crate) const SWITCH: Self = Self { takes_large: true, queues: None };

    /// A port of that kind.
    pub(crate) fn new(kind: PortKind, queues: Option<usize>) -> Self {
        let takes_large = matches!(kind, PortKind::Nic | PortKind::Tap | PortKind::VhostUser | PortKind::VirtioUser);
        Self { takes_large, queues }
    }

    /// The port that is opened so.
    pub(crate) fn of(spec: &PortSpec) -> Self {
        Self::new(spec.kind(), own_queues(spec))
    }
}

/// A device that reaches memory by itself and is open, but not started.
pub(crate) trait Card {
    /// The device, however it was named.
    fn identity(&self) -> &str;
    /// Queue pairs that are asked for.
    fn queue_pairs(&self) -> usize;
    /// Bytes of memory for its rings.
    fn ring_memory(&self) -> usize;
    /// Where addresses for it may lie.
    fn iova_ranges(&self) -> Result<Vec<IovaRange>, PortError>;
    /// Lets it reach `region`.
    fn map(&mut self, region: &Region) -> Result<(), PortError>;
    /// Starts it with rings in `rings`, which no other device reaches, and a pool for each queue pair.
    fn start(self: Box<Self>, rings: &Region, pools: Vec<PacketPool>) -> Result<NicPort, PortError>;
}

impl Card for virtio_user::Device {
    fn identity(&self) -> &str {
        self.identity()
    }

    fn queue_pairs(&self) -> usize {
        self.queue_pairs()
    }

    fn ring_memory(&self) -> usize {
        self.ring_memory()
    }

    fn iova_ranges(&self) -> Result<Vec<IovaRange>, PortError> {
        Ok(self.iova_ranges())
    }

    fn map(&mut self, region: &Region) -> Result<(), PortError> {
        self.map(region)
    }

    fn start(self: Box<Self>, rings: &Region, pools: Vec<PacketPool>) -> Result<NicPort, PortError> {
        (*self).start(rings, pools)
    }
}

/// A port on its way to being open.
pub(crate) struct Opening<'a> {
    pub(super) name: String,
    spec: &'a PortSpec,
    /// What was opened already.
    resource: Resource,
    /// Queue pairs.
    queues: usize,
    /// Its share of the packet memory.
    pools: Vec<PacketPool>,
    /// Packet memory that its device has to reach.
    pub(super) reach: Vec<Region>,
    /// Memory for its device's rings.
    pub(super) rings: Option<Region>,
    /// What copies to virtual machines, if a device does.
    pub(super) copying: Option<Arc<Copying>>,
}

enum Resource {
    Card(Box<dyn Card>),
    Tap(Tap),
    Pcap(pcap::Capture),
    Nothing,
}

impl<'a> Opening<'a> {
    /// The first phase: everything that can fail without packet memory.
    pub(crate) fn open(spec: &'a PortSpec, name: String, peer: Option<Peer>) -> Result<Self, PortError> {
        let queues = own_queues(spec).or_else(|| peer.and_then(|peer| peer.queues)).unwrap_or(1);
        let card = |card: Box<dyn Card>| {
            let queues = card.queue_pairs();
            (Resource::Card(card), queues)
        };
        let (resource, queues) = match spec {
            PortSpec::Pci(pci) => card(Box::new(PciDevice::open(&name, pci, takes_large(peer))?)),
            PortSpec::VirtioUser(port) => card(Box::new(virtio_user::Device::open(&name, port, takes_large(peer))?)),
            PortSpec::Tap(tap) => (Resource::Tap(Tap::open(&name, tap)?), queues),
            PortSpec::Pcap(pcap) => (Resource::Pcap(pcap::load(&name, pcap)?), queues),
            PortSpec::Null | PortSpec::Generator(_) | PortSpec::VhostUser(_) => (Resource::Nothing, queues),
        };
        Ok(Self { name, spec, resource, queues, pools: Vec::new(), reach: Vec::new(), rings: None, copying: None })
    }

    /// The device, if it is one.
    pub(super) fn card(&self) -> Option<&dyn Card> {
        match &self.resource {
            Resource::Card(card) => Some(&**card),
            _ => None,
        }
    }

    /// Buffers that its queue pair number `queue` needs, 0 when it has none of its own.
    fn buffers(&self, queue: usize) -> usize {
        match (&self.resource, self.spec) {
            (Resource::Card(_) | Resource::Tap(_), _) => RECEIVING_BUFFERS,
            (Resource::Pcap(capture), _) if queue == 0 && !capture.is_empty() => {
                // A few of the longest frames at least, whatever their length.
                MAKING_BUFFERS.max(16 * capture.longest().min(1 << 16).div_ceil(BUFFER_ROOM))
            }
            // A queue that never receives, and yet has a pool.
            (Resource::Pcap(_), _) => 1,
            (Resource::Nothing, PortSpec::Generator(_)) => MAKING_BUFFERS,
            (Resource::Nothing, _) => 0,
        }
    }

    fn counts(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.queues).map(|queue| self.buffers(queue)).filter(|count| *count > 0)
    }

    /// Bytes of packet memory that it needs.
    pub(super) fn memory(&self) -> usize {
        self.counts().map(pool_memory).sum()
    }

    /// Takes its share of the packet memory.
    pub(super) fn take_pools(&mut self, packets: &Region) -> Result<(), PortError> {
        self.pools = pools(packets, &self.name, self.counts())?;
        Ok(())
    }

    /// The last phase: makes a port of it.
    pub(crate) fn start(self, clock: CycleClock) -> Result<Port, PortError> {
        let Self { name, spec, resource, queues, pools, reach, rings, copying } = self;
        let kind = spec.kind();
        let port = |queues: Vec<PortQueue>, control: Box<dyn PortControl>| Port {
            name: name.clone(),
            kind,
            mac: None,
            queues,
            control,
            notices: Vec::new(),
        };
        Ok(match (resource, spec) {
            (Resource::Card(mut card), _) => {
                reach.iter().try_for_each(|region| card.map(region))?;
                let Some(rings) = rings else {
                    return Err(PortError::Device { port: name, reason: "has no memory for its rings".into() });
                };
                let NicPort { queues, control, mac, notices } = card.start(&rings, pools)?;
                Port { mac: Some(mac), notices, ..port(queues, control) }
            }
            (Resource::Tap(tap), _) => {
                let mac = tap.mac();
                let (queues, control) = tap.start(pools);
                Port { mac, ..port(queues, Box::new(control)) }
            }
            (Resource::Pcap(capture), PortSpec::Pcap(spec)) => {
                let notices = cut_notice(&name, capture.cut());
                let (queues, control) = pcap::open(&name, spec, capture, pools)?;
                Port { notices, ..port(queues, Box::new(control)) }
            }
            (_, PortSpec::Generator(spec)) => {
                let (queues, control) = generator::open(spec, clock, pools);
                port(queues, Box::new(control))
            }
            (_, PortSpec::VhostUser(spec)) => vhost_user::open_with(&name, spec, copying.as_deref())?,
            _ => {
                let queues = (0..queues).map(|_| null::queue()).collect();
                port(queues, Box::new(null::NullControl))
            }
        })
    }
}

/// Bytes that a pool of `count` buffers takes.
pub(super) fn pool_memory(count: usize) -> usize {
    count * (BUFFER_ROOM + HEADROOM) + ALIGNMENT
}

/// Pools with so many buffers each.
pub(super) fn pools(
    region: &Region,
    name: &str,
    counts: impl Iterator<Item = usize>,
) -> Result<Vec<PacketPool>, PortError> {
    counts
        .map(|count| region.packets(count, BUFFER_ROOM))
        .collect::<Result<_, _>>()
        .map_err(|source| PortError::Pool { port: name.to_owned(), source })
}

fn cut_notice(name: &str, cut: usize) -> Vec<String> {
    if cut == 0 {
        return Vec::new();
    }
    vec![format!(
        "port `{name}`: only the beginning of {cut} frames was captured, and they are sent as short as that; capture whole \
         frames with: tcpdump -s 0"
    )]
}

/// Number of queues that a spec asks for by itself.
fn own_queues(spec: &PortSpec) -> Option<usize> {
    match spec {
        PortSpec::Pci(pci) => Some(pci.queues.unwrap_or(1).into()),
        PortSpec::Tap(tap) => Some(tap.queues.into()),
        PortSpec::Generator(generator) => generator.queues.map(usize::from),
        PortSpec::VhostUser(port) => Some(port.queues.into()),
        PortSpec::VirtioUser(port) => Some(port.queues.unwrap_or(1).into()),
        PortSpec::Pcap(_) | PortSpec::Null => None,
    }
}

/// Offloads of reception that make sense when frames go on to `peer`.
fn takes_large(peer: Option<Peer>) -> Offloads {
    if peer.is_some_and(|peer| peer.takes_large) {
        Offloads::all()
    } else {
        Offloads::all() - Offloads::LRO4 - Offloads::LRO6 - Offloads::URO
    }
}
