//! Spreading of flows over receive queues (7.1.2.8).

use super::card::Card;
use super::registers::{ERETA, MRQC, RETA, RSSRK, mrqc};
use crate::bus::Bar;
use crate::nic::RSS_KEY_LENGTH;

/// What is hashed: addresses, and ports where there are some.
const FIELDS: u32 = mrqc::TCP_IPV4 | mrqc::IPV4 | mrqc::IPV6 | mrqc::TCP_IPV6 | mrqc::UDP_IPV4 | mrqc::UDP_IPV6;

/// Spreads over the first `queues` queues.
pub(super) fn spread<B: Bar>(card: &Card<B>, queues: u32, key: &[u8; RSS_KEY_LENGTH]) {
    for (register, word) in RSSRK.iter().zip(key.as_chunks::<4>().0) {
        card.store(&register, u32::from_le_bytes(*word));
    }
    let queues = queues.max(1);
    let word = |index: u32| (0..4).fold(0, |word, entry| word | ((4 * index + entry) % queues) << (8 * entry));
    for (register, index) in RETA.iter().zip(0..) {
        card.store(&register, word(index));
    }
    if card.kind.family.has_large_table() {
        for (register, index) in ERETA.iter().zip(RETA.count()..) {
            card.store(&register, word(index));
        }
    }
    card.store(&MRQC, mrqc::RSS | FIELDS);
}

/// Everything goes to the first queue.
pub(super) fn off<B: Bar>(card: &Card<B>) {
    card.store(&MRQC, 0);
}
