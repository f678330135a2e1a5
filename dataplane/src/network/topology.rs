//! A configuration made ready to be asked: numbers for names, rules compiled, addresses in tables.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::config::{
    BitRate, Config, CoprocessorConfig, Direction, Mac, MirrorDirection, NetworkConfig, PortConfig, Prefix, Problem,
    Router, RuleConfig, ShapeConfig, TunnelKind,
};
use super::learning::{Bounds, Station};
use super::numbers::{Numbers, TooMany};
use super::prefixes::Prefixes;
use super::rules::{Answer, Question, RuleSet};
use crate::coprocessor::{Shape, Work};
use crate::switch::MOST_COPROCESSORS;

/// Most meters; number 0 means none.
pub const MOST_METERS: u16 = 4096;
/// Ports that packets can be mirrored to have numbers below this. It is more than there may be at a time, since numbers are not used again at once.
const MOST_MIRRORS: u16 = 16;
/// Most Ethernet addresses learned in a network when nothing is said.
const LEARNED_IN_NETWORK: u32 = 4096;
/// Most Ethernet addresses learned at a port when nothing is said.
const LEARNED_AT_PORT: u32 = 64;
/// Connections of a slice when nothing is said.
const CONNECTIONS: u32 = 262_144;
/// The virtual router's Ethernet address when nothing is said: locally administered, the same in each network.
pub const ROUTER_MAC: Mac = Mac([0x02, 0x6d, 0x69, 0x72, 0x00, 0x01]);

/// Where frames of a network come from and go to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// An attachment, by number: a port, untagged or with one VLAN.
    Port(u16),
    /// A tunnel, by number.
    Tunnel(u16),
}

/// A port in a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// What was written.
    pub config: PortConfig,
    /// Number of its network.
    pub network: u16,
    /// The VLAN that its frames are tagged with.
    pub vlan: Option<u16>,
    /// Its rules for both directions, out and in; `None` when everything passes.
    pub rules: Option<Arc<[RuleSet; 2]>>,
    /// Meter of what it sends, and of what it sends to many.
    pub meters: [u16; 2],
    /// Mirrors of what it sends, and of what it gets.
    pub mirrors: Mirrors,
    /// Number of its coprocessor, 0 for none.
    pub coprocessor: u16,
}

/// A port's coprocessor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coprocessing {
    /// The port.
    pub port: String,
    /// What it does.
    pub work: Work,
}

/// Mirrors of what comes from a place, and of what goes there, a bit for each number of a port that gets the copies.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Mirrors {
    /// Of what comes from it.
    pub out: u16,
    /// Of what goes to it.
    pub incoming: u16,
}

impl Attachment {
    /// What its rules say about a packet that it sends.
    #[must_use]
    pub fn may_send(&self, question: &Question) -> Answer {
        self.rules.as_deref().map_or(Answer::FREE, |[out, _]| out.ask(question))
    }

    /// What its rules say about a packet that it would get.
    #[must_use]
    pub fn may_receive(&self, question: &Question) -> Answer {
        self.rules.as_deref().map_or(Answer::FREE, |[_, incoming]| incoming.ask(question))
    }

    /// Whether an IP address is one that it may send from.
    #[must_use]
    pub fn owns(&self, address: IpAddr) -> bool {
        let link_local = |address: std::net::Ipv6Addr| self.config.macs.iter().any(|mac| address == interface(*mac));
        self.config.addresses.iter().any(|prefix| prefix.contains(address))
            || matches!(address, IpAddr::V6(address) if link_local(address))
    }
}

/// The link-local address that is made from an Ethernet address (RFC 4291, appendix A).
fn interface(mac: Mac) -> std::net::Ipv6Addr {
    let Mac([a, b, c, d, e, f]) = mac;
    std::net::Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// A tunnel to another host, for one network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tunnel {
    /// Number of the network.
    pub network: u16,
    /// The other host.
    pub remote: IpAddr,
    /// This host's address in the underlay.
    pub local: IpAddr,
    /// How frames are wrapped.
    pub kind: TunnelKind,
    /// The network's identifier.
    pub vni: u32,
    /// Addresses behind it are learned, and it gets what is for everybody.
    pub learn: bool,
    /// Mirrors of what comes out of it, and of what goes into it.
    pub mirrors: Mirrors,
}

/// A network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Number of its slice.
    pub owner: u16,
    /// Ethernet address of its router.
    pub router_mac: Mac,
    /// Addresses of its router.
    pub routers: Vec<Router>,
    /// Where stations are that the configuration names.
    pub macs: HashMap<Mac, Place>,
    /// Who has which addresses, by the configuration.
    pub addresses: Prefixes<Station>,
    /// Where the router sends packets.
    pub routes: Prefixes<Hop>,
    /// Numbers of the networks that its routes lead into.
    pub reaches: BTreeSet<u16>,
    /// Everybody who gets what is for everybody.
    pub members: Vec<Place>,
    /// Those of them where unknown stations may be.
    pub learners: Vec<Place>,
    /// Bounds of what is learned.
    pub learned: u32,
    /// How long it is remembered.
    pub ageing: Duration,
    /// Meter of packets for many.
    pub broadcast_meter: u16,
}

impl Network {
    /// Whether its router has the address.
    #[must_use]
    pub fn is_router(&self, address: IpAddr) -> bool {
        self.routers.iter().any(|router| router.address == address)
    }
}

/// Where a route leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    /// Number of the network.
    pub network: u16,
    /// The next router; `None` when the destination itself is there.
    pub via: Option<IpAddr>,
}

/// A share of the switch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slice {
    /// Its name.
    pub name: String,
    /// Most flows; `None` is no limit.
    pub flows: Option<u32>,
    /// Most connections.
    pub connections: u32,
    /// Meter of all its packets.
    pub meter: u16,
    /// Its part of engine time.
    pub share: u16,
}

/// What a meter lets through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Packets a second; `None` is no limit.
    pub packets: Option<u64>,
    /// Bits a second; `None` is no limit.
    pub bits: Option<u64>,
    /// The meter that has to let the packet through, too; 0 for none.
    pub parent: u16,
}

/// A configuration made ready.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Topology {
    /// Networks by number.
    pub networks: BTreeMap<u16, Network>,
    /// Ports in networks by number.
    pub attachments: BTreeMap<u16, Attachment>,
    /// Tunnels by number.
    pub tunnels: BTreeMap<u16, Tunnel>,
    /// Slices by number; 0 is what no slice was named for.
    pub slices: BTreeMap<u16, Slice>,
    /// Meters by number.
    pub meters: BTreeMap<u16, Limit>,
    /// Coprocessors by number.
    pub coprocessors: BTreeMap<u16, Coprocessing>,
    /// Names of the ports that get copies, by number.
    pub mirrors: BTreeMap<u16, String>,
}

/// All numbers that were given.
#[derive(Clone, Default, Debug)]
pub(super) struct AllNumbers {
    networks: Numbers,
    attachments: Numbers,
    tunnels: Numbers,
    slices: Numbers,
    meters: Numbers,
    mirrors: Numbers,
    coprocessors: Numbers,
}

/// The meters that a configuration has, with what they are called after.
fn limits(config: &Config) -> Vec<(String, Option<u64>, Option<BitRate>)> {
    let mut limits = Vec::new();
    for slice in &config.slices {
        limits.push((format!("slice {}", slice.name), slice.packets_per_second, slice.bits_per_second));
    }
    for network in &config.networks {
        limits.push((format!("network {}", network.name), network.broadcast_packets_per_second, None));
    }
    for port in &config.ports {
        let name = attachment_name(port);
        limits.push((format!("port {name}"), port.packets_per_second, port.bits_per_second));
        limits.push((format!("broadcast {name}"), port.broadcast_packets_per_second, None));
    }
    limits.retain(|(_, packets, bits)| packets.is_some() || bits.is_some());
    limits
}

/// An attachment's name among attachments: that of its port, with the network when it is tagged.
pub(super) fn attachment_name(port: &PortConfig) -> String {
    if port.tagged { format!("{} {}", port.name, port.network) } else { port.name.clone() }
}

fn tunnel_name(network: &str, remote: IpAddr) -> String {
    format!("{network} {remote}")
}

impl AllNumbers {
    fn renewed(&self, config: &Config) -> Result<Self, (&'static str, TooMany)> {
        let of = |kind, result: Result<Numbers, TooMany>| result.map_err(|error| (kind, error));
        let networks = config.networks.iter().map(|network| network.name.clone());
        let attachments = config.ports.iter().map(attachment_name);
        let tunnels = config.tunnels.iter().map(|tunnel| tunnel_name(&tunnel.network, tunnel.remote));
        let slices = config.slices.iter().map(|slice| slice.name.clone());
        let meters = limits(config).into_iter().map(|(name, ..)| name);
        let mirrors = config.mirrors.iter().map(|mirror| mirror.to.clone());
        let coprocessors = config.ports.iter().filter(|port| port.coprocessor.is_some()).map(attachment_name);
        Ok(Self {
            networks: of("network", self.networks.renewed(networks, 0, u16::MAX))?,
            attachments: of("port", self.attachments.renewed(attachments, 0, u16::MAX))?,
            tunnels: of("tunnel", self.tunnels.renewed(tunnels, 0, u16::MAX))?,
            slices: of("slice", self.slices.renewed(slices, 1, u16::MAX))?,
            meters: of("port", self.meters.renewed(meters, 1, MOST_METERS))?,
            coprocessors: of("port", self.coprocessors.renewed(coprocessors, 1, MOST_COPROCESSORS + 1))?,
            mirrors: of("mirror", self.mirrors.renewed(mirrors, 0, MOST_MIRRORS))?,
        })
    }
}

impl AllNumbers {
    /// The mirrors of a port, or of tunnels, in a network.
    fn mirrors_of(&self, config: &Config, port: Option<&str>, network: &str) -> Mirrors {
        let mut mirrors = Mirrors::default();
        for mirror in &config.mirrors {
            let of_port = mirror.port.as_deref().is_some_and(|name| Some(name) == port);
            if of_port || mirror.network.as_deref() == Some(network) {
                let bit = 1_u16.checked_shl(self.mirrors.of(&mirror.to).into()).unwrap_or(0);
                mirrors.out |= if mirror.direction == MirrorDirection::In { 0 } else { bit };
                mirrors.incoming |= if mirror.direction == MirrorDirection::Out { 0 } else { bit };
            }
        }
        mirrors
    }
}

impl Topology {
    /// Makes a checked configuration ready, with the numbers that its names had in `before`.
    ///
    /// # Errors
    ///
    /// When there are more meters than the switch has.
    pub(super) fn build(config: &Config, before: &AllNumbers) -> Result<(Self, AllNumbers), Problem> {
        let numbers = before.renewed(config).map_err(|(kind, TooMany)| {
            Problem::of_all(
                kind,
                format!("there are more of these, or of their limits, than the switch has ({MOST_METERS} meters)"),
            )
        })?;
        let mut topology = Self::default();
        topology.add_slices(config, &numbers);
        for network in &config.networks {
            topology.networks.insert(numbers.networks.of(&network.name), new_network(network, &numbers));
        }
        topology.add_meters(config, &numbers);
        topology.mirrors = config.mirrors.iter().map(|it| (numbers.mirrors.of(&it.to), it.to.clone())).collect();
        topology.add_ports(config, &numbers);
        topology.add_tunnels(config, &numbers);
        for route in &config.routes {
            let hop = Hop { network: numbers.networks.of(&route.to), via: route.via };
            if let Some(network) = topology.networks.get_mut(&numbers.networks.of(&route.network)) {
                network.routes.add(route.prefix, hop);
                network.reaches.insert(hop.network);
            }
        }
        // What is next to the router needs no route, but a route to the same prefix comes first.
        for (number, network) in &mut topology.networks {
            for router in network.routers.clone() {
                network.routes.add(router.prefix, Hop { network: *number, via: None });
            }
        }
        Ok((topology, numbers))
    }

    fn add_slices(&mut self, config: &Config, numbers: &AllNumbers) {
        let common = Slice { name: "common".into(), flows: None, connections: CONNECTIONS, meter: 0, share: 1 };
        self.slices.insert(0, common);
        for slice in &config.slices {
            let made = Slice {
                name: slice.name.clone(),
                flows: slice.flows,
                connections: slice.connections.unwrap_or(CONNECTIONS),
                meter: numbers.meters.of(&format!("slice {}", slice.name)),
                share: slice.share.unwrap_or(1),
            };
            self.slices.insert(numbers.slices.of(&slice.name), made);
        }
    }

    /// A packet for one passes its port's meter and its slice's; one for many passes its port's meter for these, its network's, and its slice's.
    fn add_meters(&mut self, config: &Config, numbers: &AllNumbers) {
        let mut parents = HashMap::new();
        for (number, network) in &self.networks {
            let slice = self.slices.get(&network.owner).map_or(0, |slice| slice.meter);
            parents.insert(format!("network {}", network.name), slice);
            for port in config.ports.iter().filter(|port| numbers.networks.of(&port.network) == *number) {
                let name = attachment_name(port);
                let many = if network.broadcast_meter == 0 { slice } else { network.broadcast_meter };
                parents.insert(format!("port {name}"), slice);
                parents.insert(format!("broadcast {name}"), many);
            }
        }
        for (name, packets, bits) in limits(config) {
            let parent = parents.get(&name).copied().unwrap_or(0);
            self.meters.insert(numbers.meters.of(&name), Limit { packets, bits: bits.map(|rate| rate.0), parent });
        }
    }

    fn add_ports(&mut self, config: &Config, numbers: &AllNumbers) {
        let groups: HashMap<&str, &[RuleConfig]> =
            config.groups.iter().map(|group| (group.name.as_str(), group.rules.as_slice())).collect();
        let mut compiled: HashMap<&[String], Arc<[RuleSet; 2]>> = HashMap::new();
        for port in &config.ports {
            let number = numbers.networks.of(&port.network);
            let Some(network) = self.networks.get_mut(&number) else { continue };
            let place = numbers.attachments.of(&attachment_name(port));
            let rules = (!port.groups.is_empty()).then(|| {
                let made = compiled.entry(port.groups.as_slice());
                Arc::clone(made.or_insert_with(|| compiled_from(&port.groups, &groups)))
            });
            for mac in &port.macs {
                network.macs.insert(*mac, Place::Port(place));
            }
            if let Some(mac) = port.macs.first() {
                add_addresses(network, &port.addresses, Station { place: Place::Port(place), mac: *mac });
            }
            network.members.push(Place::Port(place));
            if !port.anti_spoofing {
                network.learners.push(Place::Port(place));
            }
            // A limit that a port does not have is the next one's.
            let slice = self.slices.get(&network.owner).map_or(0, |slice| slice.meter);
            let many = if network.broadcast_meter == 0 { slice } else { network.broadcast_meter };
            let name = attachment_name(port);
            let or = |name: String, other| if numbers.meters.has(&name) { numbers.meters.of(&name) } else { other };
            let meters = [or(format!("port {name}"), slice), or(format!("broadcast {name}"), many)];
            let vlan = config.networks.iter().find(|network| network.name == port.network);
            let vlan = vlan.and_then(|network| network.vlan).filter(|_| port.tagged);
            let mirrors = numbers.mirrors_of(config, Some(&port.name), &port.network);
            let coprocessor = if port.coprocessor.is_some() { numbers.coprocessors.of(&name) } else { 0 };
            if let Some(CoprocessorConfig { acl, shape }) = &port.coprocessor {
                let work = Work {
                    shape: shape.as_ref().map(shaped),
                    rules: (!acl.is_empty()).then(|| compiled_from(acl, &groups)),
                };
                self.coprocessors.insert(coprocessor, Coprocessing { port: name, work });
            }
            let attachment =
                Attachment { config: port.clone(), network: number, vlan, rules, meters, mirrors, coprocessor };
            self.attachments.insert(place, attachment);
        }
    }

    fn add_tunnels(&mut self, config: &Config, numbers: &AllNumbers) {
        for tunnel in &config.tunnels {
            let number = numbers.networks.of(&tunnel.network);
            let vni = config.networks.iter().find(|network| network.name == tunnel.network).and_then(|it| it.vni);
            let addresses = config.underlay.as_ref().map_or(&[][..], |underlay| &underlay.addresses);
            let local = addresses.iter().find(|own| own.address.is_ipv4() == tunnel.remote.is_ipv4());
            let (Some(network), Some(vni), Some(local)) = (self.networks.get_mut(&number), vni, local) else {
                continue;
            };
            let place = numbers.tunnels.of(&tunnel_name(&tunnel.network, tunnel.remote));
            for station in &tunnel.stations {
                network.macs.insert(station.mac, Place::Tunnel(place));
                let place = Place::Tunnel(place);
                add_addresses(network, &station.addresses, Station { place, mac: station.mac });
            }
            if tunnel.learn {
                network.members.push(Place::Tunnel(place));
                network.learners.push(Place::Tunnel(place));
            }
            let (remote, local, kind, learn) = (tunnel.remote, local.address, tunnel.kind, tunnel.learn);
            let mirrors = numbers.mirrors_of(config, None, &tunnel.network);
            self.tunnels.insert(place, Tunnel { network: number, remote, local, kind, vni, learn, mirrors });
        }
    }

    /// The attachment at a place.
    #[must_use]
    pub fn attachment(&self, place: Place) -> Option<&Attachment> {
        match place {
            Place::Port(number) => self.attachments.get(&number),
            Place::Tunnel(_) => None,
        }
    }

    /// Whether the place exists, in this network.
    #[must_use]
    pub fn has(&self, network: u16, place: Place) -> bool {
        match place {
            Place::Port(number) => self.attachments.get(&number).is_some_and(|it| it.network == network),
            Place::Tunnel(number) => self.tunnels.get(&number).is_some_and(|it| it.network == network),
        }
    }

    /// The mirrors of a place.
    #[must_use]
    pub fn mirrors_of(&self, place: Place) -> Mirrors {
        match place {
            Place::Port(number) => self.attachments.get(&number).map(|it| it.mirrors),
            Place::Tunnel(number) => self.tunnels.get(&number).map(|it| it.mirrors),
        }
        .unwrap_or_default()
    }

    /// How much may be learned at a place of a network.
    #[must_use]
    pub fn bounds(&self, network: &Network, place: Place) -> Bounds {
        let at_place = match self.attachment(place) {
            Some(attachment) => attachment.config.learned_macs.unwrap_or(LEARNED_AT_PORT),
            None => network.learned,
        };
        Bounds { place: at_place, network: network.learned }
    }
}

/// The rules of groups, for both directions, out and in.
fn compiled_from(names: &[String], groups: &HashMap<&str, &[RuleConfig]>) -> Arc<[RuleSet; 2]> {
    let lists = names.iter().filter_map(|group| groups.get(group.as_str()));
    let rules: Vec<&RuleConfig> = lists.flat_map(|rules| rules.iter()).collect();
    Arc::new([Direction::Out, Direction::In].map(|direction| RuleSet::compile(&rules, direction)))
}

fn shaped(config: &ShapeConfig) -> Shape {
    let bytes = config.bits_per_second.0 / 8;
    let or = |given: Option<u32>, usual: u64| given.map_or(usual, u64::from);
    Shape {
        bits_per_second: config.bits_per_second.0,
        burst: or(config.burst_bytes, (bytes / 100).max(1 << 16)),
        queue: or(config.queue_bytes, (bytes / 10).clamp(1 << 18, 1 << 20)),
    }
}

fn new_network(network: &NetworkConfig, numbers: &AllNumbers) -> Network {
    let slice = network.slice.as_deref().map_or(0, |slice| numbers.slices.of(slice));
    Network {
        name: network.name.clone(),
        owner: slice,
        router_mac: network.router_mac.unwrap_or(ROUTER_MAC),
        routers: network.routers.clone(),
        macs: HashMap::new(),
        addresses: Prefixes::default(),
        routes: Prefixes::default(),
        reaches: BTreeSet::new(),
        members: Vec::new(),
        learners: Vec::new(),
        learned: network.learned_macs.unwrap_or(LEARNED_IN_NETWORK),
        ageing: Duration::from_secs(network.ageing_seconds.unwrap_or(300).into()),
        broadcast_meter: numbers.meters.of(&format!("network {}", network.name)),
    }
}

fn add_addresses(network: &mut Network, addresses: &[Prefix], station: Station) {
    for prefix in addresses {
        network.addresses.add(*prefix, station);
    }
}
