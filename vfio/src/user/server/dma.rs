//! DMA_MAP and DMA_UNMAP.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_DMA_UNMAP_FLAG_ALL};

use super::DmaMap;
use super::session::{Answer, Session};
use crate::user::shared::is_lasting;
use crate::user::wire::{Fields, PAGE};

/// The client wants the server to map the file.
const BY_MAPPING: u32 = 1 << 2;
/// The client wants the server to read and write the file by system calls.
const BY_FILE: u32 = 1 << 3;

impl Session<'_> {
    pub(super) fn map(&mut self, body: &[u8], mut files: Vec<OwnedFd>) -> Result<Answer, Errno> {
        let mut fields = Fields::new(body);
        let (Some(_), Some(flags), Some(offset), Some(iova), Some(len)) =
            (fields.u32(), fields.u32(), fields.u64(), fields.u64(), fields.u64())
        else {
            return Err(Errno::INVAL);
        };
        if files.len() > 1 || flags & !(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE | BY_MAPPING | BY_FILE) != 0 {
            return Err(Errno::INVAL);
        }
        self.maps.check(iova, len)?;
        let file = match files.pop() {
            None if flags & (BY_MAPPING | BY_FILE) != 0 => return Err(Errno::INVAL),
            Some(_) if flags & BY_FILE != 0 => return Err(Errno::NOTSUP),
            None => None,
            Some(file) => {
                let end = offset.checked_add(len).ok_or(Errno::INVAL)?;
                if [iova, len, offset].iter().any(|number| !number.is_multiple_of(PAGE)) {
                    return Err(Errno::INVAL);
                }
                if is_lasting(file.as_fd(), end) {
                    Some((file, offset))
                } else {
                    if !std::mem::replace(&mut self.warned, true) {
                        tracing::warn!(
                            iova,
                            len,
                            "the client's memory is no sealed memfd of that size, so it is reached by message, which is slow; \
                             QEMU: use memory-backend-memfd,share=on"
                        );
                    }
                    None
                }
            }
        };
        let readable = flags & VFIO_DMA_MAP_FLAG_READ != 0;
        let writable = flags & VFIO_DMA_MAP_FLAG_WRITE != 0;
        self.device.map(DmaMap { iova, len, readable, writable, file })?;
        self.maps.add(iova, len);
        Ok(Answer::default())
    }

    pub(super) fn unmap(&mut self, body: &[u8]) -> Result<Answer, Errno> {
        let mut fields = Fields::new(body);
        let (Some(_), Some(flags), Some(iova), Some(len)) = (fields.u32(), fields.u32(), fields.u64(), fields.u64())
        else {
            return Err(Errno::INVAL);
        };
        match flags {
            VFIO_DMA_UNMAP_FLAG_ALL => {
                self.device.unmap_all();
                self.maps.clear();
            }
            0 => {
                if self.maps.inside(iova, len)? > 0 {
                    self.device.unmap(iova, len)?;
                    self.maps.remove(iova, len);
                }
            }
            // A map of dirty pages, which belongs to migration.
            _ => return Err(Errno::NOTSUP),
        }
        // The answer is the request, without what a longer one may have had behind it.
        Ok(body.get(..24).unwrap_or(body).to_vec().into())
    }
}
