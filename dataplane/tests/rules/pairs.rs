//! One list of rules and one packet.

use dataplane::network::config::{Direction, PortRange, Protocol, RuleAction, RuleConfig};
use dataplane::network::rules::{Question, RuleSet};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::reference::{Packet, allows, first, packet, rule};

/// Lists of rules, and packets for each.
const LISTS: usize = 2000;
const PACKETS: usize = 500;

fn question(packet: &Packet) -> Question {
    Question {
        remote: packet.remote,
        protocol: Protocol(packet.protocol),
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        later_fragment: false,
    }
}

#[test]
fn a_million_random_pairs_agree_with_the_reference() {
    let mut runner = TestRunner::deterministic();
    let packets: Vec<Packet> = (0..20_000).map(|_| packet().new_tree(&mut runner).unwrap().current()).collect();
    let (mut pairs, mut allowed, mut at) = (0_u32, 0_u32, 0);
    for list in 0..LISTS {
        // Most lists are short, as users write them, and some go over several words of a set.
        let length = if list % 50 == 0 { 150..300_usize } else { 0..24 };
        let rules = proptest::collection::vec(rule(), length).new_tree(&mut runner).unwrap().current();
        let borrowed: Vec<&RuleConfig> = rules.iter().collect();
        let sets = [Direction::In, Direction::Out].map(|direction| RuleSet::compile(&borrowed, direction));
        for _ in 0..PACKETS {
            at = (at + 1) % packets.len();
            let packet = &packets[at];
            let (set, direction) = if at % 2 == 0 { (&sets[0], Direction::In) } else { (&sets[1], Direction::Out) };
            let answer = set.ask(&question(packet));
            let expected = allows(&rules, direction, packet);
            assert_eq!(answer.allowed, expected, "{packet:?} {direction:?} {rules:#?}");
            assert_eq!(answer.rule, first(&rules, direction, packet), "{packet:?} {direction:?} {rules:#?}");
            // The model is slow, and this asks it hundreds of times.
            if !answer.by_ports && pairs % 32 == 0 {
                check_all_ports(&rules, direction, packet, expected);
            }
            pairs += 1;
            allowed += u32::from(expected);
        }
    }
    assert_eq!(pairs, 1_000_000);
    assert!((pairs / 20..pairs / 2).contains(&allowed), "{allowed} were allowed, which tries little");
}

/// An answer that is said to hold for all ports: those around each end of each range.
fn check_all_ports(rules: &[RuleConfig], direction: Direction, packet: &Packet, expected: bool) {
    let around = |ranges: &mut dyn Iterator<Item = PortRange>| -> Vec<u16> {
        let mut ports = vec![0, u16::MAX];
        for range in ranges {
            ports.extend([range.first.saturating_sub(1), range.first, range.last, range.last.saturating_add(1)]);
        }
        ports.truncate(24);
        ports
    };
    if !matches!(packet.protocol, 6 | 17 | 132) {
        return;
    }
    for destination_port in around(&mut rules.iter().filter_map(|rule| rule.ports)) {
        for source_port in around(&mut rules.iter().filter_map(|rule| rule.source_ports)).into_iter().step_by(3) {
            let other = Packet { source_port, destination_port, ..*packet };
            assert_eq!(allows(rules, direction, &other), expected, "{other:?} {direction:?} {rules:#?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_later_fragment_passes_where_packets_with_some_port_do(
        rules in proptest::collection::vec(rule(), 0..12), packet in packet(),
    ) {
        let borrowed: Vec<&RuleConfig> = rules.iter().collect();
        let set = RuleSet::compile(&borrowed, Direction::In);
        let answer = set.ask(&Question { later_fragment: true, ..question(&packet) });
        // What passes with these ports must not lose its later fragments.
        if allows(&rules, Direction::In, &packet) {
            prop_assert!(answer.allowed);
        }
        // What no packet between the two may do, no fragment does.
        let relevant = |rule: &&RuleConfig| rule.action == RuleAction::Allow && rule.direction == Direction::In;
        if !rules.iter().any(|rule| relevant(&rule)) {
            prop_assert!(!answer.allowed);
        }
    }
}
