//! All that an engine works on, and the bookkeeping between the parts.

use super::lane::Lane;
use super::sender::Sender;

/// Each millisecond what was used fades by one part in so many (as a power of two): half of it is forgotten after 11 ms.
const FADING: u32 = 4;
/// After so many milliseconds nothing is left worth remembering.
const MEMORY: u64 = 256;

/// The cycles that a port has used lately.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub(super) port: usize,
    pub(super) used: u64,
}

/// A lane that has something to deliver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    /// Its place.
    pub(super) lane: usize,
    /// The place of its destination's account.
    pub(super) account: usize,
    /// When something of it was delivered last.
    pub(super) delivered: u64,
}

/// Lanes, senders, and who pays for them. Control makes the lists large enough, so that the engine never allocates.
#[derive(Default, Debug)]
pub(super) struct Roster {
    pub(super) lanes: Vec<Lane>,
    pub(super) senders: Vec<Sender>,
    pub(super) accounts: Vec<Account>,
    /// The lanes that have something to deliver in this round.
    pub(super) pending: Vec<Pending>,
    /// The last round was a long one.
    pub(super) long: bool,
}

impl Roster {
    /// An empty roster with room for so many.
    pub(super) fn with_room(lanes: usize, senders: usize) -> Self {
        Self {
            lanes: Vec::with_capacity(lanes),
            senders: Vec::with_capacity(senders),
            accounts: Vec::with_capacity(2 * lanes),
            pending: Vec::with_capacity(lanes),
            long: false,
        }
    }

    /// Takes over everything from `other`. There has to be room.
    pub(super) fn absorb(&mut self, other: &mut Self) {
        self.lanes.append(&mut other.lanes);
        self.senders.append(&mut other.senders);
        self.accounts.append(&mut other.accounts);
        self.link();
    }

    /// Moves everything that leaves to `other`, which has room for it.
    pub(super) fn part(&mut self, other: &mut Self) {
        other.lanes.extend(self.lanes.extract_if(.., |lane| lane.is_leaving()));
        other.senders.extend(self.senders.extract_if(.., |sender| sender.is_leaving()));
        self.link();
    }

    /// Marks what receives from or sends to `ports`, and what feeds that.
    pub(super) fn leave(&mut self, ports: &[usize]) {
        for sender in &mut self.senders {
            if ports.contains(&sender.id().port) {
                sender.leave();
            }
        }
        for lane in &mut self.lanes {
            if ports.contains(&lane.id().port) || ports.contains(&lane.to().port) {
                lane.leave();
            }
        }
    }

    /// Finds each lane's sender and accounts again, after places have changed.
    fn link(&mut self) {
        let Self { lanes, senders, accounts, pending, .. } = self;
        pending.clear();
        accounts.retain(|account| {
            lanes.iter().any(|lane| lane.id().port == account.port || lane.to().port == account.port)
        });
        for lane in lanes {
            // A lane without a sender is never polled.
            lane.sender = senders.iter().position(|sender| sender.id() == lane.to()).unwrap_or(usize::MAX);
            lane.accounts = [lane.id().port, lane.to().port].map(|port| {
                let known = accounts.iter().position(|account| account.port == port);
                known.unwrap_or_else(|| {
                    accounts.push(Account { port, used: 0 });
                    accounts.len() - 1
                })
            });
        }
    }

    /// Lets what was used fade, after so many milliseconds.
    pub(super) fn fade(&mut self, milliseconds: u64) {
        for account in &mut self.accounts {
            if milliseconds >= MEMORY {
                account.used = 0;
            }
            for _ in 0..milliseconds.min(MEMORY) {
                account.used -= account.used >> FADING;
            }
        }
    }

    /// Publishes all counters.
    pub(super) fn publish(&self) {
        for lane in &self.lanes {
            lane.publish();
        }
        for sender in &self.senders {
            sender.publish();
        }
    }
}
