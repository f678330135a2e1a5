//! virtio-net (virtio 1.3, section 5.1) with split and packed rings (sections 2.7 and 2.8), over modern PCI (section
//! 4.1) or any other [`transport`].
//!
//! [`VirtioNet::open`] takes a device over, [`Nic::start`](crate::nic::Nic::start) brings it up and hands out [`Rx`]
//! and [`Tx`] queues, [`Nic::stop`](crate::nic::Nic::stop) resets it and takes them back. [`matches()`] tells whether a
//! PCI function is one.
//!
//! From bottom to top: `transport` says what connects driver and device, `pci` is that for PCI, where `capabilities`
//! finds the device's structures; `features` negotiates, `config` reads the network device's configuration. `ring` says what a ring does, `split` and `packed` do
//! it, `header` speaks about the frame in front of it, `receive` and `transmit` are the packet path, `control` runs
//! commands, `setup` has the first steps, and `net` puts it all together.
//!
//! Nothing that the device writes is believed. Registers may read as anything at any time. A ring's state is the
//! driver's own copy; an answer that contradicts it stops that queue, which [`Nic::check`](crate::nic::Nic::check)
//! reports, and stopping and starting the device recovers it. Frames that the device describes wrongly are dropped and
//! counted. Every wait ends.
//!
//! What this driver leaves to others: cutting large packets for devices that cannot, addresses for DMA (`hugemem`), and
//! legacy devices from before version 1.

mod capabilities;
mod config;
mod control;
mod features;
pub mod header;
mod masked;
mod net;
mod options;
mod packed;
mod pci;
mod queues;
mod receive;
mod ring;
mod setup;
mod split;
mod transmit;
pub mod transport;

pub use features::{Features, RingChoice};
pub use net::VirtioNet;
pub use options::{Config, RingFormat, Summary};
pub use pci::{Pci, PciDoorbell, matches};
pub use queues::{Rx, Tx};
pub use transport::Transport;
