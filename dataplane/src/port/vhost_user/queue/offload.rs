//! Features as seen from the device: what the driver calls its own is the other side's here.
//!
//! The header code of `drivers` speaks as a driver. A frame from the VM carries the header that a driver wrote for its device,
//! which a driver at the other end of a wire would have received; so the same code serves with the features swapped.

use drivers::nic::Offloads;
use drivers::virtio::Features;
use drivers::virtio::header::{LONGEST, Sender};

/// Each request that a driver may make of its device, and what a driver calls the same in a frame that it gets.
const MIRRORED: [(Features, Features); 5] = [
    (Features::CSUM, Features::GUEST_CSUM),
    (Features::HOST_TSO4, Features::GUEST_TSO4),
    (Features::HOST_TSO6, Features::GUEST_TSO6),
    (Features::HOST_ECN, Features::GUEST_ECN),
    (Features::HOST_USO, Features::GUEST_USO4.union(Features::GUEST_USO6)),
];

/// What headers of frames from a VM with `features` may say, in the words of who receives them.
pub(super) fn receivable(features: Features) -> Features {
    let mut seen = Features::empty();
    for (ours, theirs) in MIRRORED {
        if features.contains(ours) {
            seen |= theirs;
        }
    }
    seen
}

/// Who writes the headers of frames to a VM with `features`.
pub(super) fn sender(features: Features) -> Sender {
    let mut seen = Features::empty();
    for (ours, theirs) in MIRRORED {
        if features.contains(theirs) {
            seen |= ours;
        }
    }
    Sender { features: seen, longest: LONGEST }
}

/// What a VM with `features` takes unfinished. A large frame's checksum is unfinished, too, and a driver may forget to say that it takes
/// that, though it must (virtio 1.3, section 5.1.3.1): to such a one frames go finished.
pub(super) fn offloads(features: Features) -> Offloads {
    let kinds = [
        (Features::CSUM, Offloads::TX_CHECKSUM),
        (Features::HOST_TSO4, Offloads::TSO4),
        (Features::HOST_TSO6, Offloads::TSO6),
        (Features::HOST_ECN, Offloads::TSO_ECN),
        (Features::HOST_USO, Offloads::USO),
    ];
    let seen = sender(features).features;
    if !seen.contains(Features::CSUM) {
        return Offloads::empty();
    }
    kinds.iter().filter(|(feature, _)| seen.contains(*feature)).map(|(_, offload)| *offload).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_gets_what_the_other_asked_for() {
        let features = Features::CSUM | Features::HOST_TSO4 | Features::GUEST_CSUM | Features::GUEST_USO4;
        assert_eq!(receivable(features), Features::GUEST_CSUM | Features::GUEST_TSO4);
        // Large UDP of one kind only cannot be told apart in a header, so it is not sent.
        assert_eq!(sender(features).features, Features::CSUM);
        assert_eq!(offloads(features), Offloads::TX_CHECKSUM);
        assert_eq!(offloads(features | Features::GUEST_USO6), Offloads::TX_CHECKSUM | Offloads::USO);
        assert_eq!(offloads(Features::GUEST_TSO4 | Features::GUEST_TSO6), Offloads::empty());
    }
}
