//! The port of nothing: receives no packets and frees what is sent to it.

use drivers::nic::{Counters, LinkStatus, Offloads, RxQueue, TxQueue};
use hugemem::Batch;

use super::{PortControl, PortError, PortQueue};

/// Receives nothing.
#[derive(Debug, Default)]
pub struct NullRx;

impl RxQueue for NullRx {
    fn receive(&mut self, _batch: &mut Batch) -> usize {
        0
    }

    fn arm(&mut self) -> bool {
        // Nothing ever waits here, so sleeping is right.
        true
    }

    fn gives_large(&self) -> bool {
        false
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// Frees and counts what is sent.
#[derive(Debug, Default)]
pub struct NullTx {
    counters: Counters,
}

impl TxQueue for NullTx {
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        let packets = batch.len();
        self.counters.packets += packets as u64;
        self.counters.bytes += batch.iter().map(|packet| packet.len() as u64).sum::<u64>();
        batch.clear();
        packets
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

/// Control side of a null port.
#[derive(Debug, Default)]
pub struct NullControl;

impl PortControl for NullControl {
    fn link(&mut self) -> LinkStatus {
        LinkStatus { up: true, ..LinkStatus::default() }
    }

    fn offloads(&self) -> Offloads {
        // Whatever is sent is freed unseen, so nothing has to be completed in software first.
        everything_sent()
    }

    fn describe(&mut self) -> String {
        "null state UP".into()
    }

    fn stop(&mut self, _queues: Vec<PortQueue>) -> Result<(), PortError> {
        Ok(())
    }
}

/// All offloads of transmission.
pub(super) fn everything_sent() -> Offloads {
    Offloads::TX_CHECKSUM | Offloads::TSO4 | Offloads::TSO6 | Offloads::TSO_ECN | Offloads::USO
}

/// A queue pair of a null port.
#[must_use]
pub fn queue() -> PortQueue {
    PortQueue { rx: Box::new(NullRx), tx: Box::new(NullTx::default()), wake: None, desk: None }
}
