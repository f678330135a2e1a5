//! Numbers of the virtio 1.3 specification that the device side needs, with the section of each.

bitflags::bitflags! {
    /// Feature bits (sections 5.1.3 and 6).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Features: u64 {
        /// The device completes partial checksums.
        const CSUM = 1 << 0;
        /// The driver takes partial checksums.
        const GUEST_CSUM = 1 << 1;
        /// The configuration space has an MTU.
        const MTU = 1 << 3;
        /// The configuration space has a MAC address.
        const MAC = 1 << 5;
        /// The driver takes large TCP over IPv4 segments.
        const GUEST_TSO4 = 1 << 7;
        /// The driver takes large TCP over IPv6 segments.
        const GUEST_TSO6 = 1 << 8;
        /// The driver takes large segments with ECN.
        const GUEST_ECN = 1 << 9;
        /// The device cuts TCP over IPv4.
        const HOST_TSO4 = 1 << 11;
        /// The device cuts TCP over IPv6.
        const HOST_TSO6 = 1 << 12;
        /// The device cuts segments with ECN.
        const HOST_ECN = 1 << 13;
        /// A received frame may be spread over several buffers.
        const MRG_RXBUF = 1 << 15;
        /// The configuration space has the link status.
        const STATUS = 1 << 16;
        /// There is a control queue.
        const CTRL_VQ = 1 << 17;
        /// The control queue sets receive modes.
        const CTRL_RX = 1 << 18;
        /// The control queue sets more receive modes.
        const CTRL_RX_EXTRA = 1 << 20;
        /// Several queue pairs with automatic steering.
        const MQ = 1 << 22;
        /// The control queue sets the MAC address.
        const CTRL_MAC_ADDR = 1 << 23;
        /// Descriptors may point to tables of descriptors.
        const INDIRECT_DESC = 1 << 28;
        /// Notifications are suppressed by index.
        const EVENT_IDX = 1 << 29;
        /// The device conforms to version 1 or later.
        const VERSION_1 = 1 << 32;
        /// The device's memory access goes through the IOMMU.
        const ACCESS_PLATFORM = 1 << 33;
        /// Packed rings.
        const RING_PACKED = 1 << 34;
        /// Buffers are used in the order in which they were made available.
        const IN_ORDER = 1 << 35;
        /// Memory is ordered as the platform orders it.
        const ORDER_PLATFORM = 1 << 36;
        /// Doorbells carry the ring's position.
        const NOTIFICATION_DATA = 1 << 38;
        /// The driver takes large UDP over IPv4 datagrams.
        const GUEST_USO4 = 1 << 54;
        /// The driver takes large UDP over IPv6 datagrams.
        const GUEST_USO6 = 1 << 55;
        /// The device cuts UDP datagrams.
        const HOST_USO = 1 << 56;
        /// Received frames carry a hash.
        const HASH_REPORT = 1 << 57;
        /// Receive-side scaling.
        const RSS = 1 << 60;
        /// The configuration space has speed and duplex.
        const SPEED_DUPLEX = 1 << 63;
    }
}

impl Features {
    /// What a feature needs beside itself (section 5.1.3.1).
    const NEEDS: &[(Self, Self)] = &[
        (Self::GUEST_TSO4, Self::GUEST_CSUM),
        (Self::GUEST_TSO6, Self::GUEST_CSUM),
        (Self::GUEST_USO4, Self::GUEST_CSUM),
        (Self::GUEST_USO6, Self::GUEST_CSUM),
        (Self::HOST_TSO4, Self::CSUM),
        (Self::HOST_TSO6, Self::CSUM),
        (Self::HOST_USO, Self::CSUM),
        (Self::CTRL_RX, Self::CTRL_VQ),
        (Self::CTRL_RX_EXTRA, Self::CTRL_VQ),
        (Self::MQ, Self::CTRL_VQ),
        (Self::CTRL_MAC_ADDR, Self::CTRL_VQ),
        (Self::RSS, Self::CTRL_VQ),
        (Self::HASH_REPORT, Self::CTRL_VQ),
    ];

    /// The first feature whose need is not met, if any.
    pub(super) fn unmet(self) -> Option<Self> {
        let missing = |(feature, needs): &&(Self, Self)| self.contains(*feature) && !self.contains(*needs);
        if self.contains(Self::GUEST_ECN) && !self.intersects(Self::GUEST_TSO4 | Self::GUEST_TSO6) {
            return Some(Self::GUEST_ECN);
        }
        if self.contains(Self::HOST_ECN) && !self.intersects(Self::HOST_TSO4 | Self::HOST_TSO6) {
            return Some(Self::HOST_ECN);
        }
        Self::NEEDS.iter().find(missing).map(|(feature, _)| *feature)
    }

    /// Bytes in front of every frame (section 5.1.6): 20 with a hash, otherwise 12.
    #[must_use]
    pub fn header_bytes(self) -> usize {
        if self.contains(Self::HASH_REPORT) { 20 } else { 12 }
    }
}

/// Device status bits (section 2.1).
pub(super) mod status {
    pub(crate) const ACKNOWLEDGE: u8 = 1;
    pub(crate) const DRIVER: u8 = 2;
    pub(crate) const DRIVER_OK: u8 = 4;
    pub(crate) const FEATURES_OK: u8 = 8;
    pub(crate) const NEEDS_RESET: u8 = 64;
}

/// Descriptor flags, the same in both ring formats (sections 2.7.5 and 2.8).
pub(super) mod descriptor {
    pub(crate) const NEXT: u16 = 1;
    pub(crate) const WRITE: u16 = 2;
    pub(crate) const INDIRECT: u16 = 4;
    /// Packed rings only.
    pub(crate) const AVAIL: u16 = 1 << 7;
    /// Packed rings only.
    pub(crate) const USED: u16 = 1 << 15;
    pub(crate) const BYTES: usize = 16;
}

/// No MSI-X vector (section 4.1.5.1.2).
pub(super) const NO_VECTOR: u16 = 0xffff;

/// Frame header (section 5.1.6).
pub mod header {
    /// `flags`: the checksum is partial.
    pub const NEEDS_CSUM: u8 = 1;
    /// `flags`: the checksum was found right.
    pub const DATA_VALID: u8 = 2;
    /// `gso_type`: not large.
    pub const GSO_NONE: u8 = 0;
    /// `gso_type`: TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// `gso_type`: TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// `gso_type`: UDP datagrams.
    pub const GSO_UDP_L4: u8 = 5;
    /// `gso_type`, added to a TCP type: with ECN.
    pub const GSO_ECN: u8 = 0x80;
}

/// Control queue (section 5.1.6.5).
pub(super) mod control {
    pub(crate) const OK: u8 = 0;
    pub(crate) const ERROR: u8 = 1;
    pub(crate) const RX: u8 = 0;
    pub(crate) const RX_PROMISCUOUS: u8 = 0;
    pub(crate) const RX_ALL_MULTICAST: u8 = 1;
    pub(crate) const RX_NO_BROADCAST: u8 = 5;
    pub(crate) const MAC: u8 = 1;
    pub(crate) const MAC_TABLE_SET: u8 = 0;
    pub(crate) const MAC_ADDRESS_SET: u8 = 1;
    pub(crate) const MQ: u8 = 4;
    pub(crate) const MQ_PAIRS_SET: u8 = 0;
    pub(crate) const MQ_RSS_CONFIG: u8 = 1;
    pub(crate) const MQ_HASH_CONFIG: u8 = 2;
}

/// Hash types (section 5.1.6.4.3.1): the bit that enables one is `1 << (report - 1)`.
pub(super) mod hash {
    pub(crate) const NONE: u16 = 0;
    pub(crate) const IPV4: u16 = 1;
    pub(crate) const TCPV4: u16 = 2;
    pub(crate) const UDPV4: u16 = 3;
    pub(crate) const IPV6: u16 = 4;
    pub(crate) const TCPV6: u16 = 5;
    pub(crate) const UDPV6: u16 = 6;
    /// What the model computes: all of the above.
    pub(crate) const SUPPORTED: u32 = 0x3f;
}
