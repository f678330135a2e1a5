//! Connections: why an answer may pass that no rule allows.
//!
//! A connection exists only where rules allow one direction and not the other; where both are allowed anyway nothing is kept. The flow table is a
//! cache of what is here: a flow may go at any time, and the next packet finds the connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::config::Protocol;
use super::topology::Place;

/// Most connections of all slices together.
const MOST: usize = 1 << 20;

/// No connection is forgotten that was silent for less.
pub const SHORTEST_PATIENCE: Duration = Duration::from_secs(60);

/// The two ends of a conversation, as the packet that opened it had them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuple {
    /// Networks of source and destination: tenants may use the same addresses.
    pub networks: (u16, u16),
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: Protocol,
    /// Source port; for ICMP, type and code.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

impl Tuple {
    /// What answers have. `None` for an ICMP message that has no answer.
    #[must_use]
    pub fn reversed(&self) -> Option<Self> {
        let (source_port, destination_port) = if self.protocol.has_types() {
            (answer_type(self.protocol, self.source_port)?, 0)
        } else {
            (self.destination_port, self.source_port)
        };
        Some(Self {
            networks: (self.networks.1, self.networks.0),
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            source_port,
            destination_port,
        })
    }

    fn pair(&self) -> Self {
        Self { source_port: 0, destination_port: 0, ..*self }
    }
}

/// Type and code of the answer to an ICMP message: echo (RFC 792, RFC 4443) and timestamp (RFC 792).
fn answer_type(protocol: Protocol, type_and_code: u16) -> Option<u16> {
    let [kind, code] = type_and_code.to_be_bytes();
    let answer = match (protocol, kind) {
        (Protocol::ICMP, 8) => 0,
        (Protocol::ICMP, 0) => 8,
        (Protocol::ICMP, 13) => 14,
        (Protocol::ICMP, 14) => 13,
        (Protocol::ICMPV6, 128) => 129,
        (Protocol::ICMPV6, 129) => 128,
        _ => return None,
    };
    (code == 0).then_some(u16::from_be_bytes([answer, 0]))
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    tuple: Tuple,
    ends: Ends,
    owner: u16,
    last: Duration,
    answered: bool,
}

impl Connection {
    /// How long it may be silent.
    fn patience(&self) -> Duration {
        Duration::from_secs(match self.tuple.protocol {
            // RFC 5382, REQ-5: 2 hours 4 minutes when it stands, 4 minutes before.
            Protocol::TCP if self.answered => 7440,
            Protocol::TCP => 240,
            // RFC 5508, REQ-2.
            Protocol::ICMP | Protocol::ICMPV6 => return SHORTEST_PATIENCE,
            // RFC 4787, REQ-5: not below 2 minutes.
            _ => 180,
        })
    }
}

/// Where a connection was opened from, and where to.
pub type Ends = (Place, Place);

/// There is no room for another connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom;

/// All connections.
#[derive(Clone, Default, Debug)]
pub struct Connections {
    places: HashMap<Tuple, usize>,
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    owned: HashMap<u16, u32>,
    /// How many there are between two addresses: fragments are told by these alone.
    pairs: HashMap<Tuple, u32>,
    cursor: usize,
    /// Nothing changes: somebody only asks.
    dry: bool,
}

impl Connections {
    /// Opens a connection, or notes that it is used.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when its owner has `limit`, or all together have as many as there may be.
    pub fn open(&mut self, tuple: Tuple, ends: Ends, owner: u16, limit: u32, now: Duration) -> Result<(), NoRoom> {
        if self.dry && self.contains(&tuple) {
            return Ok(());
        }
        if let Some(known) = self.find_mut(&tuple) {
            known.last = known.last.max(now);
            return Ok(());
        }
        let owned = self.owned.entry(owner).or_default();
        if *owned >= limit || self.places.len() >= MOST {
            return Err(NoRoom);
        }
        if self.dry {
            return Ok(());
        }
        *owned += 1;
        let connection = Some(Connection { tuple, ends, owner, last: now, answered: false });
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = connection;
        }
        self.places.insert(tuple, place);
        *self.pairs.entry(tuple.pair()).or_default() += 1;
        Ok(())
    }

    /// From now on nothing is opened and nothing noted, or everything is again.
    pub(super) fn set_dry(&mut self, dry: bool) {
        self.dry = dry;
    }

    /// Whether this packet answers a connection.
    #[must_use]
    pub fn answers(&self, tuple: &Tuple) -> bool {
        tuple.reversed().is_some_and(|opened| self.places.contains_key(&opened))
    }

    /// Whether there is this connection.
    #[must_use]
    pub fn contains(&self, tuple: &Tuple) -> bool {
        self.places.contains_key(tuple)
    }

    /// Whether some connection with its protocol goes from its destination to its source: what a later fragment may belong to.
    #[must_use]
    pub fn answers_some(&self, tuple: &Tuple) -> bool {
        let opened = Tuple {
            networks: (tuple.networks.1, tuple.networks.0),
            source: tuple.destination,
            destination: tuple.source,
            ..tuple.pair()
        };
        self.pairs.contains_key(&opened)
    }

    /// Notes that packets with this tuple were seen, in either direction.
    pub fn seen(&mut self, tuple: &Tuple, now: Duration) {
        if self.dry {
            return;
        }
        if let Some(known) = self.find_mut(tuple) {
            known.last = known.last.max(now);
        } else if let Some(opened) = tuple.reversed()
            && let Some(known) = self.find_mut(&opened)
        {
            known.last = known.last.max(now);
            known.answered = true;
        }
    }

    /// Looks at up to `steps` connections, forgets those that were silent for too long, and gives them.
    pub fn forget_silent(&mut self, steps: usize, now: Duration) -> Vec<Tuple> {
        let mut gone = Vec::new();
        for _ in 0..steps.min(self.slots.len()) {
            self.cursor = if self.cursor + 1 < self.slots.len() { self.cursor + 1 } else { 0 };
            let silent = |known: &Connection| known.last + known.patience() <= now;
            if let Some(Some(known)) = self.slots.get(self.cursor)
                && silent(known)
            {
                gone.push(known.tuple);
            }
        }
        for tuple in &gone {
            self.close(tuple);
        }
        gone
    }

    /// Forgets the connections that `keep` does not want to keep, and gives them.
    pub fn retain(&mut self, keep: impl Fn(&Tuple, Ends) -> bool) -> Vec<Tuple> {
        let goes = |known: &&Connection| !keep(&known.tuple, known.ends);
        let gone: Vec<Tuple> = self.slots.iter().flatten().filter(goes).map(|known| known.tuple).collect();
        for tuple in &gone {
            self.close(tuple);
        }
        gone
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many an owner has.
    #[must_use]
    pub fn owned(&self, owner: u16) -> u32 {
        self.owned.get(&owner).copied().unwrap_or(0)
    }

    fn close(&mut self, tuple: &Tuple) {
        let Some(place) = self.places.remove(tuple) else { return };
        let connection = self.slots.get_mut(place).and_then(Option::take);
        self.free.push(place);
        if let Some(owned) = connection.and_then(|connection| self.owned.get_mut(&connection.owner)) {
            *owned = owned.saturating_sub(1);
        }
        let pair = tuple.pair();
        if let Some(count) = self.pairs.get_mut(&pair) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.pairs.remove(&pair);
            }
        }
    }

    fn find_mut(&mut self, tuple: &Tuple) -> Option<&mut Connection> {
        let place = *self.places.get(tuple)?;
        self.slots.get_mut(place)?.as_mut()
    }
}
