//! Doing in software what a transmit queue cannot: packets in a virtual machine's memory are made whole in buffers of ours, large packets are cut
//! into segments, and partial checksums are completed.
//!
//! Nothing of this touches packets between queues that need none of it. When buffers run out, packets wait.

mod cut;

use drivers::nic::{DropReason, Offloads};
use hugemem::{Batch, Checksum, Packet, PacketPool, SegmentationKind, recycle};

use crate::checksum;
use crate::guest::{faults, is_lost, lost};
use crate::stats::QueueStatistics;
use crate::whole::{self, Shortage};
pub(super) use cut::Cut;

/// What large packets may ask of a transmit queue.
const CUTTING: Offloads =
    Offloads::TSO4.union(Offloads::TSO6).union(Offloads::TSO_ECN).union(Offloads::USO).union(Offloads::TUNNEL_CUTTING);
/// What packets may ask of a transmit queue, when they are in no tunnel.
const ALL: Offloads = CUTTING.difference(Offloads::TUNNEL_CUTTING).union(Offloads::TX_CHECKSUM);

/// Packets that are made ready to be sent at a time, when they cannot be sent as they are.
const STAGE: usize = 64;

/// What the packets of a receive queue may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gives {
    /// In memory that only some transmit queues reach: that of virtual machines, and the buffers of what they sent.
    pub(super) foreign: bool,
    /// Larger than the MTU.
    pub(super) large: bool,
    /// In tunnels.
    pub(super) tunnels: bool,
}

/// Packets on their way to a transmit queue.
#[derive(Debug)]
pub(super) struct Backlog {
    /// As received or switched. This is the queue in front of the destination.
    pub(super) batch: Batch,
    /// Made ready to be sent; goes before what is in `batch`.
    pub(super) stage: Batch,
    /// How far the first packet of `batch` was cut.
    cut: Option<Cut>,
    /// What the packets may be; `None` when they can go to any queue as they are.
    pub(super) gives: Option<Gives>,
}

impl Backlog {
    pub(super) fn new(burst: usize, gives: Gives) -> Self {
        Self {
            batch: Batch::new(burst),
            stage: Batch::new(STAGE),
            cut: None,
            gives: (gives.foreign || gives.large).then_some(gives),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.stage.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.batch.len() + self.stage.len()
    }

    /// Sends home what is staged and the first `count` packets behind it. Gives how many that were.
    pub(super) fn drop_front(&mut self, count: usize) -> usize {
        let count = count.min(self.batch.len());
        if count > 0 {
            self.cut = None;
        }
        let dropped = count + self.stage.len();
        self.stage.clear();
        recycle(self.batch.drain_front(count));
        dropped
    }

    /// Sends all packets home.
    pub(super) fn clear(&mut self) {
        self.batch.clear();
        self.stage.clear();
        self.cut = None;
    }
}

/// Makes packets fit a transmit queue.
#[derive(Debug)]
pub(super) struct Adapter {
    takes_foreign: bool,
    /// Buffers that the queue's device reaches.
    pool: Option<PacketPool>,
}

/// What becomes of the first packet of a batch.
enum Step {
    /// It goes as it is.
    Pass,
    /// This goes instead of it.
    Replace(Packet),
    /// This is the next piece of it; more may follow.
    Piece(Packet),
    /// All its pieces are there.
    Done,
    /// It can never be sent.
    Drop(DropReason),
    /// There is no buffer at the moment.
    Wait,
}

impl From<Shortage> for Step {
    fn from(shortage: Shortage) -> Self {
        match shortage {
            Shortage::Now => Self::Wait,
            Shortage::Never(reason) => Self::Drop(reason),
        }
    }
}

impl Adapter {
    pub(super) fn new(takes_foreign: bool, pool: Option<PacketPool>) -> Self {
        Self { takes_foreign, pool }
    }

    pub(super) fn into_pool(self) -> Option<PacketPool> {
        self.pool
    }

    /// All of `batch` can be sent as it is by a queue with `offloads`.
    #[inline]
    pub(super) fn fits(&self, batch: &Batch, gives: Gives, offloads: Offloads) -> bool {
        if gives.foreign && !self.takes_foreign && batch.iter().any(Packet::may_be_foreign) {
            return false;
        }
        (offloads.contains(ALL) && !gives.tunnels) || batch.iter().all(|packet| offloads.contains(asked(packet)))
    }

    /// Stages packets until `limit` are staged, each made into what a queue with `offloads` takes. `false` when buffers
    /// ran out.
    pub(super) fn adapt(
        &mut self,
        backlog: &mut Backlog,
        limit: usize,
        offloads: Offloads,
        statistics: &mut QueueStatistics,
    ) -> bool {
        let limit = limit.min(backlog.stage.capacity());
        let Backlog { batch, stage, cut, gives } = backlog;
        let Some(gives) = gives else {
            pass(batch, stage, limit);
            return true;
        };
        while stage.len() < limit
            && let Some(packet) = batch.as_slice().first()
        {
            let missing = asked(packet) - offloads;
            // No device reaches the buffers of such a packet, even when it fits into them.
            let copies = gives.foreign && !self.takes_foreign && packet.may_be_foreign();
            let faults_before = faults();
            let gone = lost() != 0 && packet.foreign().iter().any(is_lost);
            let mut step = self.step(packet, missing, copies, cut);
            if gone || faults() != faults_before {
                // Memory went away before or while it was copied: these are not the bytes that were sent.
                step = Step::Drop(DropReason::System);
            }
            let ready = match step {
                Step::Pass => batch.drain_front(1).next(),
                Step::Replace(copy) => {
                    batch.drain_front(1);
                    Some(copy)
                }
                Step::Piece(piece) => {
                    statistics.cut = statistics.cut.wrapping_add(1);
                    Some(piece)
                }
                Step::Done => {
                    // Its pieces were counted one by one, and it was one packet itself.
                    statistics.cut = statistics.cut.wrapping_sub(1);
                    *cut = None;
                    batch.drain_front(1);
                    None
                }
                Step::Drop(reason) => {
                    *cut = None;
                    batch.drain_front(1);
                    statistics.counters.drop_packets(reason, 1);
                    None
                }
                Step::Wait => return false,
            };
            let Some(mut packet) = ready else { continue };
            if missing.contains(Offloads::TX_CHECKSUM)
                && packet.metadata().segmentation.is_none()
                && !complete(&mut packet)
            {
                statistics.counters.drop_packets(DropReason::BadHeader, 1);
                continue;
            }
            // Never full: `limit` is at most its capacity.
            let _ = stage.push(packet);
        }
        true
    }

    fn step(&mut self, packet: &Packet, missing: Offloads, copies: bool, cut: &mut Option<Cut>) -> Step {
        if missing.intersects(CUTTING)
            && let Some(segmentation) = packet.metadata().segmentation
        {
            let Some(pool) = &mut self.pool else { return Step::Drop(DropReason::NoOffload) };
            return cut::step(packet, segmentation, cut, pool);
        }
        // A checksum is completed in bytes that are ours.
        if copies || (missing.contains(Offloads::TX_CHECKSUM) && !packet.foreign().is_empty()) {
            let Some(pool) = &mut self.pool else { return Step::Drop(DropReason::NoBuffer) };
            return match whole::copy(pool, packet, packet.len()) {
                Ok(copy) => Step::Replace(copy),
                Err(shortage) => shortage.into(),
            };
        }
        Step::Pass
    }
}

/// All segments of a packet that is to be cut. `None` when it cannot be, or when there are not enough buffers.
pub(crate) fn segments(packet: &Packet, pool: &mut PacketPool) -> Option<Vec<Packet>> {
    let segmentation = packet.metadata().segmentation?;
    let (mut state, mut segments) = (None, Vec::new());
    loop {
        match cut::step(packet, segmentation, &mut state, pool) {
            Step::Piece(segment) => segments.push(segment),
            Step::Done => return Some(segments),
            _ => return None,
        }
    }
}

/// Moves up to `limit` packets as they are.
fn pass(batch: &mut Batch, stage: &mut Batch, limit: usize) {
    for packet in batch.drain_front(limit.min(stage.room())) {
        // Never full: there are no more than it has room for.
        let _ = stage.push(packet);
    }
}

/// What `packet` asks of the queue that sends it.
#[inline]
fn asked(packet: &Packet) -> Offloads {
    let metadata = packet.metadata();
    let checksum = match metadata.checksum {
        Checksum::Partial { .. } => Offloads::TX_CHECKSUM,
        Checksum::Unknown | Checksum::Verified => Offloads::empty(),
    };
    let Some(segmentation) = metadata.segmentation else { return checksum };
    let kind = match segmentation.kind {
        SegmentationKind::TcpV4 => Offloads::TSO4,
        SegmentationKind::TcpV6 => Offloads::TSO6,
        SegmentationKind::Udp => Offloads::USO,
    };
    let ecn = if segmentation.ecn { Offloads::TSO_ECN } else { Offloads::empty() };
    let tunnel = if metadata.inner.is_some() { Offloads::TUNNEL_CUTTING } else { Offloads::empty() };
    checksum | kind | ecn | tunnel
}

/// Completes the checksum of `packet`. `false` when the request contradicts the packet.
fn complete(packet: &mut Packet) -> bool {
    let Checksum::Partial { start, offset } = packet.metadata().checksum else { return true };
    if !checksum::complete_packet(packet, start, offset) {
        return false;
    }
    let metadata = packet.metadata_mut();
    metadata.checksum = Checksum::Verified;
    metadata.inner = None;
    true
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tunnel_tests;
