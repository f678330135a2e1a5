//! Sets of destinations, by number. The same set has one number for as long as all its members exist.

use std::collections::{BTreeMap, HashMap};

use super::decision::Destination;

/// Most sets.
const MOST: usize = 16_384;

/// All sets in use.
#[derive(Clone, Default, Debug)]
pub(super) struct Sets {
    numbers: HashMap<Vec<Destination>, u16>,
    members: BTreeMap<u16, Vec<Destination>>,
    next: u16,
}

impl Sets {
    /// The number of a set; `None` when there are too many. `members` has no order.
    pub(super) fn number(&mut self, mut members: Vec<Destination>) -> Option<u16> {
        members.sort_unstable();
        if let Some(number) = self.numbers.get(&members) {
            return Some(*number);
        }
        if self.numbers.len() >= MOST {
            return None;
        }
        // Numbers go round, so that one that was given up is not used again soon.
        while self.members.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.members.insert(number, members.clone());
        self.numbers.insert(members, number);
        Some(number)
    }

    /// Gives up the sets with a member that does not exist as it was.
    pub(super) fn retain(&mut self, exists: impl Fn(&Destination) -> bool) {
        self.numbers.retain(|members, _| members.iter().all(&exists));
        self.members.retain(|_, members| members.iter().all(&exists));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &[Destination])> {
        self.members.iter().map(|(number, members)| (*number, members.as_slice()))
    }
}
