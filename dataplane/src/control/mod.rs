//! The control socket: how a running forwarder is asked to add and remove ports.
//!
//! JSON-RPC 2.0 on a Unix stream socket. A message is a JSON object, or an array of them for a batch; messages need nothing between
//! them, and each answer ends with a newline. A connection takes any number of messages, which are answered in order.
//!
//! | method | parameters | result |
//! |---|---|---|
//! | `port.add` | `spec`, `name` (optional), `join` (optional: name of the port to be joined to) | `name`, `notices`, `vmm` |
//! | `port.del` | `name` | `name`, `notices` |
//! | `port.join` | `name`, `join` | `name`, `join`, `notices` |
//! | `port.list` | | `ports` |
//! | `port.stats` | `name` (optional) | `seconds`, `ports` |
//!
//! `vmm` are lines of text with what to give a virtual machine monitor, for ports that need one. Error codes are those of the standard,
//! and -32000 for what failed.
//!
//! Only the user who runs the forwarder and root are let in, by the socket's mode and by what the kernel says of the peer. A [`Server`]
//! works on a thread of its own and never waits for a client: who does not read its answers is not read either, who sends too much is
//! hung up on, and when there are too many, whoever was silent longest goes. Each message is carried out on a thread of its own, so that a
//! port that takes its time to open delays only the client that asked for it.
//!
//! From bottom to top: `rpc` knows the standard, `connection` is one client, `socket` lets them in, `job` carries messages out, `server`
//! has the thread, [`PortMethods`] does what they ask, and a [`Client`] asks.

mod client;
mod connection;
mod job;
mod methods;
mod rpc;
mod server;
mod socket;

pub use client::{Client, ClientError};
pub use methods::PortMethods;
pub use rpc::{Handler, RpcError, code};
pub use server::Server;
pub use socket::ControlError;

#[cfg(test)]
mod tests;
