//! Packets that wait with the switch's thread: for an Ethernet address to be found, or for a change to be made.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::engines::Raised;

/// Packets that may wait for one thing, but for a change.
const MOST_FOR_ONE: usize = 256;
/// Packets that may wait in all.
const MOST: usize = 4096;
/// How long one waits for an address.
const PATIENCE: Duration = Duration::from_secs(3);

/// What packets wait for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Awaited {
    /// The change of the configuration that is being made.
    Change,
    /// The next hop of this tunnel.
    Tunnel(u16),
    /// Somebody in this network who has this address.
    Address(u16, IpAddr),
}

/// All packets that wait.
#[derive(Default)]
pub(super) struct Waiting {
    queues: HashMap<Awaited, VecDeque<(Raised, Duration)>>,
    count: usize,
}

impl Waiting {
    /// Packets that wait.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether one more may wait for this.
    pub(super) fn has_room(&self, awaited: Awaited) -> bool {
        let queued = self.queues.get(&awaited).map_or(0, VecDeque::len);
        self.count < MOST && (awaited == Awaited::Change || queued < MOST_FOR_ONE)
    }

    /// Lets a packet wait, for which there is room.
    pub(super) fn push(&mut self, awaited: Awaited, raised: Raised, now: Duration) {
        self.queues.entry(awaited).or_default().push_back((raised, now));
        self.count += 1;
    }

    /// All packets that wait for this, in their order.
    pub(super) fn take(&mut self, awaited: Awaited) -> impl Iterator<Item = Raised> + use<> {
        let queue = self.queues.remove(&awaited).unwrap_or_default();
        self.count -= queue.len();
        queue.into_iter().map(|(raised, _)| raised)
    }

    /// The addresses of a network that packets wait for.
    pub(super) fn addresses(&self, network: u16) -> Vec<IpAddr> {
        let of = |awaited: &Awaited| match awaited {
            Awaited::Address(other, address) if *other == network => Some(*address),
            _ => None,
        };
        self.queues.keys().filter_map(of).collect()
    }

    /// The tunnels that packets wait for.
    pub(super) fn tunnels(&self) -> Vec<u16> {
        let of = |awaited: &Awaited| match awaited {
            Awaited::Tunnel(number) => Some(*number),
            _ => None,
        };
        self.queues.keys().filter_map(of).collect()
    }

    /// The packets that waited for too long. A change takes as long as it takes.
    pub(super) fn expired(&mut self, now: Duration) -> Vec<Raised> {
        let mut gone = Vec::new();
        self.queues.retain(|awaited, queue| {
            while *awaited != Awaited::Change && queue.front().is_some_and(|(_, since)| *since + PATIENCE <= now) {
                gone.extend(queue.pop_front().map(|(raised, _)| raised));
            }
            !queue.is_empty()
        });
        self.count -= gone.len();
        gone
    }
}
