//! Tenants' networks at one running switch: emulated machines and hosts in namespaces at the ports of `mirach run --config`.
//!
//! A [`Daemon`] is the program with its configuration, asked over its socket or by its own commands. A [`Station`] is an
//! emulated machine with an Ethernet address, a [`Host`] a namespace behind a TAP. A [`Crowd`] of stations exchanges
//! [`Stream`]s of numbered datagrams, and whatever arrives that is of none of them is kept as a stray.

mod crowd;
mod daemon;
mod frame;
mod host;
mod station;
mod stream;

pub use crowd::{Crowd, Talk};
pub use daemon::{Daemon, Ports};
pub use frame::{BROADCAST, Envelope, Mac, arp, mac, neighbour, text};
pub use host::{Connection, Host};
pub use station::Station;
pub use stream::{Check, Stream};
