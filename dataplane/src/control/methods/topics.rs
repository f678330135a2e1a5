//! Topics that clients subscribe to.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Methods, Nothing, find, ports, read, write};
use crate::control::caller::{Access, Caller, Watch};
use crate::control::rpc::{RpcError, code};
use crate::network::{Config, differences};

/// What there is to subscribe to.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Topic {
    /// The result of `port.stats`, each time.
    Ports,
    /// The result of `switch.stats`, each time.
    Stats,
    /// The result of `flow.list`, each time; `params` are its parameters.
    Flows,
    /// What changed since the last time, in ports and in the configuration of the switch; nothing when nothing did.
    Changes,
}

/// A subscription.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscribe {
    /// The topic.
    topic: Topic,
    /// Milliseconds between news, 100 to 3600000; 1000 when left out.
    interval_ms: Option<u64>,
    /// Parameters of the method whose result is sent.
    params: Option<BTreeMap<String, Value>>,
}

/// A subscription that has begun.
#[derive(Serialize, JsonSchema)]
pub(super) struct Subscribed {
    /// Its number, which its news bear.
    subscription: u64,
}

/// A subscription to be ended.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Unsubscribe {
    /// Its number.
    subscription: u64,
}

/// What is sent to who subscribed, as the parameters of a notification `update`.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is needed: the sender writes it for any topic")]
pub(super) struct Update {
    /// The number of the subscription.
    subscription: u64,
    /// The topic.
    topic: Topic,
    /// Times so far at which nothing was sent because the client did not take what was sent before.
    lost: u64,
    /// What there is to tell.
    data: Option<Value>,
    /// Why nothing can be told.
    error: Option<Value>,
}

/// What changed, a line each: `+` comes, `-` goes, `~` changes.
#[derive(Serialize, JsonSchema)]
pub(super) struct Changes {
    /// The lines.
    lines: Vec<String>,
}

impl Topic {
    /// The method whose result is sent.
    fn method(self) -> Option<&'static str> {
        match self {
            Self::Ports => Some("port.stats"),
            Self::Stats => Some("switch.stats"),
            Self::Flows => Some("flow.list"),
            Self::Changes => None,
        }
    }
}

pub(super) fn subscribe(_: &Methods, caller: &Caller, subscribe: Subscribe) -> Result<Subscribed, RpcError> {
    let Subscribe { topic, interval_ms, params } = subscribe;
    if topic.method().is_none() && params.is_some() {
        return Err(RpcError::new(code::INVALID_PARAMS, "this topic takes no `params`"));
    }
    let interval = Duration::from_millis(interval_ms.unwrap_or(1000));
    let watch = Watch {
        topic: write(&topic)?.as_str().unwrap_or_default().to_owned(),
        params: json!(params.unwrap_or_default()),
        before: None,
    };
    Ok(Subscribed { subscription: caller.subscribe(watch, interval)? })
}

pub(super) fn unsubscribe(_: &Methods, caller: &Caller, params: Unsubscribe) -> Result<Nothing, RpcError> {
    caller.unsubscribe(params.subscription)?;
    Ok(Nothing {})
}

pub(super) fn look(methods: &Methods, watch: &mut Watch) -> Result<Option<Value>, RpcError> {
    let topic: Topic = read(Value::from(watch.topic.as_str()))?;
    // What it may call changes nothing.
    let caller = Caller::new(Access::Read);
    match topic.method().and_then(find) {
        Some(method) => (method.call)(methods, &caller, watch.params.clone()).map(Some),
        None => changes(methods, watch),
    }
}

/// What the topic `changes` remembers.
#[derive(Serialize, Deserialize)]
struct Seen {
    /// Of each port, its partner and its state.
    ports: BTreeMap<String, (Option<String>, String)>,
    config: Config,
}

fn changes(methods: &Methods, watch: &mut Watch) -> Result<Option<Value>, RpcError> {
    let ports = ports::list(methods, &Caller::new(Access::Read), Nothing {})?.ports;
    let ports = ports.into_iter().map(|port| (port.name, (port.join, port.state.to_owned()))).collect();
    let now = Seen { ports, config: methods.config() };
    // The first look only remembers.
    let Some(before) = watch.before.replace(write(&now)?) else { return Ok(None) };
    let before: Seen = read(before)?;
    let mut lines = Vec::new();
    for name in before.ports.keys().filter(|name| !now.ports.contains_key(*name)) {
        lines.push(format!("- open port {name}"));
    }
    for (name, port) in &now.ports {
        match before.ports.get(name) {
            None => lines.push(format!("+ open port {name}")),
            Some(was) if was != port => {
                let (partner, state) = port;
                let partner = partner.as_deref().unwrap_or("none");
                lines.push(format!("~ open port {name}: joined to {partner}, {state}"));
            }
            Some(_) => {}
        }
    }
    lines.extend(differences(&before.config, &now.config));
    if lines.is_empty() { Ok(None) } else { write(&Changes { lines }).map(Some) }
}
