//! Packets made whole: their bytes read wherever these lie, and copied into buffers of ours.
//!
//! A packet of a virtual machine has its payload in guest memory ([`hugemem::Foreign`]). What has to outlive the batch, or goes where guest memory cannot
//! be reached, is copied first.

use drivers::nic::DropReason;
use hugemem::{Packet, PacketPool};

use crate::guest::{faults, is_lost, lost, read_foreign};

/// Why there is no copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shortage {
    /// There is no buffer at the moment.
    Now,
    /// There never will be a copy, for this reason.
    Never(DropReason),
}

/// Copies bytes from `offset` of the frame on into `target`, foreign ones too; gives how many there were.
pub(crate) fn read(packet: &Packet, offset: usize, target: &mut [u8]) -> usize {
    let mut done = packet.copy_to(offset, target);
    let foreign = packet.foreign();
    let beyond: usize = foreign.iter().map(|piece| piece.len() as usize).sum();
    // Foreign pieces come after all own bytes.
    let mut skip = (offset + done).saturating_sub(packet.len().saturating_sub(beyond));
    for piece in foreign {
        let len = piece.len() as usize;
        let Some(rest) = target.get_mut(done..).filter(|rest| !rest.is_empty()) else { break };
        if skip >= len {
            skip -= len;
            continue;
        }
        done += read_foreign(piece, u32::try_from(skip).unwrap_or(u32::MAX), rest);
        skip = 0;
    }
    done
}

/// A packet of `len` bytes in buffers of `pool`. `fill` writes them: it gets the place in the frame and what is to be written.
///
/// # Errors
/// When there are not enough buffers.
pub(crate) fn assemble(
    pool: &mut PacketPool,
    len: usize,
    mut fill: impl FnMut(usize, &mut [u8]),
) -> Result<Packet, Shortage> {
    let room = pool.room();
    if len.div_ceil(room) > pool.capacity() {
        return Err(Shortage::Never(DropReason::NoBuffer));
    }
    let mut whole: Option<Packet> = None;
    let mut at = 0;
    loop {
        let Some(mut buffer) = pool.take() else { return Err(Shortage::Now) };
        let part = (len - at).min(room);
        if buffer.resize(part).is_err() {
            return Err(Shortage::Never(DropReason::NoBuffer));
        }
        fill(at, buffer.bytes_mut());
        match &mut whole {
            None => whole = Some(buffer),
            Some(whole) => {
                if whole.append(buffer).is_err() {
                    return Err(Shortage::Never(DropReason::TooLong));
                }
            }
        }
        at += part;
        if at >= len {
            return whole.ok_or(Shortage::Now);
        }
    }
}

/// A copy of the first `len` bytes of `packet`, with what is known about it.
///
/// # Errors
/// When there are not enough buffers, or guest memory that the packet lies in is lost.
pub(crate) fn copy(pool: &mut PacketPool, packet: &Packet, len: usize) -> Result<Packet, Shortage> {
    let faults_before = faults();
    if lost() != 0 && packet.foreign().iter().any(is_lost) {
        return Err(Shortage::Never(DropReason::System));
    }
    let mut copy = assemble(pool, len.min(packet.len()), |at, into| {
        read(packet, at, into);
    })?;
    if !packet.foreign().is_empty() && faults() != faults_before {
        // Memory went away while it was copied: these are not the bytes that were sent.
        return Err(Shortage::Never(DropReason::System));
    }
    *copy.metadata_mut() = *packet.metadata();
    Ok(copy)
}
