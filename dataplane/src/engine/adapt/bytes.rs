//! Reading packets wherever their bytes lie, and building new ones.

use drivers::nic::DropReason;
use hugemem::{Packet, PacketPool};

use super::Step;
use crate::guest::read_foreign;

/// Copies bytes from `offset` of the frame on into `target`, foreign ones too; gives how many there were.
pub(super) fn read(packet: &Packet, offset: usize, target: &mut [u8]) -> usize {
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
/// What to do when there are not enough buffers.
pub(super) fn assemble(
    pool: &mut PacketPool,
    len: usize,
    mut fill: impl FnMut(usize, &mut [u8]),
) -> Result<Packet, Step> {
    let room = pool.room();
    if len.div_ceil(room) > pool.capacity() {
        return Err(Step::Drop(DropReason::NoBuffer));
    }
    let mut whole: Option<Packet> = None;
    let mut at = 0;
    loop {
        let Some(mut buffer) = pool.take() else { return Err(Step::Wait) };
        let part = (len - at).min(room);
        if buffer.resize(part).is_err() {
            return Err(Step::Drop(DropReason::NoBuffer));
        }
        fill(at, buffer.bytes_mut());
        match &mut whole {
            None => whole = Some(buffer),
            Some(whole) => {
                if whole.append(buffer).is_err() {
                    return Err(Step::Drop(DropReason::TooLong));
                }
            }
        }
        at += part;
        if at >= len {
            return whole.ok_or(Step::Wait);
        }
    }
}
