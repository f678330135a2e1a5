//! Which queues go together: ports are joined pairwise, and every queue belongs to exactly one engine.
//!
//! Of a pair whose ports have `m` and `n` queue pairs, receive queue `i` of one port goes to transmit queue
//! `i mod min(m, n)` of the other. Everything with the same remainder forms a [`Group`]: it shares its transmit queues and can
//! therefore not be divided between engines.

/// A queue: number of the port, index of its queue pair.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueId {
    /// Number of the port.
    pub port: usize,
    /// Index of its queue pair.
    pub queue: usize,
}

/// The way from a receive queue to a transmit queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    /// Packets come from this receive queue
    pub from: QueueId,
    /// and go to this transmit queue.
    pub to: QueueId,
}

/// Ways that share transmit queues.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Group {
    /// The ways. Every receive queue appears once.
    pub ways: Vec<Way>,
}

/// The smallest parts of two joined ports, each given by its number and its queue pairs, that cannot be divided between engines. None when one has no
/// queues.
#[must_use]
pub fn groups(left: (usize, usize), right: (usize, usize)) -> Vec<Group> {
    let common = left.1.min(right.1);
    let group =
        |remainder: usize| {
            let mut group = Group::default();
            for ((from, count), to) in [(left, right.0), (right, left.0)] {
                group.ways.extend((remainder..count).step_by(common).map(|queue| Way {
                    from: QueueId { port: from, queue },
                    to: QueueId { port: to, queue: remainder },
                }));
            }
            group
        };
    (0..common).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn way(from: (usize, usize), to: (usize, usize)) -> Way {
        Way { from: QueueId { port: from.0, queue: from.1 }, to: QueueId { port: to.0, queue: to.1 } }
    }

    fn ways(left: (usize, usize), right: (usize, usize)) -> Vec<Vec<Way>> {
        groups(left, right).into_iter().map(|group| group.ways).collect()
    }

    #[test]
    fn equal_ports_are_joined_queue_by_queue() {
        assert_eq!(
            ways((7, 2), (9, 2)),
            [vec![way((7, 0), (9, 0)), way((9, 0), (7, 0))], vec![way((7, 1), (9, 1)), way((9, 1), (7, 1))]]
        );
    }

    #[test]
    fn a_wider_port_shares_the_queues_of_the_narrower() {
        assert_eq!(
            ways((0, 3), (1, 1)),
            [vec![way((0, 0), (1, 0)), way((0, 1), (1, 0)), way((0, 2), (1, 0)), way((1, 0), (0, 0))]]
        );
    }

    #[test]
    fn a_port_without_queues_has_nothing_to_do() {
        assert!(groups((0, 0), (1, 3)).is_empty() && groups((0, 2), (1, 0)).is_empty());
    }

    proptest! {
        #[test]
        fn every_receive_queue_is_served_once_and_no_transmit_queue_by_two(left in 1_usize..9, right in 1_usize..9) {
            let queues = BTreeMap::from([(4, left), (3, right)]);
            let mut received = BTreeSet::new();
            let mut owner = BTreeMap::new();
            for (index, group) in groups((4, left), (3, right)).into_iter().enumerate() {
                prop_assert!(!group.ways.is_empty());
                for way in group.ways {
                    prop_assert!(received.insert(way.from));
                    prop_assert_eq!(*owner.entry(way.to).or_insert(index), index);
                    prop_assert_eq!(way.from.port + way.to.port, 7);
                    prop_assert!(way.to.queue < queues[&way.to.port]);
                }
            }
            prop_assert_eq!(received.len(), left + right);
        }
    }
}
