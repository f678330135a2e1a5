//! `mirach apply`: makes a mirach that runs what a configuration file says.

use std::io::Read;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};

use super::ask;
use crate::cli::ApplyArguments;
use crate::output;

/// Runs the command.
pub(crate) fn execute(arguments: ApplyArguments) -> anyhow::Result<ExitCode> {
    let ApplyArguments { file, dry_run, ask } = arguments;
    let (name, text) = if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        ("standard input".into(), text)
    } else {
        let text = std::fs::read_to_string(&file);
        let text = text.with_context(|| format!("{}: cannot read the configuration", file.display()))?;
        (file, text)
    };
    let method = if dry_run { "plan" } else { "apply" };
    let answer = ask::connect(ask.control)?.call(method, json!({ "file": name, "text": text }))?;
    print(&answer, ask.json, if dry_run { "nothing would change" } else { "nothing to change" })?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what was changed.
pub(crate) fn print(answer: &Value, json: bool, nothing: &str) -> anyhow::Result<()> {
    for notice in ask::list(answer, "notices") {
        eprintln!("note: {}", ask::plain(Some(notice)));
    }
    if json {
        return Ok(output::json(answer)?);
    }
    let lines: Vec<String> = ask::list(answer, "lines").map(|line| ask::plain(Some(line))).collect();
    Ok(output::line(if lines.is_empty() { nothing.to_owned() } else { lines.join("\n") }.as_str())?)
}
