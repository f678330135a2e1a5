//! What can be asked of a forwarder.

use std::fmt;
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::rpc::{Handler, RpcError, code};
use crate::clock::CycleClock;
use crate::forwarder::{self, Access, Forwarder, ForwarderError, Listing};
use crate::port::{NamedSpec, PortName, PortSpec, vmm_arguments};
use crate::stats::{PortStatistics, Statistics};

/// Adds, removes and shows the ports of a forwarder.
#[derive(Clone)]
pub struct PortMethods {
    forwarder: Arc<Mutex<Forwarder>>,
}

impl PortMethods {
    /// For the ports of `forwarder`.
    #[must_use]
    pub fn new(forwarder: Arc<Mutex<Forwarder>>) -> Self {
        Self { forwarder }
    }
}

impl fmt::Debug for PortMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortMethods").finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    spec: NamedSpec,
    name: Option<String>,
    join: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    name: String,
    join: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    name: Option<String>,
}

fn read<P: DeserializeOwned>(params: Value) -> Result<P, RpcError> {
    serde_json::from_value(params).map_err(|error| RpcError::new(code::INVALID_PARAMS, error.to_string()))
}

impl From<ForwarderError> for RpcError {
    fn from(error: ForwarderError) -> Self {
        Self::new(code::FAILED, error.to_string())
    }
}

impl Handler for PortMethods {
    fn call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        let mut access = Arc::clone(&self.forwarder);
        match method {
            "port.add" => add(&mut access, read(params)?),
            "port.del" => {
                let Delete { name } = read(params)?;
                let notices = forwarder::delete(&mut access, &name)?;
                Ok(json!({ "name": name, "notices": notices }))
            }
            "port.join" => {
                let Pair { name, join } = read(params)?;
                let notices = access.with(|forwarder| forwarder.join(&name, &join))?;
                Ok(json!({ "name": name, "join": join, "notices": notices }))
            }
            "port.list" => {
                let Nothing {} = read(params)?;
                let ports: Vec<Value> = access.with(|forwarder| forwarder.list().iter().map(listing).collect());
                Ok(json!({ "ports": ports }))
            }
            "port.stats" => {
                let Choice { name } = read(params)?;
                access.with(|forwarder| stats(forwarder, name.as_deref()))
            }
            _ => {
                let known = "port.add, port.del, port.join, port.list and port.stats";
                Err(RpcError::new(code::METHOD_NOT_FOUND, format!("there is no method `{method}`; there are {known}")))
            }
        }
    }
}

fn add(access: &mut impl Access, Add { mut spec, name, join }: Add) -> Result<Value, RpcError> {
    if let Some(name) = name {
        let invalid = |reason: String| RpcError::new(code::INVALID_PARAMS, reason);
        let name: PortName = name.parse().map_err(|error| invalid(format!("`{name}`: {error}")))?;
        if spec.name.replace(name).is_some() {
            return Err(invalid("the port is given a name twice: leave name= out of the spec".to_owned()));
        }
    }
    let added = forwarder::add(access, &spec, join.as_deref())?;
    let vmm = match &spec.spec {
        PortSpec::VhostUser(machine) => json!(vmm_arguments(&added.name, machine)),
        _ => Value::Null,
    };
    Ok(json!({ "name": added.name, "notices": added.notices, "vmm": vmm }))
}

fn listing(port: &Listing) -> Value {
    json!({
        "name": port.name,
        "kind": port.kind.name(),
        "spec": port.spec,
        "join": port.partner,
        "state": if port.lost { "lost" } else { "running" },
        "queues": port.queues,
        "facts": port.facts,
    })
}

fn stats(forwarder: &Forwarder, name: Option<&str>) -> Result<Value, RpcError> {
    let statistics = forwarder.statistics();
    let clock = forwarder.clock();
    let ports: Vec<Value> = match name {
        Some(name) => vec![port(&statistics, &forwarder.statistics_of(name)?, clock)],
        None => statistics.ports.iter().map(|one| port(&statistics, one, clock)).collect(),
    };
    Ok(json!({ "seconds": statistics.elapsed.as_secs_f64(), "ports": ports }))
}

#[expect(clippy::cast_precision_loss, reason = "seconds for people")]
fn port(all: &Statistics, port: &PortStatistics, clock: CycleClock) -> Value {
    let counters: Map<String, Value> = port.xstats().into_iter().map(|(name, value)| (name, json!(value))).collect();
    let device: Map<String, Value> =
        port.device.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({
        "name": port.name,
        "cpu_seconds": port.cpu_cycles() as f64 / clock.cycles_per_second().max(1) as f64,
        "cpu_share": all.cpu_share(port),
        "counters": counters,
        "device": device,
    })
}
