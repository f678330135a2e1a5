//! Whether the parts of a configuration fit together.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;

use super::model::{Config, CoprocessorConfig, MirrorConfig, NetworkConfig, RouteConfig, RuleConfig, TunnelConfig};
use super::values::{Mac, Prefix, Protocol};

/// Most networks, groups, slices and tunnels, each.
const MOST_NAMES: usize = 16_384;
/// Most ports.
const MOST_PORTS: usize = 4096;
/// Most rules of all groups of a port.
const MOST_RULES: usize = 4096;
/// Most coprocessors: each takes a thread, and buffers in each engine.
const MOST_COPROCESSORS: usize = 64;
/// Most ports that packets are mirrored to: what waits in front of them takes buffers that all use.
const MOST_MIRRORS: usize = 4;

/// One step of the way to a value in a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    Key(&'static str),
    Index(usize),
}

/// What does not fit, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub(crate) place: Vec<Part>,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl Problem {
    /// A problem of the value, or of all things, that stand under an uppermost key.
    pub(crate) fn of_all(key: &'static str, reason: impl Into<String>) -> Self {
        Self { place: vec![Part::Key(key)], reason: reason.into() }
    }

    /// A problem of one of several things that stand under an uppermost key.
    pub(crate) fn of_one(key: &'static str, index: usize, reason: impl Into<String>) -> Self {
        Self { place: vec![Part::Key(key), Part::Index(index)], reason: reason.into() }
    }

    /// The uppermost key that it is about.
    pub(crate) fn key(&self) -> Option<&'static str> {
        match self.place.first() {
            Some(Part::Key(key)) => Some(key),
            _ => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.place.iter().enumerate() {
            match part {
                Part::Key(key) if at == 0 => f.write_str(key)?,
                Part::Key(key) => write!(f, ".{key}")?,
                Part::Index(index) => write!(f, "[{index}]")?,
            }
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for Problem {}

/// A place in the array `kind` of the file.
#[derive(Clone, Copy)]
struct At(&'static str, usize);

impl At {
    fn says(self, key: &'static str, reason: impl Into<String>) -> Problem {
        Problem { place: vec![Part::Key(self.0), Part::Index(self.1), Part::Key(key)], reason: reason.into() }
    }

    fn says_of(self, key: &'static str, index: usize, reason: impl Into<String>) -> Problem {
        let mut problem = self.says(key, reason);
        problem.place.push(Part::Index(index));
        problem
    }
}

/// What stations of one network have taken already.
#[derive(Default)]
struct Taken {
    macs: HashMap<Mac, String>,
    addresses: HashMap<IpAddr, String>,
}

impl Config {
    /// Checks that all names exist and nothing contradicts itself.
    ///
    /// # Errors
    ///
    /// The first thing that does not fit.
    pub fn check(&self) -> Result<(), Problem> {
        self.check_counts()?;
        let slices = names("slice", self.slices.iter().map(|slice| slice.name.as_str()))?;
        let networks = names("network", self.networks.iter().map(|network| network.name.as_str()))?;
        let groups = names("group", self.groups.iter().map(|group| group.name.as_str()))?;
        for (index, slice) in self.slices.iter().enumerate() {
            let at = At("slice", index);
            positive(at, "flows", slice.flows.map(u64::from))?;
            positive(at, "connections", slice.connections.map(u64::from))?;
            positive(at, "packets-per-second", slice.packets_per_second)?;
            if slice.share.is_some_and(|share| !(1..=1000).contains(&share)) {
                return Err(at.says("share", "a share is 1 to 1000"));
            }
        }
        self.check_networks(&slices)?;
        for (index, group) in self.groups.iter().enumerate() {
            for (number, rule) in group.rules.iter().enumerate() {
                check_rule(rule).map_err(|(key, reason)| {
                    let mut problem = At("group", index).says_of("rules", number, reason);
                    problem.place.push(Part::Key(key));
                    problem
                })?;
            }
        }
        self.check_underlay()?;
        let mut taken: HashMap<&str, Taken> = HashMap::new();
        for network in &self.networks {
            let own = taken.entry(&network.name).or_default();
            for router in &network.routers {
                own.addresses.insert(router.address, "the network's router".into());
            }
            if let Some(mac) = network.router_mac {
                own.macs.insert(mac, "the network's router".into());
            }
        }
        self.check_ports(&networks, &groups, &mut taken)?;
        for (index, route) in self.routes.iter().enumerate() {
            self.check_route(At("route", index), route, &networks)?;
        }
        let mut seen = HashSet::new();
        for (index, route) in self.routes.iter().enumerate() {
            if !seen.insert((&route.network, route.prefix)) {
                let reason = format!("network `{}` has a route to {} already", route.network, route.prefix);
                return Err(At("route", index).says("prefix", reason));
            }
        }
        let mut seen = HashSet::new();
        for (index, tunnel) in self.tunnels.iter().enumerate() {
            let at = At("tunnel", index);
            self.check_tunnel(at, tunnel, &networks, &mut taken)?;
            if !seen.insert((&tunnel.network, tunnel.remote)) {
                let reason = format!("network `{}` has a tunnel to {} already", tunnel.network, tunnel.remote);
                return Err(at.says("remote", reason));
            }
        }
        self.check_mirrors(&networks)
    }

    fn check_mirrors(&self, networks: &HashMap<&str, usize>) -> Result<(), Problem> {
        names("mirror", self.mirrors.iter().map(|mirror| mirror.name.as_str()))?;
        let mut targets = HashSet::new();
        for (index, mirror) in self.mirrors.iter().enumerate() {
            let MirrorConfig { port, network, to, .. } = mirror;
            let at = At("mirror", index);
            match (port, network) {
                (Some(port), None) if !self.ports.iter().any(|it| it.name == *port) => {
                    return Err(at.says("port", format!("no `[[port]]` puts `{port}` into a network")));
                }
                (None, Some(network)) => _ = self.network(at, "network", network, networks)?,
                (Some(_), None) => {}
                _ => return Err(at.says("port", "say whose packets are copied: either `port` or `network`")),
            }
            let underlay = self.underlay.as_ref().is_some_and(|underlay| underlay.port == *to);
            if underlay || self.ports.iter().any(|it| it.name == *to) {
                return Err(
                    at.says("to", format!("port `{to}` has packets of its own; take one that is in no network"))
                );
            }
            targets.insert(to);
            if targets.len() > MOST_MIRRORS {
                return Err(at.says("to", format!("packets are mirrored to {MOST_MIRRORS} ports at most")));
            }
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), Problem> {
        for (key, count, most) in [
            ("slice", self.slices.len(), MOST_NAMES),
            ("network", self.networks.len(), MOST_NAMES),
            ("group", self.groups.len(), MOST_NAMES),
            ("port", self.ports.len(), MOST_PORTS),
            ("route", self.routes.len(), MOST_NAMES),
            ("tunnel", self.tunnels.len(), MOST_NAMES),
            ("mirror", self.mirrors.len(), MOST_NAMES),
        ] {
            if count > most {
                let reason = format!("there are {count}, and the switch takes {most}");
                return Err(Problem { place: vec![Part::Key(key), Part::Index(most)], reason });
            }
        }
        Ok(())
    }

    fn check_networks(&self, slices: &HashMap<&str, usize>) -> Result<(), Problem> {
        let (mut vnis, mut vlans) = (HashMap::new(), HashMap::new());
        for (index, network) in self.networks.iter().enumerate() {
            let at = At("network", index);
            if let Some(vni) = network.vni {
                if !(1..1 << 24).contains(&vni) {
                    return Err(at.says("vni", format!("a VNI is 1 to 16777215, and {vni} is not")));
                }
                if let Some(other) = vnis.insert(vni, &network.name) {
                    return Err(at.says("vni", format!("network `{other}` has VNI {vni} already")));
                }
            }
            if let Some(vlan) = network.vlan {
                if !(1..=4094).contains(&vlan) {
                    return Err(at.says("vlan", format!("a VLAN is 1 to 4094, and {vlan} is not")));
                }
                if let Some(other) = vlans.insert(vlan, &network.name) {
                    return Err(at.says("vlan", format!("network `{other}` has VLAN {vlan} already")));
                }
            }
            if let Some(slice) = &network.slice {
                known(at, "slice", "slice", slice, slices)?;
            }
            positive(at, "broadcast-packets-per-second", network.broadcast_packets_per_second)?;
            positive(at, "ageing-seconds", network.ageing_seconds.map(u64::from))?;
            check_routers(at, network)?;
        }
        Ok(())
    }

    fn check_underlay(&self) -> Result<(), Problem> {
        let Some(underlay) = &self.underlay else { return Ok(()) };
        let says = |key, reason: String| Problem { place: vec![Part::Key("underlay"), Part::Key(key)], reason };
        let of_v4 = underlay.addresses.iter().filter(|own| own.address.is_ipv4()).count();
        if underlay.addresses.is_empty() || of_v4 > 1 || underlay.addresses.len() - of_v4 > 1 {
            return Err(says("addresses", "give one IPv4 address, one IPv6 address, or one of each".into()));
        }
        if let Some(own) = underlay.addresses.iter().find(|own| !is_unicast(own.address)) {
            return Err(says("addresses", format!("{} is no address of a host", own.address)));
        }
        let near = |gateway: &IpAddr| underlay.addresses.iter().any(|own| own.prefix.contains(*gateway));
        if let Some(far) = underlay.gateways.iter().find(|gateway| !near(gateway)) {
            return Err(says("gateways", format!("gateway {far} lies in none of the prefixes of `addresses`")));
        }
        if underlay.mtu < 1280 {
            return Err(says("mtu", format!("the smallest packet size is 1280 bytes, and {} is less", underlay.mtu)));
        }
        Ok(())
    }

    fn check_ports<'a>(
        &'a self,
        networks: &HashMap<&str, usize>,
        groups: &HashMap<&str, usize>,
        taken: &mut HashMap<&'a str, Taken>,
    ) -> Result<(), Problem> {
        let mut seen = HashSet::new();
        let mut coprocessors = 0;
        for (index, port) in self.ports.iter().enumerate() {
            let at = At("port", index);
            check_name(at, &port.name)?;
            let network = self.network(at, "network", &port.network, networks)?;
            if port.tagged && network.vlan.is_none() {
                let reason = format!("network `{}` has no `vlan` that frames could be tagged with", network.name);
                return Err(at.says("tagged", reason));
            }
            if self.underlay.as_ref().is_some_and(|underlay| underlay.port == port.name) {
                return Err(at.says("name", format!("port `{}` is the underlay's", port.name)));
            }
            let place = port.tagged.then_some(port.network.as_str());
            if !seen.insert((&port.name, place)) {
                return Err(at.says("name", format!("port `{}` is attached so already", port.name)));
            }
            self.check_groups(at, "groups", &port.groups, groups)?;
            if let Some(coprocessor) = &port.coprocessor {
                coprocessors += 1;
                self.check_coprocessor(at, coprocessor, groups, coprocessors)?;
            }
            positive(at, "packets-per-second", port.packets_per_second)?;
            positive(at, "broadcast-packets-per-second", port.broadcast_packets_per_second)?;
            for (key, empty) in [("macs", port.macs.is_empty()), ("addresses", port.addresses.is_empty())] {
                if port.anti_spoofing && empty {
                    let reason = format!("give the port's `{key}`, or say `anti-spoofing = false`");
                    return Err(at.says(key, reason));
                }
            }
            let taken = taken.entry(port.network.as_str()).or_default();
            let who = format!("port `{}`", port.name);
            for (number, mac) in port.macs.iter().enumerate() {
                if let Some(other) = taken.macs.insert(*mac, who.clone()) {
                    return Err(at.says_of("macs", number, format!("{other} has {mac} already")));
                }
            }
            for (number, prefix) in port.addresses.iter().enumerate() {
                take_address(taken, *prefix, &who).map_err(|reason| at.says_of("addresses", number, reason))?;
            }
        }
        Ok(())
    }

    fn check_coprocessor(
        &self,
        at: At,
        coprocessor: &CoprocessorConfig,
        groups: &HashMap<&str, usize>,
        count: usize,
    ) -> Result<(), Problem> {
        let within = |mut problem: Problem| {
            problem.place.insert(2, Part::Key("coprocessor"));
            problem
        };
        if count > MOST_COPROCESSORS {
            return Err(at.says("coprocessor", format!("{MOST_COPROCESSORS} ports at most have a coprocessor")));
        }
        self.check_groups(at, "acl", &coprocessor.acl, groups).map_err(within)?;
        let Some(shape) = &coprocessor.shape else {
            if coprocessor.acl.is_empty() {
                return Err(at.says("coprocessor", "it has nothing to do: give it `shape` or `acl`"));
            }
            return Ok(());
        };
        if shape.burst_bytes == Some(0) || shape.queue_bytes == Some(0) || shape.bits_per_second.0 < 8 {
            return Err(within(
                at.says("shape", "a rate is at least 8 bits a second, a burst and a queue at least 1 byte"),
            ));
        }
        Ok(())
    }

    fn check_groups(
        &self,
        at: At,
        key: &'static str,
        wanted: &[String],
        groups: &HashMap<&str, usize>,
    ) -> Result<(), Problem> {
        let mut rules = 0;
        for (number, group) in wanted.iter().enumerate() {
            let Some(found) = groups.get(group.as_str()) else {
                return Err(at.says_of(key, number, unknown("group", group, groups)));
            };
            rules += self.groups.get(*found).map_or(0, |group| group.rules.len());
            if wanted.iter().take(number).any(|earlier| earlier == group) {
                return Err(at.says_of(key, number, format!("group `{group}` stands twice")));
            }
        }
        if rules > MOST_RULES {
            return Err(at.says(key, format!("they have {rules} rules together, and a port takes {MOST_RULES}")));
        }
        Ok(())
    }

    fn check_route(&self, at: At, route: &RouteConfig, networks: &HashMap<&str, usize>) -> Result<(), Problem> {
        let from = self.network(at, "network", &route.network, networks)?;
        let to = self.network(at, "to", &route.to, networks)?;
        for (key, network) in [("network", from), ("to", to)] {
            let own = |router: &super::model::Router| router.address.is_ipv4() == route.prefix.address.is_ipv4();
            if !network.routers.iter().any(own) {
                let family = if route.prefix.address.is_ipv4() { "IPv4" } else { "IPv6" };
                let reason = format!("network `{}` has no {family} address among its `routers`", network.name);
                return Err(at.says(key, reason));
            }
        }
        let Some(via) = route.via else { return Ok(()) };
        if via.is_ipv4() != route.prefix.address.is_ipv4() {
            return Err(at.says("via", format!("{via} and {} are not of one family", route.prefix)));
        }
        if !to.routers.iter().any(|router| router.prefix.contains(via) && router.address != via) {
            let reason = format!("{via} is in no prefix of the `routers` of network `{}`", to.name);
            return Err(at.says("via", reason));
        }
        Ok(())
    }

    fn check_tunnel<'a>(
        &'a self,
        at: At,
        tunnel: &'a TunnelConfig,
        networks: &HashMap<&str, usize>,
        taken: &mut HashMap<&'a str, Taken>,
    ) -> Result<(), Problem> {
        let network = self.network(at, "network", &tunnel.network, networks)?;
        if network.vni.is_none() {
            return Err(at.says("network", format!("network `{}` has no `vni`", network.name)));
        }
        let Some(underlay) = &self.underlay else {
            return Err(at.says("remote", "there is no `[underlay]` that tunnels could go through"));
        };
        let Some(own) = underlay.addresses.iter().find(|own| own.address.is_ipv4() == tunnel.remote.is_ipv4()) else {
            return Err(at.says("remote", format!("the underlay has no address of the family of {}", tunnel.remote)));
        };
        if own.address == tunnel.remote || !is_unicast(tunnel.remote) {
            return Err(at.says("remote", format!("{} is not another host", tunnel.remote)));
        }
        let routed = |gateway: &IpAddr| gateway.is_ipv4() == tunnel.remote.is_ipv4();
        if !own.prefix.contains(tunnel.remote) && !underlay.gateways.iter().any(routed) {
            let reason = format!("{} is not in {}, and the underlay has no gateway to it", tunnel.remote, own.prefix);
            return Err(at.says("remote", reason));
        }
        let taken = taken.entry(tunnel.network.as_str()).or_default();
        let who = format!("the tunnel to {}", tunnel.remote);
        for (number, station) in tunnel.stations.iter().enumerate() {
            if let Some(other) = taken.macs.insert(station.mac, who.clone()) {
                return Err(at.says_of("stations", number, format!("{other} has {} already", station.mac)));
            }
            for prefix in &station.addresses {
                take_address(taken, *prefix, &who).map_err(|reason| at.says_of("stations", number, reason))?;
            }
        }
        Ok(())
    }

    fn network(
        &self,
        at: At,
        key: &'static str,
        name: &str,
        networks: &HashMap<&str, usize>,
    ) -> Result<&NetworkConfig, Problem> {
        let found = networks.get(name).and_then(|index| self.networks.get(*index));
        found.ok_or_else(|| at.says(key, unknown("network", name, networks)))
    }
}

fn check_routers(at: At, network: &NetworkConfig) -> Result<(), Problem> {
    for (number, router) in network.routers.iter().enumerate() {
        if !is_unicast(router.address) {
            return Err(at.says_of("routers", number, format!("{} is no address of a host", router.address)));
        }
        let overlaps = |other: &super::model::Router| {
            other.prefix.contains(router.prefix.address) || router.prefix.contains(other.prefix.address)
        };
        if let Some(other) = network.routers.iter().take(number).find(|other| overlaps(other)) {
            return Err(at.says_of("routers", number, format!("{router} overlaps {other}")));
        }
    }
    Ok(())
}

/// The key and the reason when a rule contradicts itself.
fn check_rule(rule: &RuleConfig) -> Result<(), (&'static str, String)> {
    let of_ports = rule.protocol.is_some_and(Protocol::has_ports);
    for (key, ports) in [("ports", rule.ports), ("source-ports", rule.source_ports)] {
        if ports.is_some() && !of_ports {
            return Err((key, format!("`{key}` needs `protocol` to be tcp, udp or sctp")));
        }
    }
    if rule.icmp_type.is_some() && !rule.protocol.is_some_and(Protocol::has_types) {
        return Err(("icmp-type", "`icmp-type` needs `protocol` to be icmp or icmpv6".into()));
    }
    match (rule.protocol, rule.remote) {
        (Some(Protocol::ICMP), Some(remote)) if remote.address.is_ipv6() => {
            Err(("remote", format!("{remote} is IPv6, whose protocol is icmpv6")))
        }
        (Some(Protocol::ICMPV6), Some(remote)) if remote.address.is_ipv4() => {
            Err(("remote", format!("{remote} is IPv4, whose protocol is icmp")))
        }
        _ => Ok(()),
    }
}

fn take_address(taken: &mut Taken, prefix: Prefix, who: &str) -> Result<(), String> {
    if !is_unicast(prefix.address) && prefix.length > 0 {
        return Err(format!("{prefix} is no address of a host"));
    }
    let Some(address) = prefix.single() else { return Ok(()) };
    match taken.addresses.insert(address, who.to_owned()) {
        Some(other) => Err(format!("{other} has {address} already")),
        None => Ok(()),
    }
}

/// Whether one host can have the address.
fn is_unicast(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_multicast() && !address.is_unspecified() && !broadcast
}

fn names<'a>(kind: &'static str, names: impl Iterator<Item = &'a str>) -> Result<HashMap<&'a str, usize>, Problem> {
    let mut found = HashMap::new();
    for (index, name) in names.enumerate() {
        check_name(At(kind, index), name)?;
        if found.insert(name, index).is_some() {
            return Err(At(kind, index).says("name", format!("there is a {kind} `{name}` already")));
        }
    }
    Ok(found)
}

fn check_name(at: At, name: &str) -> Result<(), Problem> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte);
    if (1..=63).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(at.says("name", "a name has 1 to 63 letters, digits and any of `._:/-`"))
}

fn known(at: At, key: &'static str, kind: &str, name: &str, names: &HashMap<&str, usize>) -> Result<(), Problem> {
    if names.contains_key(name) { Ok(()) } else { Err(at.says(key, unknown(kind, name, names))) }
}

fn unknown(kind: &str, name: &str, names: &HashMap<&str, usize>) -> String {
    let mut others: Vec<&str> = names.keys().copied().collect();
    others.sort_unstable();
    others.truncate(8);
    match others.as_slice() {
        [] => format!("there is no {kind} `{name}`"),
        some => format!("there is no {kind} `{name}` (there is {})", some.join(", ")),
    }
}

fn positive(at: At, key: &'static str, number: Option<u64>) -> Result<(), Problem> {
    if number == Some(0) { Err(at.says(key, "a limit is at least 1; leave it out for none")) } else { Ok(()) }
}
