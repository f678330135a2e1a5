//! Feature bits and their negotiation (virtio 1.3, sections 2.2, 5.1.3 and 6).

use crate::nic::Offloads;

bitflags::bitflags! {
    /// Feature bits of a network device and of its transport, by the names of the specification.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
    pub struct Features: u64 {
        /// The device completes partial checksums (5.1.3).
        const CSUM = 1 << 0;
        /// The driver takes packets with partial checksums.
        const GUEST_CSUM = 1 << 1;
        /// The device knows the largest payload of a frame.
        const MTU = 1 << 3;
        /// The device has an Ethernet address.
        const MAC = 1 << 5;
        /// The driver takes large TCP over IPv4 segments.
        const GUEST_TSO4 = 1 << 7;
        /// The driver takes large TCP over IPv6 segments.
        const GUEST_TSO6 = 1 << 8;
        /// The driver takes large TCP segments marked with ECN.
        const GUEST_ECN = 1 << 9;
        /// The device cuts TCP over IPv4.
        const HOST_TSO4 = 1 << 11;
        /// The device cuts TCP over IPv6.
        const HOST_TSO6 = 1 << 12;
        /// The device cuts TCP segments marked with ECN.
        const HOST_ECN = 1 << 13;
        /// A received frame may span several buffers.
        const MRG_RXBUF = 1 << 15;
        /// Configuration has a status field.
        const STATUS = 1 << 16;
        /// There is a control queue.
        const CTRL_VQ = 1 << 17;
        /// The control queue sets receive modes.
        const CTRL_RX = 1 << 18;
        /// The driver can be asked to announce itself.
        const GUEST_ANNOUNCE = 1 << 21;
        /// Several queue pairs.
        const MQ = 1 << 22;
        /// The control queue sets the Ethernet address.
        const CTRL_MAC_ADDR = 1 << 23;
        /// A descriptor may point to a table of descriptors (2.7.5.3, 2.8.7).
        const INDIRECT_DESC = 1 << 28;
        /// Interrupts and notifications name the event that they wait for (2.7.7, 2.7.10, 2.8.10).
        const EVENT_IDX = 1 << 29;
        /// The device follows version 1 of the specification.
        const VERSION_1 = 1 << 32;
        /// The device reaches memory through the platform's IOMMU.
        const ACCESS_PLATFORM = 1 << 33;
        /// Packed rings (2.8).
        const RING_PACKED = 1 << 34;
        /// Memory accesses need the barriers of the platform, not only those of the processors.
        const ORDER_PLATFORM = 1 << 36;
        /// The driver takes large UDP over IPv4.
        const GUEST_USO4 = 1 << 54;
        /// The driver takes large UDP over IPv6.
        const GUEST_USO6 = 1 << 55;
        /// The device cuts UDP.
        const HOST_USO = 1 << 56;
        /// The device tells the hash of each received packet.
        const HASH_REPORT = 1 << 57;
        /// The device spreads flows over queues by a hash.
        const RSS = 1 << 60;
        /// The device knows the speed of its link.
        const SPEED_DUPLEX = 1 << 63;
    }
}

/// Which ring format to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum RingChoice {
    /// Packed where the device offers it, else split.
    #[default]
    Auto,
    /// Split (virtio 1.3, section 2.7).
    Split,
    /// Packed (virtio 1.3, section 2.8).
    Packed,
}

/// What the driver would like, as far as features express it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wishes {
    /// Ring format.
    pub(super) ring: RingChoice,
    /// More than one queue pair.
    pub(super) several_pairs: bool,
    /// Queue pairs are switched on without a control queue ([`Transport::SWITCHES_PAIRS`](super::Transport)).
    pub(super) switches_pairs: bool,
    /// What the device must offer ([`Transport::REQUIRED`](super::Transport)).
    pub(super) required: Features,
    /// Offloads that may be used.
    pub(super) offloads: Offloads,
}

/// Why a set of features cannot serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// A device from before version 1, or a transitional one that hides it.
    NotVersion1,
    /// The device would bypass the IOMMU.
    NoAccessPlatform,
    /// Packed rings were asked for by name.
    NoPacked,
}

impl Refusal {
    /// A sentence with what mends it.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NotVersion1 => {
                "the device does not offer VIRTIO_F_VERSION_1; give it the modern interface (QEMU: disable-modern=off)"
            }
            Self::NoAccessPlatform => {
                "the device would bypass the IOMMU, because it does not offer VIRTIO_F_ACCESS_PLATFORM; \
                 add iommu_platform=on to the device (QEMU: -device virtio-net-pci,...,iommu_platform=on)"
            }
            Self::NoPacked => {
                "packed rings were asked for and the device does not offer VIRTIO_F_RING_PACKED; \
                 use ring=auto, or add packed=on to the device (QEMU)"
            }
        }
    }
}

/// What each feature needs beside itself (5.1.3.1), ordered so that one pass settles it. The large-receive features
/// need MRG_RXBUF only for this driver: without it every receive buffer would have to hold 64 KiB.
const NEEDS: [(Features, Features); 17] = [
    (Features::CTRL_RX, Features::CTRL_VQ),
    (Features::CTRL_MAC_ADDR, Features::CTRL_VQ),
    (Features::GUEST_ANNOUNCE, Features::CTRL_VQ.union(Features::STATUS)),
    (Features::MQ, Features::CTRL_VQ),
    (Features::RSS, Features::CTRL_VQ),
    (Features::HASH_REPORT, Features::CTRL_VQ),
    (Features::HOST_TSO4, Features::CSUM),
    (Features::HOST_TSO6, Features::CSUM),
    (Features::HOST_USO, Features::CSUM),
    (Features::GUEST_TSO4, Features::GUEST_CSUM),
    (Features::GUEST_TSO6, Features::GUEST_CSUM),
    (Features::GUEST_USO4, Features::GUEST_CSUM),
    (Features::GUEST_USO6, Features::GUEST_CSUM),
    (Features::GUEST_TSO4, Features::MRG_RXBUF),
    (Features::GUEST_TSO6, Features::MRG_RXBUF),
    (Features::GUEST_USO4, Features::MRG_RXBUF),
    (Features::GUEST_USO6, Features::MRG_RXBUF),
];

/// The offload that each feature serves.
const SERVES: [(Features, Offloads); 12] = [
    (Features::CSUM, Offloads::TX_CHECKSUM),
    (Features::GUEST_CSUM, Offloads::RX_CHECKSUM),
    (Features::GUEST_TSO4, Offloads::LRO4),
    (Features::GUEST_TSO6, Offloads::LRO6),
    (Features::GUEST_USO4, Offloads::URO),
    (Features::GUEST_USO6, Offloads::URO),
    (Features::HOST_TSO4, Offloads::TSO4),
    (Features::HOST_TSO6, Offloads::TSO6),
    (Features::HOST_ECN, Offloads::TSO_ECN),
    (Features::HOST_USO, Offloads::USO),
    (Features::RSS, Offloads::RSS),
    (Features::HASH_REPORT, Offloads::RSS),
];

/// Chooses from what a device offers (3.1.1, step 4). Asks for nothing that was not offered and for nothing whose
/// requirements are missing.
pub(super) fn negotiate(offered: Features, wishes: Wishes) -> Result<Features, Refusal> {
    let lacks = |feature| wishes.required.contains(feature) && !offered.contains(feature);
    if lacks(Features::VERSION_1) {
        return Err(Refusal::NotVersion1);
    }
    if lacks(Features::ACCESS_PLATFORM) {
        return Err(Refusal::NoAccessPlatform);
    }
    if wishes.ring == RingChoice::Packed && !offered.contains(Features::RING_PACKED) {
        return Err(Refusal::NoPacked);
    }
    let mut chosen = offered & Features::all();
    if wishes.ring == RingChoice::Split {
        chosen -= Features::RING_PACKED;
    }
    for (feature, offload) in SERVES {
        if !wishes.offloads.contains(offload) {
            chosen -= feature;
        }
    }
    if !wishes.several_pairs {
        // One queue needs no spreading. MQ stays: it only says where the control queue is.
        chosen -= Features::RSS;
    }
    for (feature, needed) in NEEDS {
        let spared = feature == Features::MQ && wishes.switches_pairs;
        if !chosen.contains(needed) && !spared {
            chosen -= feature;
        }
    }
    if !chosen.intersects(Features::HOST_TSO4 | Features::HOST_TSO6) {
        chosen -= Features::HOST_ECN;
    }
    if !chosen.intersects(Features::GUEST_TSO4 | Features::GUEST_TSO6) {
        chosen -= Features::GUEST_ECN;
    }
    Ok(chosen)
}

/// The offloads that negotiated features amount to.
pub(super) fn offloads(chosen: Features) -> Offloads {
    let mut offloads = Offloads::empty();
    for (feature, offload) in SERVES {
        if chosen.contains(feature) && feature != Features::HASH_REPORT {
            offloads |= offload;
        }
    }
    offloads
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const BASE: Features = Features::VERSION_1.union(Features::ACCESS_PLATFORM);
    const ALL: Wishes = Wishes {
        ring: RingChoice::Auto,
        several_pairs: true,
        switches_pairs: false,
        required: BASE,
        offloads: Offloads::all(),
    };

    #[test]
    fn everything_offered_and_wished_for_is_taken() {
        assert_eq!(negotiate(Features::all(), ALL), Ok(Features::all()));
    }

    #[test]
    fn unknown_features_are_never_accepted() {
        let offered = Features::from_bits_retain(u64::MAX);
        assert_eq!(negotiate(offered, ALL), Ok(Features::all()));
    }

    #[test]
    fn a_device_that_cannot_be_driven_safely_is_refused() {
        let table = [
            (Features::all() - Features::VERSION_1, RingChoice::Auto, Refusal::NotVersion1),
            (Features::all() - Features::ACCESS_PLATFORM, RingChoice::Auto, Refusal::NoAccessPlatform),
            (Features::all() - Features::RING_PACKED, RingChoice::Packed, Refusal::NoPacked),
        ];
        for (offered, ring, refusal) in table {
            assert_eq!(negotiate(offered, Wishes { ring, ..ALL }), Err(refusal));
        }
        assert!(Refusal::NoAccessPlatform.reason().contains("iommu_platform=on"));
    }

    #[test]
    fn what_the_transport_does_not_require_or_does_itself_may_be_missing() {
        let offered = Features::VERSION_1 | Features::MQ;
        let wishes = Wishes { required: Features::VERSION_1, switches_pairs: true, ..ALL };
        assert_eq!(negotiate(offered, wishes), Ok(offered));
        assert_eq!(negotiate(offered, Wishes { switches_pairs: false, ..wishes }), Ok(Features::VERSION_1));
        assert_eq!(negotiate(offered, ALL), Err(Refusal::NoAccessPlatform));
    }

    #[test]
    fn a_feature_is_dropped_with_what_it_needs() {
        use Features as F;
        let table = [
            (F::CTRL_RX | F::MQ | F::RSS | F::HASH_REPORT | F::CTRL_MAC_ADDR | F::GUEST_ANNOUNCE, F::empty()),
            (F::HOST_TSO4 | F::HOST_TSO6 | F::HOST_ECN | F::HOST_USO, F::empty()),
            (F::GUEST_TSO4 | F::GUEST_ECN | F::MRG_RXBUF, F::MRG_RXBUF),
            (F::GUEST_TSO4 | F::GUEST_ECN | F::GUEST_CSUM, F::GUEST_CSUM),
            (F::GUEST_USO4 | F::GUEST_USO6 | F::GUEST_CSUM, F::GUEST_CSUM),
            (F::HOST_ECN | F::CSUM, F::CSUM),
            (
                F::GUEST_TSO6 | F::GUEST_CSUM | F::MRG_RXBUF | F::GUEST_ECN,
                F::GUEST_TSO6 | F::GUEST_CSUM | F::MRG_RXBUF | F::GUEST_ECN,
            ),
            (F::GUEST_ANNOUNCE | F::CTRL_VQ, F::CTRL_VQ),
        ];
        for (offered, expected) in table {
            assert_eq!(negotiate(BASE | offered, ALL), Ok(BASE | expected), "{offered:?}");
        }
    }

    #[test]
    fn any_subset_of_offers_gives_a_consistent_choice() {
        // Every pair of features missing from the full set.
        for first in Features::all().iter() {
            for second in Features::all().iter() {
                let offered = (Features::all() - first - second) | BASE;
                let chosen = negotiate(offered, ALL).unwrap();
                assert!(offered.contains(chosen));
                for (feature, needed) in NEEDS {
                    assert!(!chosen.contains(feature) || chosen.contains(needed), "{feature:?} without {needed:?}");
                }
            }
        }
    }

    #[test]
    fn wishes_narrow_the_choice() {
        let split = negotiate(Features::all(), Wishes { ring: RingChoice::Split, ..ALL }).unwrap();
        assert!(!split.contains(Features::RING_PACKED));
        let single = negotiate(Features::all(), Wishes { several_pairs: false, ..ALL }).unwrap();
        assert!(!single.contains(Features::RSS) && single.contains(Features::MQ));
        let plain = negotiate(Features::all(), Wishes { offloads: Offloads::empty(), ..ALL }).unwrap();
        assert_eq!(offloads(plain), Offloads::empty());
        assert!(!plain.intersects(Features::GUEST_ECN | Features::HOST_ECN | Features::HASH_REPORT));
    }

    #[test]
    fn offloads_follow_from_features() {
        let never = Offloads::VLAN_STRIP | Offloads::VLAN_INSERT | Offloads::TUNNEL_CUTTING;
        assert_eq!(offloads(Features::all()), Offloads::all() - never);
        assert_eq!(offloads(Features::CSUM | Features::GUEST_USO6), Offloads::TX_CHECKSUM | Offloads::URO);
    }
}
