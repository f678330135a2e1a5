//! What the data path counts, gathered over a poll before it goes to the statistics registers (section 8.2.3.23).

use super::registers::{self, Register};
use super::statistics::Statistics;
use super::steering::{CHECK_BYTES, SHORTEST};

/// How often the card did something for the driver that the wire does not show.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Offloaded {
    /// Frames to transmit that were cut into segments.
    pub tx_segmentations: u64,
    /// Frames to transmit that a checksum was inserted into, segmented ones not counted.
    pub tx_checksums: u64,
    /// Frames to transmit that a VLAN tag was inserted into.
    pub tx_tags: u64,
    /// Received frames that a VLAN tag was taken out of.
    pub rx_tags: u64,
    /// Received frames whose transport checksum was reported good.
    pub rx_checksums: u64,
}

/// Frames and their bytes.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Amount {
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

impl Amount {
    #[inline]
    pub(super) fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }

    /// Adds to counters of frames and, at the low word, of bytes.
    pub(super) fn flush(&mut self, statistics: &mut Statistics, frames: u32, bytes: u32) {
        let Self { frames: counted, bytes: octets } = std::mem::take(self);
        if counted != 0 {
            statistics.add(frames, counted);
            statistics.add(bytes, octets);
        }
    }
}

/// Good frames in one direction.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Good {
    all: Amount,
    sizes: [u64; 6],
    broadcasts: u64,
    multicasts: u64,
}

impl Good {
    /// Counts a frame that has no check sequence yet.
    #[inline]
    pub(super) fn add(&mut self, frame: &[u8]) {
        let bytes = wire_bytes(frame);
        self.all.add(bytes);
        let bucket = match bytes {
            ..=64 => 0,
            65..=127 => 1,
            128..=255 => 2,
            256..=511 => 3,
            512..=1023 => 4,
            _ => 5,
        };
        if let Some(count) = self.sizes.get_mut(bucket) {
            *count += 1;
        }
        if frame.first().is_some_and(|first| first & 1 != 0) {
            if frame.starts_with(&[0xff; 6]) { self.broadcasts += 1 } else { self.multicasts += 1 }
        }
    }
}

/// Bytes of a frame on the wire: padded, and with its check sequence.
#[inline]
pub(super) fn wire_bytes(frame: &[u8]) -> usize {
    frame.len().max(SHORTEST) + CHECK_BYTES
}

/// What was counted since the last flush.
#[derive(Default, Debug)]
pub(super) struct Counts {
    /// All that arrived.
    pub(super) arrived: Amount,
    /// Good frames, before filters.
    pub(super) unfiltered: Amount,
    /// Good frames that passed the filters.
    pub(super) received: Good,
    /// Frames that reached the driver.
    pub(super) delivered: Amount,
    pub(super) sent: Good,
    pub(super) undersize: u64,
    pub(super) oversize: u64,
    pub(super) bad_length: u64,
    /// No room: the packet buffer ran over.
    pub(super) missed: u64,
    pub(super) bad_checksums: u64,
    /// Never cleared.
    pub(super) offloaded: Offloaded,
}

impl Counts {
    /// Adds everything to the registers, and starts anew.
    pub(super) fn flush(&mut self, statistics: &mut Statistics) {
        use registers as r;
        let Self { arrived, unfiltered, received, delivered, sent, .. } = self;
        if arrived.frames != 0 {
            arrived.flush(statistics, r::TPR.offset, r::TORL.offset);
            unfiltered.flush(statistics, r::RXNFGPC.offset, r::RXNFGBCL.offset);
            delivered.flush(statistics, r::RXDGPC.offset, r::RXDGBCL.offset);
            const SIZES: [Register; 6] = [r::PRC64, r::PRC127, r::PRC255, r::PRC511, r::PRC1023, r::PRC1522];
            good(received, statistics, &SIZES, [r::GPRC, r::GORCL, r::BPRC, r::MPRC]);
            let errors = [
                (&mut self.undersize, r::RUC),
                (&mut self.oversize, r::ROC),
                (&mut self.bad_length, r::RLEC),
                (&mut self.missed, r::RXMPC),
                (&mut self.bad_checksums, r::XEC),
            ];
            for (count, register) in errors {
                add(statistics, register, std::mem::take(count));
            }
        }
        if sent.all.frames != 0 {
            let all = sent.all;
            statistics.add(r::TPT.offset, all.frames);
            statistics.add(r::TXDGPC.offset, all.frames);
            statistics.add(r::TXDGBCL.offset, all.bytes);
            const SIZES: [Register; 6] = [r::PTC64, r::PTC127, r::PTC255, r::PTC511, r::PTC1023, r::PTC1522];
            good(sent, statistics, &SIZES, [r::GPTC, r::GOTCL, r::BPTC, r::MPTC]);
        }
    }
}

fn add(statistics: &mut Statistics, register: Register, amount: u64) {
    if amount != 0 {
        statistics.add(register.offset, amount);
    }
}

/// `others` are the counters of frames, bytes, broadcasts and multicasts.
fn good(good: &mut Good, statistics: &mut Statistics, sizes: &[Register; 6], others: [Register; 4]) {
    let Good { mut all, sizes: counted, broadcasts, multicasts } = std::mem::take(good);
    let [frames, bytes, broadcast, multicast] = others;
    all.flush(statistics, frames.offset, bytes.offset);
    for (register, count) in sizes.iter().zip(counted) {
        add(statistics, *register, count);
    }
    add(statistics, broadcast, broadcasts);
    add(statistics, multicast, multicasts);
}
