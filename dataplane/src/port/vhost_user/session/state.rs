//! A session's state, and what each request does to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::net::RecvFlags;
use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures};

use super::Breach;
use super::config::Config;
use super::device::{Device, count};
use super::features;
use super::limit::Limit;
use super::rings::RingState;
use super::wire::{MAX_CONFIG, Message, Reply};
use crate::guest::{DirtyLog, Iotlb, MAXIMUM_REGIONS, Memory};
use crate::port::vhost_user::ring::inflight;

/// Smallest payload that an Ethernet device may be limited to (virtio 1.3, section 5.1.4).
const SMALLEST_MTU: u64 = 68;

/// One peer, from its first message to its last. It knows no socket but the one for requests of ours.
#[derive(Debug)]
pub(crate) struct Session<'d> {
    pub(super) device: &'d Device,
    /// What was offered to this peer.
    offered: u64,
    /// What was agreed on; nothing before that.
    pub(super) features: u64,
    pub(super) protocol: VhostUserProtocolFeatures,
    pub(super) memory: Arc<Memory>,
    /// Translations, when the device is behind an IOMMU.
    pub(super) iotlb: Option<Arc<Iotlb>>,
    pub(super) rings: Vec<RingState>,
    pub(super) log: Option<Arc<DirtyLog>>,
    /// Asked for by few, used by none: held so that the peer finds it open.
    log_event: Option<OwnedFd>,
    pub(super) inflight: Option<inflight::Region>,
    /// Where requests of ours go.
    pub(super) channel: Option<OwnedFd>,
    /// A request of ours did not go out, and has to be tried again.
    pub(super) is_behind: bool,
    mtu: Option<u16>,
    device_status: u8,
    /// Keeps a peer from flooding the log.
    limit: Limit,
}

impl<'d> Session<'d> {
    /// A session that knows nothing of its peer yet.
    pub(crate) fn new(device: &'d Device) -> Self {
        Self {
            device,
            offered: features::device(),
            features: 0,
            protocol: VhostUserProtocolFeatures::empty(),
            memory: Memory::empty(),
            iotlb: None,
            rings: device.vrings.iter().map(|_| RingState::default()).collect(),
            log: None,
            log_event: None,
            inflight: None,
            channel: None,
            is_behind: false,
            mtu: None,
            device_status: 0,
            limit: Limit::of_session(),
        }
    }

    /// Serves a request; `Some` is to be sent back. What it may go on after is told to it, when it wants to hear, and logged.
    ///
    /// # Errors
    /// What ends the session.
    pub(super) fn serve(&mut self, message: Message) -> Result<Option<Reply>, Breach> {
        count(&self.device.counters.messages);
        let header = message.header;
        let answer = self.handle(message);
        let heard = header.need_reply && self.protocol.contains(VhostUserProtocolFeatures::REPLY_ACK);
        let answer = match answer {
            Ok(None) if heard => Ok(Some(Reply::number(0))),
            Err(breach) if breach.is_refusal() && (heard || header.request == FrontendReq::GET_CONFIG) => {
                count(&self.device.counters.refusals);
                self.warn(&format!("a request of the VM is refused: {breach}"));
                // A reply of its own says so by being empty.
                let has_own = matches!(header.request, FrontendReq::GET_CONFIG);
                if replies(header.request) && !has_own {
                    return Err(breach);
                }
                Ok(Some(if has_own { Reply::default() } else { Reply::number(1) }))
            }
            answer => answer,
        };
        self.publish();
        answer
    }

    /// Warns of something that the peer can make happen as often as it likes.
    pub(super) fn warn(&mut self, message: &str) {
        if let Some(before) = self.limit.admit() {
            self.device.warn(&format!("{message}{before}"));
        }
    }

    fn handle(&mut self, message: Message) -> Result<Option<Reply>, Breach> {
        use FrontendReq as R;
        let request = message.header.request;
        let mut fields = message.fields();
        let number = |value: u64| Ok(Some(Reply::number(value)));
        match request {
            R::GET_FEATURES => return number(self.offered),
            R::SET_FEATURES => self.set_features(fields.u64())?,
            R::GET_PROTOCOL_FEATURES => return number(features::protocol().bits()),
            R::SET_PROTOCOL_FEATURES => {
                let wanted = fields.u64();
                let agreed =
                    VhostUserProtocolFeatures::from_bits(wanted).filter(|set| features::protocol().contains(*set));
                self.protocol = agreed.ok_or(Breach::Features(wanted))?;
            }
            // One peer has the connection, and so the device.
            R::SET_OWNER => {}
            // Nobody agrees on what it means, but that rings are disabled.
            R::RESET_OWNER => self.disable_all(),
            R::RESET_DEVICE => {
                self.needs(request, VhostUserProtocolFeatures::RESET_DEVICE)?;
                self.reset();
            }
            R::GET_QUEUE_NUM => {
                self.needs(request, VhostUserProtocolFeatures::MQ)?;
                return number(self.rings.len() as u64);
            }
            R::SET_MEM_TABLE => self.set_memory_table(message)?,
            R::ADD_MEM_REG => {
                self.needs(request, VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)?;
                self.add_region(message)?;
            }
            R::REM_MEM_REG => {
                self.needs(request, VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)?;
                self.remove_region(&message)?;
            }
            R::GET_MAX_MEM_SLOTS => {
                self.needs(request, VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)?;
                return number(MAXIMUM_REGIONS as u64);
            }
            R::SET_LOG_BASE => {
                self.needs(request, VhostUserProtocolFeatures::LOG_SHMFD)?;
                // Some do not look into the answer, and some want to read there what they said.
                let body = message.body.clone();
                self.set_log(message)?;
                return Ok(Some(Reply { body, file: None }));
            }
            R::SET_LOG_FD => {
                let mut message = message;
                self.log_event = message.files.pop();
            }
            R::SET_VRING_NUM
            | R::SET_VRING_ADDR
            | R::SET_VRING_BASE
            | R::SET_VRING_KICK
            | R::SET_VRING_CALL
            | R::SET_VRING_ERR
            | R::SET_VRING_ENABLE => self.set_ring(message)?,
            R::GET_VRING_BASE => return self.stop_ring(fields.u32()).map(Some),
            R::SEND_RARP => {
                self.needs(request, VhostUserProtocolFeatures::RARP)?;
                let [a, b, c, d, e, f, ..] = fields.u64().to_ne_bytes();
                self.device.announcement.ask([a, b, c, d, e, f]);
                count(&self.device.counters.announcements);
                self.nudge(1);
            }
            R::NET_SET_MTU => {
                self.needs(request, VhostUserProtocolFeatures::MTU)?;
                let mtu = fields.u64();
                let fits = u16::try_from(mtu).ok().filter(|_| mtu >= SMALLEST_MTU);
                self.mtu = Some(fits.ok_or(Breach::Value { request, what: "an MTU of", value: mtu })?);
            }
            R::SET_BACKEND_REQ_FD => {
                self.needs(request, VhostUserProtocolFeatures::BACKEND_REQ)?;
                let mut message = message;
                self.set_channel(message.file()?)?;
            }
            R::IOTLB_MSG => self.translate(&message)?,
            R::GET_CONFIG => {
                self.needs(request, VhostUserProtocolFeatures::CONFIG)?;
                return self.config(&message).map(Some);
            }
            // Everything in it is for reading only.
            R::SET_CONFIG => {
                self.needs(request, VhostUserProtocolFeatures::CONFIG)?;
                let offset = fields.u32();
                return Err(Breach::Value { request, what: "a write to the configuration at", value: offset.into() });
            }
            R::GET_STATUS => {
                self.needs(request, VhostUserProtocolFeatures::STATUS)?;
                return number(self.device_status.into());
            }
            R::SET_STATUS => {
                self.needs(request, VhostUserProtocolFeatures::STATUS)?;
                self.set_status(fields.u64())?;
            }
            R::GET_INFLIGHT_FD => {
                self.needs(request, VhostUserProtocolFeatures::INFLIGHT_SHMFD)?;
                return self.make_inflight(&message).map(Some);
            }
            R::SET_INFLIGHT_FD => {
                self.needs(request, VhostUserProtocolFeatures::INFLIGHT_SHMFD)?;
                self.take_inflight(message)?;
            }
            _ => return Err(Breach::Unsupported(request)),
        }
        Ok(None)
    }

    /// That a feature of the protocol was agreed on.
    fn needs(&self, request: FrontendReq, feature: VhostUserProtocolFeatures) -> Result<(), Breach> {
        if self.protocol.contains(feature) {
            return Ok(());
        }
        let feature = feature.iter_names().next().map_or("", |(name, _)| name);
        Err(Breach::NotNegotiated { request, feature })
    }

    fn set_features(&mut self, wanted: u64) -> Result<(), Breach> {
        let from = self.features;
        let strange = wanted & !self.offered;
        if strange != 0 {
            return Err(Breach::Features(strange));
        }
        // Logging begins and ends while frames flow.
        let lasting = !features::LOG_ALL;
        if (wanted ^ from) & lasting != 0
            && let Some(queue) = self.running().next()
        {
            return Err(Breach::FeaturesFrozen { queue, from, to: wanted });
        }
        self.features = wanted;
        self.settle_iotlb();
        self.settle_logs();
        Ok(())
    }

    fn set_status(&mut self, value: u64) -> Result<(), Breach> {
        let status = u8::try_from(value).map_err(|_| Breach::Value {
            request: FrontendReq::SET_STATUS,
            what: "a device status of",
            value,
        })?;
        self.device_status = status;
        if status == 0 {
            // The driver reset the device. What the VMM told about memory stays.
            self.disable_all();
            self.stop_all();
        }
        Ok(())
    }

    /// The device as it was when the peer came, but for its memory and what was agreed on for the protocol.
    fn reset(&mut self) {
        self.stop_all();
        for ring in &mut self.rings {
            ring.forget();
        }
        self.features = 0;
        self.device_status = 0;
        self.inflight = None;
        self.settle_iotlb();
    }

    fn config(&self, message: &Message) -> Result<Reply, Breach> {
        let mut fields = message.fields();
        let (offset, size, flags) = (fields.u32(), fields.u32(), fields.u32());
        let pairs = u16::try_from(self.device.pairs()).unwrap_or(u16::MAX);
        let config = Config { up: true, pairs, mtu: self.mtu.unwrap_or(self.device.mtu) };
        let request = message.header.request;
        // Some leave out the room for the answer.
        if !fields.is_empty() && fields.rest().len() as u64 != u64::from(size) {
            return Err(Breach::Value { request, what: "a length of", value: size.into() });
        }
        let bytes = config.read(offset, size).filter(|bytes| bytes.len() <= MAX_CONFIG);
        let bytes = bytes.ok_or(Breach::Value { request, what: "an offset of", value: offset.into() })?;
        let mut body: Vec<u8> = [offset, size, flags].iter().flat_map(|word| word.to_ne_bytes()).collect();
        body.extend(bytes);
        Ok(Reply { body, file: None })
    }

    /// The connection for requests of ours, when there is one to look at.
    pub(super) fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }

    /// Reads and forgets what comes over the connection for requests of ours: they want no answers. At its end it is closed.
    pub(super) fn drain_channel(&mut self) {
        let Some(channel) = &self.channel else { return };
        let mut scratch = [0u8; 1024];
        match rustix::net::recv(channel, &mut scratch[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => self.channel = None,
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => self.channel = None,
        }
    }

    /// Shows control what there is.
    pub(super) fn publish(&self) {
        let mut status = self.device.status();
        status.features = self.features;
        status.protocol = self.protocol.bits();
        status.mtu = self.mtu;
        status.regions = self.memory.region_count();
        status.reached = self.memory.reached_count();
        status.active.clear();
        status.active.extend(self.rings.iter().map(RingState::is_active));
    }

    /// Looks after queues that called, and memory.
    ///
    /// # Errors
    /// When memory of the guest was taken away.
    pub(super) fn attend(&mut self) -> Result<(), Breach> {
        let was_behind = std::mem::take(&mut self.is_behind);
        let log_lost = self.log.as_ref().is_some_and(|log| log.is_lost());
        let inflight_lost = self.inflight.as_ref().is_some_and(inflight::Region::is_lost);
        if self.memory.is_lost() || log_lost || inflight_lost {
            return Err(Breach::MemoryLost);
        }
        self.attend_rings();
        if was_behind {
            // It may have been a ring that waits for a translation to start.
            self.start_all();
        }
        self.publish();
        Ok(())
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.disable_all();
        self.stop_all();
        self.memory = Memory::empty();
        self.publish();
    }
}

/// Requests that have a reply of their own.
fn replies(request: FrontendReq) -> bool {
    use FrontendReq as R;
    matches!(
        request,
        R::GET_FEATURES
            | R::GET_PROTOCOL_FEATURES
            | R::GET_QUEUE_NUM
            | R::GET_VRING_BASE
            | R::GET_MAX_MEM_SLOTS
            | R::GET_CONFIG
            | R::GET_STATUS
            | R::GET_INFLIGHT_FD
            | R::SET_LOG_BASE
            | R::GET_SHARED_OBJECT
            | R::GET_SHMEM_CONFIG
    )
}
