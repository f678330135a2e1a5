//! `mirach set` and `mirach unset`: edit the switch of a mirach that runs, part by part.

use std::process::ExitCode;

use dataplane::control::Client;
use serde_json::{Map, Value, json};

use super::{apply, ask};
use crate::cli::{Part, SetArguments, UnsetArguments};

/// Keys whose values are lists: several are given with commas.
const LISTS: [&str; 6] = ["addresses", "gateways", "groups", "macs", "routers", "stations"];
/// Keys whose values are texts, even such as look like numbers.
const TEXTS: [&str; 10] =
    ["name", "network", "port", "slice", "to", "via", "remote", "prefix", "router-mac", "bits-per-second"];

/// How a part is called in the configuration and on the control socket.
struct Kind {
    /// The prefix of its methods.
    method: &'static str,
    /// Its list in the configuration.
    list: &'static str,
    /// The keys that name it, of which the first `named` are given as words of their own.
    keys: &'static [&'static str],
    named: usize,
}

fn kind(part: Part) -> Kind {
    let kind = |method, list, keys, named| Kind { method, list, keys, named };
    match part {
        Part::Slice => kind("slice", "slice", &["name"], 1),
        Part::Network => kind("network", "network", &["name"], 1),
        Part::Group => kind("group", "group", &["name"], 1),
        Part::Port => kind("attachment", "port", &["name", "network"], 1),
        Part::Route => kind("route", "route", &["network", "prefix"], 2),
        Part::Tunnel => kind("tunnel", "tunnel", &["network", "remote"], 2),
        Part::Mirror => kind("mirror", "mirror", &["name"], 1),
        Part::Underlay => kind("underlay", "underlay", &[], 0),
    }
}

/// Runs `mirach set`.
pub(crate) fn set(arguments: SetArguments) -> anyhow::Result<ExitCode> {
    let SetArguments { part, words, ask } = arguments;
    let kind = kind(part);
    let said = match read(&kind, &words) {
        Ok(said) => said,
        Err(reason) => return wrong(&reason),
    };
    let mut client = ask::connect(ask.control)?;
    let params = match said {
        Said::Whole(object) => object,
        Said::Some(object) => match merge(&kind, &in_force(&mut client)?, object) {
            Ok(object) => object,
            Err(reason) => return wrong(&reason),
        },
    };
    let answer = client.call(&format!("{}.set", kind.method), Value::Object(params))?;
    apply::print(&answer, ask.json, "it is so already")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `mirach unset`.
pub(crate) fn unset(arguments: UnsetArguments) -> anyhow::Result<ExitCode> {
    let UnsetArguments { part, words, ask } = arguments;
    let kind = kind(part);
    if words.len() < kind.named || words.len() > kind.keys.len() {
        return wrong(&usage(&kind));
    }
    let params: Map<String, Value> =
        kind.keys.iter().zip(&words).map(|(key, word)| ((*key).to_owned(), json!(word))).collect();
    let answer = ask::connect(ask.control)?.call(&format!("{}.del", kind.method), Value::Object(params))?;
    apply::print(&answer, ask.json, "nothing to change")?;
    Ok(ExitCode::SUCCESS)
}

fn wrong(reason: &str) -> anyhow::Result<ExitCode> {
    eprintln!("error: {reason}");
    Ok(ExitCode::from(2))
}

fn usage(kind: &Kind) -> String {
    match kind.keys {
        [] => "the underlay has no name".to_owned(),
        keys => {
            let named: Vec<String> = keys.iter().take(kind.named).map(|key| key.to_uppercase()).collect();
            format!("say which {}: {}", kind.list, named.join(" "))
        }
    }
}

fn in_force(client: &mut Client) -> anyhow::Result<Value> {
    let mut answer = client.call("config.get", json!({}))?;
    Ok(answer.get_mut("config").map(Value::take).unwrap_or_default())
}

/// What the user said.
#[derive(PartialEq, Debug)]
enum Said {
    /// All of it.
    Whole(Map<String, Value>),
    /// What is to be different; nothing takes a key out.
    Some(Map<String, Value>),
}

fn read(kind: &Kind, words: &[String]) -> Result<Said, String> {
    let (names, rest) = words.split_at_checked(kind.named).ok_or_else(|| usage(kind))?;
    if let Some(pair) = names.iter().find(|name| name.contains('=') || name.starts_with('{')) {
        return Err(format!("{}, and then `{pair}`", usage(kind)));
    }
    let mut object: Map<String, Value> =
        kind.keys.iter().zip(names).map(|(key, name)| ((*key).to_owned(), json!(name))).collect();
    if let [whole] = rest
        && whole.starts_with('{')
    {
        let more: Map<String, Value> =
            serde_json::from_str(whole).map_err(|error| format!("`{whole}` is no JSON object: {error}"))?;
        object.extend(more);
        return Ok(Said::Whole(object));
    }
    for word in rest {
        let (key, value) =
            word.split_once('=').ok_or_else(|| format!("`{word}` is not KEY=VALUE; see mirach set --help"))?;
        let key = key.replace('_', "-");
        if object.insert(key.clone(), read_value(&key, value)).is_some() {
            return Err(format!("`{key}` is given twice"));
        }
    }
    Ok(Said::Some(object))
}

/// A value as JSON: nothing for an empty text, and TOML or JSON where it is such.
fn read_value(key: &str, text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    if TEXTS.contains(&key) {
        return json!(text);
    }
    let parsed = serde_json::from_str(text).ok().or_else(|| {
        let mut table: toml::Table = format!("value = {text}").parse().ok()?;
        serde_json::to_value(table.remove("value")?).ok()
    });
    match parsed {
        Some(value) if value.is_array() || !LISTS.contains(&key) => value,
        _ if LISTS.contains(&key) => text.split(',').map(str::trim).collect(),
        _ => json!(text),
    }
}

/// What is to be, of what is and what shall be different.
fn merge(kind: &Kind, config: &Value, said: Map<String, Value>) -> Result<Map<String, Value>, String> {
    let found = config.get(kind.list);
    let fits =
        |one: &&Value| kind.keys.iter().all(|key| said.get(*key).is_none_or(|wanted| one.get(*key) == Some(wanted)));
    let now: Vec<&Value> = match found {
        Some(Value::Array(all)) => all.iter().filter(fits).collect(),
        Some(one) => vec![one],
        None => Vec::new(),
    };
    let mut object = match now.as_slice() {
        [] => Map::new(),
        [one] => one.as_object().cloned().unwrap_or_default(),
        several => {
            let networks: Vec<String> = several.iter().map(|one| ask::word(one, "network")).collect();
            return Err(format!("the port lies in several networks; say which with network=: {}", networks.join(", ")));
        }
    };
    for (key, value) in said {
        if value.is_null() {
            object.remove(&key);
        } else {
            object.insert(key, value);
        }
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn said(part: Part, words: &[&str]) -> Result<Said, String> {
        read(&kind(part), &words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn words_become_what_the_configuration_has() {
        for (part, words, expected) in [
            (
                Part::Slice,
                &["7", "flows=1000", "bits-per-second=10G"][..],
                json!({ "name": "7", "flows": 1000, "bits-per-second": "10G" }),
            ),
            (
                Part::Network,
                &["red", "vni=100", "slice=1", "routers=10.0.0.1/24, fd00::1/64"],
                json!({ "name": "red", "vni": 100, "slice": "1", "routers": ["10.0.0.1/24", "fd00::1/64"] }),
            ),
            (
                Part::Port,
                &["vm0", "macs=52:54:00:00:00:01", "anti-spoofing=false", "groups=[\"a\"]", "learned_macs="],
                json!({ "name": "vm0", "macs": ["52:54:00:00:00:01"], "anti-spoofing": false, "groups": ["a"], "learned-macs": null }),
            ),
            (
                Part::Group,
                &["web", "rules=[{ direction = \"in\", action = \"allow\", ports = 80 }]"],
                json!({ "name": "web", "rules": [{ "direction": "in", "action": "allow", "ports": 80 }] }),
            ),
            (
                Part::Route,
                &["red", "10.1.0.0/24", "to=blue"],
                json!({ "network": "red", "prefix": "10.1.0.0/24", "to": "blue" }),
            ),
            (Part::Tunnel, &["red", "fd00::7"], json!({ "network": "red", "remote": "fd00::7" })),
            (
                Part::Underlay,
                &["mtu=9000", "addresses=192.0.2.1/24"],
                json!({ "mtu": 9000, "addresses": ["192.0.2.1/24"] }),
            ),
        ] {
            assert_eq!(said(part, words), Ok(Said::Some(object(expected))), "{words:?}");
        }
        let whole = said(Part::Slice, &["a", "{\"flows\": 5}"]);
        assert_eq!(whole, Ok(Said::Whole(object(json!({ "name": "a", "flows": 5 })))));
        for (part, words, reason) in [
            (Part::Slice, &[][..], "say which slice: NAME"),
            (Part::Route, &["red"], "say which route: NETWORK PREFIX"),
            (Part::Slice, &["flows=5"], "say which slice"),
            (Part::Slice, &["a", "flows"], "not KEY=VALUE"),
            (Part::Slice, &["a", "flows=1", "flows=2"], "given twice"),
            (Part::Slice, &["a", "{flows}"], "no JSON object"),
        ] {
            let error = said(part, words).unwrap_err();
            assert!(error.contains(reason), "{words:?}: {error}");
        }
    }

    #[test]
    fn what_is_not_given_stays() {
        let config = json!({
            "slice": [{ "name": "a", "flows": 1, "share": 2 }],
            "port": [{ "name": "p", "network": "red" }, { "name": "p", "network": "blue" }, { "name": "q", "network": "red", "macs": ["x"] }],
            "underlay": { "port": "u", "mtu": 1500 },
        });
        let merged = |part, value| merge(&kind(part), &config, object(value));
        assert_eq!(
            merged(Part::Slice, json!({ "name": "a", "flows": 9 })),
            Ok(object(json!({ "name": "a", "flows": 9, "share": 2 })))
        );
        assert_eq!(
            merged(Part::Slice, json!({ "name": "a", "flows": null })),
            Ok(object(json!({ "name": "a", "share": 2 })))
        );
        assert_eq!(
            merged(Part::Slice, json!({ "name": "b", "flows": 9 })),
            Ok(object(json!({ "name": "b", "flows": 9 })))
        );
        assert_eq!(
            merged(Part::Port, json!({ "name": "q", "tagged": true })),
            Ok(object(json!({ "name": "q", "network": "red", "macs": ["x"], "tagged": true })))
        );
        assert!(
            merged(Part::Port, json!({ "name": "p", "tagged": true })).unwrap_err().contains("network=: red, blue")
        );
        assert_eq!(
            merged(Part::Port, json!({ "name": "p", "network": "blue", "tagged": true })),
            Ok(object(json!({ "name": "p", "network": "blue", "tagged": true })))
        );
        assert_eq!(merged(Part::Underlay, json!({ "mtu": 9000 })), Ok(object(json!({ "port": "u", "mtu": 9000 }))));
    }
}
