//! REGION_READ, REGION_WRITE and REGION_WRITE_MULTI.

use rustix::io::Errno;

use super::session::{Answer, Session};
use crate::user::wire::{Body, Fields, MAX_TRANSFER};

/// Bytes of one write in REGION_WRITE_MULTI, data included.
const ONE_WRITE: usize = 24;

impl Session<'_> {
    pub(super) fn region_read(&mut self, body: &[u8]) -> Result<Answer, Errno> {
        let (offset, index, count) = place(&mut Fields::new(body))?;
        self.check(index, offset, count, false)?;
        let mut data = vec![0; count];
        self.device.read(index, offset, &mut data)?;
        Ok(reply(offset, index, count).bytes(&data).done().into())
    }

    pub(super) fn region_write(&mut self, body: &[u8]) -> Result<Answer, Errno> {
        let mut fields = Fields::new(body);
        let (offset, index, count) = place(&mut fields)?;
        let data = fields.rest();
        if data.len() != count {
            return Err(Errno::INVAL);
        }
        self.check(index, offset, count, true)?;
        self.device.write(index, offset, data)?;
        Ok(reply(offset, index, count).done().into())
    }

    /// Several short writes, in order, up to the first that fails. The message may be longer than its writes are.
    pub(super) fn region_write_multiple(&mut self, body: &[u8]) -> Result<Answer, Errno> {
        let mut fields = Fields::new(body);
        let count = fields.u64().and_then(|count| usize::try_from(count).ok()).ok_or(Errno::INVAL)?;
        let writes = count.checked_mul(ONE_WRITE).and_then(|bytes| fields.rest().get(..bytes)).ok_or(Errno::INVAL)?;
        for write in writes.chunks_exact(ONE_WRITE) {
            let mut fields = Fields::new(write);
            let (offset, index, count) = place(&mut fields)?;
            let data = fields.rest().get(..count).ok_or(Errno::INVAL)?;
            self.check(index, offset, count, true)?;
            self.device.write(index, offset, data)?;
        }
        Ok(Body::new().u64(count as u64).done().into())
    }

    /// Whether the access lies inside the region, and the region allows it.
    fn check(&self, index: u32, offset: u64, count: usize, write: bool) -> Result<(), Errno> {
        let region = self.region(index)?;
        let end = offset.checked_add(count as u64).ok_or(Errno::INVAL)?;
        if count == 0 || count > MAX_TRANSFER || end > region.size {
            return Err(Errno::INVAL);
        }
        if if write { region.writable } else { region.readable } { Ok(()) } else { Err(Errno::PERM) }
    }
}

/// Offset, region and number of bytes: what all three begin with.
fn place(fields: &mut Fields<'_>) -> Result<(u64, u32, usize), Errno> {
    match (fields.u64(), fields.u32(), fields.u32().map(usize::try_from)) {
        (Some(offset), Some(index), Some(Ok(count))) => Ok((offset, index, count)),
        _ => Err(Errno::INVAL),
    }
}

fn reply(offset: u64, index: u32, count: usize) -> Body {
    // Checked: at most MAX_TRANSFER.
    Body::new().u64(offset).u32(index).u32(u32::try_from(count).unwrap_or(u32::MAX))
}
