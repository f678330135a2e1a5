//! The state of the switch: its parts as they are, its flows, its elements.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Methods, Nothing, failed};
use crate::control::caller::Caller;
use crate::control::hex;
use crate::control::rpc::{RpcError, code};
use crate::network::config::{
    GroupConfig, MirrorConfig, NetworkConfig, PortConfig, RouteConfig, SliceConfig, TunnelConfig,
};
use crate::switch::Reason;
use crate::vswitch::report::{
    Explanation, FlowFilter, FlowList, LatencyReport, NetworkReport, SliceReport, SwitchedPortReport, TunnelReport,
    VswitchStatistics,
};

/// Flows that are listed when it is not said how many.
const USUAL_FLOWS: usize = 1000;
/// Flows that are listed at most.
const MOST_FLOWS: usize = 20_000;

/// A part of the configuration, and how it fares.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Live{C}")]
pub(super) struct Live<C, S> {
    /// As it was configured.
    #[serde(flatten)]
    config: C,
    /// As it is. Nothing when the switch does not know it yet.
    state: Option<S>,
}

/// All slices.
#[derive(Serialize, JsonSchema)]
pub(super) struct Slices {
    /// Each with its state.
    slices: Vec<Live<SliceConfig, SliceReport>>,
}

/// All networks.
#[derive(Serialize, JsonSchema)]
pub(super) struct Networks {
    /// Each with its state.
    networks: Vec<Live<NetworkConfig, NetworkReport>>,
}

/// All groups of rules.
#[derive(Serialize, JsonSchema)]
pub(super) struct Groups {
    /// Each with the ports that it applies to.
    groups: Vec<Live<GroupConfig, GroupState>>,
}

/// Where a group applies.
#[derive(Serialize, JsonSchema)]
pub(super) struct GroupState {
    /// Ports that have it.
    ports: Vec<String>,
}

/// All places of ports in networks.
#[derive(Serialize, JsonSchema)]
pub(super) struct Attachments {
    /// Each with the state of its port; without one, the port is not open.
    attachments: Vec<Live<PortConfig, SwitchedPortReport>>,
}

/// All static routes.
#[derive(Serialize, JsonSchema)]
pub(super) struct Routes {
    /// As they were configured.
    routes: Vec<RouteConfig>,
}

/// All mirrors.
#[derive(Serialize, JsonSchema)]
pub(super) struct Mirrors {
    /// Each with the state of the port that gets the copies; without one, that port is not open.
    mirrors: Vec<Live<MirrorConfig, SwitchedPortReport>>,
}

/// All tunnels.
#[derive(Serialize, JsonSchema)]
pub(super) struct Tunnels {
    /// Each with its state.
    tunnels: Vec<Live<TunnelConfig, TunnelReport>>,
}

/// Flows that are wanted.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedFlows {
    /// Which.
    filter: Option<FlowFilter>,
    /// How many at most, up to 20000; 1000 when left out. How many there are is told in any case.
    most: Option<usize>,
}

/// A question about a frame.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    /// The port that it comes from.
    port: String,
    /// The frame from its destination address on, two hexadecimal digits a byte.
    frame: String,
}

/// The elements of the pipeline.
#[derive(Serialize, JsonSchema)]
pub(super) struct Graph {
    /// In the order in which packets pass them.
    elements: Vec<Element>,
    /// Packets that came in.
    received: u64,
    /// Packets that were dropped, by reason.
    drops: Vec<Dropped>,
    /// How long packets took.
    latency: LatencyReport,
}

/// An element of the pipeline, all engines together.
#[derive(Serialize, JsonSchema)]
pub(super) struct Element {
    /// Its name.
    element: String,
    /// Batches that it had something to do with.
    batches: u64,
    /// Packets in them.
    packets: u64,
    /// The part of all packets that came in, from 0.
    packet_share: Option<f64>,
    /// Cycles a packet.
    cycles_per_packet: Option<f64>,
    /// The part of the cycles of all elements, from 0 to 1.
    cycle_share: Option<f64>,
}

/// Packets that were dropped for a reason.
#[derive(Serialize, JsonSchema)]
pub(super) struct Dropped {
    /// Name of the counter.
    reason: String,
    /// What happened.
    sentence: String,
    /// How many.
    packets: u64,
}

fn with_state<C, S>(configs: Vec<C>, states: &[S], same: impl Fn(&C, &S) -> bool) -> Vec<Live<C, S>>
where
    S: Clone,
{
    let live = |config: C| Live { state: states.iter().find(|state| same(&config, state)).cloned(), config };
    configs.into_iter().map(live).collect()
}

pub(super) fn slices(methods: &Methods, _: &Caller, _: Nothing) -> Result<Slices, RpcError> {
    let (config, now) = methods.switch_state()?;
    Ok(Slices { slices: with_state(config.slices, &now.slices, |one, now| one.name == now.name) })
}

pub(super) fn networks(methods: &Methods, _: &Caller, _: Nothing) -> Result<Networks, RpcError> {
    let (config, now) = methods.switch_state()?;
    Ok(Networks { networks: with_state(config.networks, &now.networks, |one, now| one.name == now.name) })
}

pub(super) fn groups(methods: &Methods, _: &Caller, _: Nothing) -> Result<Groups, RpcError> {
    let config = methods.config();
    let ports = config.ports;
    let live = |group: GroupConfig| {
        let mut having: Vec<String> =
            ports.iter().filter(|port| port.groups.contains(&group.name)).map(|port| port.name.clone()).collect();
        having.dedup();
        Live { config: group, state: Some(GroupState { ports: having }) }
    };
    Ok(Groups { groups: config.groups.into_iter().map(live).collect() })
}

pub(super) fn attachments(methods: &Methods, _: &Caller, _: Nothing) -> Result<Attachments, RpcError> {
    let (config, now) = methods.switch_state()?;
    Ok(Attachments { attachments: with_state(config.ports, &now.ports, |one, now| one.name == now.name) })
}

pub(super) fn routes(methods: &Methods, _: &Caller, _: Nothing) -> Result<Routes, RpcError> {
    Ok(Routes { routes: methods.config().routes })
}

pub(super) fn tunnels(methods: &Methods, _: &Caller, _: Nothing) -> Result<Tunnels, RpcError> {
    let (config, now) = methods.switch_state()?;
    let same = |one: &TunnelConfig, now: &TunnelReport| one.network == now.network && one.remote == now.remote;
    Ok(Tunnels { tunnels: with_state(config.tunnels, &now.tunnels, same) })
}

pub(super) fn mirrors(methods: &Methods, _: &Caller, _: Nothing) -> Result<Mirrors, RpcError> {
    let (config, now) = methods.switch_state()?;
    Ok(Mirrors { mirrors: with_state(config.mirrors, &now.ports, |one, now| one.to == now.name) })
}

pub(super) fn flows(methods: &Methods, _: &Caller, wanted: WantedFlows) -> Result<FlowList, RpcError> {
    let most = wanted.most.unwrap_or(USUAL_FLOWS);
    if most > MOST_FLOWS {
        let reason = format!("`most` is at most {MOST_FLOWS}; narrow the filter instead");
        return Err(RpcError::new(code::INVALID_PARAMS, reason));
    }
    methods.switch()?.flows(&wanted.filter.unwrap_or_default(), most).map_err(failed)
}

pub(super) fn why(methods: &Methods, _: &Caller, Question { port, frame }: Question) -> Result<Explanation, RpcError> {
    let frame = hex::read(&frame).ok_or_else(|| {
        RpcError::new(code::INVALID_PARAMS, "`frame` has two hexadecimal digits for each byte and nothing else")
    })?;
    methods.switch()?.why(&port, frame).map_err(failed)
}

pub(super) fn stats(methods: &Methods, _: &Caller, _: Nothing) -> Result<VswitchStatistics, RpcError> {
    methods.switch()?.statistics().map_err(failed)
}

#[expect(clippy::cast_precision_loss, reason = "ratios for people")]
pub(super) fn graph(methods: &Methods, _: &Caller, _: Nothing) -> Result<Graph, RpcError> {
    let VswitchStatistics { sums, latency, .. } = methods.switch()?.statistics().map_err(failed)?;
    let count = |name: &str| sums.packets.get(name).copied().unwrap_or(0);
    let received = count("received") + count("returned");
    // What was timed is a sample: an element's part is what its packets would have cost at that rate.
    let cost = |element: &crate::vswitch::report::ElementReport| {
        element.cycles_per_packet.map(|cycles| cycles * element.packets as f64)
    };
    let all: f64 = sums.elements.iter().filter_map(cost).sum();
    let elements = sums.elements.iter().map(|element| Element {
        element: element.element.clone(),
        batches: element.batches,
        packets: element.packets,
        packet_share: (received > 0).then(|| element.packets as f64 / received as f64),
        cycles_per_packet: element.cycles_per_packet,
        cycle_share: cost(element).filter(|_| all > 0.0).map(|cost| cost / all),
    });
    Ok(Graph { elements: elements.collect(), received, drops: dropped(&sums.drops), latency })
}

fn dropped(drops: &BTreeMap<String, u64>) -> Vec<Dropped> {
    let sentence = |name: &str| {
        let reason = Reason::ALL.iter().find(|reason| reason.name() == name);
        reason.map_or("", |reason| reason.sentence()).to_owned()
    };
    let counted = drops.iter().filter(|(_, packets)| **packets > 0);
    counted
        .map(|(name, packets)| Dropped { reason: name.clone(), sentence: sentence(name), packets: *packets })
        .collect()
}
