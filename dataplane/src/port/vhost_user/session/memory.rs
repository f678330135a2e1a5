//! What a peer says about memory: regions, translations, the log of dirty pages, in-flight regions.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use drivers::virtio::Features;
use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures};

use super::Breach;
use super::state::Session;
use super::wire::{Fields, Message, Reply};
use crate::guest::{Access, DirtyLog, Iotlb, Memory, Permission, RegionSpec, Translation};
use crate::port::vhost_user::ring::{Format, inflight};

// Kinds of messages about translations (`struct vhost_iotlb_msg` of the kernel).
pub(super) const MISS: u8 = 1;
const UPDATE: u8 = 2;
const INVALIDATE: u8 = 3;
/// Permissions in them.
const READ: u8 = 1;
const WRITE: u8 = 2;

/// The body of a message that asks for a translation.
pub(super) fn iotlb_message(iova: u64, kind: u8, access: Access) -> Vec<u8> {
    let permission = if access == Access::Write { WRITE } else { READ };
    let mut body = Vec::with_capacity(32);
    // Address, size and the frontend's address, of which only the first is known.
    for word in [iova, 0, 0] {
        body.extend(word.to_ne_bytes());
    }
    body.extend([permission, kind, 0, 0, 0, 0, 0, 0]);
    body
}

fn region(fields: &mut Fields<'_>) -> RegionSpec {
    let (guest, size, user, offset) = (fields.u64(), fields.u64(), fields.u64(), fields.u64());
    RegionSpec { guest, user, size, offset }
}

impl Session<'_> {
    /// The whole table anew.
    pub(super) fn set_memory_table(&mut self, message: Message) -> Result<(), Breach> {
        let Message { header, body, files } = message;
        let mut fields = Fields::new(&body);
        let regions = fields.u32() as usize;
        fields.u32();
        if body.len() != 8 + regions * super::wire::REGION {
            return Err(Breach::Value {
                request: header.request,
                what: "a number of regions of",
                value: regions as u64,
            });
        }
        if files.len() != regions {
            return Err(Breach::FileCount { regions, files: files.len() });
        }
        let mut memory = Memory::empty();
        for file in files {
            memory = memory.with(region(&mut fields), file, &self.device.options)?;
        }
        self.change_memory(memory.with_iotlb(self.iotlb.clone()), true);
        Ok(())
    }

    pub(super) fn add_region(&mut self, mut message: Message) -> Result<(), Breach> {
        let file = message.file()?;
        let mut fields = message.fields();
        fields.u64();
        let memory = self.memory.with(region(&mut fields), file, &self.device.options)?;
        self.change_memory(memory, false);
        Ok(())
    }

    pub(super) fn remove_region(&mut self, message: &Message) -> Result<(), Breach> {
        let mut fields = message.fields();
        fields.u64();
        let memory = self.memory.without(region(&mut fields))?;
        self.change_memory(memory, true);
        Ok(())
    }

    /// Hands a new table to every ring. When it `lacks` something of the old one, no ring and no frame on its way refers to the old one
    /// afterwards. A ring that does not lie in the new one is suspended; one that waited for memory starts.
    pub(super) fn change_memory(&mut self, memory: Arc<Memory>, lacks: bool) {
        self.memory = memory;
        (0..self.rings.len()).for_each(|queue| self.renew_memory(queue, lacks));
        self.start_all();
    }

    /// Whether the features of now put the device behind an IOMMU: only with a connection to ask for translations over. (Some
    /// peers agree to `ACCESS_PLATFORM` and mean their own memory.)
    fn is_behind_iommu(&self) -> bool {
        Features::from_bits_retain(self.features).contains(Features::ACCESS_PLATFORM)
            && self.protocol.contains(VhostUserProtocolFeatures::BACKEND_REQ)
            && self.channel.is_some()
    }

    /// Gives memory translations or takes them away, as features now say.
    pub(super) fn settle_iotlb(&mut self) {
        let wanted = self.is_behind_iommu();
        if wanted != self.iotlb.is_some() {
            self.iotlb = wanted.then(|| Arc::new(Iotlb::new()));
            self.change_memory(self.memory.with_iotlb(self.iotlb.clone()), true);
        }
    }

    /// The connection for requests of ours.
    pub(super) fn set_channel(&mut self, file: OwnedFd) -> Result<(), Breach> {
        let request = FrontendReq::SET_BACKEND_REQ_FD;
        if rustix::net::sockopt::socket_type(&file).is_err() {
            return Err(Breach::Value { request, what: "a descriptor that is no socket, for queue", value: 0 });
        }
        self.channel = Some(file);
        self.settle_iotlb();
        Ok(())
    }

    /// `IOTLB_MSG`: what the peer tells of translations.
    pub(super) fn translate(&mut self, message: &Message) -> Result<(), Breach> {
        let request = message.header.request;
        let mut fields = message.fields();
        let (iova, size, user) = (fields.u64(), fields.u64(), fields.u64());
        let (permission, kind) = (fields.u8(), fields.u8());
        let Some(iotlb) = self.iotlb.clone() else {
            return Err(Breach::NotNegotiated { request, feature: "BACKEND_REQ with VIRTIO_F_ACCESS_PLATFORM" });
        };
        match kind {
            UPDATE => {
                let permission = match permission {
                    READ => Permission::Read,
                    WRITE => Permission::Write,
                    3 => Permission::ReadWrite,
                    _ => return Err(Breach::Value { request, what: "a permission of", value: permission.into() }),
                };
                if !iotlb.update(Translation { iova, user, size, permission }) {
                    return Err(Breach::Value { request, what: "a translation of address", value: iova });
                }
                self.change_memory(Arc::clone(&self.memory), false);
            }
            INVALIDATE => {
                iotlb.invalidate(iova, size);
                self.change_memory(Arc::clone(&self.memory), true);
            }
            _ => return Err(Breach::Value { request, what: "a kind of", value: kind.into() }),
        }
        Ok(())
    }

    /// `SET_LOG_BASE`.
    pub(super) fn set_log(&mut self, mut message: Message) -> Result<(), Breach> {
        let file = message.file()?;
        let mut fields = message.fields();
        let (size, offset) = (fields.u64(), fields.u64());
        self.log = Some(DirtyLog::new(file, offset, size, &self.device.options)?);
        self.settle_logs();
        Ok(())
    }

    /// Queues and size of an in-flight region that a peer may have.
    fn inflight_shape(&self, message: &Message) -> Result<(u64, u64, u16, u16), Breach> {
        let request = message.header.request;
        let mut fields = message.fields();
        let (len, offset, queues, size) = (fields.u64(), fields.u64(), fields.u16(), fields.u16());
        if queues == 0 || usize::from(queues) > self.rings.len() {
            return Err(Breach::Value { request, what: "a number of queues of", value: queues.into() });
        }
        let is_power = size.is_power_of_two() || (self.format() == Format::Packed && size > 0);
        if !is_power || size > 1 << 15 {
            return Err(Breach::Value { request, what: "a ring size of", value: size.into() });
        }
        Ok((len, offset, queues, size))
    }

    /// `GET_INFLIGHT_FD`: a new region, for the peer to keep.
    pub(super) fn make_inflight(&self, message: &Message) -> Result<Reply, Breach> {
        let (_, _, queues, size) = self.inflight_shape(message)?;
        let made = inflight::Region::create(self.format(), queues, size);
        let (region, file, len) = made.map_err(|error| Breach::Inflight(error.to_string()))?;
        drop(region);
        let mut body: Vec<u8> = [len, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        body.extend(queues.to_ne_bytes());
        body.extend(size.to_ne_bytes());
        // As long as the C structure, whose end is padding.
        body.extend([0; 4]);
        Ok(Reply { body, file: Some(file) })
    }

    /// `SET_INFLIGHT_FD`: the region that the peer kept, perhaps from before a crash of ours.
    pub(super) fn take_inflight(&mut self, mut message: Message) -> Result<(), Breach> {
        let (len, offset, queues, size) = self.inflight_shape(&message)?;
        if let Some(queue) = self.running().next() {
            return Err(Breach::Frozen { queue, request: message.header.request });
        }
        let file = message.file()?;
        let region = inflight::Region::adopt(file, offset, len, self.format(), queues, size, &self.device.options);
        self.inflight = Some(region.map_err(|error| Breach::Inflight(error.to_string()))?);
        Ok(())
    }
}
