//! The parts of a configuration, as they are written.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{BitRate, Mac, NotValue, PortRange, Prefix, Protocol};

/// All that the switch shall be.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// The network between hosts; needed when there are tunnels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underlay: Option<UnderlayConfig>,
    /// Shares of the switch, each with limits.
    #[serde(rename = "slice", skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<SliceConfig>,
    /// The tenants' networks.
    #[serde(rename = "network", skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkConfig>,
    /// Named lists of rules.
    #[serde(rename = "group", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupConfig>,
    /// Which ports of the forwarder lie in which networks.
    #[serde(rename = "port", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
    /// Static routes between networks.
    #[serde(rename = "route", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteConfig>,
    /// Tunnels to other hosts.
    #[serde(rename = "tunnel", skip_serializing_if = "Vec::is_empty")]
    pub tunnels: Vec<TunnelConfig>,
    /// Ports that get copies of what others send and receive.
    #[serde(rename = "mirror", skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<MirrorConfig>,
}

impl Config {
    /// Whether it says nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The networks that the port `name` of the forwarder lies in, `underlay` for the one to other hosts, and `mirror` for one that gets copies.
    #[must_use]
    pub fn networks_of(&self, name: &str) -> Vec<String> {
        let ports = self.ports.iter().filter(|port| port.name == name).map(|port| port.network.clone());
        let underlay = self.underlay.iter().filter(|underlay| underlay.port == name).map(|_| "underlay".to_owned());
        let mirror = self.mirrors.iter().any(|mirror| mirror.to == name).then(|| "mirror".to_owned());
        ports.chain(underlay).chain(mirror).collect()
    }

    /// Names of the ports of the forwarder that it says something about, some of them several times.
    pub fn port_names(&self) -> impl Iterator<Item = &str> {
        let ports = self.ports.iter().map(|port| port.name.as_str());
        let underlay = self.underlay.iter().map(|underlay| underlay.port.as_str());
        ports.chain(underlay).chain(self.mirrors.iter().map(|mirror| mirror.to.as_str()))
    }

    /// Whether it says something about the port `name` of the forwarder.
    #[must_use]
    pub fn names_port(&self, name: &str) -> bool {
        self.port_names().any(|port| port == name)
    }
}

/// This host's place in the network between hosts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct UnderlayConfig {
    /// The port that leads to the other hosts.
    pub port: String,
    /// Addresses of this host there, each with the length of its prefix: at most one of IPv4 and one of IPv6.
    pub addresses: Vec<Router>,
    /// Routers towards hosts beyond the prefixes.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Largest IP packet there, in bytes; 1500 when not given.
    #[serde(default = "underlay_mtu")]
    pub mtu: u16,
}

const fn underlay_mtu() -> u16 {
    1500
}

/// A share of the switch: what the networks in it may use together. Without a number there is no limit but the switch's own.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SliceConfig {
    /// Its name.
    pub name: String,
    /// Most entries in the flow table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<u32>,
    /// Most connections that are tracked at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Most packets a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets_per_second: Option<u64>,
    /// Most bits a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_second: Option<BitRate>,
    /// Its part of engine time beside that of other slices; 1 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u16>,
}

/// One tenant's network: a broadcast domain of its own, whatever addresses it uses.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkConfig {
    /// Its name.
    pub name: String,
    /// Its identifier in tunnels, 1 to 16777215.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// Its VLAN on ports where it is tagged, 1 to 4094.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The slice that it uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// Addresses of the virtual router in it, each with the length of its prefix, such as `10.0.0.1/24`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routers: Vec<Router>,
    /// Ethernet address of the virtual router; one for all networks when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_mac: Option<Mac>,
    /// Most broadcast, multicast and flooded packets a second, all ports together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast_packets_per_second: Option<u64>,
    /// Most Ethernet addresses that are learned, 4096 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned_macs: Option<u32>,
    /// Seconds after which an address that was not seen is forgotten, 300 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ageing_seconds: Option<u32>,
}

/// An address with the length of its prefix, such as `10.0.0.1/24`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Router {
    /// The address.
    pub address: IpAddr,
    /// The addresses that are reached directly.
    pub prefix: Prefix,
}

/// An ordered list of rules; a port's groups follow one another. What no rule of them decides is dropped.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GroupConfig {
    /// Its name.
    pub name: String,
    /// The rules; the first that fits decides.
    #[serde(default)]
    pub rules: Vec<RuleConfig>,
}

/// One rule. What is not given fits everything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RuleConfig {
    /// Which packets it is about, seen from the port.
    pub direction: Direction,
    /// What becomes of them.
    pub action: RuleAction,
    /// Their protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The addresses of the other side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Prefix>,
    /// Their destination ports; the protocol has to be one that has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRange>,
    /// Their source ports; the protocol has to be one that has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ports: Option<PortRange>,
    /// Their ICMP type; the protocol has to be `icmp` or `icmpv6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
}

/// Which way a packet goes, seen from the port that a rule is applied to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// To the port.
    In,
    /// From the port.
    Out,
}

/// What a rule does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RuleAction {
    /// The packet passes, and the answers to it do too.
    Allow,
    /// The packet is dropped.
    Deny,
}

/// A port of the forwarder that lies in a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PortConfig {
    /// The port's name.
    pub name: String,
    /// The network.
    pub network: String,
    /// Its frames carry the network's VLAN tag. A port may lie in one network untagged and in any number tagged.
    #[serde(default)]
    pub tagged: bool,
    /// Ethernet addresses of what is attached there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<Mac>,
    /// Its IP addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Prefix>,
    /// Drop what it sends from addresses that are not its own. Without, its Ethernet addresses are learned.
    #[serde(default = "anti_spoofing")]
    pub anti_spoofing: bool,
    /// Groups of rules, in order. Without a group everything passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Most packets that it may send a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets_per_second: Option<u64>,
    /// Most bits that it may send a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_second: Option<BitRate>,
    /// Most broadcast, multicast and flooded packets that it may send a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast_packets_per_second: Option<u64>,
    /// Most Ethernet addresses that are learned there, 64 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned_macs: Option<u32>,
    /// A thread of its own that does more to its packets than engines do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coprocessor: Option<CoprocessorConfig>,
}

/// What a port's coprocessor does, in this order.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CoprocessorConfig {
    /// Groups of rules that each single packet is asked about, in either direction, whatever its flow says. Answers need rules of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acl: Vec<String>,
    /// How fast what it sends may leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<ShapeConfig>,
}

/// A rate that packets are held to by letting them wait.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ShapeConfig {
    /// Bits a second.
    pub bits_per_second: BitRate,
    /// Bytes that may leave at once after a pause; what comes in 10 ms, and 65,536 at least, when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_bytes: Option<u32>,
    /// Bytes that may wait; what leaves in 100 ms, 262,144 at least and 1,048,576 at most, when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_bytes: Option<u32>,
}

const fn anti_spoofing() -> bool {
    true
}

/// A static route of a network's virtual router.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RouteConfig {
    /// The network that packets come from.
    pub network: String,
    /// Where they go.
    pub prefix: Prefix,
    /// The network that they leave into; it may be the same one.
    pub to: String,
    /// The next router there; without, the destination itself is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
}

/// How frames are wrapped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TunnelKind {
    /// RFC 7348.
    #[default]
    Vxlan,
    /// RFC 8926.
    Geneve,
}

impl From<TunnelKind> for crate::headers::TunnelKind {
    fn from(kind: TunnelKind) -> Self {
        match kind {
            TunnelKind::Vxlan => Self::Vxlan,
            TunnelKind::Geneve => Self::Geneve,
        }
    }
}

/// Another host that has a part of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TunnelConfig {
    /// The network; it needs a `vni`.
    pub network: String,
    /// The other host's address in the underlay.
    pub remote: IpAddr,
    /// How frames are wrapped.
    #[serde(default)]
    pub kind: TunnelKind,
    /// Learn the Ethernet addresses of frames that come from there, and send it what is for everybody.
    #[serde(default = "learn")]
    pub learn: bool,
    /// What is known to be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stations: Vec<Station>,
}

const fn learn() -> bool {
    true
}

/// What is copied to a port beside everything else, for whoever looks on: packets as they came, before anything in them is changed. What is
/// dropped is not copied, nor what the switch answers itself.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MirrorConfig {
    /// Its name.
    pub name: String,
    /// The port whose packets are copied; or say `network`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The network of which all ports' and tunnels' packets are copied; or say `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// What these send (`out`), what they get (`in`), or both; a packet is copied once in any case.
    #[serde(default)]
    pub direction: MirrorDirection,
    /// The port that gets the copies. It belongs to no network.
    pub to: String,
}

/// Which way packets go that are copied, seen from the port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MirrorDirection {
    /// To the port.
    In,
    /// From the port.
    Out,
    /// Either way.
    #[default]
    Both,
}

/// A station behind a tunnel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Station {
    /// Its Ethernet address.
    pub mac: Mac,
    /// The addresses that are reached by it: its own, or the prefixes that it routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Prefix>,
}

impl fmt::Display for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix.length)
    }
}

impl FromStr for Router {
    type Err = NotValue;

    fn from_str(text: &str) -> Result<Self, NotValue> {
        super::values::address_in_prefix(text).map(|(address, prefix)| Self { address, prefix })
    }
}

super::values::written_as_text!(
    Router,
    "an address with the length of its prefix, such as 10.0.0.1/24",
    "^[0-9a-fA-F.:]+/[0-9]{1,3}$"
);
