//! Where packets go: a batch for each destination.

use std::fmt;

use hugemem::{Batch, Packet};

/// A port as the engine numbers its destinations and sources: small, and dense from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PortSlot(pub u16);

impl fmt::Display for PortSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port slot {}", self.0)
    }
}

/// A batch of packets for each destination. Made once, with room for all that may come between two emptyings.
#[derive(Debug)]
pub struct Outputs {
    batches: Vec<Batch>,
    /// Destinations with packets, each once, in the order in which they got their first.
    filled: Vec<PortSlot>,
}

impl Outputs {
    /// Batches of up to `room` packets for `ports` destinations.
    #[must_use]
    pub fn new(ports: u16, room: usize) -> Self {
        Self { batches: (0..ports).map(|_| Batch::new(room)).collect(), filled: Vec::with_capacity(usize::from(ports)) }
    }

    /// Adds a packet for `port`.
    ///
    /// # Errors
    /// Gives the packet back when the batch is full or there is no such port.
    #[inline]
    pub fn push(&mut self, port: PortSlot, packet: Packet) -> Result<(), Packet> {
        let Some(batch) = self.batches.get_mut(usize::from(port.0)) else { return Err(packet) };
        if batch.is_empty() {
            // Never more than there are ports: each is in it once.
            self.filled.push(port);
        }
        let pushed = batch.push(packet);
        if batch.is_empty() {
            self.filled.pop();
        }
        pushed
    }

    /// Number of destinations.
    #[must_use]
    pub fn ports(&self) -> usize {
        self.batches.len()
    }

    /// There is nothing for anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// Gives every batch that has packets to `each`, in the order in which they got their first. What it leaves stays for the next time.
    #[inline]
    pub fn drain(&mut self, mut each: impl FnMut(PortSlot, &mut Batch)) {
        let batches = &mut self.batches;
        self.filled.retain(|port| {
            let Some(batch) = batches.get_mut(usize::from(port.0)) else { return false };
            each(*port, batch);
            !batch.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use hugemem::{Iova, Region};

    #[test]
    fn each_port_gets_its_packets_in_order_and_what_is_left_stays() {
        let mut pool = Region::on_heap(1 << 16, Iova::new(0)).unwrap().packets(16, 256).unwrap();
        let mut outputs = Outputs::new(3, 2);
        for (port, byte) in [(2, 1), (0, 2), (2, 3)] {
            let mut packet = pool.take().unwrap();
            packet.write(&[byte]).unwrap();
            outputs.push(PortSlot(port), packet).unwrap();
        }
        assert!(outputs.push(PortSlot(2), pool.take().unwrap()).is_err());
        assert!(outputs.push(PortSlot(3), pool.take().unwrap()).is_err());
        let mut seen = Vec::new();
        outputs.drain(|port, batch| seen.push((port.0, batch.drain_front(1).next().unwrap().bytes()[0])));
        outputs.drain(|port, batch| seen.push((port.0, batch.drain_front(1).next().unwrap().bytes()[0])));
        assert_eq!(seen, [(2, 1), (0, 2), (2, 3)]);
        assert!(outputs.is_empty());
        assert!(Outputs::new(1, 0).push(PortSlot(0), pool.take().unwrap()).is_err());
    }
}
