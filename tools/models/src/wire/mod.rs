//! The other end of a card: where frames come from and go to.
//!
//! | wire | what is on the other side |
//! |---|---|
//! | [`QueueWire`] | a test, which puts frames in and takes frames out |
//! | [`Loopback`] | the card itself |
//! | [`cable`] | another card of this process |
//! | [`Peer`] | a card of another process |
//! | [`Tap`] | an interface of the kernel |
//! | [`Pcap`] | capture files |
//! | [`Traffic`] | a generator and a checking sink |
//! | [`Null`] | nobody |

mod latency;
mod pcap;
mod peer;
mod queue;
mod tap;
mod traffic;

use std::io;

pub use latency::Latency;
pub use pcap::Pcap;
pub use peer::Peer;
pub(crate) use queue::cable_of;
pub use queue::{CableEnd, Loopback, QueueWire, Queues, cable};
pub use tap::Tap;
pub use traffic::{Traffic, TrafficCounters, TrafficPlan};

/// What a card is plugged into. Frames are plain: from the destination address on, without frame check sequence.
pub trait Wire: Send {
    /// The next frame for the card, which stays until [`Wire::advance`].
    fn peek(&mut self) -> Option<&[u8]>;
    /// The frame shown last was received or dropped.
    fn advance(&mut self);
    /// Takes a frame that the card transmits. `false` leaves it with the card for later.
    fn transmit(&mut self, frame: &[u8]) -> bool;
    /// A poll begins: time for what is done once in a while, such as reading a clock.
    fn begin(&mut self) {}
}

impl<W: Wire + ?Sized> Wire for Box<W> {
    fn peek(&mut self) -> Option<&[u8]> {
        (**self).peek()
    }

    fn advance(&mut self) {
        (**self).advance();
    }

    fn transmit(&mut self, frame: &[u8]) -> bool {
        (**self).transmit(frame)
    }

    fn begin(&mut self) {
        (**self).begin();
    }
}

/// A wire that ends nowhere: nothing comes, and what goes out is lost.
#[derive(Clone, Copy, Default, Debug)]
pub struct Null;

impl Wire for Null {
    fn peek(&mut self) -> Option<&[u8]> {
        None
    }

    fn advance(&mut self) {}

    fn transmit(&mut self, _frame: &[u8]) -> bool {
        true
    }
}

/// A wire could not be laid.
#[derive(Debug, thiserror::Error)]
#[error("{wire}: cannot {action}: {source}{remedy}")]
pub struct WireError {
    /// The wire, as `tap=NAME`.
    pub wire: String,
    /// What was tried.
    pub action: &'static str,
    /// The cause.
    #[source]
    pub source: io::Error,
    /// What mends it, as `; ...`, or nothing.
    pub remedy: &'static str,
}

#[cfg(test)]
mod tests;
