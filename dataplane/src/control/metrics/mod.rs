//! All counters for Prometheus, over HTTP.
//!
//! `collect` says what there is, `text` writes the exposition format, `server` is a small HTTP/1.1 server on a thread of its own: it answers `GET /metrics` and nothing
//! else, one request a connection, and hangs up on who is slow, says too much, or is one too many. Everybody who reaches the address
//! may read; nothing can be changed.

mod address;
mod collect;
mod server;
mod text;

pub use address::{MetricsAddress, NotMetricsAddress};
pub(super) use collect::exposition;
pub use server::{MetricsError, MetricsServer};

#[cfg(test)]
mod tests;
