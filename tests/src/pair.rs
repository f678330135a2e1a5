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

    /// Makes both namespaces; returns the queues of their interfaces too, left and right.
    ///
    /// # Errors
    ///
    /// Not root, or something that `cargo xtask setup` installs is missing.
    pub fn new(queues: usize) -> Result<(Self, [Vec<File>; 2])> {
        let pair = Self { left: Namespace::new("left")?, right: Namespace::new("right")? };
        let mut ends = [Vec::new(), Vec::new()];
        for ((namespace, address), end) in
            [(&pair.left, Self::LEFT), (&pair.right, Self::RIGHT)].into_iter().zip(&mut ends)
        {
            *end = tap::open(namespace, INTERFACE, queues)?;
            namespace.ip(&["address", "add", &format!("{address}/24"), "dev", INTERFACE])?;
            // Longer than any window of the tests: what is lost is not lost here.
            namespace.ip(&["link", "set", INTERFACE, "up", "txqueuelen", "4000"])?;
        }
        Ok((pair, ends))
    }
}
