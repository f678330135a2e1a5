//! Opens all ports of a forwarder together.
//!
//! A packet that one port received leaves through another, so every network card must reach the buffers of every
//! port, at the same addresses. Hence three phases: open all devices and ask where their IOMMUs let addresses lie;
//! get memory for packets at an address that suits them all and map it for each; start the devices with their share of it,
//! and with rings in memory that only they reach.

use std::collections::BTreeSet;

use drivers::nic::Offloads;
use hugemem::{IovaSpace, MemoryRequest, PacketPool, PageChoice, Region};

use super::nic::NicPort;
use super::pci::PciDevice;
use super::tap::Tap;
use super::{NamedSpec, Port, PortControl, PortError, PortKind, PortQueue, PortSpec, generator, null, pcap, size};
use crate::clock::CycleClock;

/// Bytes of a frame that one buffer holds behind its headroom: cards count buffers in whole KiB. Longer frames span several.
pub const BUFFER_ROOM: usize = 2048;
/// Buffers of a queue pair that receives from outside: a receive ring of 256 that is full, as many frames in the other
/// port's transmit ring, two bursts in flight, and as much again, because a frame of 64 KiB takes 35.
const RECEIVING_BUFFERS: usize = 2048;
/// Buffers of a queue pair that makes its frames: what the other port's transmit ring and two bursts hold, twice.
const MAKING_BUFFERS: usize = 1024;
/// Pieces of a region begin at multiples of this at most.
const ALIGNMENT: usize = 4096;

/// Packet memory for the ports of a forwarder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryOptions {
    /// Bytes granted for packets. As much of them is used as the ports need; rings come on top, a few hundred KiB a device.
    pub bytes: usize,
    /// Which pages to take.
    pub page: PageChoice,
    /// NUMA node to take them from; `None` leaves that to the kernel.
    pub node: Option<u32>,
}

impl Default for MemoryOptions {
    /// 64 MiB, of huge pages where there are any.
    fn default() -> Self {
        Self { bytes: 64 << 20, page: PageChoice::Auto, node: None }
    }
}

impl MemoryOptions {
    /// A request for `bytes` of such memory.
    fn request(&self, bytes: usize) -> MemoryRequest {
        MemoryRequest { bytes, page: self.page, node: self.node }
    }

    /// A request for the rings of a device: a few hundred KiB, for which a page of 1 GiB would be a waste.
    fn rings(&self, bytes: usize) -> MemoryRequest {
        let page = if self.page == PageChoice::Size1G { PageChoice::Auto } else { self.page };
        MemoryRequest { page, ..self.request(bytes) }
    }
}

/// Opens ports.
#[derive(Clone, Copy, Debug)]
pub struct Ports;

/// A port after the first phase.
struct Opening<'a> {
    name: String,
    spec: &'a PortSpec,
    /// What was opened already.
    resource: Resource,
    /// Queue pairs.
    queues: usize,
}

enum Resource {
    Pci(Box<PciDevice>),
    Tap(Tap),
    Pcap(pcap::Capture),
    Nothing,
}

impl Opening<'_> {
    /// Buffers that its queue pair number `queue` needs, 0 when it has none of its own.
    fn buffers(&self, queue: usize) -> usize {
        match (&self.resource, self.spec) {
            (Resource::Pci(_) | Resource::Tap(_), _) => RECEIVING_BUFFERS,
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

    /// Bytes of packet memory that it needs.
    fn memory(&self) -> usize {
        (0..self.queues)
            .map(|queue| self.buffers(queue))
            .filter(|count| *count > 0)
            .map(|count| count * (BUFFER_ROOM + hugemem::HEADROOM) + ALIGNMENT)
            .sum()
    }

    fn pools(&self, region: &Region) -> Result<Vec<PacketPool>, PortError> {
        let counts = (0..self.queues).map(|queue| self.buffers(queue)).filter(|count| *count > 0);
        counts
            .map(|count| region.packets(count, BUFFER_ROOM))
            .collect::<Result<_, _>>()
            .map_err(|source| PortError::Pool { port: self.name.clone(), source })
    }

    /// The last phase, with packets in `packets` and rings in memory that is found here.
    fn start(
        self,
        packets: &Region,
        options: &MemoryOptions,
        space: &mut IovaSpace,
        clock: CycleClock,
    ) -> Result<Port, PortError> {
        let pools = self.pools(packets)?;
        let Self { name, spec, resource, queues } = self;
        let port = |kind, queues: Vec<PortQueue>, control: Box<dyn PortControl>| Port {
            name: name.clone(),
            kind,
            mac: None,
            queues,
            control,
            notices: Vec::new(),
        };
        Ok(match (resource, spec) {
            (Resource::Pci(device), _) => {
                // In a region of their own, so that no other device reaches them.
                let rings = options.rings(device.ring_memory()).allocate(space)?.region;
                let NicPort { queues, control, mac, notices } = device.start(&rings, pools)?;
                Port { mac: Some(mac), notices, ..port(PortKind::Nic, queues, control) }
            }
            (Resource::Tap(tap), _) => {
                let mac = tap.mac();
                let (queues, control) = tap.start(pools);
                Port { mac, ..port(PortKind::Tap, queues, Box::new(control)) }
            }
            (Resource::Pcap(capture), PortSpec::Pcap(spec)) => {
                let notices = cut_notice(&name, capture.cut());
                let (queues, control) = pcap::open(&name, spec, capture, pools)?;
                Port { notices, ..port(PortKind::Pcap, queues, Box::new(control)) }
            }
            (_, PortSpec::Generator(spec)) => {
                let (queues, control) = generator::open(spec, clock, pools);
                port(PortKind::Generator, queues, Box::new(control))
            }
            (_, PortSpec::VhostUser(_) | PortSpec::VirtioUser(_)) => {
                return Err(PortError::Device { port: name, reason: "this kind of port cannot be opened yet".into() });
            }
            _ => {
                let queues = (0..queues).map(|_| null::queue()).collect();
                port(PortKind::Null, queues, Box::new(null::NullControl))
            }
        })
    }
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

impl Ports {
    /// Opens the ports that `specs` name, in that order. Ports 0 and 1, 2 and 3, and so on are taken for joined: a port
    /// without a number of queues of its own gets as many as the other has, and each hands out only what the other can send.
    ///
    /// # Errors
    /// The first thing that fails. What was opened before is closed again.
    pub fn open(specs: &[NamedSpec], memory: &MemoryOptions) -> Result<Vec<Port>, PortError> {
        let names = names(specs);
        let specs: Vec<PortSpec> = specs.iter().map(|named| named.spec.clone()).collect();
        let specs = &specs[..];
        twice(specs, &names)?;
        let mut openings = Vec::with_capacity(specs.len());
        for (index, (spec, name)) in specs.iter().zip(names).enumerate() {
            let peer = specs.get(index ^ 1);
            openings.push(open(spec, name, peer)?);
        }
        twice_the_device(&openings)?;

        let mut space = IovaSpace::unlimited();
        for opening in &openings {
            if let Resource::Pci(device) = &opening.resource {
                space.intersect(&device.iova_ranges()?);
            }
        }
        let (packets, notice) = allocate(&openings, memory, &mut space)?;
        for opening in &mut openings {
            if let Resource::Pci(device) = &mut opening.resource {
                device.map(&packets)?;
            }
        }

        let clock = CycleClock::calibrate();
        let mut ports: Vec<Port> = Vec::with_capacity(openings.len());
        for opening in openings {
            match opening.start(&packets, memory, &mut space, clock) {
                Ok(port) => ports.push(port),
                Err(error) => {
                    close(ports);
                    return Err(error);
                }
            }
        }
        if let Err(error) = join(&mut ports) {
            close(ports);
            return Err(error);
        }
        if let (Some(notice), Some(first)) = (notice, ports.first_mut()) {
            first.notices.insert(0, notice);
        }
        Ok(ports)
    }
}

/// Stops ports that were started in vain.
fn close(ports: Vec<Port>) {
    for mut port in ports {
        let queues = std::mem::take(&mut port.queues);
        if let Err(error) = port.control.stop(queues) {
            tracing::warn!("{error}");
        }
    }
}

/// Lets each of two joined ports hand out only what the other can send.
fn join(ports: &mut [Port]) -> Result<(), PortError> {
    for pair in ports.chunks_exact_mut(2) {
        if let [left, right] = pair {
            limit(left, right)?;
            limit(right, left)?;
        }
    }
    Ok(())
}

/// Large segments that are received, and what it takes to send them.
const LARGE: [(Offloads, Offloads); 3] =
    [(Offloads::LRO4, Offloads::TSO4), (Offloads::LRO6, Offloads::TSO6), (Offloads::URO, Offloads::USO)];

fn limit(from: &mut Port, to: &Port) -> Result<(), PortError> {
    let offloads = to.control.offloads();
    from.control.limit_offloads(offloads)?;
    // A device settles its offloads once, before the other one is known.
    let received = from.control.offloads();
    let stuck = LARGE.iter().filter(|(large, needed)| received.contains(*large) && !offloads.contains(*needed));
    let names: Vec<String> = stuck.map(|(large, _)| super::nic::words(*large)).collect();
    if from.kind == PortKind::Nic && to.kind == PortKind::Nic && !names.is_empty() {
        from.notices.push(format!(
            "port `{}` may receive large segments ({}) that port `{}` cannot send and drops; give both devices the same \
             offloads (QEMU: guest_tso4=off,guest_tso6=off,guest_uso4=off,guest_uso6=off on the first)",
            from.name,
            names.join(", "),
            to.name
        ));
    }
    Ok(())
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

/// The first phase: everything that can fail without packet memory.
fn open<'a>(spec: &'a PortSpec, name: String, peer: Option<&PortSpec>) -> Result<Opening<'a>, PortError> {
    let queues = own_queues(spec).or_else(|| peer.and_then(own_queues)).unwrap_or(1);
    let (resource, queues) = match spec {
        PortSpec::Pci(pci) => {
            let device = PciDevice::open(&name, pci, takes_large(peer))?;
            let queues = device.queue_pairs();
            (Resource::Pci(Box::new(device)), queues)
        }
        PortSpec::Tap(tap) => (Resource::Tap(Tap::open(&name, tap)?), queues),
        PortSpec::Pcap(pcap) => (Resource::Pcap(pcap::load(&name, pcap)?), queues),
        PortSpec::Null | PortSpec::Generator(_) | PortSpec::VhostUser(_) | PortSpec::VirtioUser(_) => {
            (Resource::Nothing, queues)
        }
    };
    Ok(Opening { name, spec, resource, queues })
}

/// Offloads of reception that make sense when frames go on to `peer`.
fn takes_large(peer: Option<&PortSpec>) -> Offloads {
    match peer {
        // Both pass large segments on as they are.
        Some(PortSpec::Pci(_) | PortSpec::Tap(_)) => Offloads::all(),
        _ => Offloads::all() - Offloads::LRO4 - Offloads::LRO6 - Offloads::URO,
    }
}

fn allocate(
    openings: &[Opening<'_>],
    options: &MemoryOptions,
    space: &mut IovaSpace,
) -> Result<(Region, Option<String>), PortError> {
    let parts: Vec<(&str, usize)> =
        openings.iter().map(|opening| (opening.name.as_str(), opening.memory())).filter(|part| part.1 > 0).collect();
    let needed: usize = parts.iter().map(|(_, bytes)| bytes).sum();
    if needed > options.bytes {
        let parts: Vec<String> = parts.iter().map(|(name, bytes)| format!("`{name}` {}", size(*bytes))).collect();
        return Err(PortError::NotEnoughMemory { given: options.bytes, needed, parts: parts.join(", ") });
    }
    let allocated = options.request(needed).allocate(space)?;
    Ok((allocated.region, allocated.notice))
}

/// A name for each port that no other has: what the user knows a device by, and a number behind the kind for the others.
fn names(specs: &[NamedSpec]) -> Vec<String> {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for named in specs {
        if let Some(name) = &named.name {
            taken.insert(name.to_string());
            continue;
        }
        match &named.spec {
            PortSpec::Pci(pci) => taken.insert(pci.device.to_string()),
            PortSpec::Tap(tap) => taken.insert(tap.name.clone()),
            _ => false,
        };
    }
    let mut numbered = |kind: PortKind| {
        let free = (0..).map(|number: usize| format!("{kind}{number}")).find(|name| !taken.contains(name));
        let name = free.unwrap_or_default();
        taken.insert(name.clone());
        name
    };
    specs
        .iter()
        .map(|named| match (&named.name, &named.spec) {
            (Some(name), _) => name.to_string(),
            (None, PortSpec::Pci(pci)) => pci.device.to_string(),
            (None, PortSpec::Tap(tap)) => tap.name.clone(),
            (None, PortSpec::Pcap(_)) => numbered(PortKind::Pcap),
            (None, PortSpec::Generator(_)) => numbered(PortKind::Generator),
            (None, PortSpec::Null) => numbered(PortKind::Null),
            (None, PortSpec::VhostUser(_)) => numbered(PortKind::VhostUser),
            (None, PortSpec::VirtioUser(_)) => numbered(PortKind::VirtioUser),
        })
        .collect()
}

/// Refuses two ports that would take the same interface or write the same file.
fn twice(specs: &[PortSpec], names: &[String]) -> Result<(), PortError> {
    let mut used = BTreeSet::new();
    for (spec, name) in specs.iter().zip(names) {
        let what = match spec {
            PortSpec::Pci(pci) => format!("device {}", pci.device),
            PortSpec::Tap(tap) => format!("tap interface {}", tap.name),
            PortSpec::Pcap(pcap) => match &pcap.output {
                Some(output) => format!("output file {}", output.display()),
                None => continue,
            },
            PortSpec::VhostUser(port) => format!("vhost-user socket {}", port.socket.display()),
            PortSpec::VirtioUser(port) => format!("virtio-user socket {}", port.socket.display()),
            PortSpec::Null | PortSpec::Generator(_) => continue,
        };
        if !used.insert(what.clone()) {
            return Err(PortError::Twice { port: name.clone(), what });
        }
    }
    Ok(())
}

/// Refuses one device under two names. (Opening it a second time fails as well, but says less.)
fn twice_the_device(openings: &[Opening<'_>]) -> Result<(), PortError> {
    let mut used = BTreeSet::new();
    for opening in openings {
        if let Resource::Pci(device) = &opening.resource
            && !used.insert(device.identity())
        {
            let what = format!("device {}", device.identity());
            return Err(PortError::Twice { port: opening.name.clone(), what });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
