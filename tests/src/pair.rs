//! Two namespaces that can only reach each other through a guest.

use std::fs::File;

use anyhow::Result;

use crate::namespace::Namespace;
use crate::tap;

/// The interface in each namespace.
pub const INTERFACE: &str = "lan0";

/// The namespaces at the two ends of a guest, with one network between them.
pub struct Pair {
    /// Behind the guest's first device.
    pub left: Namespace,
    /// Behind the guest's second device.
    pub right: Namespace,
}

impl Pair {
    /// The address of the left namespace.
    pub const LEFT: &'static str = "10.77.0.1";
    /// The address of the right namespace.
    pub const RIGHT: &'static str = "10.77.0.2";
    /// An address in the same network for the guest itself.
    pub const GUEST: &'static str = "10.77.0.3";

    /// Makes both namespaces, with no interface in them yet.
    ///
    /// # Errors
    ///
    /// Not root, or something that `cargo xtask setup` installs is missing.
    pub fn new() -> Result<Self> {
        Ok(Self { left: Namespace::new("left")?, right: Namespace::new("right")? })
    }

    /// Opens a tap in each namespace; returns their queues, left and right.
    ///
    /// # Errors
    ///
    /// As [`tap::open`].
    pub fn open_taps(&self, queues: usize) -> Result<[Vec<File>; 2]> {
        Ok([tap::open(&self.left, INTERFACE, queues)?, tap::open(&self.right, INTERFACE, queues)?])
    }

    /// Gives the interfaces, which exist by now, their addresses.
    ///
    /// # Errors
    ///
    /// One does not exist.
    pub fn configure(&self) -> Result<()> {
        for (namespace, address) in [(&self.left, Self::LEFT), (&self.right, Self::RIGHT)] {
            namespace.ip(&["address", "add", &format!("{address}/24"), "dev", INTERFACE])?;
            // Longer than any window of the tests: what is lost is not lost here.
            namespace.ip(&["link", "set", INTERFACE, "up", "txqueuelen", "4000"])?;
        }
        Ok(())
    }
}
