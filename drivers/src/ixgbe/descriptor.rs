//! Descriptors in the advanced formats (82599 datasheet, sections 7.1.6 and 7.2.3): two little-endian words each.
//!
//! The card writes a descriptor back over what the driver put there. Each word that it wrote is read exactly once, the one
//! with the done bit first.

use core::sync::atomic::{AtomicU64, Ordering};

use hugemem::Iova;

/// A descriptor in memory that the card shares.
pub(super) type Descriptor = [AtomicU64; 2];

/// Writes a descriptor. Nothing is ordered here: the card looks at it only after the tail was published.
#[inline(always)]
pub(super) fn write([low, high]: &Descriptor, words: [u64; 2]) {
    let [first, second] = words;
    low.store(first.to_le(), Ordering::Relaxed);
    high.store(second.to_le(), Ordering::Relaxed);
}

/// Gives a receive buffer to the card (read format, 7.1.6.1). The header address stays zero, and with it the done bit,
/// which shares its place.
#[inline(always)]
pub(super) fn write_buffer(descriptor: &Descriptor, buffer: Iova) {
    write(descriptor, [buffer.raw(), 0]);
}

/// The card is done with a transmit descriptor that asked for a report (write-back format, 7.2.3.2.5).
#[inline(always)]
pub(super) fn is_sent(descriptor: &Descriptor) -> bool {
    let [_, status] = descriptor;
    // Acquire: the buffer is the driver's again only after this.
    u64::from_le(status.load(Ordering::Acquire)) & data::DD != 0
}

/// Upper word of a receive descriptor's write-back format (7.1.6.2).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct ReceiveStatus(u64);

impl ReceiveStatus {
    /// Descriptor done.
    pub(super) const DD: u64 = 1 << 0;
    /// Last buffer of a frame.
    pub(super) const EOP: u64 = 1 << 1;
    /// A VLAN tag was taken out of the frame.
    pub(super) const VP: u64 = 1 << 3;
    /// The checksum or CRC of layer 4 was checked.
    pub(super) const L4I: u64 = 1 << 5;
    /// The card saw an error on the wire.
    pub(super) const RXE: u64 = 1 << 29;
    /// The checksum of layer 4 is wrong.
    pub(super) const L4E: u64 = 1 << 30;
    /// The checksum of the IPv4 header is wrong.
    pub(super) const IPE: u64 = 1 << 31;

    /// Reads it, ahead of everything else that the card wrote.
    #[inline(always)]
    pub(super) fn read(descriptor: &Descriptor) -> Self {
        let [_, status] = descriptor;
        // Acquire: the other word and the buffer are read after this.
        Self(u64::from_le(status.load(Ordering::Acquire)))
    }

    /// The card is done with the buffer.
    #[inline(always)]
    pub(super) const fn is_done(self) -> bool {
        self.0 & Self::DD != 0
    }

    /// The buffer ends a frame.
    #[inline(always)]
    pub(super) const fn is_end(self) -> bool {
        self.0 & Self::EOP != 0
    }

    /// The frame is damaged. Said with its last buffer.
    #[inline(always)]
    pub(super) const fn is_damaged(self) -> bool {
        self.0 & Self::RXE != 0
    }

    /// The buffer ends a frame that arrived well.
    #[inline(always)]
    pub(super) const fn is_good_end(self) -> bool {
        self.0 & (Self::EOP | Self::RXE) == Self::EOP
    }

    /// The checksum of the transport header, and that of an IPv4 header before it, was checked and found right.
    /// (A UDP datagram without checksum can be reported as wrong by an 82599, never as right when it is not.)
    #[inline(always)]
    pub(super) const fn is_verified(self) -> bool {
        self.0 & (Self::L4I | Self::L4E | Self::IPE) == Self::L4I
    }

    /// Bytes that the card says it wrote to the buffer (PKT_LEN).
    #[inline(always)]
    pub(super) const fn length(self) -> u16 {
        (self.0 >> 32 & 0xffff) as u16
    }

    /// The VLAN tag that was taken out.
    #[inline(always)]
    pub(super) const fn vlan(self) -> Option<u16> {
        if self.0 & Self::VP == 0 { None } else { Some((self.0 >> 48) as u16) }
    }
}

/// Lower word of a receive descriptor's write-back format (7.1.6.2), without fragment checksums (RXCSUM.PCSD is set).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct ReceiveInfo(u64);

impl ReceiveInfo {
    /// Reads it. The status word must have been read as done before.
    #[inline(always)]
    pub(super) fn read(descriptor: &Descriptor) -> Self {
        let [info, _] = descriptor;
        Self(u64::from_le(info.load(Ordering::Relaxed)))
    }

    /// The hash, unless its type says that there was nothing to hash (7.1.2.8.1).
    #[inline(always)]
    pub(super) const fn hash(self) -> Option<u32> {
        if self.0 & 0xf == 0 { None } else { Some((self.0 >> 32) as u32) }
    }
}

/// Upper word of an advanced transmit data descriptor (7.2.3.2.4).
pub(super) mod data {
    /// Status: descriptor done.
    pub(in super::super) const DD: u64 = 1 << 32;
    /// DTYP of a data descriptor, and DCMD: advanced format (DEXT), with frame check sequence (IFCS).
    pub(in super::super) const BASE: u64 = 0b0011 << 20 | 1 << 25 | 1 << 29;
    /// DCMD: last buffer of the packet.
    pub(in super::super) const EOP: u64 = 1 << 24;
    /// DCMD: report status, which is the done bit.
    pub(in super::super) const RS: u64 = 1 << 27;
    /// DCMD: insert the VLAN tag of the context.
    pub(in super::super) const VLE: u64 = 1 << 30;
    /// DCMD: cut into segments.
    pub(in super::super) const TSE: u64 = 1 << 31;
    /// Position of IDX, the number of the context.
    pub(in super::super) const IDX: u32 = 36;
    /// The context is to be looked at.
    pub(in super::super) const CC: u64 = 1 << 39;
    /// POPTS: complete the checksum of the IPv4 header.
    pub(in super::super) const IXSM: u64 = 1 << 40;
    /// POPTS: complete the checksum of the transport header.
    pub(in super::super) const TXSM: u64 = 1 << 41;
    /// Position of PAYLEN, the bytes of the packet, or of its payload when it is cut.
    pub(in super::super) const PAYLEN: u32 = 46;
    /// Most bytes in one descriptor: DTALEN has room for more, but less is what every card of the family is known to take.
    pub(in super::super) const LONGEST: u32 = 1 << 14;
}

/// An advanced transmit context (7.2.3.2.3): what offloads need to know about the headers of the packets that follow.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Context {
    /// Tag that VLE inserts.
    pub(super) vlan: u16,
    /// MACLEN: bytes in front of the IP header, 14 to 127.
    pub(super) mac_length: u8,
    /// IPLEN: bytes from there to the transport header, at most 511.
    pub(super) ip_length: u16,
    /// TUCMD.IPV4: the IP header is one of version 4.
    pub(super) ipv4: bool,
    /// TUCMD.L4T: the transport header is TCP, else UDP.
    pub(super) tcp: bool,
    /// L4LEN: bytes of the transport header, when packets are cut.
    pub(super) transport_length: u8,
    /// MSS: payload bytes of each segment, when packets are cut.
    pub(super) segment: u16,
}

impl Context {
    /// Most bytes that IPLEN can say.
    pub(super) const LONGEST_IP: u16 = 511;

    /// The two words of the descriptor that stores it as context `index`, 0 or 1.
    pub(super) fn words(&self, index: u8) -> [u64; 2] {
        let Self { vlan, mac_length, ip_length, ipv4, tcp, transport_length, segment } = *self;
        let low = u64::from(vlan) << 16 | u64::from(mac_length & 0x7f) << 9 | u64::from(ip_length & 0x1ff);
        // DTYP of a context descriptor, and DEXT.
        let high = 0b0010 << 20 | 1 << 29 | u64::from(ipv4) << 10 | u64::from(tcp) << 11;
        let sizes = u64::from(segment) << 48 | u64::from(transport_length) << 40 | u64::from(index) << data::IDX;
        [low, high | sizes]
    }
}
