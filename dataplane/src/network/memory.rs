//! What a network learned.

use std::collections::HashSet;
use std::net::IpAddr;

use super::config::Mac;
use super::learning::Learned;

/// Most destinations that are remembered to be unknown.
const MOST_UNKNOWN: usize = 4096;

/// What a network learned.
#[derive(Clone, Default, Debug)]
pub(super) struct Memory {
    /// Where Ethernet addresses are.
    pub(super) macs: Learned<Mac>,
    /// Who has IP addresses, as ARP and neighbour discovery said.
    pub(super) neighbours: Learned<IpAddr>,
    /// Destinations for which flows lead everywhere.
    unknown: HashSet<Mac>,
}

impl Memory {
    /// Notes that flows to an unknown station lead everywhere. `false` when there are too many to remember.
    pub(super) fn remember_unknown(&mut self, mac: Mac) -> bool {
        self.unknown.contains(&mac) || (self.unknown.len() < MOST_UNKNOWN && self.unknown.insert(mac))
    }

    /// Whether flows to the station led everywhere, which ends now.
    pub(super) fn was_unknown(&mut self, mac: Mac) -> bool {
        self.unknown.remove(&mac)
    }
}
