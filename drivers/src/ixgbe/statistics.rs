//! The card's own counters (8.2.3.23). Each clears when it is read, and is summed up here in 64 bits. Asked once a second, none
//! can wrap unseen: the fastest counts 14.9 million frames a second in 32 bits.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::card::Card;
use crate::bus::Bar;
use crate::register::{ReadOnly, Reg, RegArray};

/// Where a counter is read.
#[derive(Debug)]
enum Source {
    /// One register.
    Word(Reg<u32, ReadOnly>),
    /// 36 bits in two registers; reading the second clears both.
    Long(Reg<u32, ReadOnly>, Reg<u32, ReadOnly>),
    /// One register for each of several queues or packet buffers.
    Sum(RegArray<u32, ReadOnly>),
}

const fn word(offset: u32) -> Source {
    Source::Word(Reg::at(offset))
}

const fn long(offset: u32) -> Source {
    Source::Long(Reg::at(offset), Reg::at(offset + 4))
}

const PAUSES: &str = "rx_xoff_packets";
const GOOD: &str = "rx_good_packets";
/// Good packets that found no place, and those that went to the management firmware instead.
const ELSEWHERE: [&str; 3] = ["rx_missed_errors", "rx_no_dma_resources", "rx_management_packets"];

/// Counters by their names in `ethtool -S` and DPDK, with the datasheet's.
const COUNTERS: [(&str, Source); 43] = [
    (GOOD, word(0x04074)),                                                 // GPRC
    ("tx_good_packets", word(0x04080)),                                    // GPTC
    ("rx_good_bytes", long(0x04088)),                                      // GORCL, GORCH
    ("tx_good_bytes", long(0x04090)),                                      // GOTCL, GOTCH
    ("rx_missed_errors", Source::Sum(RegArray::at(0x03fa0, 4, 8))),        // RXMPC
    ("rx_no_dma_resources", Source::Sum(RegArray::at(0x01430, 0x40, 16))), // QPRDC
    ("rx_crc_errors", word(0x04000)),                                      // CRCERRS
    ("rx_illegal_byte_errors", word(0x04004)),                             // ILLERRC
    ("rx_error_bytes", word(0x04008)),                                     // ERRBC
    ("rx_length_errors", word(0x04040)),                                   // RLEC
    ("rx_undersize_errors", word(0x040a4)),                                // RUC
    ("rx_fragment_errors", word(0x040a8)),                                 // RFC
    ("rx_oversize_errors", word(0x040ac)),                                 // ROC
    ("rx_jabber_errors", word(0x040b0)),                                   // RJC
    ("rx_l3_l4_xsum_error", word(0x04120)),                                // XEC
    ("mac_local_errors", word(0x04034)),                                   // MLFC
    ("mac_remote_errors", word(0x04038)),                                  // MRFC
    ("rx_total_packets", word(0x040d0)),                                   // TPR
    ("rx_total_bytes", long(0x040c0)),                                     // TORL, TORH
    ("tx_total_packets", word(0x040d4)),                                   // TPT
    ("rx_broadcast_packets", word(0x04078)),                               // BPRC
    ("rx_multicast_packets", word(0x0407c)),                               // MPRC
    ("tx_multicast_packets", word(0x040f0)),                               // MPTC
    ("tx_broadcast_packets", word(0x040f4)),                               // BPTC
    ("rx_size_64_packets", word(0x0405c)),                                 // PRC64
    ("rx_size_65_to_127_packets", word(0x04060)),                          // PRC127
    ("rx_size_128_to_255_packets", word(0x04064)),                         // PRC255
    ("rx_size_256_to_511_packets", word(0x04068)),                         // PRC511
    ("rx_size_512_to_1023_packets", word(0x0406c)),                        // PRC1023
    ("rx_size_1024_to_max_packets", word(0x04070)),                        // PRC1522
    ("tx_size_64_packets", word(0x040d8)),                                 // PTC64
    ("tx_size_65_to_127_packets", word(0x040dc)),                          // PTC127
    ("tx_size_128_to_255_packets", word(0x040e0)),                         // PTC255
    ("tx_size_256_to_511_packets", word(0x040e4)),                         // PTC511
    ("tx_size_512_to_1023_packets", word(0x040e8)),                        // PTC1023
    ("tx_size_1024_to_max_packets", word(0x040ec)),                        // PTC1522
    ("tx_xon_packets", word(0x03f60)),                                     // LXONTXC
    ("rx_xon_packets", word(0x041a4)),                                     // LXONRXCNT
    ("tx_xoff_packets", word(0x03f68)),                                    // LXOFFTXC
    (PAUSES, word(0x041a8)),                                               // LXOFFRXCNT
    ("rx_management_packets", word(0x040b4)),                              // MNGPRC
    ("rx_management_dropped", word(0x040b8)),                              // MNGPDC
    ("tx_management_packets", word(0x0cf90)),                              // MNGPTC
];

/// The sums since the card was opened.
#[derive(Debug)]
pub(super) struct Statistics(Box<[u64; COUNTERS.len()]>);

impl Statistics {
    /// All zero.
    pub(super) fn new() -> Self {
        Self(Box::new([0; COUNTERS.len()]))
    }

    /// Reads and forgets what the card counted before it was ours.
    pub(super) fn discard<B: Bar>(card: &Card<B>) {
        for (_, source) in &COUNTERS {
            read(card, source);
        }
    }

    /// Adds what the card counted since the last time. What a card that is gone answers does not count.
    pub(super) fn gather<B: Bar>(&mut self, card: &Card<B>) {
        let mut counted = [0; COUNTERS.len()];
        for (count, (_, source)) in counted.iter_mut().zip(&COUNTERS) {
            *count = read(card, source);
        }
        if card.is_gone() {
            return;
        }
        for (sum, count) in self.0.iter_mut().zip(counted) {
            *sum = sum.wrapping_add(count);
        }
    }

    /// Pause frames that were received.
    pub(super) fn pauses(&self) -> u64 {
        self.sum(PAUSES)
    }

    /// Packets that the card put into a ring by its own account, at least: some cards count what went elsewhere as good, some
    /// do not, and the sum then falls.
    pub(super) fn delivered(&self) -> i64 {
        ELSEWHERE.into_iter().fold(self.sum(GOOD), |sum, other| sum.wrapping_sub(self.sum(other))).cast_signed()
    }

    fn sum(&self, wanted: &str) -> u64 {
        COUNTERS.iter().zip(self.0.iter()).find(|((name, _), _)| *name == wanted).map_or(0, |(_, sum)| *sum)
    }

    /// All sums with their names.
    pub(super) fn list(&self) -> Vec<(&'static str, u64)> {
        COUNTERS.iter().map(|(name, _)| *name).zip(self.0.iter().copied()).collect()
    }
}

fn read<B: Bar>(card: &Card<B>, source: &Source) -> u64 {
    match source {
        Source::Word(register) => card.load(register).into(),
        Source::Long(low, high) => {
            let low = card.load(low);
            u64::from(card.load(high) & 0xf) << 32 | u64::from(low)
        }
        Source::Sum(registers) => registers.iter().map(|register| u64::from(card.load(&register))).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let names = || COUNTERS.iter().map(|(name, _)| *name);
        assert!(names().all(|name| names().filter(|other| *other == name).count() == 1));
    }
}
