//! The queues that are handed out: one type for both ring formats. The format is looked at once for each burst;
//! everything below is compiled for each format on its own.

use alloc::sync::Arc;
use core::fmt;

use hugemem::{Batch, Lent, OutOfMemory, PacketPool, Region};

use super::features::Features;
use super::options::RingFormat;
use super::packed::Packed;
use super::receive::Receiver;
use super::ring::{Addresses, Ring};
use super::split::Split;
use super::transmit::Transmitter;
use super::transport::Doorbell;
use crate::health::Health;
use crate::home::Half;
use crate::nic::{Counters, Offloads, RxQueue, TxQueue};
use crate::stopped::Stopped;

/// Receives from one queue of a virtio-net device.
pub struct Rx<D: Doorbell>(Format<Receiver<Split<Lent>, D>, Receiver<Packed<Lent>, D>>);

/// Sends on one queue of a virtio-net device.
pub struct Tx<D: Doorbell>(Format<Transmitter<Split<Lent>, D>, Transmitter<Packed<Lent>, D>>);

/// Something that exists for either ring format.
#[derive(Debug)]
pub(super) enum Format<S, P> {
    Split(S),
    Packed(P),
}

/// The same expression for whichever format it is.
macro_rules! each {
    ($queue:expr, $inner:ident => $body:expr) => {
        match $queue {
            Format::Split($inner) => $body,
            Format::Packed($inner) => $body,
        }
    };
}
pub(super) use each;

impl<D: Doorbell> Rx<D> {
    /// Takes memory for the receive queue of `pair`.
    pub(super) fn new(
        memory: &Region,
        format: RingFormat,
        size: u16,
        pool: PacketPool,
        health: Arc<Health>,
        pair: u16,
    ) -> Result<Self, OutOfMemory> {
        let queue = 2 * pair;
        Ok(Self(match format {
            RingFormat::Split => Format::Split(Receiver::new(Split::new(memory, size, false)?, pool, health, queue)),
            RingFormat::Packed => Format::Packed(Receiver::new(Packed::new(memory, size, false)?, pool, health, queue)),
        }))
    }

    pub(super) fn queue(&self) -> u16 {
        each!(&self.0, inner => inner.queue)
    }

    pub(super) fn size(&self) -> u16 {
        each!(&self.0, inner => inner.ring.size())
    }

    pub(super) fn addresses(&self) -> Addresses {
        each!(&self.0, inner => inner.ring.addresses())
    }

    pub(super) fn reset(&mut self, stopped: &Stopped, features: Features) {
        each!(&mut self.0, inner => inner.reset(stopped, features));
    }

    pub(super) fn begin(&mut self, doorbell: D, interrupt: bool) {
        each!(&mut self.0, inner => inner.begin(doorbell, interrupt));
    }

    pub(super) fn kick(&self) {
        each!(&self.0, inner => inner.kick());
    }

    /// The pool that the queue takes its buffers from.
    pub fn pool(&mut self) -> &mut PacketPool {
        each!(&mut self.0, inner => &mut inner.pool)
    }
}

impl<D: Doorbell> Half for Rx<D> {
    fn pair(&self) -> u16 {
        self.queue() / 2
    }

    fn belongs_to(&self, health: &Arc<Health>) -> bool {
        each!(&self.0, inner => Arc::ptr_eq(&inner.health, health))
    }
}

impl<D: Doorbell> RxQueue for Rx<D> {
    fn receive(&mut self, batch: &mut Batch) -> usize {
        each!(&mut self.0, inner => inner.receive(batch))
    }

    fn arm(&mut self) -> bool {
        each!(&mut self.0, inner => inner.arm())
    }

    fn disarm(&mut self) {
        each!(&mut self.0, inner => inner.disarm());
    }

    fn gives_large(&self) -> bool {
        each!(&self.0, inner => inner.gives_large())
    }

    fn counters(&self) -> Counters {
        each!(&self.0, inner => inner.counters)
    }
}

impl<D: Doorbell> Tx<D> {
    /// Takes memory for the transmit queue of `pair`; with indirect tables when `tables`.
    pub(super) fn new(
        memory: &Region,
        format: RingFormat,
        size: u16,
        tables: bool,
        health: Arc<Health>,
        pair: u16,
    ) -> Result<Self, OutOfMemory> {
        let queue = 2 * pair + 1;
        Ok(Self(match format {
            RingFormat::Split => Format::Split(Transmitter::new(Split::new(memory, size, tables)?, health, queue)),
            RingFormat::Packed => Format::Packed(Transmitter::new(Packed::new(memory, size, tables)?, health, queue)),
        }))
    }

    pub(super) fn queue(&self) -> u16 {
        each!(&self.0, inner => inner.queue)
    }

    pub(super) fn size(&self) -> u16 {
        each!(&self.0, inner => inner.ring.size())
    }

    pub(super) fn addresses(&self) -> Addresses {
        each!(&self.0, inner => inner.ring.addresses())
    }

    pub(super) fn reset(&mut self, stopped: &Stopped, features: Features, longest: usize) {
        each!(&mut self.0, inner => inner.reset(stopped, features, longest));
    }

    pub(super) fn begin(&mut self, doorbell: D) {
        each!(&mut self.0, inner => inner.begin(doorbell));
    }
}

impl<D: Doorbell> Half for Tx<D> {
    fn pair(&self) -> u16 {
        self.queue() / 2
    }

    fn belongs_to(&self, health: &Arc<Health>) -> bool {
        each!(&self.0, inner => Arc::ptr_eq(&inner.health, health))
    }
}

impl<D: Doorbell> TxQueue for Tx<D> {
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        each!(&mut self.0, inner => inner.transmit(batch))
    }

    fn reclaim(&mut self) -> usize {
        each!(&mut self.0, inner => inner.reclaim())
    }

    fn offloads(&self) -> Offloads {
        each!(&self.0, inner => inner.offloads())
    }

    fn counters(&self) -> Counters {
        each!(&self.0, inner => inner.counters)
    }
}

impl<D: Doorbell> fmt::Debug for Rx<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rx").field("queue", &self.queue()).field("size", &self.size()).finish_non_exhaustive()
    }
}

impl<D: Doorbell> fmt::Debug for Tx<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("queue", &self.queue()).field("size", &self.size()).finish_non_exhaustive()
    }
}
