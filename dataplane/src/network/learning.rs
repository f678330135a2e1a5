//! What is known because it was seen: where an Ethernet address is, and which one an IP address has. Bounded by network and by place.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::time::Duration;

use super::config::Mac;
use super::topology::Place;

/// Where somebody is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Station {
    /// The port or tunnel that leads there.
    pub place: Place,
    /// The Ethernet address there.
    pub mac: Mac,
}

/// Most that one place may have learned, and all places of a network together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// At one port, or behind one tunnel.
    pub place: u32,
    /// In the network.
    pub network: u32,
}

/// What became of something seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Noted {
    /// It was known.
    Known,
    /// It is new.
    New,
    /// It was somewhere else before.
    Moved,
    /// It moved a moment ago and is not believed to move again.
    Held,
    /// There is no room for it.
    Full,
}

/// How long something that moved stays where it is, so that two that claim one address cannot keep everybody busy.
pub const HOLD: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Seen {
    station: Station,
    last: Duration,
    /// When it moved last; what never moved is believed to at once.
    moved: Option<Duration>,
    /// It was seen elsewhere, and not believed: it stands in `claims`.
    claimed: bool,
}

impl Seen {
    fn is_held(&self, now: Duration) -> bool {
        self.moved.is_some_and(|moved| now < moved + HOLD)
    }
}

/// What was learned in one network.
#[derive(Clone, Debug)]
pub struct Learned<K> {
    seen: HashMap<K, Seen>,
    count: HashMap<Place, u32>,
    /// What was seen elsewhere while it was held.
    claims: Vec<K>,
    looked: Duration,
}

impl<K> Default for Learned<K> {
    fn default() -> Self {
        Self { seen: HashMap::new(), count: HashMap::new(), claims: Vec::new(), looked: Duration::ZERO }
    }
}

impl<K: Copy + Eq + Hash> Learned<K> {
    /// Notes that `key` was seen at `station`.
    pub fn note(&mut self, key: K, station: Station, bounds: Bounds, now: Duration) -> Noted {
        let total = self.seen.len();
        let here = self.count.get(&station.place).copied().unwrap_or(0);
        match self.seen.entry(key) {
            Entry::Occupied(mut entry) => {
                let seen = entry.get_mut();
                if seen.station == station {
                    seen.last = now;
                    return Noted::Known;
                }
                if seen.is_held(now) {
                    if !seen.claimed {
                        seen.claimed = true;
                        self.claims.push(key);
                    }
                    return Noted::Held;
                }
                if seen.station.place != station.place {
                    if here >= bounds.place {
                        return Noted::Full;
                    }
                    let before = seen.station.place;
                    *self.count.entry(station.place).or_default() += 1;
                    Self::less(&mut self.count, before);
                }
                let seen = entry.get_mut();
                *seen = Seen { station, last: now, moved: Some(now), ..*seen };
                Noted::Moved
            }
            Entry::Vacant(entry) => {
                if here >= bounds.place || total >= bounds.network as usize {
                    return Noted::Full;
                }
                // The first place that it is seen at may be the old one's last frame: a first move is believed at once.
                entry.insert(Seen { station, last: now, moved: None, claimed: false });
                *self.count.entry(station.place).or_default() += 1;
                Noted::New
            }
        }
    }

    /// Where `key` is.
    #[must_use]
    pub fn find(&self, key: K) -> Option<Station> {
        self.seen.get(&key).map(|seen| seen.station)
    }

    /// Notes that `key` is still in use.
    pub fn touch(&mut self, key: K, now: Duration) {
        if let Some(seen) = self.seen.get_mut(&key) {
            seen.last = seen.last.max(now);
        }
    }

    /// What was seen elsewhere while it was held, and would be believed to have moved by now if it were seen there again.
    pub fn claims_to_hear(&mut self, now: Duration) -> Vec<K> {
        let seen = &mut self.seen;
        let heard = self.claims.extract_if(.., |key| match seen.get_mut(key) {
            Some(seen) if seen.is_held(now) => false,
            Some(seen) => {
                seen.claimed = false;
                true
            }
            None => true,
        });
        heard.collect()
    }

    /// Forgets what was not seen for `age`, and gives it. Looks at most once a second.
    pub fn forget_older(&mut self, age: Duration, now: Duration) -> Vec<K> {
        if now < self.looked + Duration::from_secs(1) {
            return Vec::new();
        }
        self.looked = now;
        self.forget(|_, seen| seen.last + age <= now)
    }

    /// Forgets all whose place does not exist any more, and gives it.
    pub fn forget_places(&mut self, exists: impl Fn(Place) -> bool) -> Vec<K> {
        self.forget(|_, seen| !exists(seen.station.place))
    }

    /// Forgets what `which` says, and gives it.
    pub fn forget_keys(&mut self, which: impl Fn(K) -> bool) -> Vec<K> {
        self.forget(|key, _| which(key))
    }

    fn forget(&mut self, which: impl Fn(K, &Seen) -> bool) -> Vec<K> {
        let mut gone = Vec::new();
        self.seen.retain(|key, seen| {
            let goes = which(*key, seen);
            if goes {
                gone.push(*key);
                Self::less(&mut self.count, seen.station.place);
            }
            !goes
        });
        gone
    }

    fn less(count: &mut HashMap<Place, u32>, place: Place) {
        if let Entry::Occupied(mut entry) = count.entry(place) {
            *entry.get_mut() = entry.get().saturating_sub(1);
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// All that is known.
    pub fn iter(&self) -> impl Iterator<Item = (K, Station)> {
        self.seen.iter().map(|(key, seen)| (*key, seen.station))
    }
}
