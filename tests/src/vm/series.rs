//! Numbered frames: what is in each follows from its number alone, so that who receives it can tell every byte.

use anyhow::{Context, Result, bail, ensure};
use hugemem::{Checksum, Metadata, Packet, Segmentation, SegmentationKind};

use crate::conformance::frame::{Flow, Layout, Transport, complete, pattern};

/// For local experiments (IEEE 802); nobody on the way looks into it.
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];
/// Where number and epoch are in a plain frame.
const MARK: usize = 14;
/// Ethernet, IPv4 and TCP.
const HEADERS: u16 = 54;
/// What an IPv6 header is longer.
const V6: u16 = 20;
/// Payload of the segments that a large frame is to be cut into.
const SEGMENT: u16 = 1448;

/// What is in the frames of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Frames of no known protocol, of lengths from one to the other, both included: the first two are the ends.
    Plain(usize, usize),
    /// TCP segments of this length, which still have to be cut, with a partial checksum.
    Large(usize),
    /// The same over IPv6.
    LargeV6(usize),
}

impl Content {
    /// Bytes in front of the payload of a segment; `None` for a frame that is none.
    fn headers(self) -> Option<u16> {
        match self {
            Self::Plain(..) => None,
            Self::Large(_) => Some(HEADERS),
            Self::LargeV6(_) => Some(HEADERS + V6),
        }
    }

    /// Its frames are segments that still have to be cut.
    #[must_use]
    pub fn is_large(self) -> bool {
        self.headers().is_some()
    }
}

/// Frames from one machine to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Series {
    /// Tells it from other series on the same path.
    pub id: u8,
    /// What is in them.
    pub content: Content,
}

impl Series {
    /// Writes frame `number`, sent in `epoch`, into `frame`, and returns what goes along with it.
    pub fn write(&self, number: u64, epoch: u32, frame: &mut Vec<u8>) -> Metadata {
        frame.clear();
        match self.content {
            Content::Plain(shortest, longest) => {
                let span = (longest - shortest + 1) as u64;
                let length = match number {
                    0 => shortest,
                    1 => longest,
                    _ => shortest + usize::try_from(mix(number) % span).unwrap_or(0),
                };
                frame.extend([2, 0x76, 0x6d, 0, 1, self.id, 2, 0x76, 0x6d, 0, 0, self.id]);
                frame.extend(EXPERIMENT);
                frame.extend(number.to_be_bytes());
                frame.extend(epoch.to_be_bytes());
                let mut state = number ^ u64::from(self.id) << 56;
                while frame.len() < length {
                    state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    frame.extend(mix(state).to_le_bytes());
                }
                frame.truncate(length);
                Metadata::default()
            }
            Content::Large(length) | Content::LargeV6(length) => {
                let header_len = self.content.headers().unwrap_or(0);
                let v6 = header_len != HEADERS;
                let mut payload = number.to_be_bytes().to_vec();
                payload.extend(epoch.to_be_bytes());
                let seed = u32::try_from(number & 0xffff_ffff).unwrap_or(0) ^ u32::from(self.id) << 24;
                payload.extend(pattern(seed, length.saturating_sub(usize::from(header_len) + payload.len())));
                let flow = Flow::numbered(self.id.into(), v6, Transport::Tcp);
                *frame = flow.frame([2, 0x76, 0x6d, 0, 1, self.id], [2, 0x76, 0x6d, 0, 0, self.id], &payload);
                let checksum = Layout::of(frame).map_or(Checksum::Unknown, |layout| layout.make_partial(frame));
                let kind = if v6 { SegmentationKind::TcpV6 } else { SegmentationKind::TcpV4 };
                let segmentation = Segmentation { kind, size: SEGMENT, header_len, ecn: false };
                Metadata { checksum, segmentation: Some(segmentation), ..Metadata::default() }
            }
        }
    }

    /// Number and epoch of a frame, when it is one of these.
    fn mark(&self, frame: &[u8]) -> Option<(u64, u32)> {
        let at = self.content.headers().map_or(MARK, usize::from);
        let source = frame.get(6..12)?;
        if source != [2, 0x76, 0x6d, 0, 0, self.id] {
            return None;
        }
        let (number, rest) = frame.get(at..)?.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*number), u32::from_be_bytes(*rest.first_chunk::<4>()?)))
    }
}

/// What a [`Check`] found a frame to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// One of the series, sent in this epoch.
    Ours(u32),
    /// Of somebody else.
    Stranger,
}

/// The receiver's knowledge of a series.
#[derive(Debug)]
pub struct Check {
    series: Series,
    /// Frames that arrived, each whole.
    pub received: u64,
    /// Frames that were passed over: each is lost, as order is kept.
    pub lost: u64,
    /// For each flow (its frames have numbers that leave the same rest) the number that is due.
    next: Vec<u64>,
    /// Frames may be lost.
    pub may_lose: bool,
    bytes: Vec<u8>,
    expected: Vec<u8>,
}

impl Check {
    /// Of a series that is spread over so many flows, in turns; order is kept in each.
    #[must_use]
    pub fn new(series: Series, flows: usize) -> Self {
        let next = (0..flows as u64).collect();
        Self { series, received: 0, lost: 0, next, may_lose: false, bytes: Vec::new(), expected: Vec::new() }
    }

    /// Looks at a frame.
    ///
    /// # Errors
    ///
    /// A byte is wrong, or it came twice or out of order, or one before it did not come and had to.
    pub fn accept(&mut self, packet: &Packet) -> Result<Seen> {
        self.bytes.resize(packet.len(), 0);
        let copied = packet.copy_to(0, &mut self.bytes);
        ensure!(copied == self.bytes.len(), "a frame of {} bytes has {copied}", self.bytes.len());
        let Some((number, epoch)) = self.series.mark(&self.bytes) else { return Ok(Seen::Stranger) };
        let metadata = self.series.write(number, epoch, &mut self.expected);
        let segmentation = packet.metadata().segmentation;
        ensure!(
            segmentation.is_none() || segmentation == metadata.segmentation,
            "frame {number} is to be cut as {segmentation:?} instead of {:?}",
            metadata.segmentation
        );
        if self.bytes != self.expected && !self.is_completed(metadata) {
            let at = self.bytes.iter().zip(&self.expected).position(|(is, due)| is != due);
            let around = at.map_or(0..0, |at| at..(at + 8).min(self.bytes.len()).min(self.expected.len()));
            bail!(
                "frame {number} changed: {} of {} bytes, first difference at {at:?}: {:02x?} instead of {:02x?}, with {:?}",
                self.bytes.len(),
                self.expected.len(),
                self.bytes.get(around.clone()),
                self.expected.get(around),
                packet.metadata()
            );
        }
        let flows = self.next.len() as u64;
        let flow = usize::try_from(number % flows).unwrap_or(0);
        let next = self.next.get_mut(flow).context("no such flow")?;
        if number < *next {
            bail!("flow {flow}: frame {number} came when {next} was due: twice, or out of order");
        }
        if number > *next {
            let missing = (number - *next) / flows;
            if !self.may_lose {
                bail!("flow {flow}: frame {number} came when {next} was due: {missing} were lost");
            }
            self.lost += missing;
        }
        *next = number + flows;
        self.received += 1;
        Ok(Seen::Ours(epoch))
    }

    /// It is the frame that was expected, but for its partial checksum: somebody on the way has completed it, or left the length out.
    fn is_completed(&mut self, metadata: Metadata) -> bool {
        let Checksum::Partial { start, offset } = metadata.checksum else { return false };
        if complete(&mut self.expected, start, offset).is_ok() && self.bytes == self.expected {
            return true;
        }
        // DPDK sends segments on as it would hand them to a card.
        let layout = Layout::of(&self.expected).filter(|_| metadata.segmentation.is_some());
        layout.is_some_and(|layout| {
            layout.leave_out_length(&mut self.expected);
            self.bytes == self.expected
        })
    }
}

/// The finalizer of SplitMix64: a number from a number.
fn mix(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use hugemem::{Iova, PacketPool, Region};

    use super::*;

    const PLAIN: Series = Series { id: 3, content: Content::Plain(60, 1514) };

    fn pool() -> PacketPool {
        Region::on_heap(4 << 20, Iova::new(1 << 20)).unwrap().packets(64, 2048).unwrap()
    }

    fn packet(pool: &mut PacketPool, bytes: &[u8]) -> Packet {
        let mut pieces = bytes.chunks(2048).map(|piece| {
            let mut part = pool.take().unwrap();
            part.write(piece).unwrap();
            part
        });
        let mut whole = pieces.next().unwrap();
        pieces.for_each(|part| assert!(whole.append(part).is_ok()));
        whole
    }

    #[test]
    fn frames_arrive_once_whole_and_in_order() {
        let mut pool = pool();
        let mut check = Check::new(PLAIN, 2);
        let mut bytes = Vec::new();
        for number in [0, 1, 2, 5, 3] {
            PLAIN.write(number, 7, &mut bytes);
            let seen = check.accept(&packet(&mut pool, &bytes));
            assert_eq!(seen.is_err(), number == 5, "{number}: 3 was due in its flow");
        }
        assert_eq!((check.received, check.lost), (4, 0));
        assert!(check.accept(&packet(&mut pool, &bytes)).is_err(), "the same again");
        check.may_lose = true;
        PLAIN.write(14, 7, &mut bytes);
        assert_eq!(check.accept(&packet(&mut pool, &bytes)).unwrap(), Seen::Ours(7));
        assert_eq!(check.lost, 5, "4, 6, 8, 10 and 12");
    }

    #[test]
    fn a_byte_that_changed_is_noticed_and_a_stranger_is_none_of_ours() {
        let mut pool = pool();
        let mut bytes = Vec::new();
        for content in [PLAIN.content, Content::Large(65_000), Content::LargeV6(65_000)] {
            let series = Series { content, ..PLAIN };
            let mut check = Check::new(series, 1);
            series.write(0, 1, &mut bytes);
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            assert!(check.accept(&packet(&mut pool, &bytes)).is_err());
            bytes[last] ^= 1;
            bytes[6] ^= 4;
            assert_eq!(check.accept(&packet(&mut pool, &bytes)).unwrap(), Seen::Stranger);
            bytes[6] ^= 4;
            assert_eq!(check.accept(&packet(&mut pool, &bytes)).unwrap(), Seen::Ours(1));
        }
    }

    #[test]
    fn a_large_frame_may_come_with_its_checksum_completed() {
        let mut pool = pool();
        let series = Series { content: Content::Large(9000), ..PLAIN };
        let mut bytes = Vec::new();
        let metadata = series.write(0, 1, &mut bytes);
        let Checksum::Partial { start, offset } = metadata.checksum else { panic!("{metadata:?}") };
        complete(&mut bytes, start, offset).unwrap();
        assert!(Layout::of(&bytes).unwrap().is_right(&bytes));
        assert_eq!(Check::new(series, 1).accept(&packet(&mut pool, &bytes)).unwrap(), Seen::Ours(1));
    }
}
