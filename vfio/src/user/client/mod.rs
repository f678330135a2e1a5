//! A function that a server plays, as a driver sees it.

mod connection;
mod function;
mod information;
mod memory;
mod reader;

use std::time::Duration;

pub use function::Function;

/// How to connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// What the device is called in messages; `vfio-user:` and the socket's path when nothing is said.
    pub name: Option<String>,
    /// How long the server may take to answer a request. One that takes longer is treated as a device that was removed.
    pub timeout: Duration,
    /// Share no memory: the server reaches it by message. Slow, and for servers that are not to have it. Memory that has no file is always
    /// reached so.
    pub message_dma: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { name: None, timeout: Duration::from_secs(5), message_dma: false }
    }
}
