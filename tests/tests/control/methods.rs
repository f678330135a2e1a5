//! Every method that there is, as the published schema describes it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::scene::{close, set};
use crate::wire::Wire;

pub(crate) fn every_one() -> Result<()> {
    let (daemon, mut crowd) = set(&[])?;
    crowd.busy(|| {
        let mut wire = Wire::open(&daemon)?;
        let schema = wire.ask("schema", &json!({}))?;
        let methods = schema.pointer("/result/methods").and_then(Value::as_array).context("no methods")?.clone();
        ensure!(methods.len() > 10, "only {} methods", methods.len());
        for method in &methods {
            let name = method["name"].as_str().context("a method without a name")?;
            ensure!(method["summary"].as_str().is_some_and(|text| text.len() > 5), "{name} has no description");
            // Nobody has such a parameter.
            let answer = wire.ask(name, &json!({ "no-such-parameter": 1 }))?;
            ensure!(answer["error"]["code"] == -32602, "{name} takes parameters that it has not: {answer}");
            let params = method["params"].as_array().context("no parameters")?;
            let needs = params.iter().any(|param| param["required"] == true);
            let answer = match (needs, method["x-access"].as_str()) {
                (true, _) => {
                    let answer = wire.ask(name, &json!({}))?;
                    ensure!(answer["error"]["code"] == -32602, "{name} needs parameters, and does without: {answer}");
                    continue;
                }
                (false, Some("read")) => wire.ask(name, &json!({}))?,
                (false, Some("write")) => continue,
                (false, other) => anyhow::bail!("{name} may be called by {other:?}"),
            };
            ensure!(answer.get("result").is_some(), "{name}: {answer}");
        }
        Ok(())
    })?;
    close(daemon, crowd)
}
