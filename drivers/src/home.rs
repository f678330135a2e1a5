//! Where a card's queues are while nobody has them. For all drivers.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::health::Health;
use crate::nic::QueuePair;

/// What a driver needs to know of a queue that comes back.
pub(crate) trait Half {
    /// The pair that it is half of.
    fn pair(&self) -> u16;
    /// Whether it is a queue of the device that has this health.
    fn belongs_to(&self, health: &Arc<Health>) -> bool;
}

/// The queues of a card, by pair; `None` for those that are handed out.
#[derive(Debug)]
pub(crate) struct Home<Rx, Tx> {
    pub(crate) receivers: Vec<Option<Rx>>,
    pub(crate) transmitters: Vec<Option<Tx>>,
}

impl<Rx: Half, Tx: Half> Home<Rx, Tx> {
    /// A pair that is not wholly at home.
    pub(crate) fn missing(&self) -> Option<usize> {
        let missing = self.receivers.iter().position(Option::is_none);
        missing.or_else(|| self.transmitters.iter().position(Option::is_none))
    }

    /// Hands all pairs out, each with its interrupt.
    pub(crate) fn hand_out<I>(&mut self, interrupts: Vec<Option<I>>) -> Vec<QueuePair<Rx, Tx, I>> {
        let receivers = self.receivers.iter_mut().filter_map(Option::take);
        let pairs = receivers.zip(self.transmitters.iter_mut().filter_map(Option::take));
        pairs.zip(interrupts).map(|((rx, tx), interrupt)| QueuePair { rx, tx, interrupt }).collect()
    }

    /// Takes queues back. Another device's queue must not be emptied on this one's reset: it is dropped, and its buffers
    /// stay lent.
    pub(crate) fn take_back(&mut self, queues: Vec<(Rx, Tx)>, health: &Arc<Health>) {
        for (rx, tx) in queues {
            put(&mut self.receivers, rx, health);
            put(&mut self.transmitters, tx, health);
        }
    }
}

fn put<Q: Half>(places: &mut [Option<Q>], queue: Q, health: &Arc<Health>) {
    let place = places.get_mut(usize::from(queue.pair()));
    if let Some(place) = place.filter(|_| queue.belongs_to(health)) {
        *place = Some(queue);
    }
}
