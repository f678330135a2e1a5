//! What can go wrong with the switch as a whole.

use std::io;
use std::time::Duration;

use crate::flow::TableError;
use crate::network::config::Problem;

/// Why the switch did not do what it was asked for. Nothing has changed then, unless the error says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VswitchError {
    /// The thread or its bell could not be made.
    #[error("the switch's thread cannot start: {0}")]
    Start(#[source] io::Error),
    /// No flow table.
    #[error("the switch has no flow table: {0}")]
    Table(#[from] TableError),
    /// As many packet pools as engines are needed.
    #[error(
        "the switch was given {pools} pools and {bells} bells for {engines} engines; give one of each for every engine"
    )]
    Engines {
        /// Engines that there are to be.
        engines: usize,
        /// Pools that were given.
        pools: usize,
        /// Bells that were given.
        bells: usize,
    },
    /// The configuration does not fit together.
    #[error("{0}")]
    Config(#[from] Problem),
    /// An edit of the configuration did not want it.
    #[error("{0}")]
    Refused(String),
    /// Too many ports.
    #[error(
        "port {name} cannot be switched: {most} ports are, and some that were closed may not be forgotten yet; close one, or try again in a second"
    )]
    NoSlot {
        /// The port.
        name: String,
        /// Ports that there can be.
        most: u16,
    },
    /// There is a port of this name.
    #[error("port {0} is attached to the switch already; detach it first, or choose another name")]
    Attached(String),
    /// There is no port of this name.
    #[error("no port {0} is attached to the switch; `mirach port list` lists what there is")]
    NoPort(String),
    /// There is no network of this name.
    #[error("there is no network {0}; `mirach show networks` lists what there is")]
    NoNetwork(String),
    /// The frame cannot be looked at.
    #[error(
        "a frame of {len} bytes cannot be explained; give 14 to {most} bytes, from the destination's Ethernet address on"
    )]
    Frame {
        /// Bytes that were given.
        len: usize,
        /// Bytes that can be looked at.
        most: usize,
    },
    /// A coprocessor cannot be started.
    #[error("the coprocessor of port {port} cannot start: {reason}")]
    Coprocessor {
        /// The port.
        port: String,
        /// What is missing.
        reason: String,
    },
    /// There are as many traces as there can be.
    #[error("there are {most} traces already; end one of them")]
    Trace {
        /// Traces that there can be.
        most: usize,
    },
    /// There are captures already, or no memory for one.
    #[error("a capture cannot begin: {0}")]
    Capture(String),
    /// The thread has too much to do.
    #[error("the switch has too many requests to answer; try again in a moment")]
    Busy,
    /// No answer in time.
    #[error(
        "the switch did not answer within {0:?}; what was asked for may still happen, so look before you try again"
    )]
    TimedOut(Duration),
    /// An engine does not take part.
    #[error(
        "engine {engine} did not take a change within {patience:?}; it may be stuck, or its core too busy: see `mirach top`. The others have it"
    )]
    Laggard {
        /// The engine.
        engine: usize,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The request failed inside, and was contained.
    #[error("the switch failed on this request (a fault of mirach itself, which its log describes); it goes on")]
    Fault,
    /// The thread has ended.
    #[error("the switch has ended")]
    Gone,
}
