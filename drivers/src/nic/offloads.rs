//! What a card's hardware can do.

bitflags::bitflags! {
    /// What a port's hardware does for the packet path. What is missing is done in software or refused.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Offloads: u32 {
        /// Received packets carry a verdict on their checksums.
        const RX_CHECKSUM = 1 << 0;
        /// Completes a partial checksum on transmit.
        const TX_CHECKSUM = 1 << 1;
        /// Cuts TCP over IPv4 into segments on transmit.
        const TSO4 = 1 << 2;
        /// Cuts TCP over IPv6 into segments on transmit.
        const TSO6 = 1 << 3;
        /// Cuts UDP into datagrams on transmit.
        const USO = 1 << 4;
        /// Receives TCP over IPv4 segments larger than the MTU.
        const LRO4 = 1 << 5;
        /// Receives TCP over IPv6 segments larger than the MTU.
        const LRO6 = 1 << 6;
        /// Spreads flows over receive queues by a hash.
        const RSS = 1 << 7;
        /// Accepts TCP segments marked with ECN for cutting.
        const TSO_ECN = 1 << 8;
        /// Receives UDP datagrams larger than the MTU.
        const URO = 1 << 9;
        /// Takes the VLAN tag out of received packets and puts it into their metadata.
        const VLAN_STRIP = 1 << 10;
        /// Puts the VLAN tag of a packet's metadata into the frame on transmit.
        const VLAN_INSERT = 1 << 11;
        /// Cuts what is inside a tunnel: what it can cut of plain frames, behind outer headers too.
        const TUNNEL_CUTTING = 1 << 12;
    }
}
