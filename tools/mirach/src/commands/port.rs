//! `mirach port`: adds, removes and shows the ports of a mirach that runs.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use dataplane::port::{NamedSpec, PciName, PortSpec};
use serde_json::{Value, json};

use crate::cli::{AddArguments, PortArguments, PortCommand};
use crate::commands::ask;
use crate::output;
use crate::table::grouped;

/// Runs the command.
pub(crate) fn execute(arguments: PortArguments) -> anyhow::Result<ExitCode> {
    let PortArguments { command, control, json } = arguments;
    let (method, params) = match &command {
        PortCommand::Add(add) => {
            if let (Some(name), Some(other)) = (&add.name, &add.spec.name) {
                eprintln!("error: the port is named twice, {other} and {name}; leave --name or name= out");
                return Ok(ExitCode::from(2));
            }
            ("port.add", add_params(add)?)
        }
        PortCommand::Del { name } => ("port.del", json!({ "name": name })),
        PortCommand::Join { name, join } => ("port.join", json!({ "name": name, "join": join })),
        PortCommand::List => ("port.list", json!({})),
        PortCommand::Stats { name } => ("port.stats", json!({ "name": name })),
    };
    let result = ask::connect(control)?.call(method, params)?;
    for notice in result.get("notices").and_then(Value::as_array).into_iter().flatten() {
        eprintln!("note: {}", word(notice));
    }
    if json {
        print_json(&command, &result)?;
    } else {
        output_text(&command, &result)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Paths are taken from here, and not from where the forwarder was started.
fn add_params(add: &AddArguments) -> anyhow::Result<Value> {
    let absolute = |path: &mut PathBuf| -> anyhow::Result<()> {
        *path = std::path::absolute(&*path).with_context(|| format!("{}: where is that?", path.display()))?;
        Ok(())
    };
    let mut spec: NamedSpec = add.spec.clone();
    match &mut spec.spec {
        PortSpec::VhostUser(port) => absolute(&mut port.socket)?,
        PortSpec::VirtioUser(port) => absolute(&mut port.socket)?,
        PortSpec::Pcap(port) => port.input.iter_mut().chain(&mut port.output).try_for_each(absolute)?,
        PortSpec::Pci(port) => {
            if let PciName::Socket(path) = &mut port.device {
                absolute(path)?;
            }
        }
        _ => {}
    }
    Ok(json!({ "spec": spec, "name": add.name.as_ref().map(ToString::to_string), "join": add.join }))
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn ports(result: &Value) -> impl Iterator<Item = &Value> {
    result.get("ports").and_then(Value::as_array).into_iter().flatten()
}

/// One object a line: the ports of a list, or what was done.
fn print_json(command: &PortCommand, result: &Value) -> std::io::Result<()> {
    match command {
        PortCommand::List | PortCommand::Stats { .. } => ports(result).try_for_each(output::json),
        _ => output::json(result),
    }
}

fn output_text(command: &PortCommand, result: &Value) -> std::io::Result<()> {
    let name = result.get("name").map_or("", word);
    let text = match command {
        PortCommand::Add(_) => {
            let mut text = format!("added port {name}\n");
            for line in result.get("vmm").and_then(Value::as_array).into_iter().flatten() {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "  {}", word(line));
            }
            text
        }
        PortCommand::Del { .. } => format!("deleted port {name}\n"),
        PortCommand::Join { join, .. } => format!("joined port {name} to {join}\n"),
        PortCommand::List => list(result),
        PortCommand::Stats { .. } => stats(result),
    };
    if text.is_empty() { output::line("no ports") } else { output::line(text.trim_end()) }
}

/// As `ip -d link` does it, less the numbers.
fn list(result: &Value) -> String {
    let mut text = String::new();
    for port in ports(result) {
        let field = |name| port.get(name).map_or("-", word);
        let _ = write!(text, "{}: {}", field("name"), field("kind"));
        match port.get("join").and_then(Value::as_str) {
            Some(partner) => text.push_str(&format!(" join {partner}")),
            None if port.get("switched").and_then(Value::as_bool) == Some(true) => {
                text.push_str(&format!(" networks {}", ask::word(port, "networks")));
            }
            None => text.push_str(" unjoined"),
        }
        if field("state") == "lost" {
            text.push_str(" LOST");
        }
        let _ = writeln!(text, "\n    {}", field("facts"));
        if let Some(spec) = port.get("spec").and_then(Value::as_str) {
            let _ = writeln!(text, "    spec {spec}");
        }
    }
    text
}

/// As `ip -s link` does it, with the other counters that are not zero behind.
fn stats(result: &Value) -> String {
    let mut text = String::new();
    for port in ports(result) {
        let _ = write!(text, "{}:", port.get("name").map_or("-", word));
        if let Some(seconds) = port.get("cpu_seconds").and_then(Value::as_f64) {
            let _ = write!(text, " cpu {seconds:.3} s");
        }
        if let Some(share) = port.get("cpu_share").and_then(Value::as_f64) {
            let _ = write!(text, " share {:.1} %", share * 100.0);
        }
        text.push('\n');
        let counters = port.get("counters");
        let count = |name: &str| counters.and_then(|all| all.get(name)).and_then(Value::as_u64).unwrap_or(0);
        for direction in ["rx", "tx"] {
            let total = |what: &str| grouped(count(&format!("{direction}_{what}")));
            let _ = writeln!(
                text,
                "    {}: packets {} bytes {} dropped {}",
                direction.to_uppercase(),
                total("packets"),
                total("bytes"),
                total("dropped")
            );
        }
        let shown = ["rx_packets", "rx_bytes", "rx_dropped", "tx_packets", "tx_bytes", "tx_dropped", "cpu_cycles"];
        for (title, group) in [("", counters), ("device ", port.get("device"))] {
            for (name, value) in group.and_then(Value::as_object).into_iter().flatten() {
                let value = value.as_u64().unwrap_or(0);
                if value > 0 && !shown.contains(&name.as_str()) {
                    let _ = writeln!(text, "    {title}{name} {}", grouped(value));
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_like_that_of_ip() {
        let result = json!({ "ports": [
            { "name": "a", "kind": "vhost-user", "join": "b", "state": "running", "facts": "mtu 1500 state UP", "spec": "vhost-user=/x" },
            { "name": "b", "kind": "pci", "join": null, "state": "lost", "facts": "state DOWN", "spec": null },
            { "name": "c", "kind": "tap", "join": null, "switched": true, "networks": ["red", "blue"], "state": "running", "facts": "state UP" },
        ] });
        let expected = "a: vhost-user join b\n    mtu 1500 state UP\n    spec vhost-user=/x\nb: pci unjoined LOST\n    state DOWN\n\
                        c: tap networks red,blue\n    state UP\n";
        assert_eq!(list(&result), expected);
        assert_eq!(list(&json!({ "ports": [] })), "");
    }

    #[test]
    fn statistics_show_the_share_and_hide_zeros() {
        let counters =
            json!({ "rx_packets": 1_234, "rx_bytes": 5, "rx_bad_length": 7, "tx_packets": 0, "tx_queue_full": 0 });
        let port = json!({ "name": "a", "cpu_seconds": 1.5, "cpu_share": 0.25, "counters": counters,
                           "device": { "rx_crc_errors": 3 } });
        let text = stats(&json!({ "ports": [port] }));
        assert!(text.starts_with("a: cpu 1.500 s share 25.0 %\n    RX: packets 1,234 bytes 5 dropped 0\n"), "{text}");
        assert!(text.contains("    rx_bad_length 7\n    device rx_crc_errors 3\n"), "{text}");
        assert!(!text.contains("tx_queue_full"), "{text}");
    }
}
