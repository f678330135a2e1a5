//! The header in front of every frame (virtio 1.3, section 5.1.6), and what it says as packet metadata.
//!
//! Both directions check the header against the frame: a device cannot make the rest of the program look outside a
//! frame, and a packet cannot make a device do so.

use hugemem::{Checksum, Metadata, Packet, Segmentation, SegmentationKind};

use super::features::Features;
use crate::checksum;
use crate::nic::DropReason;

/// Bytes of a header without hash.
pub const PLAIN: usize = 12;
/// Bytes of a header with hash.
pub(super) const WITH_HASH: usize = 20;
/// Longest frame that a header can describe: the largest IP packet behind an Ethernet header with two VLAN tags.
pub const LONGEST: usize = 65535 + 22;
/// Shortest frame: an Ethernet header.
pub(super) const SHORTEST: usize = 14;

/// `flags`: the checksum is partial.
const NEEDS_CSUM: u8 = 1;
/// `flags`: the device found the checksum right.
const DATA_VALID: u8 = 2;
/// `gso_type`: an ordinary frame.
const GSO_NONE: u8 = 0;
/// `gso_type`: TCP over IPv4.
const GSO_TCPV4: u8 = 1;
/// `gso_type`: TCP over IPv6.
const GSO_TCPV6: u8 = 4;
/// `gso_type`: UDP datagrams of equal size.
const GSO_UDP_L4: u8 = 5;
/// `gso_type`, added to the TCP types: the segment carries congestion notification.
const GSO_ECN: u8 = 0x80;

/// Bytes of the header under negotiated features.
pub(super) const fn length(features: Features) -> usize {
    if features.contains(Features::HASH_REPORT) { WITH_HASH } else { PLAIN }
}

/// A header as received: copied out of the buffer once, so that what is checked is what is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    flags: u8,
    gso_type: u8,
    gso_size: u16,
    checksum_start: u16,
    checksum_offset: u16,
    /// Receive buffers that the frame spans, when receive buffers are mergeable.
    pub(super) buffers: u16,
    hash: Option<u32>,
}

impl Header {
    /// Reads the header at the front of `bytes`; `None` when there are too few. `hdr_len` is left out, because it is a
    /// hint that a driver must not rely on (5.1.6.4.2).
    #[inline]
    pub fn read(bytes: &[u8], with_hash: bool) -> Option<Self> {
        let [flags, gso_type, _, _, size_0, size_1, start_0, start_1, offset_0, offset_1, buffers_0, buffers_1] =
            *bytes.first_chunk::<PLAIN>()?;
        let hash = if with_hash {
            let [value_0, value_1, value_2, value_3, report_0, report_1, _, _] =
                *bytes.get(PLAIN..)?.first_chunk::<{ WITH_HASH - PLAIN }>()?;
            // A report of zero: nothing was hashed (5.1.6.4.5).
            (u16::from_le_bytes([report_0, report_1]) != 0)
                .then(|| u32::from_le_bytes([value_0, value_1, value_2, value_3]))
        } else {
            None
        };
        Some(Self {
            flags,
            gso_type,
            gso_size: u16::from_le_bytes([size_0, size_1]),
            checksum_start: u16::from_le_bytes([start_0, start_1]),
            checksum_offset: u16::from_le_bytes([offset_0, offset_1]),
            buffers: u16::from_le_bytes([buffers_0, buffers_1]),
            hash,
        })
    }

    /// It says nothing at all: the metadata of a fresh packet is right.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        self.flags & (NEEDS_CSUM | DATA_VALID) == 0 && self.gso_type == GSO_NONE && self.hash.is_none()
    }

    /// What the header says about `frame`, which it is no longer in front of. `None` when it contradicts the frame or
    /// the negotiated features (5.1.6.4).
    #[inline]
    pub fn metadata(&self, frame: &Packet, features: Features) -> Option<Metadata> {
        if self.flags & (NEEDS_CSUM | DATA_VALID) == 0 && self.gso_type == GSO_NONE {
            return Some(Metadata { hash: self.hash, ..Metadata::default() });
        }
        self.offloaded(frame, features)
    }

    fn offloaded(&self, frame: &Packet, features: Features) -> Option<Metadata> {
        let checksum = if self.flags & NEEDS_CSUM != 0 {
            let end = usize::from(self.checksum_start) + usize::from(self.checksum_offset) + 2;
            if !features.contains(Features::GUEST_CSUM) || end > frame.len() {
                return None;
            }
            Checksum::Partial { start: self.checksum_start, offset: self.checksum_offset }
        } else if self.flags & DATA_VALID != 0 && features.contains(Features::GUEST_CSUM) {
            Checksum::Verified
        } else {
            Checksum::Unknown
        };
        let segmentation = match self.gso_type {
            GSO_NONE => None,
            _ => Some(self.segmentation(frame, features)?),
        };
        Some(Metadata { checksum, segmentation, hash: self.hash, ..Metadata::default() })
    }

    /// A large frame comes with a partial checksum (5.1.6.4.1), whose place shows where the transport header ends.
    fn segmentation(&self, frame: &Packet, features: Features) -> Option<Segmentation> {
        let ecn = self.gso_type & GSO_ECN != 0;
        let (kind, allowed) = match self.gso_type & !GSO_ECN {
            GSO_TCPV4 => (SegmentationKind::TcpV4, Features::GUEST_TSO4),
            GSO_TCPV6 => (SegmentationKind::TcpV6, Features::GUEST_TSO6),
            GSO_UDP_L4 if !ecn => (SegmentationKind::Udp, Features::GUEST_USO4 | Features::GUEST_USO6),
            _ => return None,
        };
        if !features.intersects(allowed) || self.flags & NEEDS_CSUM == 0 || self.gso_size == 0 {
            return None;
        }
        let transport = transport_header(frame, kind, self.checksum_start, self.checksum_offset)?;
        let header_len = self.checksum_start.checked_add(transport)?;
        if usize::from(header_len) >= frame.len() {
            return None;
        }
        Some(Segmentation { kind, size: self.gso_size, header_len, ecn })
    }
}

/// Length of the transport header at `start`, whose checksum field is `offset` bytes into it.
fn transport_header(frame: &Packet, kind: SegmentationKind, start: u16, offset: u16) -> Option<u16> {
    match kind {
        SegmentationKind::Udp => (offset == 6).then_some(8),
        SegmentationKind::TcpV4 | SegmentationKind::TcpV6 => {
            let mut data_offset = [0];
            if offset != 16 || frame.copy_to(usize::from(start) + 12, &mut data_offset) != 1 {
                return None;
            }
            let length = u16::from(data_offset[0] >> 4) * 4;
            (length >= 20).then_some(length)
        }
    }
}

/// Puts headers in front of frames.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Negotiated features.
    pub features: Features,
    /// Longest frame that may be sent uncut.
    pub longest: usize,
}

impl Sender {
    /// Checks `packet` and puts its header in front of it, after doing what the device cannot (5.1.6.2).
    ///
    /// # Errors
    /// Why the packet cannot be sent; it is to be dropped.
    #[inline]
    pub fn prepare(&self, packet: &mut Packet) -> Result<(), DropReason> {
        let header = self.describe(packet)?;
        self.put(packet, header)
    }

    /// Checks `packet` and gives the header that belongs in front of it, after doing what the device cannot (5.1.6.2). Without hash, and
    /// `num_buffers` is 0, as when a driver sends (5.1.6.2.1).
    ///
    /// # Errors
    /// Why the packet cannot be sent; it is to be dropped.
    #[inline]
    pub fn describe(&self, packet: &mut Packet) -> Result<[u8; PLAIN], DropReason> {
        if self.is_plain(packet) {
            return Ok([0; PLAIN]);
        }
        if packet.len() < SHORTEST {
            return Err(DropReason::BadLength);
        }
        self.describe_offload(packet)
    }

    /// `packet` can be sent as it is, with a header that says nothing: [`Sender::describe`] would give zeroes.
    #[inline(always)]
    #[must_use]
    pub fn is_plain(&self, packet: &Packet) -> bool {
        let metadata = packet.metadata();
        (SHORTEST..=self.longest).contains(&packet.len())
            && !matches!(metadata.checksum, Checksum::Partial { .. })
            && metadata.segmentation.is_none()
            && metadata.vlan.is_none()
    }

    fn describe_offload(&self, packet: &mut Packet) -> Result<[u8; PLAIN], DropReason> {
        let Metadata { checksum, segmentation, vlan, .. } = *packet.metadata();
        let longest = if segmentation.is_some() { LONGEST } else { self.longest };
        if packet.len() > longest {
            return Err(DropReason::TooLong);
        }
        if vlan.is_some() {
            return Err(DropReason::NoOffload);
        }
        let Checksum::Partial { start, offset } = checksum else {
            // Cutting implies that each piece gets a checksum of its own (5.1.6.2.1).
            return if segmentation.is_some() { Err(DropReason::BadHeader) } else { Ok([0; PLAIN]) };
        };
        if usize::from(start) + usize::from(offset) + 2 > packet.len() {
            return Err(DropReason::BadHeader);
        }
        if !self.features.contains(Features::CSUM) {
            return if segmentation.is_some() {
                Err(DropReason::NoOffload)
            } else if checksum::complete(packet, start, offset) {
                Ok([0; PLAIN])
            } else {
                Err(DropReason::BadHeader)
            };
        }
        let (gso_type, header_len, size) = match segmentation {
            None => (GSO_NONE, 0, 0),
            Some(segmentation) => self.segmentation(packet, segmentation, start, offset)?,
        };
        let [header_0, header_1] = header_len.to_le_bytes();
        let [size_0, size_1] = size.to_le_bytes();
        let [start_0, start_1] = start.to_le_bytes();
        let [offset_0, offset_1] = offset.to_le_bytes();
        Ok([NEEDS_CSUM, gso_type, header_0, header_1, size_0, size_1, start_0, start_1, offset_0, offset_1, 0, 0])
    }

    fn segmentation(
        &self,
        packet: &Packet,
        segmentation: Segmentation,
        start: u16,
        offset: u16,
    ) -> Result<(u8, u16, u16), DropReason> {
        let (gso_type, needed) = match segmentation.kind {
            SegmentationKind::TcpV4 => (GSO_TCPV4, Features::HOST_TSO4),
            SegmentationKind::TcpV6 => (GSO_TCPV6, Features::HOST_TSO6),
            SegmentationKind::Udp => (GSO_UDP_L4, Features::HOST_USO),
        };
        if packet.metadata().inner.is_some() {
            // The header has no way to say where the tunnel's headers end.
            return Err(DropReason::NoOffload);
        }
        let (ecn, needed) = if segmentation.ecn { (GSO_ECN, needed | Features::HOST_ECN) } else { (0, needed) };
        if !self.features.contains(needed) {
            return Err(DropReason::NoOffload);
        }
        let transport = transport_header(packet, segmentation.kind, start, offset).ok_or(DropReason::BadHeader)?;
        let header_len = start.checked_add(transport).ok_or(DropReason::BadHeader)?;
        let impossible = segmentation.size == 0
            || usize::from(header_len) >= packet.len()
            || (segmentation.ecn && segmentation.kind == SegmentationKind::Udp);
        if impossible { Err(DropReason::BadHeader) } else { Ok((gso_type | ecn, header_len, segmentation.size)) }
    }

    #[inline]
    fn put(&self, packet: &mut Packet, header: [u8; PLAIN]) -> Result<(), DropReason> {
        // Lengths known at compile time keep this a few stores.
        if self.features.contains(Features::HASH_REPORT) {
            let place = packet.prepend(WITH_HASH).ok_or(DropReason::NoHeadroom)?;
            let mut long = [0; WITH_HASH];
            long[..PLAIN].copy_from_slice(&header);
            place.copy_from_slice(&long);
        } else {
            let place = packet.prepend(PLAIN).ok_or(DropReason::NoHeadroom)?;
            // Mostly it is there from the frame before. A line that is not written to stays in the cache of a device that is software.
            if *place != header {
                place.copy_from_slice(&header);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
