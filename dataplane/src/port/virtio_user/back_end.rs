//! A back-end that has answered: what it can do, and what it was told.

use std::os::fd::OwnedFd;

use drivers::virtio::Features;
use drivers::virtio::transport::Status;
use hugemem::Region;
use rustix::io::Errno;
use vhost::vhost_user::message::{FrontendReq as Request, VhostUserProtocolFeatures as Protocol};

use super::channel::{Channel, Failure};
use super::memory;

/// Feature bit by which a back-end says that it has protocol features, and that queues start disabled.
pub(super) const PROTOCOL_FEATURES: Features = Features::from_bits_retain(1 << 30);
/// Protocol features that are used where the back-end has them.
const WANTED: Protocol = Protocol::MQ
    .union(Protocol::REPLY_ACK)
    .union(Protocol::MTU)
    .union(Protocol::CONFIG)
    .union(Protocol::CONFIGURE_MEM_SLOTS)
    .union(Protocol::STATUS);

/// Fields of the configuration space (virtio 1.3, section 5.1.4) that are kept here.
pub(super) const CONFIGURATION: usize = 12;

/// A back-end that has answered.
#[derive(Debug)]
pub(super) struct BackEnd {
    pub(super) channel: Channel,
    /// All that it offers.
    pub(super) features: Features,
    pub(super) protocol: Protocol,
    /// Queue pairs.
    pub(super) pairs: u16,
    /// Identifiers of the regions that it has.
    pub(super) regions: Vec<u64>,
    pub(super) slots: usize,
    pub(super) configuration: [u8; CONFIGURATION],
}

impl BackEnd {
    /// Finds out what the back-end can do, and says what of it is used.
    pub(super) fn greet(socket: OwnedFd) -> Result<Self, Failure> {
        let mut channel = Channel::new(socket);
        channel.tell(Request::SET_OWNER, &[], &[])?;
        let features = Features::from_bits_retain(channel.ask(Request::GET_FEATURES)?);
        let mut protocol = Protocol::empty();
        if features.contains(PROTOCOL_FEATURES) {
            protocol = Protocol::from_bits_retain(channel.ask(Request::GET_PROTOCOL_FEATURES)?) & WANTED;
            channel.tell(Request::SET_PROTOCOL_FEATURES, &protocol.bits().to_ne_bytes(), &[])?;
            channel.acknowledges = protocol.contains(Protocol::REPLY_ACK);
        }
        let pairs = if protocol.contains(Protocol::MQ) { channel.ask(Request::GET_QUEUE_NUM)? } else { 1 };
        if pairs == 0 || pairs > 1 << 15 {
            return Err(channel.breach(Request::GET_QUEUE_NUM, format!("claims {pairs} queue pairs")));
        }
        let slots = if protocol.contains(Protocol::CONFIGURE_MEM_SLOTS) {
            usize::try_from(channel.ask(Request::GET_MAX_MEM_SLOTS)?).unwrap_or(usize::MAX)
        } else {
            memory::MOST
        };
        let mut back_end = Self {
            channel,
            features,
            protocol,
            pairs: u16::try_from(pairs).unwrap_or(1),
            regions: Vec::new(),
            slots,
            configuration: [0; CONFIGURATION],
        };
        back_end.read_configuration()?;
        Ok(back_end)
    }

    /// Many say that they have one, and answer with nothing because a network device's is the VMM's business.
    fn read_configuration(&mut self) -> Result<(), Failure> {
        let own = Features::MAC | Features::MTU;
        if self.protocol.contains(Protocol::CONFIG) && self.features.intersects(own) {
            let length = u32::try_from(CONFIGURATION).unwrap_or(0);
            let question = [words([0, length]).as_slice(), &[0; 4 + CONFIGURATION]].concat();
            let answer = self.channel.ask_for(Request::GET_CONFIG, &question)?;
            if let Some(space) = answer.get(12..).and_then(|rest| rest.first_chunk()) {
                self.configuration = *space;
                return Ok(());
            }
        }
        self.features -= own;
        Ok(())
    }

    pub(super) fn set_status(&mut self, status: Status) -> Result<(), Failure> {
        if !self.protocol.contains(Protocol::STATUS) {
            return Ok(());
        }
        self.channel.tell(Request::SET_STATUS, &u64::from(status.bits()).to_ne_bytes(), &[])
    }

    /// Shows the back-end the regions that it has not.
    pub(super) fn show(&mut self, regions: &[Region]) -> Result<(), Failure> {
        let new: Vec<&Region> = regions.iter().filter(|region| !self.regions.contains(&region.id())).collect();
        if new.is_empty() && regions.len() == self.regions.len() {
            return Ok(());
        }
        if regions.len() > self.slots {
            return Err(Failure::System { request: Request::SET_MEM_TABLE, error: Errno::NOSPC });
        }
        if self.protocol.contains(Protocol::CONFIGURE_MEM_SLOTS) {
            for region in new {
                let (body, file) = memory::slot(region)?;
                self.channel.tell_surely(Request::ADD_MEM_REG, &body, &[file])?;
                self.regions.push(region.id());
            }
            return Ok(());
        }
        let (body, files) = memory::table(regions)?;
        self.channel.tell_surely(Request::SET_MEM_TABLE, &body, &files)?;
        self.regions = regions.iter().map(Region::id).collect();
        Ok(())
    }

    /// Takes a region away from the back-end.
    pub(super) fn hide(&mut self, region: &Region, left: &[Region]) -> Result<(), Failure> {
        if !self.regions.contains(&region.id()) {
            return Ok(());
        }
        if self.protocol.contains(Protocol::CONFIGURE_MEM_SLOTS) {
            let (body, _) = memory::slot(region)?;
            self.channel.tell_surely(Request::REM_MEM_REG, &body, &[])?;
            self.regions.retain(|id| *id != region.id());
            return Ok(());
        }
        // There is no table of nothing: with the last region the connection goes.
        if left.is_empty() { Ok(()) } else { self.show(left) }
    }

    /// Stops queues that were started; it uses them until it has said where it stopped.
    pub(super) fn stop(&mut self, queues: Vec<u16>) -> Result<(), Failure> {
        for queue in &queues {
            if self.features.contains(PROTOCOL_FEATURES) {
                self.channel.tell(Request::SET_VRING_ENABLE, &words([(*queue).into(), 0]), &[])?;
            }
        }
        for queue in queues {
            let answer = self.channel.ask_for(Request::GET_VRING_BASE, &words([queue.into(), 0]))?;
            if answer.len() != 8 || answer.first_chunk() != Some(&u32::from(queue).to_ne_bytes()) {
                return Err(self.channel.breach(Request::GET_VRING_BASE, format!("is not about queue {queue}")));
            }
        }
        self.set_status(Status::empty())
    }
}

/// Two numbers of 32 bits.
pub(super) fn words([first, second]: [u32; 2]) -> Vec<u8> {
    [first.to_ne_bytes(), second.to_ne_bytes()].concat()
}
