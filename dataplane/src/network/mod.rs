//! What decides where packets go: networks, learned addresses, routes, rules, connections, slices.
//!
//! A [`Brain`] is all slow state of the switch, and belongs to control. The first packet of a flow is asked about ([`Brain::decide`]); the answer is an
//! action, the widest key for which it is right, and what control has to do besides. Time comes with each call; nothing here waits, opens or sends anything, and
//! everything that packets can make grow has a bound.
//!
//! - A packet belongs to the network of the port (and VLAN) or tunnel that it came by, and is only ever looked up there, whatever addresses it has.
//! - Its sender has to be who it says ([`config::PortConfig::anti_spoofing`]), in the frame, in the IP header, in ARP and in neighbour discovery.
//! - Then it goes to the station that the configuration names or that was learned, to everybody, or to the virtual router and on into another network.
//! - Rules of the sending and of the receiving port are asked ([`rules`]). Where they allow the answers as well, nothing is kept ([`connection`]).
//!
//! Changes are planned ([`Brain::plan`]), shown, and made ([`Brain::apply`]) all or nothing. Whatever may make flows untrue, a change, a port that goes, a
//! station that moves, gives a [`Stale`], and [`Brain::fate`] says for each flow what becomes of it: those for which nothing changed stay.

mod brain;
mod change;
pub mod config;
pub mod connection;
mod decision;
mod guard;
mod judge;
pub mod learning;
mod memory;
mod numbers;
mod prefixes;
mod quoted;
pub mod rules;
mod sets;
pub mod topology;

pub use brain::{Bound, Brain};
pub use change::Change;
pub(crate) use change::lines as differences;
pub use config::Config;
pub use decision::{Decision, Destination, First, Stale, Task};
pub(crate) use judge::question;
pub use prefixes::Prefixes;

#[cfg(test)]
mod tests;
