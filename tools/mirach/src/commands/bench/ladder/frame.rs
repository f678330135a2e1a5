//! The frames of the load, and what a receiver knows about them.
//!
//! Every frame carries a number. Of those that are made whole, each byte follows from the number; the others have in their payload whatever
//! their buffer had, as only their headers are written and read.

use anyhow::{Context, ensure};
use hugemem::{Checksum, Metadata, Packet, PacketPool, Segmentation, SegmentationKind};

/// Ethernet.
const ETHERNET: usize = 14;
/// Ethernet, IPv4 and TCP, both without options.
const SEGMENT: usize = ETHERNET + 20 + 20;
/// A number.
const MARK: usize = 8;
/// For local experiments (IEEE 802): nobody on the way looks into it.
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];
/// Payload of the segments that a large frame is to be cut into: what fits into an MTU of 1500.
const CUT: u16 = 1460;
/// Bytes in each buffer of a large frame, as Linux sends them.
pub(super) const PIECE: usize = 32 << 10;
/// Starting points in the pattern that payloads are cut from.
const STARTS: usize = 4096;

/// Lengths that are measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    /// 64 bytes.
    Small,
    /// 1518 bytes.
    Full,
    /// 64 KiB, all but: a TCP segment that is still to be cut, as long as Linux hands them to its cards. From 65,536 bytes on, bridges cut.
    Large,
}

impl Size {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Small, Self::Full, Self::Large];

    /// Bytes of a frame, without frame check sequence.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Small => 64,
            Self::Full => 1518,
            Self::Large => 65_226,
        }
    }

    /// For people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Small => "64 B",
            Self::Full => "1518 B",
            Self::Large => "64 KiB",
        }
    }

    /// Frames that are on their way at most: fewer than any queue on it holds, so that none may be lost.
    pub(super) const fn window(self) -> u64 {
        match self {
            Self::Small | Self::Full => 256,
            Self::Large => 16,
        }
    }
}

/// The frames from one machine to the other.
#[derive(Clone, Debug)]
pub(super) struct Frames {
    head: [u8; SEGMENT],
    /// Bytes of `head` that are used: the mark is behind them.
    mark: usize,
    length: usize,
    metadata: Metadata,
    /// Payloads are cut from this.
    pattern: Vec<u8>,
    /// For what arrives.
    scratch: Vec<u8>,
}

impl Frames {
    /// Frames of this length from machine `from` (0 or 1).
    pub(super) fn new(from: u8, size: Size) -> Self {
        let length = size.bytes();
        let mut head = [0; SEGMENT];
        let mut metadata = Metadata::default();
        let (own, other) = ([2, 0x6d, 0x69, 0, 0, from], [2, 0x6d, 0x69, 0, 0, from ^ 1]);
        put(&mut head, 0, &other);
        put(&mut head, 6, &own);
        let mark = if size == Size::Large {
            let total = u16::try_from(length - ETHERNET).unwrap_or(u16::MAX).to_be_bytes();
            put(&mut head, 12, &[8, 0, 0x45, 0]);
            put(&mut head, 16, &total);
            // Do not fragment, 64 hops, TCP.
            put(&mut head, 20, &[0x40, 0, 64, 6]);
            put(&mut head, 26, &[10, 0, 0, from + 1, 10, 0, 0, 2 - from]);
            // Ports; 20 bytes of header, ACK.
            put(&mut head, 34, &[0x13, 0x89, 0x13, 0x89]);
            put(&mut head, 46, &[0x50, 0x10, 0xff, 0xff]);
            let checksum = sum(&head).to_be_bytes();
            put(&mut head, 24, &checksum);
            metadata.checksum = Checksum::Partial { start: 34, offset: 16 };
            metadata.segmentation =
                Some(Segmentation { kind: SegmentationKind::TcpV4, size: CUT, header_len: 54, ecn: false });
            SEGMENT
        } else {
            put(&mut head, 12, &EXPERIMENT);
            ETHERNET
        };
        let mut state = u64::from(from) + 1;
        let pattern = std::iter::repeat_with(|| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state.to_be_bytes()[0]
        });
        Self { head, mark, length, metadata, pattern: pattern.take(STARTS + length).collect(), scratch: Vec::new() }
    }

    /// Bytes of a frame.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Makes an empty packet frame `number`. `None` when `pool` has not the buffers for the rest of it.
    pub(super) fn fill(&self, frame: &mut Packet, pool: &mut PacketPool, number: u64, whole: bool) -> Option<()> {
        let payload = self.payload(number);
        let mut done = self.length.min(PIECE);
        frame.resize(done).ok()?;
        if whole {
            frame.bytes_mut().copy_from_slice(payload.get(..done)?);
        }
        let (head, rest) = frame.bytes_mut().split_at_mut_checked(self.mark)?;
        head.copy_from_slice(self.head.get(..self.mark)?);
        *rest.first_chunk_mut::<MARK>()? = number.to_be_bytes();
        while done < self.length {
            let part = (self.length - done).min(PIECE);
            let mut piece = pool.take()?;
            piece.resize(part).ok()?;
            if whole {
                piece.bytes_mut().copy_from_slice(payload.get(done..done + part)?);
            }
            frame.append(piece).ok()?;
            done += part;
        }
        *frame.metadata_mut() = self.metadata;
        Some(())
    }

    /// The frame is one of these.
    pub(super) fn is_ours(&self, frame: &Packet) -> bool {
        let mut source = [0; 6];
        frame.copy_to(6, &mut source) == source.len() && self.head.get(6..12) == Some(&source)
    }

    /// Checks that a frame of ours is number `number` as it was sent: length, headers, what is to be done with it, and all other bytes if it was made
    /// `whole`.
    ///
    /// # Errors
    /// What is different.
    pub(super) fn check(&mut self, frame: &Packet, number: u64, whole: bool) -> anyhow::Result<()> {
        let (length, behind) = (self.length, self.mark + MARK);
        ensure!(frame.len() == length, "a frame of {length} bytes arrived with {}", frame.len());
        self.scratch.resize(if whole { length } else { behind }, 0);
        let copied = frame.copy_to(0, &mut self.scratch);
        let (head, rest) = self.scratch.split_at_checked(self.mark).context("a frame without headers")?;
        ensure!(
            copied == self.scratch.len() && Some(head) == self.head.get(..self.mark),
            "headers changed: {head:02x?}"
        );
        let found = u64::from_be_bytes(*rest.first_chunk::<MARK>().context("a frame without its number")?);
        ensure!(found == number, "frame {found} arrived where {number} was due: lost, twice or out of order");
        let (is, due) = (frame.metadata().segmentation, self.metadata.segmentation);
        ensure!(is == due, "frame {number} is to be cut as {is:?} instead of {due:?}");
        if whole {
            let due = self.payload(number).get(behind..);
            ensure!(self.scratch.get(behind..) == due, "bytes of frame {number} changed on the way");
        }
        Ok(())
    }

    /// What a whole frame has where no headers are.
    fn payload(&self, number: u64) -> &[u8] {
        let start = usize::try_from(number.wrapping_mul(61) % STARTS as u64).unwrap_or(0);
        self.pattern.get(start..start + self.length).unwrap_or_default()
    }
}

/// Writes `bytes` into `head`, from `at` on.
fn put(head: &mut [u8; SEGMENT], at: usize, bytes: &[u8]) {
    if let Some(place) = head.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// The checksum of the IPv4 header of a frame (RFC 1071), whose field is zero.
fn sum(head: &[u8; SEGMENT]) -> u16 {
    let words = head.get(ETHERNET..ETHERNET + 20).unwrap_or_default().as_chunks::<2>().0;
    let sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use hugemem::{Iova, Region};

    #[test]
    fn a_frame_is_known_again_and_every_change_is_noticed() {
        let region = Region::on_heap(4 << 20, Iova::new(1 << 20)).unwrap();
        let mut pool = region.packets(16, PIECE).unwrap();
        for size in Size::ALL {
            let mut frames = Frames::new(1, size);
            let mut frame = pool.take().unwrap();
            frames.fill(&mut frame, &mut pool, 7, true).unwrap();
            assert_eq!((frame.len(), frame.segment_count()), (size.bytes(), size.bytes().div_ceil(PIECE)), "{size:?}");
            assert!(frames.is_ours(&frame) && !Frames::new(0, size).is_ours(&frame));
            frames.check(&frame, 7, true).unwrap();
            assert!(frames.check(&frame, 8, true).is_err(), "it is not the one that is due");
            let last = frame.bytes().len() - 1;
            frame.bytes_mut()[last] ^= 1;
            assert!(frames.check(&frame, 7, true).is_err());
            assert!(frames.check(&frame, 7, false).is_ok(), "only headers were looked at");
            frame.bytes_mut()[last] ^= 1;
            frame.bytes_mut()[13] ^= 1;
            assert!(frames.check(&frame, 7, false).is_err());
            frame.bytes_mut()[13] ^= 1;
            frame.metadata_mut().segmentation = None;
            assert_eq!(frames.check(&frame, 7, true).is_ok(), size != Size::Large, "{size:?}");
        }
    }

    #[test]
    fn headers_of_segments_have_the_right_checksum() {
        let frames = Frames::new(0, Size::Large);
        let words = frames.head[14..34].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        assert_eq!(words.fold(0, |sum, word| ((sum + word) & 0xffff) + ((sum + word) >> 16)), 0xffff);
    }
}
