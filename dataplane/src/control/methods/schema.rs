//! The published description of all methods.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{Access, Caller, Method, Methods, Nothing, RpcError, TABLE, topics};

/// All methods with the schemas of their parameters and results, as an OpenRPC 1.3 document. `x-access` says whether a method changes
/// anything; `x-notifications` are what a client that subscribed is sent.
#[must_use]
pub fn schema() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let methods: Vec<Value> = TABLE.iter().map(|method| describe(method, &mut generator)).collect();
    let update = generator.subschema_for::<topics::Update>();
    let changes = generator.subschema_for::<topics::Changes>();
    json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "mirach control",
            "description": "JSON-RPC 2.0 on the Unix stream socket of a running mirach. Parameters are given by name.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "methods": methods,
        "x-notifications": [
            { "name": "update", "params": update, "x-data-of-changes": changes },
        ],
        "components": { "schemas": generator.take_definitions(true) },
    })
}

pub(super) fn tell(_: &Methods, _: &Caller, _: Nothing) -> Result<Value, RpcError> {
    Ok(schema())
}

fn describe(method: &Method, generator: &mut SchemaGenerator) -> Value {
    let params = resolved((method.params)(generator), generator);
    let result = (method.result)(generator);
    json!({
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "by-name",
        "params": descriptors(&params),
        "result": { "name": "result", "schema": result },
        "x-access": match method.access { Access::Read => "read", Access::Write => "write" },
    })
}

/// The schema itself, and not where it stands.
fn resolved(schema: Schema, generator: &SchemaGenerator) -> Value {
    let schema = schema.to_value();
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    name.and_then(|name| generator.definitions().get(name)).cloned().unwrap_or(schema)
}

/// What the standard calls content descriptors: one for each parameter.
fn descriptors(params: &Value) -> Vec<Value> {
    let empty = Map::new();
    let properties = params.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let required: Vec<&str> =
        params.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let describe = |(name, schema): (&String, &Value)| json!({ "name": name, "required": required.contains(&name.as_str()), "schema": schema });
    properties.iter().map(describe).collect()
}
