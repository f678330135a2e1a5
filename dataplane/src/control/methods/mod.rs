//! What can be asked of a forwarder: one table of all methods, and what they do.

use std::fmt;
use std::sync::{Arc, Mutex};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::caller::{Access, Caller, Watch};
use super::metrics;
use super::rpc::{Handler, RpcError, code};
use crate::forwarder::{Access as _, Forwarder};
use crate::network::Config;
use crate::network::config::{
    GroupConfig, MirrorConfig, NetworkConfig, PortConfig, RouteConfig, SliceConfig, TunnelConfig, UnderlayConfig,
};
use crate::vswitch::Handle;
use crate::vswitch::report::{Explanation, FlowList, VswitchStatistics};

mod capture;
mod network;
mod ports;
mod schema;
mod switch;
mod topics;
mod trace;

pub use schema::schema;

/// Everything that can be asked of a forwarder.
#[derive(Clone)]
pub struct Methods {
    forwarder: Arc<Mutex<Forwarder>>,
}

impl Methods {
    /// For `forwarder`.
    #[must_use]
    pub fn new(forwarder: Arc<Mutex<Forwarder>>) -> Self {
        Self { forwarder }
    }

    /// The forwarder, to be had for a moment at a time.
    fn access(&self) -> Arc<Mutex<Forwarder>> {
        Arc::clone(&self.forwarder)
    }

    /// Everything that was counted, for Prometheus.
    pub(super) fn metrics(&self) -> Result<String, String> {
        let (ports, clock, switch) =
            self.access().with(|forwarder| (forwarder.statistics(), forwarder.clock(), forwarder.vswitch()));
        let switch = switch.map(|switch| switch.statistics()).transpose().map_err(|error| error.to_string())?;
        Ok(metrics::exposition(&ports, clock, switch.as_ref()))
    }

    /// The switch.
    fn switch(&self) -> Result<Handle, RpcError> {
        let switch = self.access().with(|forwarder| forwarder.vswitch());
        switch.ok_or_else(|| {
            failed("there are no networks yet, so there is no switch; make one with: mirach set network NAME, or mirach apply FILE")
        })
    }

    /// How the switch was configured.
    fn config(&self) -> Config {
        self.access().with(|forwarder| forwarder.network())
    }

    /// How the switch was configured, and how it fares.
    fn switch_state(&self) -> Result<(Config, VswitchStatistics), RpcError> {
        let (config, switch) = self.access().with(|forwarder| (forwarder.network(), forwarder.vswitch()));
        let now = switch.map(|switch| switch.statistics()).transpose().map_err(failed)?;
        Ok((config, now.unwrap_or_default()))
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Methods").finish_non_exhaustive()
    }
}

type Shape = fn(&mut SchemaGenerator) -> Schema;

/// A method.
struct Method {
    name: &'static str,
    access: Access,
    summary: &'static str,
    params: Shape,
    result: Shape,
    call: fn(&Methods, &Caller, Value) -> Result<Value, RpcError>,
}

macro_rules! table {
    ($($(#[doc = $doc:literal])* $access:ident $name:literal = $act:path: $params:ty => $result:ty;)*) => {
        /// All methods.
        const TABLE: &[Method] = &[$(Method {
            name: $name,
            access: Access::$access,
            summary: concat!($($doc),*).trim_ascii_start(),
            params: |generator| generator.subschema_for::<$params>(),
            result: |generator| generator.subschema_for::<$result>(),
            call: |methods, caller, params| {
                let result: $result = $act(methods, caller, read::<$params>(params)?)?;
                write(&result)
            },
        }),*];
    };
}

table! {
    /// Opens a port, and joins it to another if one is named. A port that the network configuration names becomes one of the switch.
    Write "port.add" = ports::add: ports::Add => ports::Added;
    /// Parts a port from its partner or takes it out of the switch, and closes it.
    Write "port.del" = ports::delete: ports::Named => ports::Done;
    /// Joins two ports that are joined to none.
    Write "port.join" = ports::join: ports::Pair => ports::Joined;
    /// All ports.
    Read "port.list" = ports::list: Nothing => ports::List;
    /// What ports have counted, and what share of the processor they had.
    Read "port.stats" = ports::stats: ports::Choice => ports::Statistics;
    /// Makes the forwarder what a configuration file says, ports and switch, with the least change, all or nothing.
    Write "apply" = network::apply: network::File => network::Applied;
    /// What `apply` would change.
    Read "plan" = network::plan: network::File => network::Applied;
    /// Makes the switch what a configuration says, with the least change, all or nothing. Ports that are open stay open.
    Write "network.apply" = network::apply_switch: network::Wanted => network::Applied;
    /// What `network.apply` would change.
    Read "network.plan" = network::plan_switch: network::Wanted => network::Applied;
    /// The configuration that is in force.
    Read "config.get" = network::get: Nothing => network::InForce;
    /// Adds a network, or puts another in the place of that of its name.
    Write "network.set" = network::network_set: NetworkConfig => network::Applied;
    /// Takes a network out.
    Write "network.del" = network::network_del: network::ByName => network::Applied;
    /// Adds a slice, or puts another in the place of that of its name.
    Write "slice.set" = network::slice_set: SliceConfig => network::Applied;
    /// Takes a slice out.
    Write "slice.del" = network::slice_del: network::ByName => network::Applied;
    /// Adds a group of rules, or puts another in the place of that of its name.
    Write "group.set" = network::group_set: GroupConfig => network::Applied;
    /// Takes a group of rules out.
    Write "group.del" = network::group_del: network::ByName => network::Applied;
    /// Puts a port into a network, or changes how it lies in it.
    Write "attachment.set" = network::attachment_set: PortConfig => network::Applied;
    /// Takes a port out of one network, or of all.
    Write "attachment.del" = network::attachment_del: network::ByPort => network::Applied;
    /// Adds a static route, or puts another in the place of that with its network and prefix.
    Write "route.set" = network::route_set: RouteConfig => network::Applied;
    /// Takes a static route out.
    Write "route.del" = network::route_del: network::ByPrefix => network::Applied;
    /// Adds a tunnel, or puts another in the place of that with its network and remote host.
    Write "tunnel.set" = network::tunnel_set: TunnelConfig => network::Applied;
    /// Takes a tunnel out.
    Write "tunnel.del" = network::tunnel_del: network::ByRemote => network::Applied;
    /// Adds a mirror, or puts another in the place of that of its name.
    Write "mirror.set" = network::mirror_set: MirrorConfig => network::Applied;
    /// Takes a mirror out.
    Write "mirror.del" = network::mirror_del: network::ByName => network::Applied;
    /// Says what leads to other hosts.
    Write "underlay.set" = network::underlay_set: UnderlayConfig => network::Applied;
    /// Takes out what leads to other hosts.
    Write "underlay.del" = network::underlay_del: Nothing => network::Applied;
    /// All networks and how they fare.
    Read "network.list" = switch::networks: Nothing => switch::Networks;
    /// All slices and how they fare.
    Read "slice.list" = switch::slices: Nothing => switch::Slices;
    /// All groups of rules and the ports that have them.
    Read "group.list" = switch::groups: Nothing => switch::Groups;
    /// All places of ports in networks.
    Read "attachment.list" = switch::attachments: Nothing => switch::Attachments;
    /// All static routes.
    Read "route.list" = switch::routes: Nothing => switch::Routes;
    /// All tunnels and how they fare.
    Read "tunnel.list" = switch::tunnels: Nothing => switch::Tunnels;
    /// All mirrors.
    Read "mirror.list" = switch::mirrors: Nothing => switch::Mirrors;
    /// Flows of the table.
    Read "flow.list" = switch::flows: switch::WantedFlows => FlowList;
    /// What would happen to a frame that came from a port now, element by element, and why.
    Read "flow.why" = switch::why: switch::Question => Explanation;
    /// What the switch has counted, and how it fares.
    Read "switch.stats" = switch::stats: Nothing => VswitchStatistics;
    /// The elements of the pipeline with what each did, and what was dropped.
    Read "switch.graph" = switch::graph: Nothing => switch::Graph;
    /// Begins to capture packets, until `capture.end` or the end of this connection. What is in packets is not for everybody who may look.
    Write "capture.begin" = capture::begin: capture::Begin => capture::Begun;
    /// The next packets of a capture.
    Read "capture.next" = capture::next: capture::Next => capture::Frames;
    /// Ends a capture.
    Read "capture.end" = capture::end: capture::End => capture::Numbers;
    /// Begins to follow packets of a port through the elements, until `trace.end` or the end of this connection.
    Write "trace.begin" = trace::begin: trace::Begin => trace::Begun;
    /// The packets that were followed since, and what each element did to them.
    Read "trace.next" = trace::next: trace::Next => trace::Packets;
    /// Ends a trace.
    Read "trace.end" = trace::end: trace::End => Nothing;
    /// Has news of a topic sent on this connection, as notifications named `update`.
    Read "subscribe" = topics::subscribe: topics::Subscribe => topics::Subscribed;
    /// Ends a subscription of this connection.
    Read "unsubscribe" = topics::unsubscribe: topics::Unsubscribe => Nothing;
    /// This description of all methods, as an OpenRPC document.
    Read "schema" = schema::tell: Nothing => Value;
}

/// No parameters, or no result.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn find(name: &str) -> Option<&'static Method> {
    TABLE.iter().find(|method| method.name == name)
}

fn read<P: DeserializeOwned>(params: Value) -> Result<P, RpcError> {
    serde_json::from_value(params).map_err(|error| RpcError::new(code::INVALID_PARAMS, error.to_string()))
}

fn write(result: &impl Serialize) -> Result<Value, RpcError> {
    serde_json::to_value(result).map_err(|error| RpcError::new(code::INTERNAL, error.to_string()))
}

/// A method failed, as its message says.
fn failed(error: impl fmt::Display) -> RpcError {
    RpcError::new(code::FAILED, error.to_string())
}

impl Handler for Methods {
    fn call(&self, caller: &Caller, method: &str, params: Value) -> Result<Value, RpcError> {
        let Some(found) = find(method) else {
            let known: Vec<&str> = TABLE.iter().map(|method| method.name).collect();
            let reason = format!("there is no method `{method}`; there are {}", known.join(", "));
            return Err(RpcError::new(code::METHOD_NOT_FOUND, reason));
        };
        (found.call)(self, caller, params)
    }

    fn access(&self, method: &str) -> Option<Access> {
        find(method).map(|method| method.access)
    }

    fn look(&self, watch: &mut Watch) -> Result<Option<Value>, RpcError> {
        topics::look(self, watch)
    }
}

#[cfg(test)]
mod tests;
