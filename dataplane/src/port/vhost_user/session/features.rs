//! What is offered to a VM.

use drivers::virtio::Features;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};

/// The peer may log pages that we write to.
pub(super) const LOG_ALL: u64 = VhostUserVirtioFeatures::LOG_ALL.bits();
/// There is a second set of features, of the protocol.
pub(super) const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
/// `VIRTIO_F_IN_ORDER`: buffers are used in the order in which they were made available.
const IN_ORDER: u64 = 1 << 35;

/// Features of the protocol that this side knows.
pub(super) fn protocol() -> VhostUserProtocolFeatures {
    use VhostUserProtocolFeatures as P;
    P::MQ
        | P::LOG_SHMFD
        | P::RARP
        | P::REPLY_ACK
        | P::MTU
        | P::BACKEND_REQ
        | P::CONFIG
        | P::INFLIGHT_SHMFD
        | P::RESET_DEVICE
        | P::CONFIGURE_MEM_SLOTS
        | P::STATUS
}

/// Features of the device. All offloads are among them: what a VM cannot take, or the port that its frames go to cannot send, is cut and
/// summed by the engine.
pub(super) fn device() -> u64 {
    let features = Features::VERSION_1
        | Features::RING_PACKED
        | Features::INDIRECT_DESC
        | Features::EVENT_IDX
        | Features::ACCESS_PLATFORM
        | Features::MRG_RXBUF
        | Features::STATUS
        | Features::MTU
        | Features::MQ
        // The VMM serves the control queue. Some take this for the permission to.
        | Features::CTRL_VQ
        | Features::GUEST_ANNOUNCE
        | Features::CSUM
        | Features::HOST_TSO4
        | Features::HOST_TSO6
        | Features::HOST_ECN
        | Features::HOST_USO
        | Features::GUEST_CSUM
        | Features::GUEST_TSO4
        | Features::GUEST_TSO6
        | Features::GUEST_ECN
        | Features::GUEST_USO4
        | Features::GUEST_USO6;
    features.bits() | LOG_ALL | PROTOCOL_FEATURES | IN_ORDER
}

/// Whether the driver is one of virtio 1. The header of older ones may be shorter.
pub(super) fn has_version_1(features: u64) -> bool {
    Features::from_bits_retain(features).contains(Features::VERSION_1)
}

/// Whether rings are packed.
pub(super) fn is_packed(features: u64) -> bool {
    Features::from_bits_retain(features).contains(Features::RING_PACKED)
}

/// `csum tso4 mrg_rxbuf`: the features that matter to users, in the words of the specification.
pub(super) fn words(features: u64) -> String {
    let mut words: Vec<String> =
        Features::from_bits_truncate(features).iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect();
    for (bit, word) in [(IN_ORDER, "in_order"), (LOG_ALL, "log_all")] {
        if features & bit != 0 && !words.iter().any(|known| known == word) {
            words.push(word.into());
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_the_specification() {
        assert_eq!(words(Features::CSUM.bits() | PROTOCOL_FEATURES | LOG_ALL), "csum log_all");
        assert!(words(device()).contains("ring_packed") && words(device()).contains("in_order"));
    }
}
