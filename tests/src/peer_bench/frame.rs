//! The frames that are sent: Ethernet, IPv4, UDP or TCP, and behind these a mark by which they are known again.

use anyhow::{Context, Result};
use hugemem::{Checksum, Packet, PacketPool, Segmentation, SegmentationKind};

use super::flows::{self, Flows};

/// Ethernet, IPv4 without options.
pub(super) const NETWORK: usize = 14 + 20;
/// Where the mark is: behind the longest header, that of TCP.
const MARK: usize = NETWORK + 20 - 6;
/// Bytes of a mark: a number and a time.
const MARK_LENGTH: usize = 16;
/// Shortest frame that holds all that.
pub const SHORTEST: usize = 64;
/// Payload of the segments that a large frame is to be cut into.
const SEGMENT: u16 = 1460;
/// Bytes in each buffer of a large frame, as Linux sends them.
pub const PIECE: usize = 32 << 10;

/// What every frame of one direction begins with.
#[derive(Clone, Debug)]
pub struct Template {
    head: [u8; SHORTEST],
    length: usize,
    large: bool,
    flows: Flows,
}

impl Template {
    /// Frames of `length` bytes without frame check sequence, from station `from` to station `to`, of one flow; large ones are TCP segments that
    /// still have to be cut.
    #[must_use]
    pub fn new(from: u8, to: u8, length: usize, large: bool) -> Self {
        let mut head = [0; SHORTEST];
        let total = u16::try_from(length - 14).unwrap_or(u16::MAX).to_be_bytes();
        let protocol = if large { 6 } else { 17 };
        let ([a, b, c, d], [e, f, g, h]) = (flows::address(from, 0), flows::address(to, 0));
        let [high, low] = flows::SERVER.to_be_bytes();
        let start = [
            2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0, // Ethernet
            0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, protocol, 0, 0, a, b, c, d, e, f, g, h, // IPv4
            high, low, high, low, // ports
        ];
        head[..start.len()].copy_from_slice(&start);
        let flows = Flows::new(1, from, &head);
        flows.write(&mut head, 0);
        if large {
            // Data offset and flags; the rest of the TCP header is left zero.
            head[NETWORK + 12] = 5 << 4;
            head[NETWORK + 13] = 0x10;
        } else {
            let datagram = u16::try_from(length - NETWORK).unwrap_or(u16::MAX).to_be_bytes();
            head[NETWORK + 4..NETWORK + 6].copy_from_slice(&datagram);
        }
        Self { head, length, large, flows }
    }

    /// Frames of so many flows.
    #[must_use]
    pub fn with_flows(mut self, count: u32) -> Self {
        self.flows = self.flows.counting(count);
        self
    }

    /// Who sends them.
    #[must_use]
    pub fn station(&self) -> u8 {
        self.head[11]
    }

    /// How many flows the frames are of.
    #[must_use]
    pub fn flows(&self) -> u32 {
        self.flows.count()
    }

    /// Bytes of a frame.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Takes an empty frame, whose first bytes start to travel to this core; `None` when the pool is dry.
    #[inline]
    pub fn take(pool: &mut PacketPool) -> Option<Packet> {
        let frame = pool.take()?;
        frame.prefetch_to_write();
        Some(frame)
    }

    /// Makes an empty frame one of flow number `flow`, with the mark `number` and `time`. `None` when it is too short, or the pool is dry.
    #[inline]
    pub fn fill(&self, frame: &mut Packet, pool: &mut PacketPool, flow: u32, number: u64, time: u64) -> Option<()> {
        frame.resize(self.length.min(PIECE)).ok()?;
        let head = frame.bytes_mut().first_chunk_mut::<SHORTEST>()?;
        *head = self.head;
        if flow > 0 {
            self.flows.write(head, flow);
        }
        if self.large {
            self.enlarge(frame, pool)?;
            let head = frame.bytes_mut().first_chunk_mut::<{ SHORTEST + MARK_LENGTH }>()?;
            head[SHORTEST..SHORTEST + 8].copy_from_slice(&number.to_le_bytes());
            head[SHORTEST + 8..].copy_from_slice(&time.to_le_bytes());
        } else {
            head[MARK..MARK + 8].copy_from_slice(&number.to_le_bytes());
            head[MARK + 8..].copy_from_slice(&time.to_le_bytes());
        }
        Some(())
    }

    /// Takes a frame and fills it.
    #[inline]
    pub fn make(&self, pool: &mut PacketPool, flow: u32, number: u64, time: u64) -> Option<Packet> {
        let mut frame = Self::take(pool)?;
        self.fill(&mut frame, pool, flow, number, time)?;
        Some(frame)
    }

    fn enlarge(&self, frame: &mut Packet, pool: &mut PacketPool) -> Option<()> {
        while frame.len() < self.length {
            let mut piece = pool.take()?;
            piece.resize((self.length - frame.len()).min(PIECE)).ok()?;
            frame.append(piece).ok()?;
        }
        let header_len = u16::try_from(NETWORK + 20).ok()?;
        let metadata = frame.metadata_mut();
        metadata.checksum = Checksum::Partial { start: u16::try_from(NETWORK).ok()?, offset: 16 };
        metadata.segmentation =
            Some(Segmentation { kind: SegmentationKind::TcpV4, size: SEGMENT, header_len, ecn: false });
        Some(())
    }

    /// The mark of a frame that arrived, when it is one of these.
    #[inline]
    #[must_use]
    pub fn read(&self, frame: &Packet) -> Option<(u64, u64)> {
        let at = if self.large { SHORTEST } else { MARK };
        let bytes = frame.bytes();
        let known = frame.len() == self.length && bytes.first_chunk::<12>() == self.head.first_chunk::<12>();
        let mark = bytes.get(at..)?.first_chunk::<MARK_LENGTH>().filter(|_| known)?;
        let (words, _) = mark.as_chunks::<8>();
        let [number, time] = <[[u8; 8]; 2]>::try_from(words).ok()?;
        Some((u64::from_le_bytes(number), u64::from_le_bytes(time)))
    }
}

/// Writes to every buffer of a pool once, so that no page is new when it counts.
///
/// # Errors
/// The pool is smaller than it says.
pub fn touch(pool: &mut PacketPool) -> Result<()> {
    let mut taken = Vec::with_capacity(pool.capacity());
    for _ in 0..pool.capacity() {
        let mut packet = pool.take().context("a pool has fewer buffers than it should")?;
        packet.resize(packet.capacity()).context("a fresh buffer is too short")?;
        packet.bytes_mut().fill(0x5a);
        taken.push(packet);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::HashSet;

    use super::*;
    use hugemem::{Iova, Region};

    #[test]
    fn frames_are_known_again_and_others_are_not() {
        let region = Region::on_heap(1 << 20, Iova::new(1 << 20)).unwrap();
        let mut pool = region.packets(8, 33_000).unwrap();
        touch(&mut pool).unwrap();
        for (length, large) in [(64, false), (1518, false), (65_000, true)] {
            let template = Template::new(1, 2, length, large);
            let frame = template.make(&mut pool, 0, 7, 9).unwrap();
            assert_eq!(frame.len(), length);
            assert_eq!(frame.metadata().segmentation.is_some(), large);
            assert_eq!(template.read(&frame), Some((7, 9)));
            assert_eq!(Template::new(2, 1, length, large).read(&frame), None);
            assert_eq!(Template::new(1, 2, length + 1, large).read(&frame), None);
            assert_eq!(sum(&frame), 0xffff);
        }
    }

    /// Of the IPv4 header, RFC 1071: all ones when it is right.
    fn sum(frame: &Packet) -> u32 {
        let words = frame.bytes()[14..34].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        words.fold(0, |sum, word| ((sum + word) & 0xffff) + ((sum + word) >> 16))
    }

    #[test]
    fn each_flow_has_addresses_and_ports_of_its_own_and_answers_have_them_turned_round() {
        let region = Region::on_heap(1 << 20, Iova::new(1 << 20)).unwrap();
        let mut pool = region.packets(8, 2048).unwrap();
        let [there, back] = [(1, 2), (2, 1)].map(|(from, to)| Template::new(from, to, 64, false).with_flows(100_000));
        let mut seen = HashSet::new();
        for flow in [0, 1, 255, 256, 999, 65_535, 65_536, 99_999] {
            let [question, answer] = [&there, &back].map(|template| {
                let frame = template.make(&mut pool, flow, 7, 9).unwrap();
                assert_eq!((sum(&frame), template.read(&frame)), (0xffff, Some((7, 9))), "{flow}");
                frame.bytes()[26..38].to_vec()
            });
            assert_eq!(question[..4], answer[4..8], "{flow}");
            assert_eq!(question[4..8], answer[..4], "{flow}");
            assert_eq!((&question[8..10], &question[10..]), (&answer[10..], &answer[8..10]), "{flow}");
            assert!(question[..3] == [10, 1, 0] && seen.insert(question), "{flow}");
        }
    }
}
