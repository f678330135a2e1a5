//! The bytes of a frame in order, wherever they lie.

use hugemem::{Foreign, Packet, Segments};

use crate::guest::{Piece, copy_foreign};

/// A header, then a packet's own bytes, then its foreign pieces, poured into whatever pieces come.
pub(super) struct Source<'f> {
    /// What is left of the header, or of the segment at hand.
    bytes: &'f [u8],
    segments: Segments<'f>,
    foreign: &'f [Foreign],
    /// Bytes of the first of `foreign` that are poured out.
    offset: u32,
}

impl<'f> Source<'f> {
    pub(super) fn new(header: &'f [u8], frame: &'f Packet) -> Self {
        Self { bytes: header, segments: frame.segments(), foreign: frame.foreign(), offset: 0 }
    }

    /// Fills `piece`, or what of it the rest of the frame fills. Bytes of a foreign piece, from an offset on, that `later` takes for a piece of the
    /// target are left out.
    #[inline(always)]
    pub(super) fn fill(&mut self, mut piece: Piece<'_>, mut later: impl FnMut(&Foreign, u32, Piece<'_>) -> bool) {
        while !piece.is_empty() {
            let count = if let Some(bytes) = self.own() {
                let count = piece.copy_out(bytes);
                self.bytes = bytes.get(count..).unwrap_or_default();
                // A piece's length has 32 bits.
                u32::try_from(count).unwrap_or(u32::MAX)
            } else {
                let Some(foreign) = self.foreign.first() else { return };
                let count = if later(foreign, self.offset, piece) {
                    (foreign.len() - self.offset).min(piece.len())
                } else {
                    copy_foreign(foreign, self.offset, piece)
                };
                self.offset += count;
                if self.offset >= foreign.len() {
                    self.foreign = self.foreign.get(1..).unwrap_or_default();
                    self.offset = 0;
                }
                count
            };
            piece = piece.split_at(count).1;
        }
    }

    /// Bytes of ours that are next, if any are left.
    fn own(&mut self) -> Option<&'f [u8]> {
        while self.bytes.is_empty() {
            self.bytes = self.segments.next()?;
        }
        Some(self.bytes)
    }
}
