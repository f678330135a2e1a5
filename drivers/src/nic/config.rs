//! What a caller can ask of any card.

use alloc::vec::Vec;

use super::{MacAddress, Offloads};

/// Descriptors of a ring unless asked otherwise: two of the largest bursts (128) fit, and 256 buffers of 2 KiB stay
/// within a core's second-level cache, where a larger ring would wander through all of the pool.
pub const DEFAULT_RING_SIZE: u16 = 256;

/// Bytes of a key for the Toeplitz hash.
pub const RSS_KEY_LENGTH: usize = 40;

/// A key that gives both directions of a flow the same hash: 16 bits that repeat.
pub const SYMMETRIC_RSS_KEY: [u8; RSS_KEY_LENGTH] = {
    let mut key = [0x6d; RSS_KEY_LENGTH];
    let mut index = 1;
    while index < RSS_KEY_LENGTH {
        key[index] = 0x5a;
        index += 2;
    }
    key
};

/// What a caller asks of a card, whatever its driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Queue pairs wanted; fewer are used when the device has fewer.
    pub queue_pairs: u16,
    /// Descriptors wanted in each ring. A driver rounds it to what its device can have.
    pub ring_size: u16,
    /// An interrupt for each receive queue, for sleeping while idle. Without, the queues can only be polled.
    pub interrupts: bool,
    /// Largest payload of a frame, in bytes, not counting VLAN tags; `None` takes the device's own, which is 1500 where it does not say.
    pub mtu: Option<u16>,
    /// Ethernet address to set; `None` keeps the device's.
    pub mac: Option<MacAddress>,
    /// Frames to receive when it is started; [`super::Nic::set_filter`] changes it later.
    pub filter: ReceiveFilter,
    /// Offloads that may be used. Receiving large segments (LRO, URO) and taking VLAN tags out make sense only when
    /// whoever gets the packets can undo that.
    pub offloads: Offloads,
    /// Key of the hash that spreads flows over queues.
    pub rss_key: [u8; RSS_KEY_LENGTH],
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queue_pairs: 1,
            ring_size: DEFAULT_RING_SIZE,
            interrupts: false,
            mtu: None,
            mac: None,
            filter: ReceiveFilter::everything(),
            offloads: Offloads::all(),
            rss_key: SYMMETRIC_RSS_KEY,
        }
    }
}

/// Which frames a card passes to its driver. Its own address and broadcast always belong to them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReceiveFilter {
    /// Frames for every address.
    pub promiscuous: bool,
    /// Frames for every group address.
    pub all_multicast: bool,
    /// Frames for these addresses too. A card with too few places for them receives more than was asked for.
    pub unicast: Vec<MacAddress>,
    /// Frames for these group addresses. A card may let others through that share a hash with them.
    pub multicast: Vec<MacAddress>,
    /// Of tagged frames only those of these VLANs (0 to 4095); `None` is all. Frames without a tag always pass.
    pub vlans: Option<Vec<u16>>,
}

impl ReceiveFilter {
    /// All that arrives: what a forwarder needs.
    #[must_use]
    pub fn everything() -> Self {
        Self { promiscuous: true, ..Self::default() }
    }

    /// What is for the card itself, broadcasts and all groups: what a host needs.
    #[must_use]
    pub fn host() -> Self {
        Self { all_multicast: true, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_key_is_symmetric() {
        assert!(SYMMETRIC_RSS_KEY.chunks(2).all(|pair| pair == [0x6d, 0x5a]));
    }
}
