//! How commands ask a mirach that runs.

use std::path::PathBuf;

use anyhow::Context;
use dataplane::config::ControlSocket;
use dataplane::control::Client;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A connection to the mirach that was named, or to the one at the usual place.
pub(crate) fn connect(control: Option<PathBuf>) -> anyhow::Result<Client> {
    let path = control.or_else(ControlSocket::usual).context(
        "XDG_RUNTIME_DIR is not set, so there is no usual control socket; name that of the mirach that runs with --control PATH",
    )?;
    Ok(Client::connect(&path)?)
}

/// Takes an answer apart.
pub(crate) fn read<T: DeserializeOwned>(answer: Value) -> anyhow::Result<T> {
    serde_json::from_value(answer).context(
        "the mirach that runs answers what this one does not understand; use the program that it was started with",
    )
}

/// The entries of a list in an answer.
pub(crate) fn list<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    answer.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// A text or number in an answer, as people read it; `-` for nothing.
pub(crate) fn word(value: &Value, name: &str) -> String {
    plain(value.get(name))
}

/// A value as people read it; `-` for nothing.
pub(crate) fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(all)) if all.is_empty() => "-".to_owned(),
        Some(Value::Array(all)) => all.iter().map(|one| plain(Some(one))).collect::<Vec<_>>().join(","),
        Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        Some(other) => other.to_string(),
    }
}
