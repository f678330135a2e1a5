//! Ports of the forwarder, whatever they are part of.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Methods, Nothing, failed};
use crate::clock::CycleClock;
use crate::control::caller::Caller;
use crate::control::rpc::{RpcError, code};
use crate::forwarder::{self, Access, ForwarderError, Listing};
use crate::port::{NamedSpec, PortName, PortSpec, vmm_arguments};
use crate::stats;

/// A port to be opened.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Add {
    /// What it is, as behind `mirach run --port`.
    #[schemars(with = "String")]
    spec: NamedSpec,
    /// Its name, unless the spec has one.
    name: Option<String>,
    /// The port to join it to.
    join: Option<String>,
}

/// A port that was opened.
#[derive(Serialize, JsonSchema)]
pub(super) struct Added {
    /// Its name.
    name: String,
    /// What the user should know, a sentence each.
    notices: Vec<String>,
    /// What to give a virtual machine monitor so that it finds the port, lines of text.
    vmm: Option<Vec<String>>,
}

/// A port by its name.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    /// Its name.
    name: String,
}

/// What was done to a port.
#[derive(Serialize, JsonSchema)]
pub(super) struct Done {
    /// Its name.
    name: String,
    /// What the user should know, a sentence each.
    notices: Vec<String>,
}

/// Two ports.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pair {
    /// The name of one.
    name: String,
    /// The name of the other.
    join: String,
}

/// Two ports that were joined.
#[derive(Serialize, JsonSchema)]
pub(super) struct Joined {
    /// The name of one.
    name: String,
    /// The name of the other.
    join: String,
    /// What the user should know, a sentence each.
    notices: Vec<String>,
}

/// All ports.
#[derive(Serialize, JsonSchema)]
pub(super) struct List {
    /// In the order in which they came.
    pub(super) ports: Vec<Entry>,
}

/// A port.
#[derive(Serialize, JsonSchema)]
pub(super) struct Entry {
    /// Its name.
    pub(super) name: String,
    /// What kind of port it is.
    pub(super) kind: &'static str,
    /// How it was asked for.
    #[schemars(with = "Option<String>")]
    spec: Option<NamedSpec>,
    /// The port that it is joined to.
    pub(super) join: Option<String>,
    /// It is one of the switch's.
    pub(super) switched: bool,
    /// The networks that it lies in; for the port to other hosts, that is `underlay`.
    networks: Vec<String>,
    /// `running` or `lost`.
    pub(super) state: &'static str,
    /// Pairs of queues.
    queues: usize,
    /// Facts in the words of `ip -d link`.
    facts: String,
}

/// One port or all.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Choice {
    /// The port; all of them when it is left out.
    name: Option<String>,
}

/// What ports have counted.
#[derive(Serialize, JsonSchema)]
pub(super) struct Statistics {
    /// Seconds since the forwarder started.
    seconds: f64,
    /// The ports.
    ports: Vec<Counted>,
}

/// What a port has counted.
#[derive(Serialize, JsonSchema)]
pub(super) struct Counted {
    /// Its name.
    name: String,
    /// Seconds of processor time that it has cost.
    cpu_seconds: f64,
    /// The part of what all ports have cost, from 0 to 1.
    cpu_share: Option<f64>,
    /// Counters by name, such as `rx_packets` and `tx_queue_full`.
    counters: BTreeMap<String, u64>,
    /// Counters of the device itself.
    device: BTreeMap<String, u64>,
}

impl From<ForwarderError> for RpcError {
    fn from(error: ForwarderError) -> Self {
        failed(error)
    }
}

pub(super) fn add(methods: &Methods, _: &Caller, Add { mut spec, name, join }: Add) -> Result<Added, RpcError> {
    if let Some(name) = name {
        let invalid = |reason: String| RpcError::new(code::INVALID_PARAMS, reason);
        let name: PortName = name.parse().map_err(|error| invalid(format!("`{name}`: {error}")))?;
        if spec.name.replace(name).is_some() {
            return Err(invalid("the port is given a name twice: leave name= out of the spec".to_owned()));
        }
    }
    let forwarder::Added { name, notices } = forwarder::add(&mut methods.access(), &spec, join.as_deref())?;
    let vmm = match &spec.spec {
        PortSpec::VhostUser(machine) => Some(vmm_arguments(&name, machine)),
        _ => None,
    };
    Ok(Added { name, notices, vmm })
}

pub(super) fn delete(methods: &Methods, _: &Caller, Named { name }: Named) -> Result<Done, RpcError> {
    let notices = forwarder::delete(&mut methods.access(), &name)?;
    Ok(Done { name, notices })
}

pub(super) fn join(methods: &Methods, _: &Caller, Pair { name, join }: Pair) -> Result<Joined, RpcError> {
    let notices = methods.access().with(|forwarder| forwarder.join(&name, &join))?;
    Ok(Joined { name, join, notices })
}

pub(super) fn list(methods: &Methods, _: &Caller, _: Nothing) -> Result<List, RpcError> {
    let ports = methods.access().with(|forwarder| forwarder.list());
    Ok(List { ports: ports.into_iter().map(entry).collect() })
}

fn entry(port: Listing) -> Entry {
    let Listing { name, kind, spec, partner, switched, networks, lost, queues, facts } = port;
    let state = if lost { "lost" } else { "running" };
    Entry { name, kind: kind.name(), spec, join: partner, switched, networks, state, queues, facts }
}

pub(super) fn stats(methods: &Methods, _: &Caller, Choice { name }: Choice) -> Result<Statistics, RpcError> {
    methods.access().with(|forwarder| {
        let all = forwarder.statistics();
        let clock = forwarder.clock();
        let ports = match name {
            Some(name) => vec![counted(&all, &forwarder.statistics_of(&name)?, clock)],
            None => all.ports.iter().map(|one| counted(&all, one, clock)).collect(),
        };
        Ok(Statistics { seconds: all.elapsed.as_secs_f64(), ports })
    })
}

#[expect(clippy::cast_precision_loss, reason = "seconds for people")]
fn counted(all: &stats::Statistics, port: &stats::PortStatistics, clock: CycleClock) -> Counted {
    Counted {
        name: port.name.clone(),
        cpu_seconds: port.cpu_cycles() as f64 / clock.cycles_per_second().max(1) as f64,
        cpu_share: all.cpu_share(port),
        counters: port.xstats().into_iter().collect(),
        device: port.device.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
    }
}
