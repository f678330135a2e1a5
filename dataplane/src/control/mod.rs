//! How a running forwarder is asked and told what to do: the control socket, and metrics.
//!
//! JSON-RPC 2.0 on a Unix stream socket. A message is a JSON object, or an array of them for a batch; messages need nothing between
//! them, and each answer ends with a newline. A connection takes any number of messages, which are answered in order. One table
//! (`methods`) has all methods with their parameters and results; [`schema`] gives it as an OpenRPC document, which is also checked in as
//! `docs/control-api.json`. Error codes are those of the standard, -32000 for what failed, and -32001 for what the client may not do.
//!
//! Who subscribes is sent notifications named `update` on the same connection, each after the one before was taken: who is slow loses
//! some, and is told how many.
//!
//! The user who runs the forwarder and root may do everything; members of a group that was named ([`ReaderGroup`]) may call the methods
//! that change nothing; all others are kept out, by the socket's mode and by what the kernel says of the peer. A [`Server`]
//! works on a thread of its own and never waits for a client: who does not read its answers is not read either, who sends too much is
//! hung up on, and when there are too many, whoever was silent longest goes. Each message is carried out on a thread of its own, so that a
//! port that takes its time to open delays only the client that asked for it.
//!
//! From bottom to top: `rpc` knows the standard, `caller` is what methods know of a client, `connection` is one client, `socket` lets them
//! in, `job` carries messages out, `server` has the thread, [`Methods`] does what they ask, and a [`Client`] asks. `metrics` tells
//! Prometheus what was counted.

mod caller;
mod client;
mod connection;
pub mod hex;
mod job;
mod methods;
mod metrics;
mod rpc;
mod server;
mod socket;

pub use caller::{Access, Caller, Watch};
pub use client::{Client, ClientError};
pub use methods::{Methods, schema};
pub use metrics::{MetricsAddress, MetricsError, MetricsServer, NotMetricsAddress};
pub use rpc::{Handler, RpcError, code};
pub use server::Server;
pub use socket::{ControlError, ReaderGroup};

#[cfg(test)]
mod tests;
