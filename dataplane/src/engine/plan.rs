//! Who serves which queue: ports are joined pairwise, and every queue belongs to exactly one engine.
//!
//! Of a pair whose ports have `m` and `n` queue pairs, receive queue `i` of one port goes to transmit queue
//! `i mod min(m, n)` of the other. Everything with the same remainder forms a [`Group`]: it shares its transmit queues and can
//! therefore not be divided between engines. Groups are dealt out to the engines in turn.

/// A queue: index of the port, index of its queue pair.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueId {
    /// Index of the port, as given.
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

/// What each engine serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// One entry for each engine; none is empty.
    pub engines: Vec<Vec<Way>>,
}

/// Divides ports with `queues[i]` queue pairs among at most `engines` engines. Ports 0 and 1 are joined, then 2 and 3, and so on; a last
/// port without a partner is left out. Fewer engines result when there are fewer groups.
#[must_use]
pub fn plan(queues: &[usize], engines: usize) -> Plan {
    let groups = groups(queues);
    let count = engines.clamp(1, groups.len().max(1));
    let mut engines = vec![Vec::new(); count];
    for (index, group) in groups.into_iter().enumerate() {
        if let Some(engine) = engines.get_mut(index % count) {
            engine.extend(group.ways);
        }
    }
    engines.retain(|ways| !ways.is_empty());
    Plan { engines }
}

/// The smallest parts that cannot be divided between engines.
#[must_use]
pub fn groups(queues: &[usize]) -> Vec<Group> {
    let mut all = Vec::new();
    for (pair, counts) in queues.chunks_exact(2).enumerate() {
        let &[left, right] = counts else { continue };
        let common = left.min(right);
        if common == 0 {
            continue;
        }
        let (left_port, right_port) = (2 * pair, 2 * pair + 1);
        for remainder in 0..common {
            let mut group = Group::default();
            for (from, count, to) in [(left_port, left, right_port), (right_port, right, left_port)] {
                group.ways.extend((remainder..count).step_by(common).map(|queue| Way {
                    from: QueueId { port: from, queue },
                    to: QueueId { port: to, queue: remainder },
                }));
            }
            all.push(group);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn way(from: (usize, usize), to: (usize, usize)) -> Way {
        Way { from: QueueId { port: from.0, queue: from.1 }, to: QueueId { port: to.0, queue: to.1 } }
    }

    #[test]
    fn equal_ports_are_joined_queue_by_queue() {
        let plan = plan(&[2, 2], 2);
        assert_eq!(
            plan.engines,
            [vec![way((0, 0), (1, 0)), way((1, 0), (0, 0))], vec![way((0, 1), (1, 1)), way((1, 1), (0, 1))],]
        );
    }

    #[test]
    fn a_wider_port_shares_the_queues_of_the_narrower() {
        let plan = plan(&[3, 1], 4);
        assert_eq!(
            plan.engines,
            [vec![way((0, 0), (1, 0)), way((0, 1), (1, 0)), way((0, 2), (1, 0)), way((1, 0), (0, 0))]]
        );
    }

    #[test]
    fn no_ports_need_no_engine() {
        assert!(plan(&[], 2).engines.is_empty());
        assert!(plan(&[1], 2).engines.is_empty());
        assert!(plan(&[0, 3], 2).engines.is_empty());
    }

    proptest! {
        #[test]
        fn every_receive_queue_is_served_once_and_no_transmit_queue_by_two(
            pairs in prop::collection::vec((1_usize..9, 1_usize..9), 1..4), engines in 1_usize..9,
        ) {
            let queues: Vec<usize> = pairs.iter().flat_map(|(left, right)| [*left, *right]).collect();
            let plan = plan(&queues, engines);
            prop_assert!(plan.engines.len() <= engines);
            let mut received = BTreeSet::new();
            let mut owner = BTreeMap::new();
            for (engine, ways) in plan.engines.iter().enumerate() {
                prop_assert!(!ways.is_empty());
                for way in ways {
                    prop_assert!(received.insert(way.from));
                    prop_assert_eq!(*owner.entry(way.to).or_insert(engine), engine);
                    prop_assert_eq!(way.from.port ^ 1, way.to.port);
                    prop_assert!(way.to.queue < queues[way.to.port]);
                }
            }
            prop_assert_eq!(received.len(), queues.iter().sum::<usize>());
        }
    }
}
