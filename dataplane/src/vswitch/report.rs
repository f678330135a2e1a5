//! What the switch tells about itself: answers as they go over the API, with names in place of numbers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::network::config::{Mac, TunnelKind};

/// Which flows are wanted: those for which everything that is given is true.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
pub struct FlowFilter {
    /// Of this network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Of packets that come from this port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// From or to this IP address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Of this IP protocol, by number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// Which come first.
    pub order: FlowOrder,
}

/// Which flows come first.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlowOrder {
    /// Those with the lowest index in the table.
    #[default]
    Index,
    /// Those with most packets.
    Packets,
    /// Those with most bytes.
    Bytes,
}

/// Flows of the table.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct FlowList {
    /// Flows in the table.
    pub total: u32,
    /// Flows that the filter fits.
    pub matched: u32,
    /// As many of these as were asked for.
    pub flows: Vec<FlowReport>,
}

/// One flow.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct FlowReport {
    /// Its index in the table.
    pub index: u32,
    /// The network that its packets are in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network: Option<String>,
    /// The port that they come from; none when they come out of tunnels.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<String>,
    /// Source Ethernet address, such as `52:54:00:00:00:01`.
    pub source_mac: String,
    /// Destination Ethernet address, which may be that of a group.
    pub destination_mac: String,
    /// VLAN identifier of the outer tag.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vlan: Option<u16>,
    /// EtherType behind all tags.
    pub ether_type: u16,
    /// Source address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<IpAddr>,
    /// Destination address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub destination: Option<IpAddr>,
    /// IP protocol; of ARP, the operation.
    pub protocol: u8,
    /// Source port; of ICMP, type (high byte) and code. None where the flow stands for all ports, or there are none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source_port: Option<u16>,
    /// Destination port. None where the flow stands for all ports, or there are none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub destination_port: Option<u16>,
    /// What is done with its packets, in words.
    pub action: String,
    /// Packets so far.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Seconds since it was made.
    pub age_seconds: f64,
    /// Seconds since its last packet.
    pub idle_seconds: f64,
    /// The slice whose quota it counts against.
    pub slice: String,
    /// Whether its packets pass.
    pub state: FlowStatus,
}

/// Whether packets of a flow pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlowStatus {
    /// They pass.
    Active,
    /// They wait till the first ones are through.
    Pending,
}

/// What happens to a packet, and why.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct Explanation {
    /// What each element of the pipeline does.
    pub steps: Vec<ExplanationStep>,
    /// Why it is decided so, in sentences.
    pub reasons: Vec<String>,
    /// What becomes of it, in a sentence.
    pub verdict: String,
    /// Ports that get it.
    pub delivered: Vec<String>,
    /// Other hosts that get it through a tunnel.
    pub tunnels: Vec<IpAddr>,
    /// Name of the drop counter, when it is dropped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dropped: Option<String>,
}

/// What one element does to a packet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct ExplanationStep {
    /// The element.
    pub element: String,
    /// What it does.
    pub text: String,
}

/// What happened to a packet that was followed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct TracedPacket {
    /// Nanoseconds since 1970 at which its batch was received, or came back.
    pub nanoseconds: u64,
    /// The engine that it passed.
    pub engine: usize,
    /// It is one that was followed before and comes back from where it had gone: from control, from waiting for its flow, or from a coprocessor.
    pub came_back: bool,
    /// What each element did.
    pub steps: Vec<ExplanationStep>,
    /// Name of the drop counter, when it was dropped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dropped: Option<String>,
}

/// A packet that was captured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CapturedFrame {
    /// Nanoseconds since 1970 at which its batch was received.
    pub nanoseconds: u64,
    /// The engine that saw it.
    pub engine: usize,
    /// Where it was captured.
    pub point: crate::switch::Point,
    /// The port that it came from.
    pub port: String,
    /// The port that it leaves for, where it leaves.
    pub to: Option<String>,
    /// Its network, when that is known there.
    pub network: Option<String>,
    /// Why it was dropped, when it was.
    pub reason: Option<crate::switch::Reason>,
    /// Bytes that it had.
    pub len: usize,
    /// Its first bytes.
    pub bytes: Vec<u8>,
}

/// The state of the switch.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct VswitchStatistics {
    /// What each engine counted, by number.
    pub engines: Vec<EngineReport>,
    /// The sums over all engines.
    pub sums: CountReport,
    /// How long packets took.
    pub latency: LatencyReport,
    /// How full the flow table is.
    pub table: TableReport,
    /// What the switch's own thread did.
    pub control: BTreeMap<String, u64>,
    /// Ports that are attached.
    pub ports: Vec<SwitchedPortReport>,
    /// Shares of the switch.
    pub slices: Vec<SliceReport>,
    /// Tenants' networks.
    pub networks: Vec<NetworkReport>,
    /// Connections that are tracked.
    pub connections: u64,
    /// Tunnels to other hosts.
    pub tunnels: Vec<TunnelReport>,
    /// Threads that work on the packets of one port.
    #[serde(default)]
    pub coprocessors: Vec<CoprocessorReport>,
}

/// What one engine counted.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct EngineReport {
    /// Its number.
    pub engine: usize,
    /// It runs; what it counted stays when it has ended.
    pub running: bool,
    /// What it counted.
    #[serde(flatten)]
    pub counts: CountReport,
}

/// What was counted: received + returned + copied = delivered + handed over + raised + held + all drops.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct CountReport {
    /// Packets, by what happened to them.
    pub packets: BTreeMap<String, u64>,
    /// Packets that were dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Packets that were dropped as malformed, by what is wrong with them.
    pub malformed: BTreeMap<String, u64>,
    /// What each element did, in the order in which packets pass them.
    pub elements: Vec<ElementReport>,
}

/// What one element did.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct ElementReport {
    /// Its name.
    pub element: String,
    /// Batches that it had something to do with.
    pub batches: u64,
    /// Packets in them.
    pub packets: u64,
    /// Packets of the batches that were timed.
    pub timed_packets: u64,
    /// Cycles that these took.
    pub timed_cycles: u64,
    /// Cycles a packet; none when none was timed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cycles_per_packet: Option<f64>,
}

/// How long packets took, all engines together.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct LatencyReport {
    /// From a batch's receipt to its end, of packets that are sampled.
    pub through: DurationReport,
    /// Waiting for their flow.
    pub waited: DurationReport,
    /// With the switch's own thread.
    pub with_control: DurationReport,
}

/// How long something took, in nanoseconds. All 0 when it did not happen.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct DurationReport {
    /// How often it happened.
    pub count: u64,
    /// All together.
    pub sum: u64,
    /// How many took at most so long, for some times.
    pub buckets: Vec<DurationBucket>,
    /// The mean.
    pub mean: u64,
    /// The median.
    pub p50: u64,
    /// Nine of ten took no longer.
    pub p90: u64,
    /// 99 of 100 took no longer.
    pub p99: u64,
    /// 999 of 1000 took no longer.
    pub p999: u64,
    /// The longest.
    pub maximum: u64,
}

/// How many took at most so long.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct DurationBucket {
    /// Nanoseconds.
    pub at_most: u64,
    /// How many, those of all shorter times included.
    pub count: u64,
}

/// How full the flow table is.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct TableReport {
    /// Flows in it.
    pub flows: u32,
    /// Places that are empty, and free when all engines know.
    pub waiting: u32,
    /// Flows that it is made for now.
    pub capacity: u32,
    /// Flows that it may grow to.
    pub most: u32,
    /// Bytes of memory.
    pub bytes: u64,
}

/// A port of the switch.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct SwitchedPortReport {
    /// Its name.
    pub name: String,
    /// Its number in the forwarder.
    pub number: usize,
    /// Its place in the switch.
    pub slot: u16,
    /// Bytes of the longest IP packet that it takes.
    pub mtu: u16,
    /// Networks that it lies in.
    pub networks: Vec<String>,
    /// It leads to the other hosts.
    pub underlay: bool,
}

/// A share of the switch.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct SliceReport {
    /// Its name; `common` is what belongs to none.
    pub name: String,
    /// Flows that it has.
    pub flows: u32,
    /// Flows that it may have.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub most_flows: Option<u32>,
    /// Connections that it may have.
    pub most_connections: u32,
    /// Packets a second that it may send.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub packets_per_second: Option<u64>,
    /// Bits a second that it may send.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bits_per_second: Option<u64>,
    /// Its part of engine time beside others'.
    pub share: u16,
}

/// A tenant's network.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct NetworkReport {
    /// Its name.
    pub name: String,
    /// Its identifier in tunnels.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vni: Option<u32>,
    /// Its slice; none when it has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slice: Option<String>,
    /// Ports in it that are attached.
    pub ports: Vec<String>,
    /// Ethernet addresses that were learned in it, and where they are; at most 1024.
    pub learned: Vec<LearnedReport>,
    /// Ethernet addresses that were learned.
    pub learned_count: u64,
}

/// A coprocessor.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct CoprocessorReport {
    /// Its number, as flows have it.
    pub number: u16,
    /// The port whose packets it works on, with the network where that is tagged.
    pub port: String,
    /// Its thread runs; what it counted stays when it has ended by a fault.
    pub running: bool,
    /// Packets that it gave back.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that its rules do not allow.
    pub denied: u64,
    /// Packets for which its queue had no room.
    pub overflowed: u64,
    /// Packets that wait for their time now.
    pub waiting: u64,
    /// Processor time that it used, which is its port's.
    pub cpu_nanoseconds: u64,
}

/// A learned address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct LearnedReport {
    /// The Ethernet address.
    pub mac: Mac,
    /// Where it is, in words.
    pub place: String,
}

/// A tunnel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct TunnelReport {
    /// The network whose frames go through it.
    pub network: String,
    /// The other host.
    pub remote: IpAddr,
    /// How frames are wrapped.
    pub kind: TunnelKind,
    /// The network's identifier.
    pub vni: u32,
    /// Whether frames can go through it.
    pub state: TunnelState,
    /// The other host itself, or the router on the way; none when nothing leads there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_hop: Option<IpAddr>,
    /// Ethernet address of that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mac: Option<Mac>,
}

/// Whether frames can go through a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TunnelState {
    /// They can.
    Up,
    /// The next hop's Ethernet address is being asked for.
    Resolving,
    /// The underlay port is not there, or neither a prefix nor a gateway leads to the other host.
    Unreachable,
}
