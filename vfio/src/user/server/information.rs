//! What the client asks to know: DEVICE_GET_INFO, DEVICE_GET_REGION_INFO, DEVICE_GET_REGION_IO_FDS, DEVICE_GET_IRQ_INFO.

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET, VFIO_IRQ_INFO_AUTOMASKED, VFIO_IRQ_INFO_EVENTFD,
    VFIO_IRQ_INFO_MASKABLE, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS, VFIO_REGION_INFO_CAP_SPARSE_MMAP,
    VFIO_REGION_INFO_FLAG_CAPS, VFIO_REGION_INFO_FLAG_MMAP, VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE,
};

use super::session::{Answer, Session};
use super::{InterruptKind, Shared};
use crate::user::wire::{Body, Fields};

/// Bytes of `struct vfio_region_info`, and of the other three structures.
const REGION_INFO: u32 = 32;
const INFO: u32 = 16;

/// `argsz`, flags and index of a request that is at least `least` bytes long.
fn question(body: &[u8], least: u32) -> Result<(u32, u32, u32), Errno> {
    let mut fields = Fields::new(body);
    match (fields.u32(), fields.u32(), fields.u32()) {
        (Some(room), Some(flags), Some(index)) if body.len() >= least as usize && room >= least => {
            Ok((room, flags, index))
        }
        _ => Err(Errno::INVAL),
    }
}

impl Session<'_> {
    pub(super) fn info(body: &[u8]) -> Result<Answer, Errno> {
        question(body, INFO)?;
        let flags = VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI;
        Ok(Body::new().u32(INFO).u32(flags).u32(VFIO_PCI_NUM_REGIONS).u32(VFIO_PCI_NUM_IRQS).done().into())
    }

    pub(super) fn region_info(&self, body: &[u8]) -> Result<Answer, Errno> {
        let (room, _, index) = question(body, REGION_INFO)?;
        let region = self.region(index)?;
        let mut flags = 0;
        if region.size > 0 {
            flags |= if region.readable { VFIO_REGION_INFO_FLAG_READ } else { 0 };
            flags |= if region.writable { VFIO_REGION_INFO_FLAG_WRITE } else { 0 };
        }
        let mut capability = Vec::new();
        let mut offset = 0;
        if let Some(shared) = region.shared.as_ref().filter(|shared| !shared.areas.is_empty()) {
            flags |= VFIO_REGION_INFO_FLAG_MMAP;
            offset = shared.offset;
            if shared.areas != [(0, region.size)] {
                flags |= VFIO_REGION_INFO_FLAG_CAPS;
                capability = sparse(shared);
            }
        }
        let needed = REGION_INFO + u32::try_from(capability.len()).map_err(|_| Errno::OVERFLOW)?;
        // The offset says where the list would be even where it has no room: QEMU takes zero for an error.
        let list = if capability.is_empty() { 0 } else { REGION_INFO };
        let mut reply = Body::new().u32(needed).u32(flags).u32(index).u32(list).u64(region.size).u64(offset);
        if room >= needed {
            reply = reply.bytes(&capability);
        }
        let file = region.shared.as_ref().filter(|_| flags & VFIO_REGION_INFO_FLAG_MMAP != 0);
        Ok(Answer { body: reply.done(), file: file.map(|shared| shared.file.clone()) })
    }

    /// Eventfds that stand for registers: there are none.
    pub(super) fn region_files(body: &[u8]) -> Result<Answer, Errno> {
        let (_, flags, index) = question(body, INFO)?;
        if flags != 0 || index >= VFIO_PCI_NUM_REGIONS {
            return Err(Errno::INVAL);
        }
        Ok(Body::new().u32(INFO).u32(0).u32(index).u32(0).done().into())
    }

    pub(super) fn interrupt_info(&self, body: &[u8]) -> Result<Answer, Errno> {
        let (_, _, index) = question(body, INFO)?;
        let kind = Self::kind(index)?;
        let count = self.device.interrupt_count(kind);
        let mut flags = VFIO_IRQ_INFO_EVENTFD;
        if kind == InterruptKind::Intx {
            flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
        }
        Ok(Body::new().u32(INFO).u32(flags).u32(index).u32(count).done().into())
    }
}

/// The list of areas that can be mapped: `struct vfio_region_info_cap_sparse_mmap`, the only capability, version 1.
fn sparse(shared: &Shared) -> Vec<u8> {
    let count = u32::try_from(shared.areas.len()).unwrap_or(u32::MAX);
    let id = u16::try_from(VFIO_REGION_INFO_CAP_SPARSE_MMAP).unwrap_or(u16::MAX);
    let head = Body::new().u16(id).u16(1).u32(0).u32(count).u32(0);
    shared.areas.iter().fold(head, |body, (offset, length)| body.u64(*offset).u64(*length)).done()
}
