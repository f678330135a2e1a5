//! What a peer says about rings, and when they run.
//!
//! A ring is wanted from its kick eventfd on, and until `GET_VRING_BASE`. It runs when all that it needs is there: size, addresses, memory
//! and, behind an IOMMU, translations. When its memory goes away it is suspended, and goes on where it was when the memory comes
//! back: VMMs exchange regions piece by piece.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use drivers::virtio::Features;
use vhost::vhost_user::message::{BackendReq, FrontendReq, VhostUserVringAddrFlags};

use super::Breach;
use super::device::count;
use super::features::{LOG_ALL, PROTOCOL_FEATURES, has_version_1, is_packed};
use super::memory::{MISS, iotlb_message};
use super::socket;
use super::state::Session;
use super::wire::{Message, Reply, encode_request};
use crate::guest::Access;
use crate::port::vhost_user::notify::Call;
use crate::port::vhost_user::queue::{RingConfig, RingError, RingLog, STOP_LIMIT, Vring};
use crate::port::vhost_user::ring::{Addresses, Base, Format, RingFault};

/// Most descriptors of a ring.
const LARGEST_RING: u32 = 1 << 15;
/// In the number of the kick, call and error requests: there is no descriptor.
const NO_FILE: u64 = 1 << 8;
const QUEUE_MASK: u64 = 0xff;

/// What a peer has said about one ring.
#[derive(Debug, Default)]
pub(super) struct RingState {
    /// Descriptors; 0 before it was said.
    size: u16,
    addresses: Option<Addresses>,
    /// Where changes of the used side are logged, when they are.
    log: Option<u64>,
    base: Base,
    /// From the kick eventfd on.
    wanted: bool,
    /// As the peer said.
    enabled: bool,
    /// It runs. Nobody but this session starts and stops it, and asking the queue would disturb its engine.
    running: bool,
    /// It lets frames through when it runs, likewise.
    open: bool,
    call: Option<OwnedFd>,
    /// To tell the peer that its driver broke the ring.
    error: Option<Call>,
    /// The fault that was told of.
    told: Option<RingFault>,
}

impl RingState {
    /// It runs and lets frames through.
    pub(super) fn is_active(&self) -> bool {
        self.running && self.open
    }

    /// Forgets what the peer said, and nothing about the queue.
    pub(super) fn forget(&mut self) {
        *self = Self { running: self.running, open: self.open, ..Self::default() };
    }
}

impl Session<'_> {
    /// Indices of the rings that run.
    pub(super) fn running(&self) -> impl Iterator<Item = usize> {
        self.rings.iter().enumerate().filter(|(_, ring)| ring.running).map(|(index, _)| index)
    }

    fn is_running(&self, queue: usize) -> bool {
        self.rings.get(queue).is_some_and(|ring| ring.running)
    }

    /// The handle of a ring that runs.
    fn runner(&self, queue: usize) -> Option<&Vring> {
        if self.is_running(queue) { self.device.vring(queue) } else { None }
    }

    /// The queue that a request names.
    fn queue(&self, queue: u32) -> Result<usize, Breach> {
        let missing = Breach::NoSuchQueue { queue, pairs: self.device.pairs() };
        usize::try_from(queue).ok().filter(|index| *index < self.rings.len()).ok_or(missing)
    }

    /// The queue that a request names, which must not run.
    fn resting(&self, queue: u32, request: FrontendReq) -> Result<usize, Breach> {
        let queue = self.queue(queue)?;
        if self.is_running(queue) { Err(Breach::Frozen { queue, request }) } else { Ok(queue) }
    }

    fn ring(&mut self, queue: usize) -> Result<&mut RingState, Breach> {
        let pairs = self.device.pairs();
        let missing = Breach::NoSuchQueue { queue: u32::try_from(queue).unwrap_or(u32::MAX), pairs };
        self.rings.get_mut(queue).ok_or(missing)
    }

    /// A format that the ring has by the features of now.
    pub(super) fn format(&self) -> Format {
        if is_packed(self.features) { Format::Packed } else { Format::Split }
    }

    /// The requests that set something of a ring.
    pub(super) fn set_ring(&mut self, message: Message) -> Result<(), Breach> {
        use FrontendReq as R;
        let request = message.header.request;
        let mut fields = message.fields();
        match request {
            R::SET_VRING_NUM => {
                let (queue, size) = (fields.u32(), fields.u32());
                self.set_size(self.resting(queue, request)?, size)
            }
            R::SET_VRING_BASE => {
                let (queue, base) = (fields.u32(), fields.u32());
                let queue = self.resting(queue, request)?;
                if self.format() == Format::Split && base > u16::MAX.into() {
                    return Err(Breach::RingBase { queue, base });
                }
                self.ring(queue)?.base = Base(base);
                Ok(())
            }
            R::SET_VRING_ADDR => {
                let (queue, flags) = (self.queue(fields.u32())?, fields.u32());
                let (descriptors, device, driver, log) = (fields.u64(), fields.u64(), fields.u64(), fields.u64());
                let log = (flags & VhostUserVringAddrFlags::VHOST_VRING_F_LOG.bits() != 0).then_some(log);
                if VhostUserVringAddrFlags::from_bits(flags).is_none() {
                    return Err(Breach::RingAddress { queue, what: "flags", value: flags.into() });
                }
                self.set_addresses(queue, Addresses { descriptors, driver, device }, log)
            }
            R::SET_VRING_ENABLE => {
                let (queue, on) = (fields.u32(), fields.u32());
                let queue = self.queue(queue)?;
                if on > 1 {
                    return Err(Breach::Value { request, what: "a state of", value: on.into() });
                }
                self.ring(queue)?.enabled = on == 1;
                self.enable(queue)
            }
            _ => self.set_event(message),
        }
    }

    fn set_size(&mut self, queue: usize, size: u32) -> Result<(), Breach> {
        let format = self.format();
        let fits = match format {
            Format::Split => size.is_power_of_two(),
            Format::Packed => size > 0,
        };
        let size = u16::try_from(size).ok().filter(|_| fits && size <= LARGEST_RING).ok_or(Breach::RingSize {
            queue,
            format: if format == Format::Split { "split" } else { "packed" },
            size,
        })?;
        self.ring(queue)?.size = size;
        Ok(())
    }

    /// While a ring runs only the log of its used side may change, which migration asks for in this way.
    fn set_addresses(&mut self, queue: usize, addresses: Addresses, log: Option<u64>) -> Result<(), Breach> {
        let alignments = match self.format() {
            // 2.7: descriptor table, available ring, used ring.
            Format::Split => [16, 2, 4],
            // 2.8: descriptor ring, event suppression areas.
            Format::Packed => [16, 4, 4],
        };
        let Addresses { descriptors, driver, device } = addresses;
        let areas = [("descriptor address", descriptors), ("driver address", driver), ("device address", device)];
        for ((what, value), alignment) in areas.into_iter().zip(alignments) {
            if value % alignment != 0 {
                return Err(Breach::RingAddress { queue, what, value });
            }
        }
        let running = self.is_running(queue);
        let ring = self.ring(queue)?;
        if running && ring.addresses != Some(addresses) {
            return Err(Breach::Frozen { queue, request: FrontendReq::SET_VRING_ADDR });
        }
        ring.addresses = Some(addresses);
        ring.log = log;
        self.settle_log(queue);
        Ok(())
    }

    /// Kick, call and error eventfds.
    fn set_event(&mut self, mut message: Message) -> Result<(), Breach> {
        use FrontendReq as R;
        let request = message.header.request;
        let value = message.fields().u64();
        if value & !(QUEUE_MASK | NO_FILE) != 0 {
            return Err(Breach::Value { request, what: "a queue of", value });
        }
        let queue = self.queue(u32::try_from(value & QUEUE_MASK).unwrap_or(u32::MAX))?;
        let file = if value & NO_FILE == 0 { Some(message.file()?) } else { None };
        let unfit = |error: &dyn std::fmt::Display| Breach::Event { queue, request, reason: error.to_string() };
        match request {
            R::SET_VRING_KICK => {
                let is_polled = file.is_none();
                if let Some(mut kick) = self.device.kick(queue) {
                    kick.set(file).map_err(|error| unfit(&error))?;
                }
                if let Some(vring) = self.device.vring(queue) {
                    vring.set_polled(is_polled).map_err(|error| Breach::Ring { queue, error })?;
                }
                self.ring(queue)?.wanted = true;
                let started = self.start(queue);
                if started.is_err() {
                    self.ring(queue)?.wanted = false;
                }
                started
            }
            R::SET_VRING_CALL => {
                let call = match &file {
                    Some(file) => Some(self.call(file).map_err(|error| unfit(&error))?),
                    None => None,
                };
                self.ring(queue)?.call = file;
                match self.runner(queue) {
                    Some(vring) => vring.set_call(call).map_err(|error| Breach::Ring { queue, error }),
                    None => Ok(()),
                }
            }
            _ => {
                let error = match file {
                    Some(file) => Some(self.call(&file).map_err(|error| unfit(&error))?),
                    None => None,
                };
                self.ring(queue)?.error = error;
                Ok(())
            }
        }
    }

    fn call(&self, file: &OwnedFd) -> Result<Call, String> {
        let file = file.try_clone().map_err(|error| error.to_string())?;
        Call::new(file, Arc::clone(&self.device.notifier)).map_err(|error| error.to_string())
    }

    /// Starts a ring that is wanted and has all it needs. Without a translation it asks for that, and waits.
    pub(super) fn start(&mut self, queue: usize) -> Result<(), Breach> {
        let log = self.ring_log(queue);
        let (format, memory, features) = (self.format(), &self.memory, self.features);
        let Some(ring) = self.rings.get(queue).filter(|ring| ring.wanted && ring.size > 0 && !ring.running) else {
            return Ok(());
        };
        let Some(addresses) = ring.addresses.filter(|_| memory.region_count() > 0) else { return Ok(()) };
        if !has_version_1(features) {
            return Err(Breach::Legacy { queue });
        }
        let call = match &ring.call {
            Some(file) => Some(self.call(file).map_err(|reason| Breach::Event {
                queue,
                request: FrontendReq::SET_VRING_CALL,
                reason,
            })?),
            None => None,
        };
        let config = RingConfig {
            format,
            size: ring.size,
            addresses,
            memory: Arc::clone(memory),
            features: Features::from_bits_retain(features),
            base: ring.base,
            call,
            log,
            inflight: self
                .inflight
                .as_ref()
                .zip(u16::try_from(queue).ok())
                .and_then(|(region, queue)| region.queue(queue)),
        };
        let Some(vring) = self.device.vring(queue) else { return Ok(()) };
        match vring.start(config) {
            Ok(()) => {
                if let Some(ring) = self.rings.get_mut(queue) {
                    ring.running = true;
                    ring.told = None;
                }
                self.enable(queue)
            }
            Err(RingError::Fault(RingFault::Miss { address, access })) => {
                self.ask(address, access);
                Ok(())
            }
            Err(error) => Err(Breach::Ring { queue, error }),
        }
    }

    /// Starts what waited for memory or translations. What still cannot start waits on.
    pub(super) fn start_all(&mut self) {
        for queue in 0..self.rings.len() {
            if let Err(breach) = self.start(queue) {
                self.warn(&format!("{breach}; the queue waits for other memory"));
            }
        }
    }

    /// Enables a ring as was said. A peer that does not know the protocol's features never says it.
    fn enable(&mut self, queue: usize) -> Result<(), Breach> {
        let always = self.features & PROTOCOL_FEATURES == 0;
        let Some(ring) = self.rings.get_mut(queue) else { return Ok(()) };
        let open = always || ring.enabled;
        if open != ring.open
            && let Some(vring) = self.device.vring(queue)
        {
            vring.enable(open).map_err(|error| Breach::Ring { queue, error })?;
            ring.open = open;
        }
        self.nudge(queue);
        Ok(())
    }

    /// Wakes the engine that may sleep on the queue: there may be something that nobody kicks for.
    pub(super) fn nudge(&self, queue: usize) {
        if let Some(kick) = self.device.kick(queue) {
            kick.nudge();
        }
    }

    pub(super) fn disable_all(&mut self) {
        for (queue, ring) in self.rings.iter_mut().enumerate() {
            ring.enabled = false;
            if !ring.open {
                continue;
            }
            match self.device.vring(queue).map(|vring| vring.enable(false)) {
                Some(Err(error)) => tracing::warn!("port `{}`: queue {queue}: {error}", self.device.name),
                Some(Ok(())) | None => ring.open = false,
            }
        }
    }

    /// Stops a ring, if it runs, and waits until its frames that are on their way elsewhere have arrived. Where that takes too long their memory
    /// is kept until they have.
    pub(super) fn stop(&mut self, queue: usize) {
        let Some(ring) = self.rings.get_mut(queue).filter(|ring| ring.running) else { return };
        let Some(vring) = self.device.vring(queue) else { return };
        match vring.stop(STOP_LIMIT) {
            Ok(None) => ring.running = false,
            Ok(Some(stopped)) => {
                ring.running = false;
                ring.base = stopped.base;
                if stopped.leaked {
                    self.tell_leak(queue);
                }
            }
            Err(error) => tracing::warn!("port `{}`: queue {queue}: {error}", self.device.name),
        }
    }

    fn tell_leak(&mut self, queue: usize) {
        count(&self.device.counters.leaks);
        let seconds = STOP_LIMIT.as_secs();
        self.warn(&format!(
            "queue {queue}: frames of it did not arrive within {seconds} s; the memory that they lie in stays mapped until they do"
        ));
    }

    /// Stops all rings and lets go of their eventfds: they have to be set up anew.
    pub(super) fn stop_all(&mut self) {
        for queue in 0..self.rings.len() {
            self.stop(queue);
            self.unwant(queue);
        }
    }

    fn unwant(&mut self, queue: usize) {
        if let Some(ring) = self.rings.get_mut(queue) {
            ring.wanted = false;
        }
        if let Some(mut kick) = self.device.kick(queue)
            && let Err(error) = kick.set(None)
        {
            tracing::warn!("port `{}`: queue {queue}: {error}", self.device.name);
        }
    }

    /// `GET_VRING_BASE`.
    pub(super) fn stop_ring(&mut self, queue: u32) -> Result<Reply, Breach> {
        let index = self.queue(queue)?;
        self.stop(index);
        self.unwant(index);
        let base = self.ring(index)?.base.0;
        let mut body = queue.to_ne_bytes().to_vec();
        body.extend(base.to_ne_bytes());
        Ok(Reply { body, file: None })
    }

    fn ring_log(&self, queue: usize) -> Option<RingLog> {
        let log = self.log.as_ref().filter(|_| self.features & LOG_ALL != 0)?;
        Some(RingLog { log: Arc::clone(log), used: self.rings.get(queue)?.log })
    }

    fn settle_log(&self, queue: usize) {
        if let Some(Err(error)) = self.runner(queue).map(|vring| vring.set_log(self.ring_log(queue))) {
            tracing::warn!("port `{}`: queue {queue}: {error}", self.device.name);
        }
    }

    /// Lets every ring log, or not, as was said.
    pub(super) fn settle_logs(&self) {
        (0..self.rings.len()).for_each(|queue| self.settle_log(queue));
    }

    /// Looks at each ring: asks for translations that it misses, and tells of faults, once each.
    pub(super) fn attend_rings(&mut self) {
        for queue in 0..self.rings.len() {
            let Some(fault) = self.runner(queue).and_then(|vring| vring.fault()) else { continue };
            if let RingFault::Miss { address, access } = fault {
                self.ask(address, access);
                continue;
            }
            let Some(ring) = self.rings.get_mut(queue).filter(|ring| ring.told != Some(fault)) else { continue };
            ring.told = Some(fault);
            if let Some(error) = &ring.error {
                // It has nobody to try again for it; the VMM need not listen.
                let _ = error.signal();
            }
            count(&self.device.counters.ring_faults);
            let text = format!("queue {queue} is stopped until the VM resets its device: {fault}");
            self.warn(&text);
        }
    }

    /// Asks the peer for a translation.
    fn ask(&mut self, address: u64, access: Access) {
        count(&self.device.counters.misses);
        let body = iotlb_message(address, MISS, access);
        let bytes = encode_request(BackendReq::IOTLB_MSG as u32, &body);
        match &self.channel {
            Some(channel) if !socket::post(channel, &bytes) => self.is_behind = true,
            _ => {}
        }
    }

    /// Hands the memory of now to a running ring, which may have waited for it. When it `lacks` something of the memory before, nothing refers to
    /// that afterwards.
    pub(super) fn renew_memory(&mut self, queue: usize, lacks: bool) {
        let Some(vring) = self.runner(queue) else { return };
        let renewed = vring.set_memory(Arc::clone(&self.memory), lacks.then_some(STOP_LIMIT));
        match renewed {
            Ok(home) => {
                if let Some(ring) = self.rings.get_mut(queue) {
                    ring.told = None;
                }
                if !home {
                    self.tell_leak(queue);
                }
            }
            // It lies elsewhere, or nobody knows where. It must not hold on to the memory that was: it starts anew when it can.
            Err(_) => self.stop(queue),
        }
        self.nudge(queue);
    }
}
