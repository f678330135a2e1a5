//! All that an engine works on, and the bookkeeping between the parts.

use drivers::nic::DropReason;

use super::input::Input;
use super::lane::Lane;
use super::outlet::{Outlet, To};
use super::sender::Sender;
use super::source::Source;
use super::switching::Switching;
use super::{Finished, Load};
use crate::copy::Copier;

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

/// Packets that wait to be delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    /// Where they wait.
    pub(super) at: At,
    /// The place of its destination's account.
    pub(super) account: usize,
    /// When something of it was delivered last.
    pub(super) delivered: u64,
}

/// Where packets wait, by its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    /// In a lane.
    Lane(usize),
    /// In front of an outlet.
    Outlet(usize),
}

/// How much there is of each.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Counts {
    pub(super) lanes: usize,
    pub(super) senders: usize,
    pub(super) inputs: usize,
    pub(super) outlets: usize,
}

impl Counts {
    pub(super) fn plus(self, more: Self) -> Self {
        Self {
            lanes: self.lanes + more.lanes,
            senders: self.senders + more.senders,
            inputs: self.inputs + more.inputs,
            outlets: self.outlets + more.outlets,
        }
    }

    pub(super) fn less(self, fewer: Self) -> Self {
        Self {
            lanes: self.lanes.saturating_sub(fewer.lanes),
            senders: self.senders.saturating_sub(fewer.senders),
            inputs: self.inputs.saturating_sub(fewer.inputs),
            outlets: self.outlets.saturating_sub(fewer.outlets),
        }
    }
}

/// All that an engine has, and who pays for it. Control makes the lists large enough, so that the engine never allocates.
#[derive(Default, Debug)]
pub(super) struct Roster {
    pub(super) lanes: Vec<Lane>,
    pub(super) senders: Vec<Sender>,
    pub(super) inputs: Vec<Input>,
    pub(super) outlets: Vec<Outlet>,
    pub(super) switching: Option<Box<Switching>>,
    pub(super) copier: Option<Box<Copier>>,
    pub(super) accounts: Vec<Account>,
    /// What is to be delivered in this round.
    pub(super) pending: Vec<Pending>,
    /// The places of outlets in front of which packets wait.
    pub(super) waiting: Vec<usize>,
    /// The last round was a long one.
    pub(super) long: bool,
}

impl Roster {
    /// An empty roster with room for so many.
    pub(super) fn with_room(counts: Counts) -> Self {
        let Counts { lanes, senders, inputs, outlets } = counts;
        Self {
            lanes: Vec::with_capacity(lanes),
            senders: Vec::with_capacity(senders),
            inputs: Vec::with_capacity(inputs),
            outlets: Vec::with_capacity(outlets),
            switching: None,
            copier: None,
            accounts: Vec::with_capacity(2 * lanes + inputs + outlets),
            pending: Vec::with_capacity(lanes + outlets),
            waiting: Vec::with_capacity(outlets),
            long: false,
        }
    }

    /// What `load` has, in a roster with room for what `counts` says in addition.
    pub(super) fn of(load: Load, counts: Counts) -> Self {
        let Load { lanes, senders, inputs, outlets, switching, copier } = load;
        let mut given = Self { lanes, senders, inputs, outlets, switching, copier, ..Self::default() };
        let mut roster = Self::with_room(counts.plus(given.counts()));
        roster.absorb(&mut given);
        roster
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            lanes: self.lanes.len(),
            senders: self.senders.len(),
            inputs: self.inputs.len(),
            outlets: self.outlets.len(),
        }
    }

    /// Everything that receives.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> {
        self.lanes.iter().map(|lane| &lane.source).chain(self.inputs.iter().map(|input| &input.source))
    }

    /// Everything that receives, to use.
    pub(super) fn sources_mut(&mut self) -> impl Iterator<Item = &mut Source> {
        let lanes = self.lanes.iter_mut().map(|lane| &mut lane.source);
        lanes.chain(self.inputs.iter_mut().map(|input| &mut input.source))
    }

    /// Takes over everything from `other`. There has to be room. Of two switches, the one that was here goes to the other.
    pub(super) fn absorb(&mut self, other: &mut Self) {
        self.lanes.append(&mut other.lanes);
        self.senders.append(&mut other.senders);
        self.inputs.append(&mut other.inputs);
        self.outlets.append(&mut other.outlets);
        if other.switching.is_some() {
            std::mem::swap(&mut self.switching, &mut other.switching);
        }
        if other.copier.is_some() {
            std::mem::swap(&mut self.copier, &mut other.copier);
        }
        for account in other.accounts.drain(..) {
            match self.accounts.iter_mut().find(|known| known.port == account.port) {
                Some(known) => known.used = known.used.wrapping_add(account.used),
                None => self.accounts.push(account),
            }
        }
        self.link();
    }

    /// Moves everything that leaves to `other`, which has room for it.
    pub(super) fn part(&mut self, other: &mut Self) {
        other.lanes.extend(self.lanes.extract_if(.., |lane| lane.source.is_leaving()));
        other.senders.extend(self.senders.extract_if(.., |sender| sender.is_leaving()));
        other.inputs.extend(self.inputs.extract_if(.., |input| input.source.is_leaving()));
        other.outlets.extend(self.outlets.extract_if(.., |outlet| outlet.is_leaving()));
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
                lane.source.leave();
            }
        }
        for input in &mut self.inputs {
            if ports.contains(&input.id().port) {
                input.source.leave();
            }
        }
        for outlet in &mut self.outlets {
            if ports.contains(&outlet.port) {
                outlet.leave();
            }
        }
        self.link();
    }

    /// Finds each sender and account again, after places have changed.
    fn link(&mut self) {
        let Self { lanes, senders, inputs, outlets, switching, accounts, pending, waiting, .. } = self;
        pending.clear();
        waiting.clear();
        accounts.retain(|Account { port, .. }| {
            lanes.iter().any(|lane| lane.id().port == *port || lane.to().port == *port)
                || inputs.iter().any(|input| input.id().port == *port)
                || outlets.iter().any(|outlet| outlet.port == *port)
        });
        let mut account = |port| {
            let known = accounts.iter().position(|account: &Account| account.port == port);
            known.unwrap_or_else(|| {
                accounts.push(Account { port, used: 0 });
                accounts.len() - 1
            })
        };
        // What has no sender sends nothing: such a lane is never polled.
        let sender = |to| senders.iter().position(|sender| sender.id() == to).unwrap_or(usize::MAX);
        for lane in lanes {
            lane.sender = sender(lane.to());
            lane.accounts = [lane.id().port, lane.to().port].map(&mut account);
        }
        for input in inputs {
            input.account = account(input.id().port);
        }
        for (place, outlet) in outlets.iter_mut().enumerate() {
            outlet.account = account(outlet.port);
            if let To::Queue(to) = &mut outlet.to {
                to.sender = sender(to.queue);
                debug_assert!(to.sender != usize::MAX || to.waiting.is_empty(), "what waits has a sender");
                to.listed = !to.waiting.is_empty();
                waiting.extend(to.listed.then_some(place));
            }
        }
        if let Some(switching) = switching {
            switching.link(outlets);
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

    /// Drops what waits to be sent: all of it, or what has to do with what leaves.
    pub(super) fn drop_waiting(&mut self, leaving_only: bool) {
        let Self { lanes, senders, outlets, .. } = self;
        for lane in lanes.iter_mut().filter(|lane| lane.source.is_leaving() || !leaving_only) {
            if let Some(sender) = senders.get_mut(lane.sender) {
                lane.waiting.drop_waiting(sender, DropReason::Stopped);
            }
        }
        for outlet in outlets.iter_mut().filter(|outlet| outlet.is_leaving() || !leaving_only) {
            if let To::Queue(to) = &mut outlet.to
                && let Some(sender) = senders.get_mut(to.sender)
            {
                to.waiting.drop_waiting(sender, DropReason::Stopped);
            }
        }
    }

    /// Has the copier do its part, and gives back what came of it. Whether anything did, and whether copies are underway.
    #[inline]
    pub(super) fn copy(&mut self) -> (bool, bool) {
        let Self { copier, senders, .. } = self;
        let Some(copier) = copier else { return (false, false) };
        let answered = copier.round(senders.len(), |place| senders.get(place)?.desk());
        if answered {
            senders.iter_mut().filter(|sender| sender.desk().is_some() && sender.is_underway()).for_each(|sender| {
                sender.reclaim();
            });
        }
        (answered, copier.underway() > 0)
    }

    /// Publishes all counters.
    pub(super) fn publish(&self) {
        self.sources().for_each(Source::publish);
        self.senders.iter().for_each(Sender::publish);
        if let Some(switching) = &self.switching {
            switching.publish();
        }
    }

    /// Adds all queues to `finished`.
    pub(super) fn give_back(self, finished: &mut Finished) {
        let sources = self.lanes.into_iter().map(|lane| lane.source);
        let sources = sources.chain(self.inputs.into_iter().map(|input| input.source));
        finished.receivers.extend(sources.map(Source::into_receiver));
        finished.transmitters.extend(self.senders.into_iter().map(Sender::into_transmitter));
        if self.switching.is_some() {
            finished.switching = self.switching;
        }
        if self.copier.is_some() {
            finished.copier = self.copier;
        }
    }
}
