//! `mirach flows`: shows flows of the switch.

use std::net::IpAddr;
use std::process::ExitCode;

use dataplane::vswitch::report::{FlowFilter, FlowList, FlowOrder, FlowReport, FlowStatus};
use serde_json::json;

use super::ask;
use crate::cli::{FlowsArguments, Sort};
use crate::output;
use crate::table::{Table, grouped};

/// Runs the command.
pub(crate) fn execute(arguments: FlowsArguments) -> anyhow::Result<ExitCode> {
    let FlowsArguments { network, port, address, protocol, sort, most, ask } = arguments;
    let order = match sort {
        Sort::Packets => FlowOrder::Packets,
        Sort::Bytes => FlowOrder::Bytes,
        Sort::Index => FlowOrder::Index,
    };
    let filter = FlowFilter { network, port, address, protocol: protocol.map(|protocol| protocol.0), order };
    let answer = ask::connect(ask.control)?.call("flow.list", json!({ "filter": filter, "most": most }))?;
    let list: FlowList = ask::read(answer)?;
    if ask.json {
        for flow in &list.flows {
            output::json(flow)?;
        }
    } else {
        output::line(&text(&list))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(list: &FlowList) -> String {
    let count = u64::from(list.matched);
    let all = grouped(u64::from(list.total));
    let mut text = match list.flows.len() as u64 {
        0 if list.total == 0 => return "no flows".to_owned(),
        0 => return format!("none of {all} flows"),
        shown if shown == count => format!("{} of {all} flows\n", grouped(count)),
        shown => format!("{} of {} that fit, of {all} flows\n", grouped(shown), grouped(count)),
    };
    text.push_str(&table(&list.flows).render(0));
    text
}

/// Flows in columns.
pub(crate) fn table(flows: &[FlowReport]) -> Table {
    let mut table = Table::new(4, ["network", "port", "flow", "action", "packets", "bytes", "age", "idle"]);
    for flow in flows {
        let action = match flow.state {
            FlowStatus::Active => flow.action.clone(),
            FlowStatus::Pending => format!("{} (first packets underway)", flow.action),
        };
        table.row([
            flow.network.clone().unwrap_or_else(|| "-".to_owned()),
            flow.port.clone().unwrap_or_else(|| "tunnel".to_owned()),
            key(flow),
            action,
            grouped(flow.packets),
            grouped(flow.bytes),
            seconds(flow.age_seconds),
            seconds(flow.idle_seconds),
        ]);
    }
    table
}

/// `tcp 10.0.0.1:1000 > 10.0.0.2:80`, or Ethernet addresses where there are no others.
fn key(flow: &FlowReport) -> String {
    let vlan = flow.vlan.map(|vlan| format!("vlan {vlan} ")).unwrap_or_default();
    let (Some(source), Some(destination)) = (flow.source, flow.destination) else {
        return format!("{vlan}{:#06x} {} > {}", flow.ether_type, flow.source_mac, flow.destination_mac);
    };
    let protocol = dataplane::network::config::Protocol(flow.protocol);
    if protocol.has_types() {
        let kind = flow.source_port.map(|port| format!(" type {} code {}", port >> 8, port & 0xff)).unwrap_or_default();
        return format!("{vlan}{protocol} {source} > {destination}{kind}");
    }
    let end = |address: IpAddr, port: Option<u16>| match (address, port) {
        (address, None) => address.to_string(),
        (IpAddr::V4(address), Some(port)) => format!("{address}:{port}"),
        (IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
    };
    format!("{vlan}{protocol} {} > {}", end(source, flow.source_port), end(destination, flow.destination_port))
}

fn seconds(seconds: f64) -> String {
    if seconds < 100.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn flow() -> FlowReport {
        serde_json::from_value(json!({
            "index": 7, "network": "red", "port": "vm0",
            "source_mac": "52:54:00:00:00:01", "destination_mac": "52:54:00:00:00:02",
            "ether_type": 0x0800, "source": "10.0.0.1", "destination": "10.0.0.2", "protocol": 6,
            "source_port": 1000, "destination_port": 80, "action": "to vm1", "packets": 1234, "bytes": 5678,
            "age_seconds": 1.25, "idle_seconds": 120.4, "slice": "gold", "state": "active",
        }))
        .unwrap()
    }

    #[test]
    fn flows_read_as_they_are_asked_about() {
        assert_eq!(key(&flow()), "tcp 10.0.0.1:1000 > 10.0.0.2:80");
        let wide = FlowReport { source_port: None, destination_port: None, vlan: Some(5), ..flow() };
        assert_eq!(key(&wide), "vlan 5 tcp 10.0.0.1 > 10.0.0.2");
        let six = FlowReport {
            source: Some("fd00::1".parse().unwrap()),
            destination: Some("fd00::2".parse().unwrap()),
            ..flow()
        };
        assert_eq!(key(&six), "tcp [fd00::1]:1000 > [fd00::2]:80");
        let ping = FlowReport { protocol: 1, source_port: Some(0x0800), destination_port: None, ..flow() };
        assert_eq!(key(&ping), "icmp 10.0.0.1 > 10.0.0.2 type 8 code 0");
        let other = FlowReport { source: None, ether_type: 0x88cc, ..flow() };
        assert_eq!(key(&other), "0x88cc 52:54:00:00:00:01 > 52:54:00:00:00:02");
    }

    #[test]
    fn how_many_there_are_is_said_first() {
        let list = |total, matched, flows| FlowList { total, matched, flows };
        assert_eq!(text(&list(0, 0, vec![])), "no flows");
        assert_eq!(text(&list(1000, 0, vec![])), "none of 1,000 flows");
        let shown = text(&list(1000, 1, vec![flow()]));
        assert!(shown.starts_with("1 of 1,000 flows\nnetwork  port  flow"), "{shown}");
        assert!(shown.contains("to vm1    1,234  5,678  1.2 s  120 s"), "{shown}");
        assert!(text(&list(1000, 20, vec![flow()])).starts_with("1 of 20 that fit, of 1,000 flows\n"));
    }
}
