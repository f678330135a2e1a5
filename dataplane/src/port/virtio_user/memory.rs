//! Regions as the back-end is told of them (vhost-user, "Memory region description").

use std::os::fd::BorrowedFd;

use hugemem::Region;
use rustix::io::Errno;
use vhost::vhost_user::message::FrontendReq as Request;

use super::channel::Failure;

/// Most regions of a table that goes in one message.
pub(super) const MOST: usize = 8;

/// Guest address, size, user address, and offset in the file.
fn describe(region: &Region, request: Request) -> Result<(Vec<u8>, BorrowedFd<'_>), Failure> {
    let (file, offset) = region.file().ok_or(Failure::System { request, error: Errno::BADF })?;
    let address = region.iova().raw();
    let fields = [address, region.len() as u64, address, offset].map(u64::to_ne_bytes);
    Ok((fields.concat(), file))
}

/// A message about one region.
pub(super) fn slot(region: &Region) -> Result<(Vec<u8>, BorrowedFd<'_>), Failure> {
    let (description, file) = describe(region, Request::ADD_MEM_REG)?;
    Ok(([[0; 8].as_slice(), &description].concat(), file))
}

/// A message with the table of all regions.
pub(super) fn table(regions: &[Region]) -> Result<(Vec<u8>, Vec<BorrowedFd<'_>>), Failure> {
    let count = u32::try_from(regions.len()).unwrap_or(u32::MAX);
    let mut body = [count, 0].map(u32::to_ne_bytes).concat();
    let mut files = Vec::new();
    for region in regions {
        let (description, file) = describe(region, Request::SET_MEM_TABLE)?;
        body.extend(description);
        files.push(file);
    }
    Ok((body, files))
}
