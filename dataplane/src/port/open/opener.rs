//! What the ports that are open have: names, things and memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hugemem::{Iova, IovaSpace, MemoryRequest, PacketPool, PageChoice, Region};

use super::super::{NamedSpec, Port, PortControl, PortError, size};
use super::opening::{self, Opening, Peer};
use super::{BUFFER_ROOM, MAKING_BUFFERS, MemoryOptions, close, names};
use crate::clock::CycleClock;
use crate::copy::Copying;

/// Whose packets those are that the switch makes and copies. No port has such a name.
pub(crate) const SWITCH: &str = "the switch";

/// A port that is there while others are opened and closed.
pub(crate) struct Present<'a> {
    pub(crate) name: &'a str,
    pub(crate) control: &'a mut dyn PortControl,
}

/// Memory that was found for ports.
struct Held {
    region: Region,
    /// What it counts of the memory granted, in bytes.
    granted: usize,
    /// The ports whose packets lie in it, by name.
    packets_of: BTreeSet<String>,
    /// The ports that were let reach it, by name, beside the one whose rings lie in it.
    reached_by: BTreeSet<String>,
    /// The ports that are being opened with it, by name: it may have no pieces yet.
    promised_to: BTreeSet<String>,
    /// The system does not take it from a card; that is said once, and it is not asked again.
    stuck: bool,
}

/// Opens ports, and knows what those that are open have.
pub struct Opener {
    options: MemoryOptions,
    pub(super) space: IovaSpace,
    clock: CycleClock,
    held: Vec<Held>,
    /// What each port has for itself alone, by name.
    claims: BTreeMap<String, Vec<String>>,
    /// What copies to virtual machines, if a device does.
    copying: Option<Arc<Copying>>,
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
            copying: None,
        }
    }

    /// As it is, with a device that copies to the virtual machines whose ports are opened from now on.
    #[must_use]
    pub fn with_copying(self, copying: Option<Arc<Copying>>) -> Self {
        Self { copying, ..self }
    }

    /// What copies to virtual machines, if a device does.
    pub(crate) fn copying(&self) -> Option<&Arc<Copying>> {
        self.copying.as_ref()
    }

    /// Opens the ports that `specs` name, in that order, before any other. Those whose places are in `pairs` are taken for
    /// joined: a port without a number of queues of its own gets as many as the other has. The rest is taken for switched.
    ///
    /// # Errors
    /// The first thing that fails. What was opened before is closed again.
    pub fn open(&mut self, specs: &[NamedSpec], pairs: &[[usize; 2]]) -> Result<Vec<Port>, PortError> {
        let names = self.claim(specs)?;
        let opened = self.open_all(specs, &names, pairs);
        for name in &names {
            match opened {
                Ok(_) => self.settle(name),
                Err(_) => self.release(name, &mut []),
            }
        }
        opened
    }

    fn open_all(
        &mut self,
        specs: &[NamedSpec],
        names: &[String],
        pairs: &[[usize; 2]],
    ) -> Result<Vec<Port>, PortError> {
        let mut openings = Vec::with_capacity(specs.len());
        for (index, (named, name)) in specs.iter().zip(names).enumerate() {
            let other = pairs.iter().find(|pair| pair.contains(&index)).map(|[one, two]| one ^ two ^ index);
            let peer = other.and_then(|other| specs.get(other)).map_or(Peer::SWITCH, |named| Peer::of(&named.spec));
            openings.push(Opening::open(&named.spec, name.clone(), Some(peer))?);
        }
        let notice = self.supply_with(self.options.page, &mut openings, &[])?;
        let mut ports: Vec<Port> = Vec::with_capacity(openings.len());
        for opening in openings {
            match opening.start(self.clock) {
                Ok(port) => ports.push(port),
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

    /// Finds names for ports, and refuses two that would take the same interface or write the same file. [`Opener::release`] takes
    /// that back.
    ///
    /// # Errors
    /// When a name or a thing is taken. Nothing has changed then.
    pub(crate) fn claim(&mut self, specs: &[NamedSpec]) -> Result<Vec<String>, PortError> {
        let names = names::names(specs, self.claims.keys())?;
        for (named, name) in specs.iter().zip(&names) {
            self.claims.insert(name.clone(), Vec::new());
            let claimed = names::claim(&named.spec).map_or(Ok(()), |what| self.claim_for(name, what));
            if let Err(error) = claimed {
                self.claims.retain(|claimed, _| !names.contains(claimed));
                return Err(error);
            }
        }
        Ok(names)
    }

    fn claim_for(&mut self, name: &str, what: String) -> Result<(), PortError> {
        let other = self.claims.iter().find(|(other, claims)| *other != name && claims.contains(&what));
        if other.is_some() {
            return Err(PortError::Twice { port: name.to_owned(), what });
        }
        self.claims.entry(name.to_owned()).or_default().push(what);
        Ok(())
    }

    /// The second phase of a port that comes later and will get packets of the ports `others`. Gives what the user should know about its memory.
    /// Ends with [`Opener::settle`] or [`Opener::release`].
    ///
    /// # Errors
    /// When there is no memory, or none that a card reaches.
    pub(crate) fn supply(&mut self, opening: &mut Opening<'_>, others: &[String]) -> Result<Option<String>, PortError> {
        let page = self.options.rings(0).page;
        self.supply_with(page, std::slice::from_mut(opening), others)
    }

    fn supply_with(
        &mut self,
        page: PageChoice,
        openings: &mut [Opening<'_>],
        others: &[String],
    ) -> Result<Option<String>, PortError> {
        let of_others = |held: &Held| others.iter().any(|other| held.packets_of.contains(other));
        for opening in openings.iter() {
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
            if self.held.iter().any(|held| of_others(held) && !inside(&held.region)) {
                let reason = "its IOMMU does not let it reach the packets that it would get; start mirach with it";
                return Err(PortError::Device { port: opening.name.clone(), reason: reason.into() });
            }
            self.space.intersect(&ranges);
        }
        let parts: Vec<(&str, usize)> = openings
            .iter()
            .map(|opening| (opening.name.as_str(), opening.memory()))
            .filter(|part| part.1 > 0)
            .collect();
        let mut notice = None;
        let mut packets = None;
        if let Some((held, said)) = self.allocate(&parts, page)? {
            let names: BTreeSet<String> = openings.iter().map(|opening| opening.name.clone()).collect();
            (held.packets_of, held.promised_to) = (names.clone(), names);
            packets = Some(held.region.clone());
            notice = said;
        }
        for opening in openings {
            opening.copying.clone_from(&self.copying);
            if let Some(packets) = &packets {
                opening.take_pools(packets)?;
            }
            if let Some(bytes) = opening.card().map(|card| card.ring_memory()) {
                // In a region of their own, so that no other device reaches them.
                let rings = self.options.rings(bytes).allocate(&mut self.space)?.region;
                self.held.push(Held { promised_to: [opening.name.clone()].into(), ..Held::of(rings.clone()) });
                opening.rings = Some(rings);
                for held in &mut self.held {
                    if held.packets_of.contains(&opening.name) || of_others(held) {
                        held.reached_by.insert(opening.name.clone());
                        opening.reach.push(held.region.clone());
                    }
                }
            }
        }
        Ok(notice)
    }

    /// The port `name` is open.
    pub(crate) fn settle(&mut self, name: &str) {
        for held in &mut self.held {
            held.promised_to.remove(name);
        }
    }

    /// Finds memory for `parts`, named and in bytes. It is given back when it has no pieces at the next
    /// [`Opener::reclaim`].
    fn allocate(
        &mut self,
        parts: &[(&str, usize)],
        page: PageChoice,
    ) -> Result<Option<(&mut Held, Option<String>)>, PortError> {
        let wanted: usize = parts.iter().map(|(_, bytes)| bytes).sum();
        if wanted == 0 {
            return Ok(None);
        }
        let used = self.used();
        if wanted > self.options.bytes.saturating_sub(used) {
            let present = (used > 0).then(|| format!("those present {}", size(used)));
            let parts = parts.iter().map(|(name, bytes)| format!("`{name}` {}", size(*bytes)));
            let parts: Vec<String> = present.into_iter().chain(parts).collect();
            let needed = used.saturating_add(wanted);
            return Err(PortError::NotEnoughMemory { given: self.options.bytes, needed, parts: parts.join(", ") });
        }
        let allocated = MemoryRequest { page, ..self.options.request(wanted) }.allocate(&mut self.space)?;
        self.held.push(Held { granted: wanted, ..Held::of(allocated.region) });
        Ok(self.held.last_mut().map(|held| (held, allocated.notice)))
    }

    /// Lets each of `ports` reach the packets of those of `names` that are not its own.
    ///
    /// # Errors
    /// When a card does not take the memory.
    pub(crate) fn introduce(&mut self, ports: &mut [Present<'_>], names: &[String]) -> Result<(), PortError> {
        for port in ports {
            let is_others = |name: &&String| name.as_str() != port.name;
            for held in &mut self.held {
                let of_others = names.iter().filter(is_others).any(|name| held.packets_of.contains(name));
                if of_others && !held.reached_by.contains(port.name) {
                    port.control.map(&held.region)?;
                    held.reached_by.insert(port.name.to_owned());
                }
            }
        }
        Ok(())
    }

    /// Pools for the switch, with so many buffers each. Their packets are those of [`SWITCH`].
    ///
    /// # Errors
    /// When the memory granted does not suffice.
    pub(crate) fn switch_pools(&mut self, counts: &[usize]) -> Result<Vec<PacketPool>, PortError> {
        let bytes = counts.iter().map(|count| opening::pool_memory(*count)).sum();
        let page = self.options.rings(0).page;
        let Some((held, _)) = self.allocate(&[(SWITCH, bytes)], page)? else { return Ok(Vec::new()) };
        held.packets_of.insert(SWITCH.to_owned());
        opening::pools(&held.region, SWITCH, counts.iter().copied())
    }

    /// Pools of buffers for packets that are made whole for `port`, in memory that it reaches.
    ///
    /// # Errors
    /// When the memory granted does not suffice, or the card does not take it.
    pub(crate) fn pools(&mut self, port: &mut Present<'_>, count: usize) -> Result<Vec<PacketPool>, PortError> {
        let parts = [(port.name, opening::pool_memory(MAKING_BUFFERS) * count)];
        let page = self.options.rings(0).page;
        let Some((held, _)) = self.allocate(&parts, page)? else { return Ok(Vec::new()) };
        // Without pieces it is given back by the next look.
        port.control.map(&held.region)?;
        held.reached_by.insert(port.name.to_owned());
        opening::pools(&held.region, port.name, std::iter::repeat_n(MAKING_BUFFERS, count))
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

    /// Forgets the port `name`, which was closed or never opened, and takes its memory back as far as that can be.
    pub(crate) fn release(&mut self, name: &str, present: &mut [Present<'_>]) {
        self.claims.remove(name);
        self.settle(name);
        self.lose(name);
        self.reclaim(present);
    }

    /// The port `name` is stopped for good: nothing can be taken from it.
    pub(crate) fn lose(&mut self, name: &str) {
        for held in &mut self.held {
            held.reached_by.remove(name);
            held.stuck = false;
        }
    }

    /// Takes memory away from the ports that no buffer, ring and packet lies in any more, and gives it back.
    pub(crate) fn reclaim(&mut self, present: &mut [Present<'_>]) {
        let space = &mut self.space;
        self.held.retain_mut(|held| {
            if held.region.pieces() > 0 || !held.promised_to.is_empty() || held.stuck {
                return true;
            }
            for port in present.iter_mut() {
                if !held.reached_by.contains(port.name) {
                    continue;
                }
                if let Err(error) = port.control.unmap(&held.region) {
                    // The card keeps it until it is closed; its address is not used again before.
                    tracing::warn!("memory that no packet lies in any more: {error}; it is freed with the port");
                    held.stuck = true;
                    return true;
                }
                held.reached_by.remove(port.name);
            }
            // Who is being started anew is asked when it is back.
            if !held.reached_by.is_empty() {
                return true;
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

    /// For conversions of time.
    pub(crate) fn clock(&self) -> CycleClock {
        self.clock
    }
}

impl Held {
    fn of(region: Region) -> Self {
        Self {
            region,
            granted: 0,
            packets_of: BTreeSet::new(),
            reached_by: BTreeSet::new(),
            promised_to: BTreeSet::new(),
            stuck: false,
        }
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("options", &self.options).field("claims", &self.claims).finish_non_exhaustive()
    }
}
