//! mirach, with both ports in one network, whose rules make it decide on each conversation by itself.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dataplane::control::Client;
use serde_json::{Value, json};

use crate::peer_bench::device::{Device, Listener, Program, is_engine, mirach};
use crate::peer_bench::flows;

/// Flows that its table is made for: both directions of the largest case, and room.
const FLOWS: u32 = 1 << 18;
/// Flows that are looked at one by one.
const SAMPLE: usize = 8;

/// It, running or resting.
pub struct Mirach {
    listener: Listener,
}

impl Mirach {
    /// Starts it with two ports at which it listens.
    ///
    /// # Errors
    /// It was not built, or ends.
    pub fn start(huge_pages: bool) -> Result<Self> {
        let listener = Listener::start("mirach", is_engine, |folder, sockets| {
            let file = folder.join("mirach.toml");
            std::fs::write(&file, configuration(sockets))
                .with_context(|| format!("cannot write {}", file.display()))?;
            Ok(command(mirach(huge_pages)?, folder, &file))
        })?;
        Ok(Self { listener })
    }

    fn ask(&self, method: &str, parameters: Value) -> Result<Value> {
        let mut client = Client::connect(&control(self.listener.folder()))?;
        client.call(method, parameters).with_context(|| format!("`{method}`"))
    }
}

impl Device for Mirach {
    fn program(&mut self) -> &mut Program {
        self.listener.program()
    }

    fn name(&self) -> &'static str {
        self.listener.name()
    }

    fn sockets(&self) -> [PathBuf; 2] {
        self.listener.sockets()
    }

    fn account(&mut self, report: &Value) -> Result<Value> {
        let flows =
            self.ask("flow.list", json!({ "filter": { "network": "bench", "protocol": 17 }, "most": SAMPLE }))?;
        let statistics = self.ask("switch.stats", json!({}))?;
        says(report, &flows, &statistics)
    }
}

fn command(mut command: Command, folder: &Path, file: &Path) -> Command {
    command.arg("--config").arg(file).arg("--control").arg(control(folder));
    command
}

fn control(folder: &Path) -> PathBuf {
    folder.join("control")
}

/// The network, as a file. Each station may send from its Ethernet address and its prefix alone, and UDP between unprivileged ports passes: that depends on both
/// ports, so a flow is a 5-tuple, and answers pass by the same rule, so no connections are kept.
fn configuration(sockets: &[PathBuf; 2]) -> String {
    let [first, second] = sockets.each_ref().map(|socket| format!("vhost-user={},client=off", socket.display()));
    let mut text = format!(
        "ports = [\"{first},name=one\", \"{second},name=two\"]\n\
         flows = {FLOWS}\n\
         [[network]]\n\
         name = \"bench\"\n\
         [[group]]\n\
         name = \"udp\"\n\
         rules = [\n    \
             {{ direction = \"in\", action = \"allow\", protocol = \"udp\", source-ports = \"1024-65535\", ports = \"1024-65535\" }},\n    \
             {{ direction = \"out\", action = \"allow\", protocol = \"udp\", source-ports = \"1024-65535\", ports = \"1024-65535\" }},\n\
         ]\n"
    );
    for (station, name) in [(1, "one"), (2, "two")] {
        let prefix = flows::prefix(station);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "[[port]]\n\
             name = \"{name}\"\n\
             network = \"bench\"\n\
             macs = [\"02:00:00:00:00:{station:02x}\"]\n\
             addresses = [\"{prefix}\"]\n\
             groups = [\"udp\"]\n"
        );
    }
    text
}

/// That there was a flow for each direction of each conversation, and that the packets that came through were found in the table.
fn says(report: &Value, flows: &Value, statistics: &Value) -> Result<Value> {
    let number = |value: &Value, what: &str| value.as_u64().with_context(|| format!("mirach does not say {what}"));
    let wanted = 2 * number(&report["flows"], "flows")?;
    let listed = number(&flows["matched"], "how many flows there are")?;
    ensure!(listed == wanted, "its table has {listed} flows of the network, and {wanted} were sent");
    let sample = flows["flows"].as_array().context("mirach does not list flows")?;
    let wide = sample.iter().find(|flow| flow["source_port"].is_null() || flow["destination_port"].is_null());
    ensure!(wide.is_none() && !sample.is_empty(), "a flow is not one of addresses and ports: {wide:?}");
    let received = number(&report["received"], "what came through")?;
    let matched = number(&statistics["sums"]["packets"]["matched"], "what was matched")?;
    ensure!(matched >= received, "{received} packets came through, and {matched} were found in its table");
    let mut cycles = serde_json::Map::new();
    for element in statistics["sums"]["elements"].as_array().into_iter().flatten() {
        if let (Some(name), Some(count)) = (element["element"].as_str(), element["cycles_per_packet"].as_f64()) {
            cycles.insert(name.into(), count.into());
        }
    }
    Ok(json!({
        "table_flows": listed, "matched": matched, "cycles": cycles,
        "summary": format!("mirach: {listed} flows by 5-tuple"),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_configuration_is_one_that_mirach_takes() {
        let text = configuration(&["/a".into(), "/b".into()]);
        dataplane::config::Desired::from_toml(&text, Path::new("bench.toml")).unwrap();
    }

    #[test]
    fn flows_that_are_missing_wide_or_not_used_are_errors() {
        let report = json!({ "flows": 1000, "received": 5000 });
        let flow = json!({ "source_port": 10_000, "destination_port": 5001 });
        let statistics = json!({ "sums": { "packets": { "matched": 6000 }, "elements": [
            { "element": "look up", "cycles_per_packet": 40.5 }, { "element": "mirror" },
        ] } });
        let says_of = |matched: u64, flow: &Value, statistics: &Value| {
            says(&report, &json!({ "matched": matched, "flows": [flow] }), statistics)
        };
        let said = says_of(2000, &flow, &statistics).unwrap();
        assert_eq!((&said["table_flows"], &said["cycles"]), (&json!(2000), &json!({ "look up": 40.5 })));
        assert!(says_of(1999, &flow, &statistics).is_err());
        assert!(says_of(2000, &json!({ "source_port": null, "destination_port": 5001 }), &statistics).is_err());
        assert!(says_of(2000, &flow, &json!({ "sums": { "packets": { "matched": 10 } } })).is_err());
    }
}
