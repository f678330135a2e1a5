//! What is known about a packet beside its bytes: the offload requests and results that ports exchange.

use core::num::NonZeroU16;

/// What has been, or has to be, done about the checksum of the transport header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksum {
    /// Nobody looked; the bytes say what they say.
    #[default]
    Unknown,
    /// The device or peer found it right.
    Verified,
    /// The field holds the sum of the pseudo header only. Whoever puts the packet on a wire sums from `start` to the
    /// end and stores the result at `start + offset`.
    Partial {
        /// Byte of the frame at which summing starts.
        start: u16,
        /// Distance from `start` to the checksum field, in bytes.
        offset: u16,
    },
}

/// What kind of segments a large packet is to be cut into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentationKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams.
    Udp,
}

/// The packet is larger than the link's MTU and has to be cut before it goes on a wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segmentation {
    /// What it is cut into.
    pub kind: SegmentationKind,
    /// Payload bytes of each segment.
    pub size: u16,
    /// Bytes of headers that each segment repeats, from the start of the frame. A hint: 0 when not known.
    pub header_len: u16,
    /// The TCP segment carries congestion notification (CWR), which only the first segment may keep.
    pub ecn: bool,
}

/// What is known about a packet beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Metadata {
    /// State of the transport checksum.
    pub checksum: Checksum,
    /// Set when the packet has to be cut into segments.
    pub segmentation: Option<Segmentation>,
    /// Hash of the flow, when the device computed one.
    pub hash: Option<u32>,
    /// VLAN tag that was taken out of the frame, or is to be put in.
    pub vlan: Option<u16>,
    /// Where the frame inside a tunnel begins that the checksum and the segmentation are about; `None` when they are about this one.
    pub inner: Option<NonZeroU16>,
}
