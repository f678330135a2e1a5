//! What can be asked of a forwarder: one table of all methods, and what they do.

use std::fmt;
use std::sync::{Arc, Mutex};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::caller::{Access, Caller, Watch};
use super::rpc::{Handler, RpcError, code};
use crate::forwarder::Forwarder;

mod ports;
mod schema;
mod topics;

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
