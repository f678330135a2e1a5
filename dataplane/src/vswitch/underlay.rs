//! The network between hosts: who leads to the other ends of the tunnels, and what their Ethernet addresses are.
//!
//! Every tunnel has a next hop: the other host itself when it is in a prefix of ours, or else a gateway. Its Ethernet address is asked for as soon as there is an
//! underlay port, asked for again before it is forgotten, and changed when somebody says another one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use drivers::nic::MacAddress;

use super::report::TunnelState;
use crate::network::config::UnderlayConfig;
use crate::network::topology::Topology;
use crate::switch::PortSlot;

/// How long an address is believed without being asked for again, and how long while nobody answers.
const FRESH: Duration = Duration::from_secs(25);
const BELIEVED: Duration = Duration::from_secs(30);
/// How long an answer is waited for.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest that an unknown address is not asked for.
const SELDOM: Duration = Duration::from_secs(8);
/// Questions that are asked at a time.
const MOST_QUESTIONS: usize = 64;

/// The port that leads to the other hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UnderlayPort {
    pub(super) slot: PortSlot,
    pub(super) number: u32,
    pub(super) mac: MacAddress,
    /// Bytes of the longest IP packet.
    pub(super) mtu: u16,
}

/// Somebody on the link.
#[derive(Clone, Copy, Default, Debug)]
struct Hop {
    mac: Option<MacAddress>,
    /// When it was last heard of.
    confirmed: Duration,
    /// Questions since then, and when the next one is due.
    asked: u32,
    due: Duration,
}

/// The network between hosts.
#[derive(Default, Debug)]
pub(super) struct Underlay {
    port: Option<UnderlayPort>,
    config: Option<UnderlayConfig>,
    hops: HashMap<IpAddr, Hop>,
    /// Each tunnel's next hop.
    tunnels: BTreeMap<u16, Option<IpAddr>>,
}

impl Underlay {
    /// The port, when it is there.
    pub(super) fn port(&self) -> Option<UnderlayPort> {
        self.port
    }

    /// Takes in what is configured, and the port when it is there. What is known of those who stay next hops is kept.
    pub(super) fn configure(
        &mut self,
        config: Option<&UnderlayConfig>,
        port: Option<UnderlayPort>,
        topology: &Topology,
        now: Duration,
    ) {
        if self.port != port || self.config.as_ref().map(|it| &it.port) != config.map(|it| &it.port) {
            // Another link, on which others may be.
            self.hops.clear();
        }
        self.port = port;
        self.config = config.cloned();
        self.tunnels =
            topology.tunnels.iter().map(|(number, tunnel)| (*number, self.next_hop(tunnel.remote))).collect();
        let wanted: Vec<IpAddr> = self.tunnels.values().flatten().copied().collect();
        self.hops.retain(|address, _| wanted.contains(address));
        for address in wanted {
            self.hops.entry(address).or_insert(Hop { due: now, ..Hop::default() });
        }
    }

    fn next_hop(&self, remote: IpAddr) -> Option<IpAddr> {
        let config = self.config.as_ref()?;
        let on_link = |address: IpAddr| config.addresses.iter().any(|own| own.prefix.contains(address));
        if on_link(remote) {
            return Some(remote);
        }
        config.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == remote.is_ipv4())
    }

    /// Whether an address is this host's.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.config.as_ref().is_some_and(|config| config.addresses.iter().any(|own| own.address == address))
    }

    /// Somebody said, or was seen to have, this Ethernet address. Whether that is news of a next hop.
    pub(super) fn learn(&mut self, address: IpAddr, mac: MacAddress, now: Duration) -> bool {
        let group = mac.0.first().is_none_or(|first| first & 1 != 0);
        let Some(hop) = self.hops.get_mut(&address).filter(|_| !group && mac.0 != [0; 6]) else { return false };
        let news = hop.mac != Some(mac);
        *hop = Hop { mac: Some(mac), confirmed: now, asked: 0, due: now + FRESH };
        news
    }

    /// The questions that are due, as (who asks, who is asked for), and whether somebody was forgotten.
    pub(super) fn tick(&mut self, now: Duration) -> (Vec<(IpAddr, IpAddr)>, bool) {
        let (mut questions, mut forgotten) = (Vec::new(), false);
        let (Some(_), Some(config)) = (self.port, &self.config) else { return (questions, false) };
        for (address, hop) in &mut self.hops {
            if hop.mac.is_some() && hop.confirmed + BELIEVED <= now {
                hop.mac = None;
                forgotten = true;
            }
            if hop.due > now || questions.len() == MOST_QUESTIONS {
                continue;
            }
            let own = config.addresses.iter().find(|own| own.address.is_ipv4() == address.is_ipv4());
            let Some(own) = own else { continue };
            questions.push((own.address, *address));
            hop.asked = hop.asked.saturating_add(1);
            // The first few times at once, then ever more seldom.
            let pause = AGAIN * (1 << hop.asked.saturating_sub(5).min(3));
            hop.due = now + pause.min(SELDOM);
        }
        (questions, forgotten)
    }

    /// The Ethernet address that frames of a tunnel go to; `None` while nobody knows.
    pub(super) fn resolved(&self, tunnel: u16) -> Option<MacAddress> {
        self.port?;
        let hop = (*self.tunnels.get(&tunnel)?)?;
        self.hops.get(&hop)?.mac
    }

    /// How things are with a tunnel.
    pub(super) fn state(&self, tunnel: u16) -> (TunnelState, Option<IpAddr>, Option<MacAddress>) {
        let hop = self.tunnels.get(&tunnel).copied().flatten();
        let mac = self.resolved(tunnel);
        let state = match (self.port, hop, mac) {
            (None, _, _) | (_, None, _) => TunnelState::Unreachable,
            (_, _, None) => TunnelState::Resolving,
            _ => TunnelState::Up,
        };
        (state, hop, mac)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::network::Brain;
    use crate::network::Config;
    use std::path::Path;

    const WORLD: &str = r#"
    underlay = { port = "up", addresses = ["192.0.2.1/24", "2001:db8::1/64"], gateways = ["192.0.2.254"] }
    network = [{ name = "red", vni = 1 }]
    tunnel = [
        { network = "red", remote = "192.0.2.7" },
        { network = "red", remote = "198.51.100.7" },
    ]
    "#;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn underlay() -> Underlay {
        let mut brain = Brain::new();
        let change = brain.plan(Config::from_toml(WORLD, Path::new("test.toml")).unwrap()).unwrap();
        brain.apply(change);
        let mut underlay = Underlay::default();
        let port = UnderlayPort { slot: PortSlot(0), number: 1, mac: MacAddress([2; 6]), mtu: 1500 };
        underlay.configure(brain.config().underlay.as_ref(), Some(port), brain.topology(), at(0));
        underlay
    }

    fn asked(underlay: &mut Underlay, seconds: u64) -> Vec<String> {
        let mut asked: Vec<_> = underlay.tick(at(seconds)).0.iter().map(|(_, about)| about.to_string()).collect();
        asked.sort();
        asked
    }

    fn number(underlay: &Underlay, hop: &str) -> u16 {
        let hop = Some(hop.parse::<IpAddr>().unwrap());
        *underlay.tunnels.iter().find(|(_, next)| **next == hop).unwrap().0
    }

    #[test]
    fn hosts_are_asked_for_themselves_or_through_a_gateway_until_they_answer() {
        let mut underlay = underlay();
        assert_eq!(asked(&mut underlay, 0), ["192.0.2.254", "192.0.2.7"]);
        assert!(asked(&mut underlay, 0).is_empty(), "just asked");
        let (near, far) = (number(&underlay, "192.0.2.7"), number(&underlay, "192.0.2.254"));
        assert_eq!(underlay.state(near).0, TunnelState::Resolving);
        assert!(underlay.learn("192.0.2.7".parse().unwrap(), MAC, at(1)));
        assert!(!underlay.learn("192.0.2.7".parse().unwrap(), MAC, at(1)), "no news");
        assert!(!underlay.learn("192.0.2.8".parse().unwrap(), MAC, at(1)), "nobody of ours");
        assert!(!underlay.learn("192.0.2.7".parse().unwrap(), MacAddress([0xff; 6]), at(1)));
        assert_eq!((underlay.resolved(near), underlay.resolved(far)), (Some(MAC), None));
        assert_eq!(asked(&mut underlay, 1), ["192.0.2.254"]);
    }

    #[test]
    fn an_address_is_asked_for_again_before_it_is_forgotten() {
        let mut underlay = underlay();
        let address = "192.0.2.7".parse().unwrap();
        let near = number(&underlay, "192.0.2.7");
        underlay.tick(at(0));
        underlay.learn(address, MAC, at(0));
        assert!(asked(&mut underlay, 26).contains(&"192.0.2.7".to_owned()));
        assert_eq!(underlay.resolved(near), Some(MAC), "believed meanwhile");
        let (_, forgotten) = underlay.tick(at(31));
        assert!(forgotten && underlay.resolved(near).is_none());
        // It moved: somebody else answers.
        let other = MacAddress([2, 0, 0, 0, 0, 8]);
        assert!(underlay.learn(address, other, at(32)));
        assert_eq!(underlay.resolved(near), Some(other));
    }
}
