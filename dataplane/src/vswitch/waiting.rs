//! Packets that wait with the switch's thread: for an Ethernet address to be found, or for a change to be made.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::engines::Raised;
use crate::switch::PortSlot;

/// Packets of one port that may wait for addresses, and as many for a change: nobody takes the room of others.
const MOST_OF_PORT: usize = 128;
/// Packets that may wait for addresses in all, and as many for a change. They are a part of what an engine has buffers for.
const MOST: usize = 1024;
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
    addresses: Count,
    change: Count,
}

/// How many packets wait, and of which ports.
#[derive(Default)]
struct Count {
    all: usize,
    of_port: HashMap<PortSlot, usize>,
}

impl Count {
    fn has_room(&self, port: PortSlot) -> bool {
        self.all < MOST && self.of_port.get(&port).is_none_or(|count| *count < MOST_OF_PORT)
    }

    fn add(&mut self, port: PortSlot) {
        self.all += 1;
        *self.of_port.entry(port).or_default() += 1;
    }

    fn remove(&mut self, port: PortSlot) {
        self.all = self.all.saturating_sub(1);
        if let Some(count) = self.of_port.get_mut(&port) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_port.remove(&port);
            }
        }
    }
}

impl Waiting {
    /// Packets that wait.
    pub(super) fn len(&self) -> usize {
        self.addresses.all + self.change.all
    }

    fn count(&mut self, awaited: Awaited) -> &mut Count {
        if awaited == Awaited::Change { &mut self.change } else { &mut self.addresses }
    }

    /// Whether one more packet of a port may wait for this.
    pub(super) fn has_room(&mut self, awaited: Awaited, port: PortSlot) -> bool {
        self.count(awaited).has_room(port)
    }

    /// Lets a packet wait, for which there is room.
    pub(super) fn push(&mut self, awaited: Awaited, raised: Raised, now: Duration) {
        self.count(awaited).add(raised.from);
        self.queues.entry(awaited).or_default().push_back((raised, now));
    }

    /// All packets that wait for this, in their order.
    pub(super) fn take(&mut self, awaited: Awaited) -> impl Iterator<Item = Raised> + use<> {
        let queue = self.queues.remove(&awaited).unwrap_or_default();
        queue.iter().for_each(|(raised, _)| self.count(awaited).remove(raised.from));
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
        self.take_where(|_, since| since + PATIENCE <= now)
    }

    /// The packets that wait for an address and of which this is true: of the packet, and of when it began to wait.
    pub(super) fn take_where(&mut self, which: impl Fn(&Raised, Duration) -> bool) -> Vec<Raised> {
        let Self { queues, addresses, .. } = self;
        let mut gone = Vec::new();
        queues.retain(|awaited, queue| {
            if *awaited == Awaited::Change {
                return true;
            }
            for (raised, since) in std::mem::take(queue) {
                if which(&raised, since) {
                    addresses.remove(raised.from);
                    gone.push(raised);
                } else {
                    queue.push_back((raised, since));
                }
            }
            !queue.is_empty()
        });
        gone
    }
}
