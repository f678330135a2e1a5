#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use std::collections::HashSet;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::config::{CoreList, EngineConfig};
use crate::port::MemoryOptions;

/// A forwarder without ports.
fn methods() -> Methods {
    let cores = CoreList::new([0]).unwrap();
    let (forwarder, _) = Forwarder::open(EngineConfig::default(), &cores, &[], &MemoryOptions::default()).unwrap();
    Methods::new(Arc::new(Mutex::new(forwarder)))
}

/// What is checked in.
const CHECKED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/control-api.json");

#[test]
fn the_published_description_is_up_to_date() {
    let text = std::fs::read_to_string(Path::new(CHECKED_IN)).unwrap();
    let published: Value = serde_json::from_str(&text).unwrap();
    assert!(published == schema(), "write it anew: cargo run -p mirach -- schema > docs/control-api.json");
}

#[test]
fn every_method_is_described_and_every_reference_leads_somewhere() {
    let schema = schema();
    let described = schema["methods"].as_array().unwrap();
    assert_eq!(described.len(), TABLE.len());
    let mut names = HashSet::new();
    for (method, described) in TABLE.iter().zip(described) {
        assert!(names.insert(method.name), "{} is there twice", method.name);
        assert_eq!(described["name"], method.name);
        let summary = described["summary"].as_str().unwrap();
        assert!(summary.ends_with('.') && !summary.starts_with(' '), "{}: {summary}", method.name);
    }
    fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    match value.as_str().filter(|_| key == "$ref") {
                        Some(reference) => found.push(reference),
                        None => references(value, found),
                    }
                }
            }
            Value::Array(all) => all.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&schema, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(schema.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn every_method_says_whether_it_changes_anything_and_who_may_only_read_is_held_to_it() {
    // What changes something, or shows what is in packets, is listed here once more: a new method has to be thought about twice.
    let writes: HashSet<&str> = [
        "port.add",
        "port.del",
        "port.join",
        "apply",
        "network.apply",
        "slice.set",
        "slice.del",
        "network.set",
        "network.del",
        "group.set",
        "group.del",
        "attachment.set",
        "attachment.del",
        "route.set",
        "route.del",
        "tunnel.set",
        "tunnel.del",
        "underlay.set",
        "underlay.del",
        "mirror.set",
        "mirror.del",
        "capture.begin",
        "trace.begin",
    ]
    .into();
    let found: HashSet<&str> =
        TABLE.iter().filter(|method| method.access == Access::Write).map(|method| method.name).collect();
    assert_eq!(found, writes);
    let methods = methods();
    for (may, forbidden) in [(Access::Read, true), (Access::Write, false)] {
        for method in TABLE {
            let request = json!({ "jsonrpc": "2.0", "method": method.name, "params": { "no such": 1 }, "id": 1 });
            let answer = crate::control::rpc::answer(&methods, &Caller::new(may), request).unwrap();
            let code = answer["error"]["code"].as_i64();
            let expected =
                if forbidden && writes.contains(method.name) { code::FORBIDDEN } else { code::INVALID_PARAMS };
            assert_eq!(code, Some(expected), "{}: {answer}", method.name);
        }
    }
}

#[test]
fn no_parameters_whatever_they_are_make_a_method_panic() {
    let methods = methods();
    let values = [
        json!(null),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("x".repeat(100)),
        json!([]),
        json!({}),
        json!(true),
        json!(u64::MAX),
    ];
    for method in TABLE {
        let description = describe_params(method);
        for value in &values {
            // All parameters of that value, then each alone.
            let all: serde_json::Map<String, Value> =
                description.iter().map(|name| (name.clone(), value.clone())).collect();
            let each = description.iter().map(|name| json!({ name: value }));
            for params in std::iter::once(Value::Object(all.clone())).chain(each) {
                let _ = methods.call(&Caller::new(Access::Write), method.name, params);
            }
        }
    }
}

/// Names of a method's parameters.
fn describe_params(method: &Method) -> Vec<String> {
    let schema = schema();
    let described = schema["methods"].as_array().unwrap().iter().find(|one| one["name"] == method.name).unwrap();
    let names = described["params"].as_array().unwrap().iter();
    names.map(|param| param["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn topics_are_those_of_methods_and_changes_are_told() {
    let methods = methods();
    let caller = Caller::new(Access::Read);
    let subscribe = |params| methods.call(&caller, "subscribe", params);
    subscribe(json!({ "topic": "ports", "params": { "name": null } })).unwrap();
    for (params, words) in [
        (json!({ "topic": "weather" }), "unknown variant"),
        (json!({ "topic": "changes", "params": {} }), "no `params`"),
        (json!({ "topic": "ports", "interval_ms": 1 }), "100 to"),
        (json!({}), "topic"),
    ] {
        let error = subscribe(params).unwrap_err();
        assert_eq!(error.code, code::INVALID_PARAMS);
        assert!(error.message.contains(words), "{}", error.message);
    }
    let mut watch = Watch { topic: "changes".to_owned(), params: json!({}), before: None };
    assert_eq!(methods.look(&mut watch).unwrap(), None);
    assert_eq!(methods.look(&mut watch).unwrap(), None);
    let add =
        |name: &str| methods.call(&Caller::new(Access::Write), "port.add", json!({ "spec": "null", "name": name }));
    add("a").unwrap();
    add("b").unwrap();
    assert_eq!(methods.look(&mut watch).unwrap(), Some(json!({ "lines": ["+ open port a", "+ open port b"] })));
    methods.call(&Caller::new(Access::Write), "port.join", json!({ "name": "a", "join": "b" })).unwrap();
    let told = methods.look(&mut watch).unwrap().unwrap();
    assert_eq!(
        told,
        json!({ "lines": ["~ open port a: joined to b, running", "~ open port b: joined to a, running"] })
    );
    methods.call(&Caller::new(Access::Write), "port.del", json!({ "name": "b" })).unwrap();
    let told = methods.look(&mut watch).unwrap().unwrap();
    assert_eq!(told, json!({ "lines": ["- open port b", "~ open port a: joined to none, running"] }));
    methods.call(&Caller::new(Access::Write), "network.set", json!({ "name": "red", "vni": 7 })).unwrap();
    methods.call(&Caller::new(Access::Write), "slice.set", json!({ "name": "gold", "flows": 7 })).unwrap();
    assert_eq!(methods.look(&mut watch).unwrap(), Some(json!({ "lines": ["+ slice gold", "+ network red"] })));
    methods.call(&Caller::new(Access::Write), "network.del", json!({ "name": "red" })).unwrap();
    assert_eq!(methods.look(&mut watch).unwrap(), Some(json!({ "lines": ["- network red"] })));
    assert_eq!(methods.look(&mut watch).unwrap(), None);
}
