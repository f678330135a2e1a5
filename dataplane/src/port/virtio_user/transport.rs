//! The transport: what the driver does with registers on a PCI bus, done with messages (vhost-user, "Front-end message types").
//!
//! A back-end hears of features, memory and queues, and knows nothing of device status (unless it asks to), resets or a
//! configuration space: these are kept here. A reset stops every queue that was started, which the back-end confirms by telling where it stopped.
//!
//! The addresses that it is given, guest and user addresses alike, are the I/O virtual addresses of the regions.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use drivers::bus::{BusError, Clock, Width};
use drivers::nic::{MacAddress, NicError};
use drivers::register::{ReadOnly, Reg};
use drivers::virtio::Features;
use drivers::virtio::transport::{QueueSetup, Status, Transport};
use hugemem::Region;
use rustix::event::{EventfdFlags, eventfd};
use vhost::vhost_user::message::{FrontendReq as Request, VhostUserProtocolFeatures as Protocol};

use super::back_end::{PROTOCOL_FEATURES, words};
use super::channel::{Failure, LIMIT};
use super::memory;
use super::socket::{Interrupt, Kick, Socket};
use crate::port::Wake;
use crate::port::vhost_user::notify::{Call, Kick as Arrivals, NotifyError};

/// How long a back-end may take over a change of its memory while it runs. Others wait meanwhile.
const CHANGE_LIMIT: Duration = Duration::from_secs(2);
/// What is for a VMM to offer, or needs one: there is no control queue on a socket.
const NOT_HERE: Features = Features::CTRL_VQ
    .union(Features::CTRL_RX)
    .union(Features::CTRL_MAC_ADDR)
    .union(Features::GUEST_ANNOUNCE)
    .union(Features::RSS)
    .union(Features::HASH_REPORT)
    .union(Features::SPEED_DUPLEX)
    .union(Features::ACCESS_PLATFORM);
/// Largest queue: a back-end cannot be asked, and all take what QEMU gives at most.
const LARGEST_QUEUE: u16 = 1024;
/// In the number of a queue: no descriptor comes with it.
const NO_FILE: u64 = 1 << 8;
/// Where a packed ring starts: both places at 0 in the first pass, whose wrap counter is 1 (bits 15 and 31).
const PACKED_BASE: u32 = 0x8000_8000;

/// `status`, with its one bit of use here.
const STATUS_FIELD: usize = 6;
const LINK_UP: u8 = 1;

impl Transport for Socket {
    type Doorbell = Kick;
    type Interrupt = Wake;

    // What it reaches is what it is shown.
    const REQUIRED: Features = Features::VERSION_1;
    const SWITCHES_PAIRS: bool = true;
    const PASSES_EVERYTHING: bool = true;
    const COMES_BACK: bool = true;

    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&mut self, _: &dyn Clock, limit: Duration) -> Result<(), NicError> {
        self.status = Status::empty();
        self.open = false;
        if let Some(back_end) = &mut self.back_end {
            back_end.channel.begin(limit);
        }
        let stopped = self.stop_queues();
        let Some(back_end) = &self.back_end else { return Ok(()) };
        if stopped.is_ok() && back_end.channel.failure().is_none() {
            return Ok(());
        }
        // One that is gone has given everything back. One that is silent, or talks nonsense, may still use it.
        if back_end.channel.hangs_up(limit) {
            self.back_end = None;
            return Ok(());
        }
        let failure = stopped.err().or_else(|| back_end.channel.failure()).unwrap_or(Failure::Closed);
        Err(self.misbehaves(format!("{failure}, and does not hang up either; restart the back-end, then this port")))
    }

    fn status(&self) -> Status {
        self.status
    }

    fn add_status(&mut self, status: Status) -> Result<(), NicError> {
        let started = std::mem::take(&mut self.started);
        let ready = status.contains(Status::DRIVER_OK);
        let all = self.status | status;
        let told = match &mut self.back_end {
            // It comes with the question for its features.
            None => Ok(()),
            Some(back_end) => {
                let switched = back_end.features.contains(PROTOCOL_FEATURES) && ready;
                let queues = started.iter().filter(|_| switched);
                let on = queues.map(|queue| (Request::SET_VRING_ENABLE, words([(*queue).into(), 1])));
                let mut on = on.map(|(request, body)| back_end.channel.tell(request, &body, &[]));
                on.find(Result::is_err).unwrap_or(Ok(())).and_then(|()| back_end.set_status(all))
            }
        };
        self.started = started;
        told.map_err(|failure| self.explain(failure))?;
        self.status = all;
        Ok(())
    }

    fn is_gone(&self) -> bool {
        self.back_end.as_ref().is_none_or(|back_end| back_end.channel.failure().is_some())
    }

    fn gone(&self) -> NicError {
        let failure = self.back_end.as_ref().and_then(|back_end| back_end.channel.failure());
        self.explain(failure.unwrap_or(Failure::Closed))
    }

    /// A back-end may be restarted at any time. Its absence is sat out; then everything starts anew.
    fn attend(&mut self) -> Result<bool, NicError> {
        match self.back_end.as_ref().map_or(Some(Failure::Closed), |back_end| back_end.channel.failure()) {
            None => return Ok(true),
            Some(Failure::Closed) => {}
            Some(failure) => return Err(self.explain(failure)),
        }
        if !std::mem::replace(&mut self.mourned, true) {
            tracing::warn!(
                "{}: its back-end at {} hung up; waiting until it is back",
                self.name,
                self.endpoint.path().display()
            );
        }
        if self.next.is_none() {
            match self.endpoint.poll() {
                Ok(next) => self.next = next,
                Err(error) if self.told.replace(error) != Some(error) => {
                    tracing::warn!(
                        "{}: {}: {error}; it is tried again and again",
                        self.name,
                        self.endpoint.path().display()
                    );
                }
                Err(_) => {}
            }
        }
        if self.next.is_none() {
            return Ok(false);
        }
        let reason = "its back-end went away, and is back".into();
        Err(NicError::Bus(BusError::Gone { device: self.name.clone(), reason }))
    }

    fn offered(&mut self) -> Result<Features, NicError> {
        if self.back_end.is_none() {
            self.meet()?;
            let status = self.status;
            self.with(|back_end| back_end.set_status(status))?;
        }
        // All steps from here to a device that runs are one.
        self.with(|back_end| {
            back_end.channel.begin(LIMIT);
            Ok(())
        })?;
        let (wishes, Some(back_end)) = (&self.wishes, &self.back_end) else {
            return Err(self.gone());
        };
        let mut offered = (back_end.features - NOT_HERE) | Features::STATUS;
        if wishes.mac.is_some() {
            offered |= Features::MAC;
        }
        if !back_end.protocol.contains(Protocol::MQ) {
            offered -= Features::MQ;
        }
        Ok(offered)
    }

    fn accept(&mut self, features: Features) -> Result<(), NicError> {
        let mtu = self.wishes.mtu;
        self.with(|back_end| {
            let known = (features | PROTOCOL_FEATURES) & back_end.features;
            back_end.channel.tell(Request::SET_FEATURES, &known.bits().to_ne_bytes(), &[])?;
            match mtu.filter(|_| back_end.protocol.contains(Protocol::MTU)) {
                Some(mtu) => back_end.channel.tell(Request::NET_SET_MTU, &u64::from(mtu).to_ne_bytes(), &[]),
                None => Ok(()),
            }
        })?;
        self.accepted = features;
        self.add_status(Status::FEATURES_OK)
    }

    fn load<W: Width>(&self, field: &Reg<W, ReadOnly>) -> W {
        let Some(back_end) = &self.back_end else { return W::narrow(u64::MAX) };
        let mut space = back_end.configuration;
        if let (Some(MacAddress(wanted)), Some(mac)) = (self.wishes.mac, space.first_chunk_mut()) {
            *mac = wanted;
        }
        let link = if self.is_gone() { 0 } else { LINK_UP };
        let [pairs_low, pairs_high] = back_end.pairs.to_le_bytes();
        for (place, byte) in space.iter_mut().skip(STATUS_FIELD).zip([link, 0, pairs_low, pairs_high]) {
            *place = byte;
        }
        let (start, length) = (field.offset() as usize, W::BYTES as usize);
        let bytes = start.checked_add(length).and_then(|end| space.get(start..end));
        bytes.map_or(W::narrow(u64::MAX), |bytes| {
            W::narrow(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
        })
    }

    fn generation(&self) -> u8 {
        0
    }

    fn queue_count(&self) -> u16 {
        self.pairs().saturating_mul(2)
    }

    fn largest_size(&mut self, queue: u16) -> u16 {
        if queue < self.queue_count() { LARGEST_QUEUE } else { 0 }
    }

    fn interrupt_count(&self) -> u16 {
        self.pairs()
    }

    fn interrupts(&mut self, count: u16) -> Result<Vec<Wake>, BusError> {
        let make = || -> Result<(Wake, Interrupt), NotifyError> {
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
            let event =
                event.map_err(|error| NotifyError::System { action: "make an eventfd", source: error.into() })?;
            let watched = event.try_clone();
            let watched = watched.map_err(|source| NotifyError::System { action: "share an eventfd", source })?;
            let mut arrivals = Arrivals::new()?;
            arrivals.set(Some(watched))?;
            Ok((arrivals.wake(), Interrupt { event, _arrivals: arrivals }))
        };
        let made: Result<Vec<_>, _> = (0..count).map(|_| make()).collect();
        let (wakes, interrupts) = made
            .map_err(|error| BusError::System {
                device: self.name.clone(),
                action: "cannot set up its interrupts".into(),
                reason: error.to_string(),
            })?
            .into_iter()
            .unzip();
        self.interrupts = interrupts;
        Ok(wakes)
    }

    fn open_memory(&mut self) -> Result<(), NicError> {
        let regions = std::mem::take(&mut self.regions);
        let shown = self.with(|back_end| back_end.show(&regions));
        self.regions = regions;
        self.open = shown.is_ok();
        shown
    }

    fn enable(&mut self, queue: QueueSetup) -> Result<(Kick, bool), NicError> {
        let QueueSetup { index, size, addresses, interrupt } = queue;
        let kick = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| self.refuses(format!("cannot make an eventfd for queue {index}: {error}")))?;
        let number = u32::from(index);
        let base = if self.accepted.contains(Features::RING_PACKED) { PACKED_BASE } else { 0 };
        let [descriptors, driver, device] =
            [addresses.descriptors, addresses.driver, addresses.device].map(|address| address.raw().to_ne_bytes());
        // Index, flags, descriptors, used, available, and where a log would be.
        let place = [words([number, 0]).as_slice(), &descriptors, &device, &driver, &[0; 8]].concat();
        self.started.push(index);
        let call = interrupt.and_then(|interrupt| self.interrupts.get(usize::from(interrupt)));
        let call = call.map(|interrupt| interrupt.event.try_clone()).transpose();
        let call = call.map_err(|error| self.refuses(format!("its interrupt cannot be shared: {error}")))?;
        let accepted = call.is_some();
        self.with(|back_end| {
            let channel = &mut back_end.channel;
            channel.tell(Request::SET_VRING_NUM, &words([number, size.into()]), &[])?;
            channel.tell(Request::SET_VRING_BASE, &words([number, base]), &[])?;
            channel.tell(Request::SET_VRING_ADDR, &place, &[])?;
            match &call {
                Some(call) => {
                    channel.tell(Request::SET_VRING_CALL, &u64::from(number).to_ne_bytes(), &[call.as_fd()])?;
                }
                None => {
                    let number = u64::from(number) | NO_FILE;
                    channel.tell(Request::SET_VRING_CALL, &number.to_ne_bytes(), &[])?;
                }
            }
            // This starts it.
            channel.tell(Request::SET_VRING_KICK, &u64::from(number).to_ne_bytes(), &[kick.as_fd()])
        })?;
        let call = Call::new(kick, Arc::clone(&self.notifier));
        Ok((Kick(call.map_err(|error| self.refuses(error.to_string()))?), accepted))
    }

    fn map(&mut self, region: &Region) -> Result<(), BusError> {
        if self.regions.iter().any(|other| other.id() == region.id()) {
            return Ok(());
        }
        let mapping = |reason: String| BusError::Mapping {
            device: self.name.clone(),
            action: "map",
            iova: region.iova().raw(),
            bytes: region.len() as u64,
            reason,
        };
        if region.file().is_none() {
            return Err(mapping("the memory is of no file that could be shown to the back-end".into()));
        }
        let most = self.back_end.as_ref().map_or(memory::MOST, |back_end| back_end.slots);
        if self.regions.len() >= most {
            return Err(mapping(format!("the back-end takes {most} pieces of memory at most")));
        }
        self.regions.push(region.clone());
        let (true, Some(back_end)) = (self.open, &mut self.back_end) else { return Ok(()) };
        back_end.channel.begin(CHANGE_LIMIT);
        match back_end.show(&self.regions) {
            // A back-end that is away is shown everything when it is back.
            Ok(()) | Err(Failure::Closed) => Ok(()),
            Err(failure) => {
                self.regions.pop();
                Err(self.in_bus_terms("cannot show memory to its back-end".into(), &failure))
            }
        }
    }

    fn unmap(&mut self, region: &Region) -> Result<(), BusError> {
        let Some(place) = self.regions.iter().position(|other| other.id() == region.id()) else {
            return Ok(());
        };
        let region = self.regions.remove(place);
        let hidden = match &mut self.back_end {
            Some(back_end) if !back_end.channel.is_closed() => {
                back_end.channel.begin(CHANGE_LIMIT);
                back_end.hide(&region, &self.regions)
            }
            _ => Ok(()),
        };
        // A back-end that keeps memory has its own handle of it, and reaches nothing else by that. It starts anew without.
        if let (Err(failure), Some(back_end)) = (hidden, &mut self.back_end)
            && failure != Failure::Closed
        {
            tracing::warn!("{}: {failure}; the connection is made anew", self.name);
            back_end.channel.end(failure);
        }
        Ok(())
    }
}
