//! What a network card offers to the packet path: queues, and a handle for everything that is slow.

mod config;
mod counters;
mod link;
mod mac;
mod offloads;

use alloc::vec::Vec;

use hugemem::{Batch, Region};

pub use crate::error::DeviceError as NicError;
pub use config::{Config, DEFAULT_RING_SIZE, RSS_KEY_LENGTH, ReceiveFilter, SYMMETRIC_RSS_KEY};
pub use counters::{Counters, DropReason};
pub use link::{FlowControl, LinkStatus};
pub use mac::{MacAddress, NotMacAddress};
pub use offloads::Offloads;

/// Receives packets from one queue of one port. Owned by one engine thread at a time.
pub trait RxQueue: Send {
    /// Appends received packets to `batch`, at most as many as it has room for, and returns how many.
    /// Never blocks and never allocates.
    fn receive(&mut self, batch: &mut Batch) -> usize;

    /// Asks for an interrupt at the next packet. `false` when packets are already waiting (or the queue has no
    /// interrupt): poll again instead of sleeping.
    ///
    /// `true` is a promise that no packet comes without a wake-up. From a queue that was handed out with nothing to
    /// wake its owner by it means that nothing will ever come: the owner may sleep on it for good.
    fn arm(&mut self) -> bool {
        false
    }

    /// Takes back [`RxQueue::arm`]: no interrupts while polling.
    fn disarm(&mut self) {}

    /// Packets from this queue may have pieces in memory that is not theirs ([`Packet::foreign`](hugemem::Packet::foreign)). The same for the
    /// queue's whole life.
    fn gives_foreign(&self) -> bool {
        false
    }

    /// Packets from this queue with pieces in memory that is not theirs ([`RxQueue::gives_foreign`]) which have not come home yet. As long as there are any, that memory is in
    /// use.
    fn underway(&mut self) -> usize {
        0
    }

    /// Packets from this queue may be larger than the MTU, to be cut into segments
    /// ([`Metadata::segmentation`](hugemem::Metadata::segmentation)). The same for the queue's whole life; `false` spares a look at each packet.
    fn gives_large(&self) -> bool {
        true
    }

    /// Packets from this queue may have been put into tunnels with work on them left to do ([`Metadata::inner`](hugemem::Metadata::inner)). The same for
    /// the queue's whole life.
    fn gives_tunnels(&self) -> bool {
        false
    }

    /// What has been counted since the queue was made.
    fn counters(&self) -> Counters;
}

/// Sends packets on one queue of one port. Owned by one engine thread at a time.
pub trait TxQueue: Send {
    /// Takes packets from the front of `batch`, in order, and sends them; returns how many it took. What stays in `batch` was
    /// not sent because the queue is full. A packet that can never be sent is taken, dropped and counted.
    fn transmit(&mut self, batch: &mut Batch) -> usize;

    /// The queue sends packets with pieces in foreign memory as they are. It is never given any otherwise. The same for
    /// the queue's whole life.
    fn takes_foreign(&self) -> bool {
        false
    }

    /// What the queue does for packets at this moment: completing partial checksums and cutting large packets. What is missing is done
    /// in software before the queue gets the packets. All: the queue deals with everything by itself. Asked once a batch.
    fn offloads(&self) -> Offloads {
        Offloads::all()
    }

    /// Takes back packets that the device has finished with, and sends what the queue had to hold back. Returns how many packets are
    /// still underway. Called when the port is otherwise idle.
    fn reclaim(&mut self) -> usize {
        0
    }

    /// What has been counted since the queue was made.
    fn counters(&self) -> Counters;
}

/// A receive queue and a transmit queue that one engine serves together, with the interrupt of the receive queue when there is one.
#[derive(Debug)]
pub struct QueuePair<Rx, Tx, Interrupt> {
    /// The receive half.
    pub rx: Rx,
    /// The transmit half.
    pub tx: Tx,
    /// Signalled when the armed receive queue has packets.
    pub interrupt: Option<Interrupt>,
}

/// A network card after its driver brought it up: everything but the packet path.
pub trait Nic: Send {
    /// Receive half of a queue pair.
    type Rx: RxQueue + 'static;
    /// Transmit half of a queue pair.
    type Tx: TxQueue + 'static;
    /// Interrupt of a queue pair.
    type Interrupt: Send + 'static;

    /// The device's name, for messages.
    fn name(&self) -> &str;
    /// Its Ethernet address.
    fn mac(&self) -> MacAddress;
    /// Largest payload of an Ethernet frame, in bytes.
    fn mtu(&self) -> u16;
    /// State of the link, read now.
    fn link(&mut self) -> LinkStatus;
    /// What the hardware does for us.
    fn offloads(&self) -> Offloads;
    /// Starts the device and hands out its queue pairs.
    ///
    /// # Errors
    /// When the device does not come up in time or breaks its rules; it is reset then.
    #[expect(clippy::type_complexity, reason = "naming the tuple would hide which associated types it is made of")]
    fn start(&mut self) -> Result<Vec<QueuePair<Self::Rx, Self::Tx, Self::Interrupt>>, NicError>;
    /// Stops the device, then takes the buffers back that it held. Queues that are not given back here leak their
    /// buffers, which is safe.
    ///
    /// # Errors
    /// When the device does not confirm the reset. Its buffers come back all the same when the bus can take all memory
    /// away from it; otherwise they stay lent.
    fn stop(&mut self, queues: Vec<(Self::Rx, Self::Tx)>) -> Result<(), NicError>;
    /// Makes `region` reachable for the device, running or not, so that packets from it can be sent. A second time does nothing.
    ///
    /// # Errors
    /// When the bus refuses, or the device cannot take memory while it runs.
    fn map(&mut self, region: &Region) -> Result<(), NicError>;
    /// Takes `region` away from the device, running or not. No packet of it may be with the device.
    ///
    /// # Errors
    /// When the bus refuses; the device reaches it as before then.
    fn unmap(&mut self, region: &Region) -> Result<(), NicError>;
    /// Chooses the frames to receive, now and after each start.
    ///
    /// # Errors
    /// When the device cannot, refuses or does not answer. What it receives then is more than was asked for, as far as that is possible.
    fn set_filter(&mut self, filter: &ReceiveFilter) -> Result<(), NicError>;
    /// Counters of the card itself, by the names of `ethtool -S` and DPDK (`rx_missed_errors`, `rx_crc_errors`), since it
    /// was opened: starting it anew does not clear them. Always the same names in the same order; empty when it has none.
    fn statistics(&mut self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
    /// Checks the device's health: `Err` when it asks for a reset, is gone, broke a queue, holds packets to send and
    /// gives none back, or counts packets that no receive queue finds. Called about once a second.
    ///
    /// # Errors
    /// What is wrong; the cure is [`Nic::stop`] and [`Nic::start`].
    fn check(&mut self) -> Result<(), NicError>;
}
