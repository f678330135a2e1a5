//! The network card of an emulated machine, as the machine sees it: two queues, and memory of its own.

use std::sync::Arc;

use dataplane::bell::Bell;
use drivers::nic::{Counters, RxQueue, TxQueue};
use hugemem::{Batch, HEADROOM, IovaSpace, MemoryRequest, Packet, PacketPool, Region};
use rtrb::{Consumer, Producer, RingBuffer};

use super::frame::{Frames, PIECE};

/// Room of a buffer for reception.
const ROOM: usize = 2048;
/// Buffers for reception.
const RECEIVING: usize = 2048;
/// Buffers to send from, for frames that fit into [`ROOM`].
const SMALL: usize = 2048;
/// Buffers to send from, of [`PIECE`] bytes.
const LARGE: usize = 128;
/// Frames that a ring between a machine and its monitor holds.
const RING: usize = 1024;

/// A machine's card.
pub(super) struct Card {
    /// What arrives.
    pub(super) rx: Box<dyn RxQueue>,
    /// What is sent.
    pub(super) tx: Box<dyn TxQueue>,
    /// Buffers to send from.
    pub(super) sources: Sources,
}

/// Buffers to send from.
pub(super) struct Sources {
    small: PacketPool,
    large: PacketPool,
}

impl Sources {
    /// Those that suit these frames.
    pub(super) fn of(&mut self, frames: &Frames) -> &mut PacketPool {
        if frames.length() > ROOM { &mut self.large } else { &mut self.small }
    }
}

/// A machine's memory.
pub(super) struct MachineMemory {
    /// Where everything lies.
    pub(super) region: Region,
    /// Buffers to send from.
    pub(super) sources: Sources,
    /// Buffers for reception.
    pub(super) receiving: PacketPool,
}

impl MachineMemory {
    /// Gets it, all pages present.
    ///
    /// # Errors
    /// There is not enough.
    pub(super) fn new(space: &mut IovaSpace) -> anyhow::Result<Self> {
        let slot = |room: usize| room + 2 * HEADROOM;
        let bytes = (RECEIVING + SMALL) * slot(ROOM) + LARGE * slot(PIECE) + (1 << 20);
        let region = MemoryRequest { bytes, ..MemoryRequest::default() }.allocate(space)?.region;
        let receiving = region.packets(RECEIVING, ROOM)?;
        let mut sources = Sources { small: region.packets(SMALL, ROOM)?, large: region.packets(LARGE, PIECE)? };
        touch(&mut sources.small);
        touch(&mut sources.large);
        Ok(Self { region, sources, receiving })
    }
}

/// Writes to every buffer once.
fn touch(pool: &mut PacketPool) {
    let mut taken = Vec::with_capacity(pool.capacity());
    while let Some(mut packet) = pool.take() {
        // A buffer can always be as long as itself.
        let _ = packet.resize(packet.capacity());
        packet.bytes_mut().fill(0x5a);
        taken.push(packet);
    }
}

/// The monitor's end of a card.
pub(super) struct MonitorEnd {
    /// What the machine sends.
    pub(super) sent: Consumer<Packet>,
    /// What it is to receive.
    pub(super) arrived: Producer<Packet>,
}

/// Two rings between a machine and its monitor, in place of virtio rings: both know the machine's buffers, so a frame changes hands without a copy. The
/// machine calls `bell` when it has sent.
pub(super) fn rings(bell: Arc<Bell>) -> (RingRx, RingTx, MonitorEnd) {
    let (to_monitor, sent) = RingBuffer::new(RING);
    let (arrived, from_monitor) = RingBuffer::new(RING);
    (RingRx(from_monitor), RingTx { ring: to_monitor, bell }, MonitorEnd { sent, arrived })
}

/// Receives what the monitor has for the machine.
pub(super) struct RingRx(Consumer<Packet>);

impl RxQueue for RingRx {
    fn receive(&mut self, batch: &mut Batch) -> usize {
        let before = batch.len();
        while batch.room() > 0
            && let Ok(packet) = self.0.pop()
        {
            // There is room.
            let _ = batch.push(packet);
        }
        batch.len() - before
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// Hands frames to the monitor.
pub(super) struct RingTx {
    ring: Producer<Packet>,
    bell: Arc<Bell>,
}

impl TxQueue for RingTx {
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        let count = self.ring.slots().min(batch.len());
        for packet in batch.drain_front(count) {
            // There is room.
            let _ = self.ring.push(packet);
        }
        if count > 0 {
            self.bell.call();
        }
        count
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}
