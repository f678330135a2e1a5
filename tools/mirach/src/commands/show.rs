//! `mirach show`: shows the parts of the switch of a mirach that runs.

use std::process::ExitCode;

use dataplane::vswitch::report::LatencyReport;
use serde_json::{Value, json};

use super::ask::{self, word};
use crate::cli::{ShowArguments, Shown};
use crate::output;
use crate::table::{Table, grouped, optional, time};

/// Runs the command.
pub(crate) fn execute(arguments: ShowArguments) -> anyhow::Result<ExitCode> {
    let ShowArguments { what, ask } = arguments;
    let (method, list) = match what {
        Shown::Graph => ("switch.graph", "elements"),
        Shown::Networks => ("network.list", "networks"),
        Shown::Ports => ("attachment.list", "attachments"),
        Shown::Slices => ("slice.list", "slices"),
        Shown::Groups => ("group.list", "groups"),
        Shown::Routes => ("route.list", "routes"),
        Shown::Tunnels => ("tunnel.list", "tunnels"),
        Shown::Mirrors => ("mirror.list", "mirrors"),
        Shown::Coprocessors => ("switch.stats", "coprocessors"),
        Shown::Macs => ("switch.stats", "networks"),
        Shown::Config => ("config.get", ""),
    };
    let answer = ask::connect(ask.control)?.call(method, json!({}))?;
    if ask.json {
        match what {
            Shown::Config => output::json(&answer.get("config"))?,
            Shown::Graph => output::json(&answer)?,
            Shown::Macs => macs(&answer).iter().try_for_each(output::json)?,
            _ => ask::list(&answer, list).try_for_each(output::json)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let entries: Vec<&Value> = ask::list(&answer, list).collect();
    let text = match what {
        Shown::Graph => graph(&answer),
        Shown::Networks => networks(&entries),
        Shown::Ports => ports(&entries),
        Shown::Slices => slices(&entries),
        Shown::Groups => groups(&entries),
        Shown::Routes => routes(&entries),
        Shown::Tunnels => tunnels(&entries),
        Shown::Mirrors => mirrors(&entries),
        Shown::Coprocessors => coprocessors(&entries),
        Shown::Macs => learned(&macs(&answer)),
        Shown::Config => word(&answer, "text"),
    };
    output::line(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// A table, or that there is nothing in it.
fn render(table: &Table, nothing: &str) -> String {
    if table.is_empty() { nothing.to_owned() } else { table.render(0) }
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// What the switch says of it now.
fn state(entry: &Value) -> &Value {
    entry.get("state").unwrap_or(&Value::Null)
}

/// The elements in their order, then what was dropped.
fn graph(answer: &Value) -> String {
    let mut table = Table::new(1, ["element", "packets", "of all", "per batch", "cycles/pkt", "of cycles"]);
    let percent = |value: &Value, name: &str| {
        value.get(name).and_then(Value::as_f64).map_or_else(String::new, |share| format!("{:.1} %", share * 100.0))
    };
    for element in ask::list(answer, "elements") {
        let (packets, batches) = (number(element, "packets"), number(element, "batches"));
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let per_batch = (batches > 0).then(|| packets as f64 / batches as f64);
        table.row([
            word(element, "element"),
            grouped(packets),
            percent(element, "packet_share"),
            optional(per_batch, 1),
            optional(element.get("cycles_per_packet").and_then(Value::as_f64), 1),
            percent(element, "cycle_share"),
        ]);
    }
    let mut drops = Table::new(2, ["dropped", "because", "packets"]);
    for drop in ask::list(answer, "drops") {
        drops.row([word(drop, "reason"), word(drop, "sentence"), grouped(number(drop, "packets"))]);
    }
    let mut text = format!("{} packets came in\n{}", grouped(number(answer, "received")), table.render(0));
    text.push_str(&if drops.is_empty() { "nothing was dropped\n".to_owned() } else { drops.render(0) });
    if let Some(latency) = answer.get("latency").cloned().and_then(|it| serde_json::from_value(it).ok()) {
        text.push_str(&latencies(&latency, "took").render(0));
    }
    text
}

/// How long packets took since the start, those kinds that there were.
pub(crate) fn latencies(latency: &LatencyReport, heading: &str) -> Table {
    let mut table = Table::new(1, [heading, "packets", "median", "99 %", "99.9 %", "longest"]);
    let kinds = [
        ("through the elements", &latency.through),
        ("waiting for their flow", &latency.waited),
        ("with control", &latency.with_control),
    ];
    for (kind, took) in kinds.into_iter().filter(|(_, took)| took.count > 0) {
        let times = [took.p50, took.p99, took.p999, took.maximum].map(time);
        let [p50, p99, p999, maximum] = times;
        table.row([kind.to_owned(), grouped(took.count), p50, p99, p999, maximum]);
    }
    table
}

fn networks(entries: &[&Value]) -> String {
    let mut table = Table::new(6, ["network", "vni", "vlan", "slice", "routers", "ports", "learned"]);
    for one in entries {
        let learned = grouped(number(state(one), "learned_count"));
        let ports = word(state(one), "ports");
        table.row([
            word(one, "name"),
            word(one, "vni"),
            word(one, "vlan"),
            word(one, "slice"),
            word(one, "routers"),
            ports,
            learned,
        ]);
    }
    render(&table, "no networks")
}

fn ports(entries: &[&Value]) -> String {
    let mut table = Table::new(7, ["port", "network", "tagged", "macs", "addresses", "groups", "state"]);
    for one in entries {
        let open = if state(one).is_null() { "not open" } else { "open" };
        table.row([
            word(one, "name"),
            word(one, "network"),
            word(one, "tagged"),
            word(one, "macs"),
            word(one, "addresses"),
            word(one, "groups"),
            open.to_owned(),
        ]);
    }
    render(&table, "no ports in networks")
}

fn slices(entries: &[&Value]) -> String {
    let mut table = Table::new(1, ["slice", "flows", "at most", "connections", "packets/s", "bit/s", "share"]);
    for one in entries {
        let now = state(one);
        table.row([
            word(one, "name"),
            grouped(number(now, "flows")),
            word(one, "flows"),
            word(now, "most_connections"),
            word(one, "packets-per-second"),
            word(one, "bits-per-second"),
            word(now, "share"),
        ]);
    }
    render(&table, "no slices")
}

fn groups(entries: &[&Value]) -> String {
    let mut text = String::new();
    for one in entries {
        text.push_str(&format!("{}: ports {}\n", word(one, "name"), word(state(one), "ports")));
        for rule in ask::list(one, "rules") {
            let mut line = format!("    {} {}", word(rule, "direction"), word(rule, "action"));
            for key in ["protocol", "remote", "ports", "source-ports", "icmp-type"] {
                if rule.get(key).is_some() {
                    line.push_str(&format!(" {key} {}", word(rule, key)));
                }
            }
            text.push_str(&line);
            text.push('\n');
        }
    }
    if text.is_empty() { "no groups".to_owned() } else { text }
}

fn routes(entries: &[&Value]) -> String {
    let mut table = Table::new(4, ["network", "prefix", "to", "via"]);
    for one in entries {
        table.row([word(one, "network"), word(one, "prefix"), word(one, "to"), word(one, "via")]);
    }
    render(&table, "no routes")
}

fn tunnels(entries: &[&Value]) -> String {
    let mut table = Table::new(8, ["network", "remote", "kind", "vni", "state", "next hop", "mac", "learn"]);
    for one in entries {
        let now = state(one);
        table.row([
            word(one, "network"),
            word(one, "remote"),
            word(one, "kind"),
            word(now, "vni"),
            word(now, "state"),
            word(now, "next_hop"),
            word(now, "mac"),
            word(one, "learn"),
        ]);
    }
    render(&table, "no tunnels")
}

fn mirrors(entries: &[&Value]) -> String {
    let mut table = Table::new(6, ["mirror", "port", "network", "direction", "to", "state"]);
    for one in entries {
        let open = if state(one).is_null() { "not open" } else { "open" };
        let [name, port, network, direction, to] =
            ["name", "port", "network", "direction", "to"].map(|key| word(one, key));
        table.row([name, port, network, direction, to, open.to_owned()]);
    }
    render(&table, "no mirrors")
}

fn coprocessors(entries: &[&Value]) -> String {
    let mut table =
        Table::new(3, ["coprocessor", "port", "runs", "packets", "bytes", "denied", "overflowed", "waiting", "CPU"]);
    for one in entries {
        let [packets, bytes, denied, overflowed, waiting] =
            ["packets", "bytes", "denied", "overflowed", "waiting"].map(|key| grouped(number(one, key)));
        let cpu = time(number(one, "cpu_nanoseconds"));
        let [coprocessor, port, runs] = ["number", "port", "running"].map(|key| word(one, key));
        table.row([coprocessor, port, runs, packets, bytes, denied, overflowed, waiting, cpu]);
    }
    render(&table, "no coprocessors")
}

/// Learned addresses, each with its network.
fn macs(answer: &Value) -> Vec<Value> {
    let of = |network: &Value| {
        let name = word(network, "name");
        let entry = |one: &Value| json!({ "network": name, "mac": word(one, "mac"), "place": word(one, "place") });
        ask::list(network, "learned").map(entry).collect::<Vec<_>>()
    };
    ask::list(answer, "networks").flat_map(of).collect()
}

fn learned(entries: &[Value]) -> String {
    let mut table = Table::new(3, ["network", "mac", "where"]);
    for one in entries {
        table.row([word(one, "network"), word(one, "mac"), word(one, "place")]);
    }
    render(&table, "no addresses were learned")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graph_shows_shares_and_drops() {
        let answer = json!({
            "received": 2000,
            "elements": [
                { "element": "parse", "batches": 100, "packets": 2000, "packet_share": 1.0, "cycles_per_packet": 45.25, "cycle_share": 0.2 },
                { "element": "meter", "batches": 0, "packets": 0, "packet_share": 0.0, "cycles_per_packet": null, "cycle_share": null },
            ],
            "drops": [{ "reason": "denied", "sentence": "a rule denies it", "packets": 1234 }],
        });
        let text = graph(&answer);
        assert!(text.starts_with("2,000 packets came in\nelement  packets   of all"), "{text}");
        assert!(
            text.contains("parse      2,000  100.0 %       20.0        45.2     20.0 %\nmeter          0    0.0 %\n"),
            "{text}"
        );
        assert!(text.contains("denied   a rule denies it    1,234"), "{text}");
        assert!(graph(&json!({})).ends_with("nothing was dropped\n"));
        let mut latency = LatencyReport::default();
        latency.through.count = 1500;
        latency.through.p50 = 2100;
        let text = graph(&json!({ "latency": latency }));
        assert!(text.contains("through the elements    1,500  2.1 us"), "{text}");
        assert!(!text.contains("with control"), "{text}");
    }

    #[test]
    fn parts_show_what_is_configured_and_what_is() {
        let network = json!({ "name": "red", "vni": 100, "routers": ["10.0.0.1/24"], "state": { "ports": ["a", "b"], "learned_count": 3 } });
        assert!(
            networks(&[&network]).ends_with("red      100  -     -      10.0.0.1/24  a,b          3\n"),
            "{}",
            networks(&[&network])
        );
        assert_eq!(networks(&[]), "no networks");
        let port = json!({ "name": "a", "network": "red", "tagged": false, "state": null });
        assert!(
            ports(&[&port]).ends_with("a     red      no      -     -          -       not open\n"),
            "{}",
            ports(&[&port])
        );
        let group = json!({ "name": "web", "rules": [{ "direction": "in", "action": "allow", "protocol": "tcp", "ports": "80" }], "state": { "ports": ["a"] } });
        assert_eq!(groups(&[&group]), "web: ports a\n    in allow protocol tcp ports 80\n");
        let answer =
            json!({ "networks": [{ "name": "red", "learned": [{ "mac": "52:54:00:00:00:01", "place": "port a" }] }] });
        assert!(learned(&macs(&answer)).ends_with("red      52:54:00:00:00:01  port a\n"));
    }
}
