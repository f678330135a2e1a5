//! Intel 82599, X540 and X550: 10 Gb/s Ethernet (82599 datasheet 331520, which section numbers are of; where they
//! differ, those of the X540 and X550).
//!
//! [`Ixgbe::open`] takes a card over, [`Nic::start`](crate::nic::Nic::start) brings it up and hands out [`Rx`] and [`Tx`] queues,
//! [`Nic::stop`](crate::nic::Nic::stop) resets it and takes them back. [`matches()`] tells whether a PCI function is one.
//!
//! From bottom to top: `registers` is the table of registers, `device` knows the kinds of cards, `card` works registers with
//! deadlines and errors that name the card. `reset` stops a card for good; `semaphore`, `nvm`, `sfp` and `phy` reach its
//! parts; `link` and `flow` make the link, `filters` and `rss` choose frames and queues, `interrupts` and `statistics`
//! are what they say, `setup` brings both sides up, `vigil` sees what hangs, and `net` puts it all
//! together. The packet path is `descriptor`, `ring`, `frames`, `receive`, `transmit` and `offload`.
//!
//! Nothing that the card writes is believed. A ring's state is the driver's own; frames that the card describes wrongly are
//! dropped and counted, and one that never ends is named. Every wait ends. What [`Nic::check`](crate::nic::Nic::check) names, stopping and starting mends.
//!
//! What this driver leaves to others: virtual functions, traffic classes, receive side coalescing, flow director,
//! MACsec and IPsec.

mod card;
mod descriptor;
mod device;
mod doorbell;
#[cfg(test)]
mod fake;
mod filters;
mod flow;
mod frames;
mod interrupts;
mod link;
mod net;
mod nvm;
mod offload;
mod options;
mod phy;
mod receive;
mod registers;
mod reset;
mod ring;
mod rss;
#[cfg(test)]
mod scripted;
mod semaphore;
mod setup;
mod sfp;
mod statistics;
mod transmit;
mod vigil;

pub use device::{Family, Medium, matches};
pub use net::Ixgbe;
pub use options::{Config, Summary};
pub use receive::Rx;
pub use sfp::Module;
pub use transmit::Tx;
