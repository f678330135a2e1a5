//! Ordered rules, compiled so that asking costs the same for ten rules and for a thousand.
//!
//! Each field of a packet (other side's address, protocol, two ports) splits its range into intervals, and each interval has a set of the rules whose
//! condition on that field it meets. The rules that fit a packet are the intersection of four sets, and the first of them decides: four binary
//! searches and a few dozen `and`s of words, whatever the rules look like.
//!
//! The same sets tell whether ports matter at all ([`Answer::by_ports`]): when they do not, one flow stands for all ports between two addresses.

mod interval;

use std::net::IpAddr;

use super::config::{Direction, PortRange, Protocol, RuleAction, RuleConfig};
use interval::Intervals;

/// What rules are asked about: a packet, seen from the port that the rules belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// Address of the other side.
    pub remote: IpAddr,
    /// IP protocol.
    pub protocol: Protocol,
    /// Source port; for ICMP, type (high byte) and code.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// It is a later fragment, which has no ports.
    pub later_fragment: bool,
}

/// What rules say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The packet may pass.
    pub allowed: bool,
    /// Place of the rule that decided, from 0; `None` when none fits, which denies.
    pub rule: Option<usize>,
    /// Other ports, or types, might be answered otherwise.
    pub by_ports: bool,
}

impl Answer {
    /// What a port without groups says to everything.
    pub const FREE: Self = Self { allowed: true, rule: None, by_ports: false };
}

/// The rules of one direction, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleSet {
    ipv4: Family,
    ipv6: Family,
}

/// The rules as they are for one version of IP.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Family {
    /// Words in a set of rules.
    words: usize,
    remotes: Intervals<u128>,
    protocols: Intervals<u8>,
    source_ports: Intervals<u16>,
    destination_ports: Intervals<u16>,
    /// Rules that ask for no port and no type.
    portless: Vec<u64>,
    allowing: Vec<u64>,
}

impl RuleSet {
    /// Compiles the rules of `direction` among `rules`. Answers count places in all of `rules`.
    #[must_use]
    pub fn compile(rules: &[&RuleConfig], direction: Direction) -> Self {
        Self { ipv4: Family::compile(rules, direction, true), ipv6: Family::compile(rules, direction, false) }
    }

    /// What the rules say about a packet. A later fragment has no ports: it passes when packets with some port do, because it is of no use
    /// without the first fragment, which has them.
    #[must_use]
    pub fn ask(&self, question: &Question) -> Answer {
        match question.remote {
            IpAddr::V4(remote) => self.ipv4.ask(remote.to_bits().into(), question),
            IpAddr::V6(remote) => self.ipv6.ask(remote.to_bits(), question),
        }
    }
}

/// The range of source ports that a rule fits; for ICMP, of types and codes.
fn source_range(rule: &RuleConfig) -> PortRange {
    match rule.icmp_type {
        Some(kind) => PortRange { first: u16::from_be_bytes([kind, 0]), last: u16::from_be_bytes([kind, 255]) },
        None => rule.source_ports.unwrap_or(PortRange::ALL),
    }
}

impl Family {
    fn compile(rules: &[&RuleConfig], direction: Direction, is_ipv4: bool) -> Self {
        let fits = |rule: &RuleConfig| {
            let foreign = if is_ipv4 { Protocol::ICMPV6 } else { Protocol::ICMP };
            rule.direction == direction
                && rule.protocol != Some(foreign)
                && rule.remote.is_none_or(|remote| remote.address.is_ipv4() == is_ipv4)
        };
        let words = rules.len().div_ceil(64);
        let chosen = || rules.iter().enumerate().filter(|(_, rule)| fits(rule));
        let set = |which: &dyn Fn(&RuleConfig) -> bool| {
            let mut set = vec![0_u64; words];
            for (number, rule) in chosen() {
                if which(rule)
                    && let Some(word) = set.get_mut(number / 64)
                {
                    *word |= 1 << (number % 64);
                }
            }
            set
        };
        let range = |range: PortRange| (range.first, range.last);
        Self {
            words,
            remotes: Intervals::new(
                words,
                chosen().map(|(number, rule)| (number, rule.remote.map_or((0, u128::MAX), |remote| remote.bounds()))),
            ),
            protocols: Intervals::new(
                words,
                chosen().map(|(number, rule)| {
                    (number, rule.protocol.map_or((0, u8::MAX), |protocol| (protocol.0, protocol.0)))
                }),
            ),
            source_ports: Intervals::new(words, chosen().map(|(number, rule)| (number, range(source_range(rule))))),
            destination_ports: Intervals::new(
                words,
                chosen().map(|(number, rule)| (number, range(rule.ports.unwrap_or(PortRange::ALL)))),
            ),
            portless: set(&|rule| {
                source_range(rule) == PortRange::ALL && rule.ports.is_none_or(|ports| ports == PortRange::ALL)
            }),
            allowing: set(&|rule| rule.action == RuleAction::Allow),
        }
    }

    fn ask(&self, remote: u128, question: &Question) -> Answer {
        let remotes = self.remotes.at(remote);
        let protocols = self.protocols.at(question.protocol.0);
        let sources = self.source_ports.at(question.source_port);
        let destinations = self.destination_ports.at(question.destination_port);
        let word = |set: &[u64], at: usize| set.get(at).copied().unwrap_or(0);
        // The first that fits; the first that fits whatever the ports; and, up to that one, whether some allow and some deny.
        let (mut first, mut allows, mut denies, mut last) = (None, false, false, None);
        for at in 0..self.words {
            let possible = word(remotes, at) & word(protocols, at);
            let certain = possible & word(&self.portless, at);
            let fitting = possible & word(sources, at) & word(destinations, at);
            let place = |set: u64| (set != 0).then(|| at * 64 + set.trailing_zeros() as usize);
            first = first.or_else(|| place(if question.later_fragment { certain } else { fitting }));
            // All up to and with the first certain one, or all of the word.
            let upto = if certain == 0 { u64::MAX } else { certain ^ (certain - 1) };
            allows |= possible & upto & word(&self.allowing, at) != 0;
            denies |= possible & upto & !word(&self.allowing, at) != 0;
            last = place(certain);
            if last.is_some() {
                break;
            }
        }
        // What no rule fits is denied, as if a last rule said so.
        denies |= last.is_none();
        let allowed = match first {
            _ if question.later_fragment => allows,
            Some(rule) => word(&self.allowing, rule / 64) >> (rule % 64) & 1 != 0,
            None => false,
        };
        Answer { allowed, rule: first, by_ports: allows && denies }
    }
}
