//! What a network learned.

use std::collections::HashMap;
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
    /// Destinations for which flows lead everywhere, and the last pass over all flows in which there were such.
    unknown: HashMap<Mac, u64>,
}

impl Memory {
    /// Notes that flows to an unknown station lead everywhere. `false` when there are too many to remember.
    pub(super) fn remember_unknown(&mut self, mac: Mac, pass: u64) -> bool {
        let room = self.unknown.contains_key(&mac) || self.unknown.len() < MOST_UNKNOWN;
        if room {
            self.unknown.insert(mac, pass);
        }
        room
    }

    /// A flow that leads everywhere is to this station.
    pub(super) fn mark_unknown(&mut self, mac: Mac, pass: u64) {
        if let Some(marked) = self.unknown.get_mut(&mac) {
            *marked = pass;
        }
    }

    /// Forgets those to which no flow led since this pass began.
    pub(super) fn sweep_unknown(&mut self, pass: u64) {
        self.unknown.retain(|_, marked| *marked >= pass);
    }

    /// Whether flows to the station led everywhere, which ends now.
    pub(super) fn was_unknown(&mut self, mac: Mac) -> bool {
        self.unknown.remove(&mac).is_some()
    }
}
