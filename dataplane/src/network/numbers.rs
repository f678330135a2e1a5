//! Numbers for names. A name keeps its number for as long as it is there, and a number that is given up is not given to another name at once: flows
//! that still say the old one have to go first.

use std::collections::{BTreeMap, BTreeSet};

/// The numbers of one kind of thing.
#[derive(Clone, Default, Debug)]
pub(super) struct Numbers {
    by_name: BTreeMap<String, u16>,
}

/// There are more names than numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooMany;

impl Numbers {
    /// Numbers for `names`, from `first` on and below `end`: the old ones where a name had one.
    pub(super) fn renewed(&self, names: impl Iterator<Item = String>, first: u16, end: u16) -> Result<Self, TooMany> {
        let names: BTreeSet<String> = names.collect();
        let taken: BTreeSet<u16> = self.by_name.values().copied().collect();
        let mut free = (first..end).filter(|number| !taken.contains(number));
        let mut by_name = BTreeMap::new();
        for name in names {
            let number = match self.by_name.get(&name) {
                Some(number) => *number,
                None => free.next().ok_or(TooMany)?,
            };
            by_name.insert(name, number);
        }
        Ok(Self { by_name })
    }

    /// The number of a name; 0 for a name that has none.
    pub(super) fn of(&self, name: &str) -> u16 {
        self.by_name.get(name).copied().unwrap_or(0)
    }

    /// Whether the name has a number.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }
}
