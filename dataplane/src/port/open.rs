//! Opens ports, all of a forwarder together or one more while it runs.
//!
//! A packet that one port received leaves through another, so every network card must reach the buffers of every
//! port, at the same addresses. Hence three phases: open all devices and ask where their IOMMUs let addresses lie;
//! get memory for packets at an address that suits them all and map it for each; start the devices with their share of it,
//! and with rings in memory that only they reach.
//!
//! Ports that are opened together share a region. One that comes later gets a region of its own, which all cards that are
//! there map while they run; and if it is a card, it maps all regions that are there. A region whose last buffer has come home
//! after its ports were closed is taken away from all cards and given back.

use std::collections::BTreeMap;

use hugemem::{Iova, IovaSpace, MemoryRequest, PacketPool, PageChoice, Region};

use super::{NamedSpec, Port, PortControl, PortError, size};
use crate::clock::CycleClock;
use offloads::match_offloads;
use opening::{Opening, Supplies};

mod names;
pub(crate) mod offloads;
mod opening;

pub(crate) use opening::Peer;

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

    /// A request for the rings of a device, or for a port that comes later: too little for a page of 1 GiB, which would be a waste.
    fn rings(&self, bytes: usize) -> MemoryRequest {
        let page = if self.page == PageChoice::Size1G { PageChoice::Auto } else { self.page };
        MemoryRequest { page, ..self.request(bytes) }
    }
}

/// Opens ports that nothing is added to later.
#[derive(Clone, Copy, Debug)]
pub struct Ports;

impl Ports {
    /// Opens the ports that `specs` name, in that order, as [`Opener::open`] does. Each hands out only what the port that
    /// it is taken for joined to can send.
    ///
    /// # Errors
    /// The first thing that fails. What was opened before is closed again.
    pub fn open(specs: &[NamedSpec], memory: &MemoryOptions) -> Result<Vec<Port>, PortError> {
        let mut ports = Opener::new(*memory).open(specs)?;
        match join(&mut ports) {
            Ok(()) => Ok(ports),
            Err(error) => {
                close(ports);
                Err(error)
            }
        }
    }
}

fn join(ports: &mut [Port]) -> Result<(), PortError> {
    for pair in ports.chunks_exact_mut(2) {
        if let [left, right] = pair {
            let notices = match_offloads((&mut *left).into(), (&mut *right).into())?;
            left.notices.extend(notices);
        }
    }
    Ok(())
}

/// The ports that are there while others are opened and closed.
pub(crate) type Present<'a> = [&'a mut dyn PortControl];

/// Memory that was found for ports.
struct Held {
    region: Region,
    /// All cards reach it, not just the one whose rings lie in it.
    shared: bool,
    /// What it counts of the memory granted, in bytes.
    granted: usize,
}

/// Opens ports, and knows what those that are open have.
pub struct Opener {
    options: MemoryOptions,
    space: IovaSpace,
    clock: CycleClock,
    held: Vec<Held>,
    /// What each port has for itself alone, by name.
    claims: BTreeMap<String, Vec<String>>,
}

impl Opener {
    /// With memory as `options` say.
    #[must_use]
    pub fn new(options: MemoryOptions) -> Self {
        Self {
            options,
            space: IovaSpace::unlimited(),
            clock: CycleClock::calibrate(),
            held: Vec::new(),
            claims: BTreeMap::new(),
        }
    }

    /// Opens the ports that `specs` name, in that order, before any other. Ports 0 and 1, 2 and 3, and so on are taken for
    /// joined: a port without a number of queues of its own gets as many as the other has.
    ///
    /// # Errors
    /// The first thing that fails. What was opened before is closed again.
    pub fn open(&mut self, specs: &[NamedSpec]) -> Result<Vec<Port>, PortError> {
        let peers: Vec<_> =
            (0..specs.len()).map(|index| specs.get(index ^ 1).map(|named| Peer::of(&named.spec))).collect();
        let page = self.options.page;
        self.open_beside(specs, &peers, page, &mut [])
    }

    /// Opens one more port, joined to `peer`, beside those that are `present`.
    ///
    /// # Errors
    /// When it cannot be opened, or packets could not go from and to the others.
    pub(crate) fn add(
        &mut self,
        spec: &NamedSpec,
        peer: Option<Peer>,
        present: &mut Present<'_>,
    ) -> Result<Port, PortError> {
        let page = self.options.rings(0).page;
        let mut ports = self.open_beside(std::slice::from_ref(spec), &[peer], page, present)?;
        ports.pop().ok_or_else(|| PortError::Device { port: spec.to_string(), reason: "nothing was opened".into() })
    }

    fn open_beside(
        &mut self,
        specs: &[NamedSpec],
        peers: &[Option<Peer>],
        page: PageChoice,
        present: &mut Present<'_>,
    ) -> Result<Vec<Port>, PortError> {
        let names = names::names(specs, self.claims.keys())?;
        let claimed = self.claim(specs, &names);
        let opened = claimed.and_then(|()| self.start(specs, &names, peers, page, present));
        if opened.is_err() {
            names.iter().for_each(|name| drop(self.claims.remove(name)));
            self.reclaim(present);
        }
        opened
    }

    /// Refuses two ports that would take the same interface or write the same file.
    fn claim(&mut self, specs: &[NamedSpec], names: &[String]) -> Result<(), PortError> {
        for (named, name) in specs.iter().zip(names) {
            self.claims.insert(name.clone(), Vec::new());
            if let Some(what) = names::claim(&named.spec) {
                self.claim_for(name, what)?;
            }
        }
        Ok(())
    }

    fn claim_for(&mut self, name: &str, what: String) -> Result<(), PortError> {
        let other = self.claims.iter().find(|(other, claims)| *other != name && claims.contains(&what));
        if other.is_some() {
            return Err(PortError::Twice { port: name.to_owned(), what });
        }
        self.claims.entry(name.to_owned()).or_default().push(what);
        Ok(())
    }

    fn start(
        &mut self,
        specs: &[NamedSpec],
        names: &[String],
        peers: &[Option<Peer>],
        page: PageChoice,
        present: &mut Present<'_>,
    ) -> Result<Vec<Port>, PortError> {
        let mut openings = Vec::with_capacity(specs.len());
        for ((named, name), peer) in specs.iter().zip(names).zip(peers) {
            openings.push(Opening::open(&named.spec, name.clone(), *peer)?);
        }
        for opening in &openings {
            let Some(card) = opening.card() else { continue };
            // One device under two names. (Opening it a second time fails as well, but says less.)
            let what = format!("device {}", card.identity());
            if self.claims.get(&opening.name).is_none_or(|claims| !claims.contains(&what)) {
                self.claim_for(&opening.name, what)?;
            }
            let ranges = card.iova_ranges()?;
            let inside = |region: &Region| {
                let (first, last) = (region.iova().raw(), region.iova().raw() + (region.len() as u64 - 1));
                ranges.iter().any(|range| range.first <= first && last <= range.last)
            };
            if self.held.iter().any(|held| held.shared && !inside(&held.region)) {
                let reason =
                    "its IOMMU does not let it reach the packets of the ports that are there; start mirach with it";
                return Err(PortError::Device { port: opening.name.clone(), reason: reason.into() });
            }
            self.space.intersect(&ranges);
        }
        let parts: Vec<(&str, usize)> = openings
            .iter()
            .map(|opening| (opening.name.as_str(), opening.memory()))
            .filter(|part| part.1 > 0)
            .collect();
        let allocated = self.allocate(&parts, page)?;
        let (packets, notice) = allocated.map_or((None, None), |(region, notice)| (Some(region), notice));
        if let Some(packets) = &packets {
            self.share(packets, present)?;
        }
        for opening in &mut openings {
            for held in self.held.iter().filter(|held| held.shared) {
                opening.map(&held.region)?;
            }
        }

        let mut ports: Vec<Port> = Vec::with_capacity(openings.len());
        let Self { options, space, clock, held, .. } = self;
        let mut supplies = Supplies { packets: packets.as_ref(), options, space, clock: *clock };
        for opening in openings {
            match opening.start(&mut supplies) {
                Ok((port, rings)) => {
                    held.extend(rings.map(|region| Held { region, shared: false, granted: 0 }));
                    ports.push(port);
                }
                Err(error) => {
                    close(ports);
                    return Err(error);
                }
            }
        }
        if let (Some(notice), Some(first)) = (notice, ports.first_mut()) {
            first.notices.insert(0, notice);
        }
        Ok(ports)
    }

    /// Finds memory for `parts`, named and in bytes. It is given back when it has no pieces at the next
    /// [`Opener::reclaim`].
    fn allocate(
        &mut self,
        parts: &[(&str, usize)],
        page: PageChoice,
    ) -> Result<Option<(Region, Option<String>)>, PortError> {
        let wanted: usize = parts.iter().map(|(_, bytes)| bytes).sum();
        if wanted == 0 {
            return Ok(None);
        }
        let used: usize = self.held.iter().map(|held| held.granted).sum();
        if wanted > self.options.bytes.saturating_sub(used) {
            let present = (used > 0).then(|| format!("those present {}", size(used)));
            let parts = parts.iter().map(|(name, bytes)| format!("`{name}` {}", size(*bytes)));
            let parts: Vec<String> = present.into_iter().chain(parts).collect();
            let needed = used.saturating_add(wanted);
            return Err(PortError::NotEnoughMemory { given: self.options.bytes, needed, parts: parts.join(", ") });
        }
        let allocated = MemoryRequest { page, ..self.options.request(wanted) }.allocate(&mut self.space)?;
        let region = allocated.region;
        self.held.push(Held { region: region.clone(), shared: true, granted: wanted });
        Ok(Some((region, allocated.notice)))
    }

    /// Lets all ports reach a new region.
    fn share(&mut self, region: &Region, present: &mut Present<'_>) -> Result<(), PortError> {
        present.iter_mut().try_for_each(|port| port.map(region))
    }

    /// Pools of `buffers` buffers for packets that are made whole for port `name`; memory that all ports reach.
    ///
    /// # Errors
    /// When the memory granted does not suffice, or a card does not take it.
    pub(crate) fn pools(
        &mut self,
        name: &str,
        count: usize,
        present: &mut Present<'_>,
    ) -> Result<Vec<PacketPool>, PortError> {
        let parts = [(name, opening::pool_memory(MAKING_BUFFERS) * count)];
        let page = self.options.rings(0).page;
        let Some((region, _)) = self.allocate(&parts, page)? else { return Ok(Vec::new()) };
        let made = self
            .share(&region, present)
            .and_then(|()| opening::pools(&region, name, std::iter::repeat_n(MAKING_BUFFERS, count)));
        drop(region);
        if made.is_err() {
            self.reclaim(present);
        }
        made
    }

    /// As [`Opener::pools`], in memory that no device reaches, one region a pool.
    ///
    /// # Errors
    /// When there is no memory left.
    pub(crate) fn private_pools(&self, name: &str, count: usize) -> Result<Vec<PacketPool>, PortError> {
        let failed = |source| PortError::Pool { port: name.to_owned(), source };
        let pool = |_| {
            let region = Region::on_heap(opening::pool_memory(MAKING_BUFFERS), Iova::new(0)).map_err(failed)?;
            region.packets(MAKING_BUFFERS, BUFFER_ROOM).map_err(failed)
        };
        (0..count).map(pool).collect()
    }

    /// Forgets the port `name`, which was closed, and takes its memory back as far as that can be.
    pub(crate) fn release(&mut self, name: &str, present: &mut Present<'_>) {
        self.claims.remove(name);
        self.reclaim(present);
    }

    /// Takes memory away from the cards that no buffer, ring and packet lies in any more, and gives it back.
    pub(crate) fn reclaim(&mut self, present: &mut Present<'_>) {
        let space = &mut self.space;
        self.held.retain(|held| {
            if held.region.pieces() > 0 {
                return true;
            }
            if held.shared {
                for port in present.iter_mut() {
                    if let Err(error) = port.unmap(&held.region) {
                        // The card keeps it until it is closed; its address is not used again.
                        tracing::warn!("memory that no packet lies in any more: {error}");
                        return true;
                    }
                }
            }
            space.release(held.region.iova(), held.region.len() as u64);
            false
        });
    }

    /// Bytes of packet memory in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.held.iter().map(|held| held.granted).sum()
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("options", &self.options).field("claims", &self.claims).finish_non_exhaustive()
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

#[cfg(test)]
mod tests;
