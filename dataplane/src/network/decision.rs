//! What is asked about the first packet of a flow, and what is answered.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::config::Mac;
use super::topology::Place;
use crate::flow::{Action, FlowKey, VlanRewrite};
use crate::headers::Headers;

/// The first packet of a flow.
#[derive(Clone, Copy, Debug)]
pub struct First<'a> {
    /// Its narrow key.
    pub key: FlowKey,
    /// Its headers.
    pub headers: &'a Headers,
    /// Its first bytes, as many as the headers were read from.
    pub view: &'a [u8],
    /// When it came, since any fixed moment.
    pub now: Duration,
}

/// What becomes of a packet, and of those after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What is done to this packet.
    pub action: Action,
    /// The flow that the action holds for: the widest for which it is right. `None`: for this packet alone.
    pub key: Option<FlowKey>,
    /// The flow of the answers and what is done to them, where the packet made this certain. It takes the place of what the table has for that key.
    pub reverse: Option<(FlowKey, Action)>,
    /// What control itself does.
    pub task: Option<Task>,
    /// The address, and the number of the network that it is in, which has to be found before the packet can go on.
    pub unresolved: Option<(u16, IpAddr)>,
    /// Flows that do not hold any more because of what was learned from the packet.
    pub stale: Option<Stale>,
}

/// What control does because of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// Answer an ARP request or a neighbour solicitation: this address is at that Ethernet address.
    Answer {
        /// The address that was asked for.
        address: IpAddr,
        /// Where it is.
        mac: Mac,
    },
    /// Answer an ICMP echo request to a virtual router.
    Echo,
    /// Ask in a network who has an address, in the name of its router.
    Ask {
        /// Number of the network.
        network: u16,
        /// The address to be found.
        address: IpAddr,
        /// The router's own address there.
        router: IpAddr,
        /// The router's Ethernet address.
        mac: Mac,
    },
}

/// Flows that have to be decided anew: [`super::Brain::fate`] says what becomes of each.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Stale {
    /// Numbers of the networks that their packets come from.
    pub networks: BTreeSet<u16>,
    /// Only those from or to these stations; all when there is none.
    pub stations: BTreeSet<Mac>,
}

impl Stale {
    /// No flow is meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Adds what another one says.
    pub fn merge(&mut self, other: Self) {
        if self.networks.is_empty() {
            *self = other;
        } else if !other.networks.is_empty() {
            // No station means all of them.
            if self.stations.is_empty() || other.stations.is_empty() {
                self.stations.clear();
            } else {
                self.stations.extend(other.stations);
            }
            self.networks.extend(other.networks);
        }
    }
}

/// A member of a set of destinations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Destination {
    /// Where a copy goes.
    pub place: Place,
    /// The tag that it gets: what is replicated has none.
    pub vlan: Option<u16>,
}

impl Destination {
    /// The same as a rewrite of the copy.
    #[must_use]
    pub fn rewrite(self) -> VlanRewrite {
        self.vlan.map_or(VlanRewrite::Keep, VlanRewrite::Push)
    }
}

/// The steps of a decision in words, kept when somebody asks why.
#[derive(Default, Debug)]
pub(super) struct Steps(Option<Vec<String>>);

impl Steps {
    /// Steps that are kept.
    pub(super) fn kept() -> Self {
        Self(Some(Vec::new()))
    }

    pub(super) fn say(&mut self, sentence: impl FnOnce() -> String) {
        if let Some(steps) = &mut self.0 {
            steps.push(sentence());
        }
    }

    pub(super) fn into_sentences(self) -> Vec<String> {
        self.0.unwrap_or_default()
    }
}
