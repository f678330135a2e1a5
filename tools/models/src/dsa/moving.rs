//! The bytes of a descriptor, piece by piece.

use super::descriptor::Operation;
use super::engine::{Around, Job};
use super::queue::Queue;
use crate::card::Dma;
use crate::memory::Access;

/// Most bytes between two looks at the rest of the world.
const PIECE: u32 = 64 << 10;
/// Pages end here: what reads or writes a page at a time knows exactly where a fault is.
const PAGE: u64 = 4096;

/// What became of a piece.
pub(super) enum Piece {
    Moved(u32),
    /// The bytes have to travel.
    Wait,
    /// This address is not there.
    Fault {
        address: u64,
        of_write: bool,
    },
    /// A comparison found a difference after so many bytes.
    Differs(u32),
}

impl Job {
    /// A copy whose source would be overwritten before it is read begins at its end.
    pub(super) fn is_backwards(&self) -> bool {
        let (source, target) = (self.descriptor.source(), self.descriptor.target());
        self.operation == Operation::Move && target > source && self.descriptor.overlaps(source, target)
    }
}

impl Queue {
    /// The next piece, up to byte `end` and at most `most` bytes.
    pub(super) fn piece(&mut self, around: &mut Around<'_>, job: &Job, end: u32, most: u64) -> Piece {
        let rest = (end - job.moved).min(PIECE).min(u32::try_from(most).unwrap_or(u32::MAX));
        let on = |address: u64| address.wrapping_add(job.moved.into());
        let (source, target, second) =
            (on(job.descriptor.source()), on(job.descriptor.target()), on(job.descriptor.second()));
        let result = match job.operation {
            Operation::Move if job.is_backwards() => self.backwards(around, job, rest),
            Operation::Move => {
                let [first, _] = &mut *around.scratch;
                around
                    .bus
                    .copy(&mut self.data_hints, source, target, rest as usize, first)
                    .map(|bytes| Piece::Moved(u32::try_from(bytes).unwrap_or(rest)))
                    .map_err(|(access, error)| match access {
                        Access::Read => (source, access, error),
                        Access::Write => (target, access, error),
                    })
            }
            Operation::Fill => {
                let len = within_page(rest, &[target]);
                let [pattern, _] = &mut *around.scratch;
                repeat(pattern, job.descriptor.source(), job.moved, len);
                self.write(around, target, len, false)
            }
            Operation::Dualcast => self.dualcast(around, [source, target, second], rest),
            Operation::Compare => self.compare(around, source, target, rest),
            Operation::ComparePattern => {
                let len = within_page(rest, &[source]);
                let [_, pattern] = &mut *around.scratch;
                repeat(pattern, job.descriptor.target(), job.moved, len);
                self.read(around, source, len, false).map(|()| difference(around.scratch, len))
            }
            // Flushing needs the address to be there.
            _ => {
                let len = within_page(rest, &[target]);
                self.read(around, target, len, true).map(|()| Piece::Moved(len))
            }
        };
        match result {
            Ok(piece) => {
                around.bus.commit();
                piece
            }
            Err((_, _, Dma::Pending)) => Piece::Wait,
            Err((address, access, Dma::Refused)) => {
                around.bus.commit();
                Piece::Fault { address, of_write: access == Access::Write }
            }
        }
    }

    /// Reads into the first piece of scratch memory.
    fn read(&mut self, around: &mut Around<'_>, address: u64, len: u32, is_target: bool) -> Result<(), Lost> {
        let [source, target] = &mut self.data_hints;
        let [scratch, _] = &mut *around.scratch;
        scratch.resize(len as usize, 0);
        let hint = if is_target { target } else { source };
        around.bus.read(hint, address, scratch).map_err(|error| (address, Access::Read, error))
    }

    /// Writes the first piece of scratch memory.
    fn write(&mut self, around: &mut Around<'_>, address: u64, len: u32, second: bool) -> Result<Piece, Lost> {
        let [_, target] = &mut self.data_hints;
        let hint = if second { &mut self.second_hint } else { target };
        let [scratch, _] = &*around.scratch;
        around.bus.write(hint, address, scratch).map_err(|error| (address, Access::Write, error))?;
        Ok(Piece::Moved(len))
    }

    fn backwards(&mut self, around: &mut Around<'_>, job: &Job, rest: u32) -> Result<Piece, Lost> {
        // The part that is not moved ends here, on both sides.
        let left = u64::from(job.descriptor.size() - job.moved);
        let (source, target) = (job.descriptor.source().wrapping_add(left), job.descriptor.target().wrapping_add(left));
        let before = |address: u64| u32::try_from((address.wrapping_sub(1) % PAGE) + 1).unwrap_or(1);
        let len = rest.min(before(source)).min(before(target));
        self.read(around, source.wrapping_sub(len.into()), len, false)?;
        self.write(around, target.wrapping_sub(len.into()), len, false)
    }

    fn dualcast(&mut self, around: &mut Around<'_>, addresses: [u64; 3], rest: u32) -> Result<Piece, Lost> {
        let [source, target, second] = addresses;
        let len = within_page(rest, &addresses);
        self.read(around, source, len, false)?;
        self.write(around, target, len, false)?;
        self.write(around, second, len, true)
    }

    fn compare(&mut self, around: &mut Around<'_>, one: u64, other: u64, rest: u32) -> Result<Piece, Lost> {
        let len = within_page(rest, &[one, other]);
        self.read(around, other, len, true)?;
        let [first, second] = &mut *around.scratch;
        std::mem::swap(first, second);
        self.read(around, one, len, false)?;
        Ok(difference(around.scratch, len))
    }
}

/// An access that did not happen: where, and why.
type Lost = (u64, Access, Dma);

/// How many bytes there are up to the end of the first page that ends.
fn within_page(rest: u32, addresses: &[u64]) -> u32 {
    let left = |address: &u64| u32::try_from(PAGE - address % PAGE).unwrap_or(1);
    addresses.iter().map(left).fold(rest, u32::min)
}

/// Eight bytes again and again, as they are after `moved` bytes.
fn repeat(scratch: &mut Vec<u8>, pattern: u64, moved: u32, len: u32) {
    scratch.clear();
    scratch.extend(pattern.to_le_bytes().iter().cycle().skip((moved % 8) as usize).take(len as usize));
}

fn difference([one, other]: &[Vec<u8>; 2], len: u32) -> Piece {
    match one.iter().zip(other).position(|(one, other)| one != other) {
        Some(at) => Piece::Differs(u32::try_from(at).unwrap_or(len)),
        None => Piece::Moved(len),
    }
}
