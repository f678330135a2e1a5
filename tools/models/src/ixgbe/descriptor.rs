//! Descriptor layouts: receive (section 7.1.5 and 7.1.6) and transmit (section 7.2.3), as two words of 64 bits in little endian.

use bitflags::bitflags;
use drivers::bus::Width;

/// A descriptor: 16 bytes.
pub(super) type Descriptor = [u64; 2];

/// Bytes of a descriptor.
pub(super) const BYTES: u64 = 16;

/// Reads descriptor `index` of fetched ring memory.
#[inline]
pub(super) fn at(bytes: &[u8], index: usize) -> Descriptor {
    let (descriptors, _) = bytes.as_chunks::<16>();
    descriptors.get(index).map_or([0; 2], |bytes| {
        let value = u128::from_le_bytes(*bytes);
        [low(value), low(value >> 64)]
    })
}

/// Keeps the low 64 bits.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
const fn low(value: u128) -> u64 {
    value as u64
}

/// The bytes of a descriptor in memory.
#[inline]
pub(super) fn image(descriptor: Descriptor) -> [u8; 16] {
    (u128::from(descriptor[0]) | u128::from(descriptor[1]) << 64).to_le_bytes()
}

bitflags! {
    /// Extended status of an advanced descriptor; the low 8 bits are the status of a legacy one.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
    pub(super) struct ReceiveStatus: u32 {
        /// Done.
        const DD = 1 << 0;
        /// End of packet.
        const EOP = 1 << 1;
        /// The frame has a VLAN tag, and it was taken out when the queue strips.
        const VP = 1 << 3;
        /// A UDP checksum, or that of a fragment, was computed.
        const UDPCS = 1 << 4;
        /// A transport checksum was checked.
        const L4CS = 1 << 5;
        /// The IPv4 header's checksum was checked.
        const IPCS = 1 << 6;
        /// Passed an inexact filter only.
        const PIF = 1 << 7;
        /// The frame has an outer VLAN tag.
        const VEXT = 1 << 9;
        /// The first fragment of a UDP datagram that has a checksum.
        const UDPV = 1 << 10;
    }

    /// Errors, as the 12 bits of an advanced descriptor (section 7.1.6.2).
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
    pub(super) struct ReceiveError: u32 {
        /// The MAC found an error; only while bad frames are stored.
        const RXE = 1 << 9;
        /// Transport checksum wrong.
        const L4E = 1 << 10;
        /// IPv4 header checksum wrong.
        const IPE = 1 << 11;
    }
}

/// What the chip writes back about one buffer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct WriteBack {
    pub(super) status: ReceiveStatus,
    pub(super) error: ReceiveError,
    /// Bytes in the buffer.
    pub(super) length: u16,
    /// The tag that was taken out.
    pub(super) tag: u16,
    /// What the hash was computed over, 0 to 15.
    pub(super) hash_type: u8,
    /// Packet type, 13 bits.
    pub(super) kind: u16,
    /// The hash, or identification and sum of a fragment.
    pub(super) hash: u32,
}

impl WriteBack {
    /// The advanced format (section 7.1.6.2).
    #[inline]
    pub(super) fn advanced(&self) -> Descriptor {
        let first = u64::from(self.hash_type & 15) | u64::from(self.kind & 0x1fff) << 4 | u64::from(self.hash) << 32;
        let second = u64::from(self.status.bits())
            | u64::from(self.error.bits()) << 20
            | u64::from(self.length) << 32
            | u64::from(self.tag) << 48;
        [first, second]
    }

    /// The legacy format (section 7.1.5), which keeps the buffer's address.
    #[inline]
    pub(super) fn legacy(&self, address: u64) -> Descriptor {
        // Only these errors have a place: IPE in bit 7, L4E in bit 6, RXE in bit 0.
        let errors = u64::from(self.error.contains(ReceiveError::IPE)) << 7
            | u64::from(self.error.contains(ReceiveError::L4E)) << 6
            | u64::from(self.error.contains(ReceiveError::RXE));
        let second = u64::from(self.length)
            | u64::from(self.hash >> 16) << 16
            | u64::from(self.status.bits() & 0xff) << 32
            | errors << 40
            | u64::from(self.tag) << 48;
        [address, second]
    }
}

/// A transmit descriptor, read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transmit {
    /// A buffer in the legacy format (section 7.2.3.2.2).
    Legacy(Piece, LegacyOffload),
    /// Settings for frames to come (section 7.2.3.2.3), and the slot for them.
    Context(usize, Context),
    /// A buffer in the advanced format (section 7.2.3.2.4).
    Data(Piece, DataOffload),
    /// A type that does not exist.
    Unknown(u8),
}

/// A buffer of a frame to transmit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Piece {
    pub(super) address: u64,
    pub(super) length: u16,
    pub(super) command: Command,
}

bitflags! {
    /// The command byte, in both formats.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
    pub(super) struct Command: u8 {
        /// End of packet.
        const EOP = 1 << 0;
        /// Insert the frame check sequence.
        const IFCS = 1 << 1;
        /// Legacy only: insert a checksum.
        const IC = 1 << 2;
        /// Report when done.
        const RS = 1 << 3;
        /// Not the legacy format.
        const DEXT = 1 << 5;
        /// Insert a VLAN tag.
        const VLE = 1 << 6;
        /// Advanced only: segment.
        const TSE = 1 << 7;
    }
}

/// What else a legacy descriptor asks for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct LegacyOffload {
    /// Where the checksum goes, and where summing starts.
    pub(super) checksum_offset: u8,
    pub(super) checksum_start: u8,
    pub(super) tag: u16,
}

/// What else an advanced data descriptor asks for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct DataOffload {
    /// The context to use.
    pub(super) context: usize,
    /// POPTS.IXSM: insert the IPv4 header's checksum.
    pub(super) network_checksum: bool,
    /// POPTS.TXSM: insert the transport checksum.
    pub(super) transport_checksum: bool,
    /// POPTS.IPSEC, MAC.LINKSEC: not modelled.
    pub(super) security: bool,
    /// Bytes of the frame, or of what is to be segmented.
    pub(super) payload_length: u32,
}

/// Transport that a context names (TUCMD.L4T).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Transport {
    #[default]
    Udp,
    Tcp,
    Sctp,
    Reserved,
}

/// What a context descriptor sets up.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Context {
    pub(super) network_length: u16,
    pub(super) link_length: u8,
    pub(super) tag: u16,
    pub(super) ipv4: bool,
    pub(super) transport: Transport,
    pub(super) transport_length: u8,
    pub(super) segment: u16,
}

#[inline]
fn bits(word: u64, low: u32, count: u32) -> u64 {
    (word >> low) & ((1 << count) - 1)
}

#[inline]
pub(super) fn parse(descriptor: Descriptor) -> Transmit {
    let [first, second] = descriptor;
    let command = Command::from_bits_retain(u8::narrow(bits(second, 24, 8)));
    let piece = Piece { address: first, length: u16::narrow(bits(second, 0, 16)), command };
    if !command.contains(Command::DEXT) {
        let offload = LegacyOffload {
            checksum_offset: u8::narrow(bits(second, 16, 8)),
            checksum_start: u8::narrow(bits(second, 40, 8)),
            tag: u16::narrow(bits(second, 48, 16)),
        };
        return Transmit::Legacy(piece, offload);
    }
    match u8::narrow(bits(second, 20, 4)) {
        3 => {
            let offload = DataOffload {
                context: usize::from(bits(second, 36, 1) != 0),
                network_checksum: bits(second, 40, 1) != 0,
                transport_checksum: bits(second, 41, 1) != 0,
                security: bits(second, 42, 1) != 0 || bits(second, 18, 1) != 0,
                payload_length: u32::narrow(bits(second, 46, 18)),
            };
            Transmit::Data(piece, offload)
        }
        2 => {
            let transport = match bits(second, 11, 2) {
                0 => Transport::Udp,
                1 => Transport::Tcp,
                2 => Transport::Sctp,
                _ => Transport::Reserved,
            };
            let context = Context {
                network_length: u16::narrow(bits(first, 0, 9)),
                link_length: u8::narrow(bits(first, 9, 7)),
                tag: u16::narrow(bits(first, 16, 16)),
                ipv4: bits(second, 10, 1) != 0,
                transport,
                transport_length: u8::narrow(bits(second, 40, 8)),
                segment: u16::narrow(bits(second, 48, 16)),
            };
            Transmit::Context(usize::from(bits(second, 36, 1) != 0), context)
        }
        other => Transmit::Unknown(other),
    }
}

/// What is written back once a frame is done (sections 7.2.3.2.2 and 7.2.3.2.5): a legacy descriptor keeps its fields, an advanced one does not.
#[inline]
pub(super) fn transmitted(descriptor: Descriptor) -> Descriptor {
    const DONE: u64 = 1 << 32;
    let [first, second] = descriptor;
    if second & 1 << 29 == 0 { [first, second | DONE] } else { [0, DONE] }
}
