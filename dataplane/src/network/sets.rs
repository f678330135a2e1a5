//! Sets of destinations, by number. The same set of a network has one number for as long as all its members exist and flows lead to it.

use std::collections::{BTreeMap, HashMap};

use super::decision::Destination;

/// Most sets in all, and of one network: what a network has depends on which packets it sends.
const MOST: usize = 16_384;
const MOST_OF_NETWORK: usize = 1024;

/// All sets in use.
#[derive(Clone, Default, Debug)]
pub(super) struct Sets {
    numbers: HashMap<(u16, Vec<Destination>), u16>,
    sets: BTreeMap<u16, Set>,
    /// Sets of each network.
    counts: HashMap<u16, usize>,
    next: u16,
}

#[derive(Clone, Debug)]
struct Set {
    network: u16,
    members: Vec<Destination>,
    /// The last pass over all flows in which it was asked for, or a flow led to it.
    used: u64,
}

impl Sets {
    /// The number of a set of a network; `None` when there are too many. `members` has no order.
    pub(super) fn number(&mut self, network: u16, mut members: Vec<Destination>, pass: u64) -> Option<u16> {
        members.sort_unstable();
        if let Some(number) = self.numbers.get(&(network, members.clone())).copied() {
            self.mark(number, pass);
            return Some(number);
        }
        let count = self.counts.entry(network).or_default();
        if self.sets.len() >= MOST || *count >= MOST_OF_NETWORK {
            return None;
        }
        *count += 1;
        // Numbers go round, so that one that was given up is not used again soon.
        while self.sets.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.sets.insert(number, Set { network, members: members.clone(), used: pass });
        self.numbers.insert((network, members), number);
        Some(number)
    }

    /// A flow leads to it.
    pub(super) fn mark(&mut self, number: u16, pass: u64) {
        if let Some(set) = self.sets.get_mut(&number) {
            set.used = pass;
        }
    }

    /// Gives up the sets with a member that does not exist as it was.
    pub(super) fn retain(&mut self, exists: impl Fn(&Destination) -> bool) {
        self.keep(|set| set.members.iter().all(&exists));
    }

    /// Gives up the sets that nothing led to since this pass began. Whether there were any.
    pub(super) fn sweep(&mut self, pass: u64) -> bool {
        self.keep(|set| set.used >= pass)
    }

    fn keep(&mut self, wanted: impl Fn(&Set) -> bool) -> bool {
        let before = self.sets.len();
        let Self { numbers, sets, counts, .. } = self;
        sets.retain(|_, set| {
            let stays = wanted(set);
            if !stays && let Some(count) = counts.get_mut(&set.network) {
                *count = count.saturating_sub(1);
            }
            stays
        });
        numbers.retain(|_, number| sets.contains_key(number));
        counts.retain(|_, count| *count > 0);
        sets.len() < before
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &[Destination])> {
        self.sets.iter().map(|(number, set)| (*number, set.members.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::topology::Place;

    fn members(number: u16) -> Vec<Destination> {
        vec![Destination { place: Place::Port(number), vlan: None }]
    }

    #[test]
    fn a_network_that_has_used_up_its_sets_leaves_others_theirs() {
        let mut sets = Sets::default();
        let first = sets.number(1, members(0), 0);
        for number in 1..1024 {
            assert!(sets.number(1, members(number), 0).is_some(), "{number}");
        }
        assert_eq!(sets.number(1, members(5000), 0), None);
        assert_eq!(sets.number(1, members(0), 0), first, "it is there already");
        let other = sets.number(2, members(5000), 0);
        assert!(other.is_some());
        // Flows lead to two of them still.
        assert!(!sets.sweep(0));
        [first, other].into_iter().flatten().for_each(|number| sets.mark(number, 1));
        assert!(sets.sweep(1) && !sets.sweep(1));
        assert_eq!(sets.iter().map(|(number, _)| Some(number)).collect::<Vec<_>>(), [first, other]);
        let new = sets.number(1, members(5000), 1);
        assert!(new.is_some() && new > other, "a number is not given again soon");
    }
}
