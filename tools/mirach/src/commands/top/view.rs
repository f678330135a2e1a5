//! A picture as lines of text.

use super::picture::Picture;
use super::terminal::Size;
use crate::commands::flows;
use crate::commands::show::latencies;
use crate::table::{Table, grouped, optional};

/// The lines, cut to what fits. Without a size, all of them.
pub(super) fn lines(picture: &Picture, size: Option<Size>) -> Vec<String> {
    let mut sections = vec![ports(picture)];
    if picture.has_switch {
        sections.extend([engines(picture), elements(picture), latency(picture), drops(picture), used(picture)]);
    }
    sections.retain(|section| section.len() > 1);
    let mut lines = heading(picture);
    if let Some(size) = size {
        fit(&mut sections, size.rows.saturating_sub(lines.len()));
    }
    for section in sections {
        lines.push(String::new());
        lines.extend(section);
    }
    if let Some(Size { columns, rows }) = size {
        lines.truncate(rows);
        for line in &mut lines {
            *line = line.chars().take(columns).collect();
        }
    }
    lines
}

/// Takes lines from the longest sections until all fit, each with an empty line before it.
fn fit(sections: &mut [Vec<String>], rows: usize) {
    let all = |sections: &[Vec<String>]| sections.iter().map(|section| section.len() + 1).sum::<usize>();
    while all(sections) > rows {
        // A heading and one line remain of each.
        let Some(longest) = sections.iter_mut().filter(|section| section.len() > 2).max_by_key(|section| section.len())
        else {
            return;
        };
        longest.pop();
    }
}

fn heading(picture: &Picture) -> Vec<String> {
    let sum = |of: fn(&super::picture::PortRates) -> f64| scaled(picture.ports.iter().map(of).sum());
    let mut line = format!(
        "mirach up {}  received {} packets/s  sent {} packets/s  dropped {} packets/s",
        uptime(picture.seconds),
        sum(|port| port.rx_packets),
        sum(|port| port.tx_packets),
        sum(|port| port.dropped),
    );
    if picture.has_switch {
        let flows = &picture.flows;
        line.push_str(&format!(
            "  flows {} of {}  connections {}",
            grouped(flows.flows.into()),
            grouped(flows.most.into()),
            grouped(flows.connections)
        ));
    }
    vec![line]
}

fn rows(table: &Table) -> Vec<String> {
    table.render(0).lines().map(str::to_owned).collect()
}

fn ports(picture: &Picture) -> Vec<String> {
    let mut table = Table::new(1, ["PORT", "RX packets/s", "RX bit/s", "TX packets/s", "TX bit/s", "drops/s", "CPU"]);
    for port in &picture.ports {
        table.row([
            port.port.clone(),
            scaled(port.rx_packets),
            scaled(port.rx_bits),
            scaled(port.tx_packets),
            scaled(port.tx_bits),
            scaled(port.dropped),
            percent(port.cpu),
        ]);
    }
    rows(&table)
}

fn engines(picture: &Picture) -> Vec<String> {
    let mut table =
        Table::new(1, ["ENGINE", "received/s", "delivered/s", "to control/s", "dropped/s", "waiting", "batch"]);
    for engine in &picture.engines {
        table.row([
            engine.engine.to_string(),
            scaled(engine.received),
            scaled(engine.delivered),
            scaled(engine.raised),
            scaled(engine.dropped),
            grouped(engine.held),
            optional(engine.batch, 1),
        ]);
    }
    rows(&table)
}

fn elements(picture: &Picture) -> Vec<String> {
    let mut table = Table::new(1, ["ELEMENT", "packets/s", "cycles/packet", "of cycles"]);
    for element in &picture.elements {
        table.row([
            element.element.clone(),
            scaled(element.packets),
            optional(element.cycles_per_packet, 1),
            element.share.map(percent).unwrap_or_default(),
        ]);
    }
    rows(&table)
}

fn latency(picture: &Picture) -> Vec<String> {
    rows(&latencies(&picture.latency, "TOOK SO FAR"))
}

fn drops(picture: &Picture) -> Vec<String> {
    let mut table = Table::new(1, ["DROPPED BY THE SWITCH", "packets/s", "so far"]);
    for drop in &picture.drops {
        table.row([drop.reason.clone(), scaled(drop.packets), grouped(drop.total)]);
    }
    rows(&table)
}

fn used(picture: &Picture) -> Vec<String> {
    let mut lines = rows(&flows::table(&picture.most_used));
    if let Some(heading) = lines.first_mut() {
        *heading = heading.to_uppercase();
    }
    lines
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// `1.23 M`: three digits and the thousands.
fn scaled(number: f64) -> String {
    let mut scaled = number;
    for unit in ["", " k", " M", " G"] {
        if scaled < 999.5 {
            let places = if unit.is_empty() || scaled >= 99.95 {
                0
            } else if scaled >= 9.995 {
                1
            } else {
                2
            };
            return format!("{scaled:.places$}{unit}");
        }
        scaled /= 1000.0;
    }
    format!("{scaled:.2} T")
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds")]
fn uptime(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours, minutes, seconds) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let clock = format!("{hours:02}:{minutes:02}:{seconds:02}");
    if days > 0 { format!("{days} d {clock}") } else { clock }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::top::picture::{DropRate, ElementRates, EngineRates, FlowCounts, PortRates};

    fn picture() -> Picture {
        let port =
            |number: usize| PortRates { port: format!("vm{number}"), rx_packets: 1_234_567.0, ..PortRates::default() };
        Picture {
            seconds: 93_784.5,
            ports: (0..20).map(port).collect(),
            has_switch: true,
            engines: vec![EngineRates { received: 5.0, batch: Some(31.9), ..EngineRates::default() }],
            elements: vec![ElementRates {
                element: "parse".to_owned(),
                cycles_per_packet: Some(45.0),
                share: Some(0.5),
                packets: 1e6,
            }],
            drops: vec![DropRate { reason: "denied".to_owned(), packets: 7.0, total: 12_345 }],
            flows: FlowCounts { flows: 1000, most: 131_072, connections: 3 },
            ..Picture::default()
        }
    }

    #[test]
    fn everything_is_there() {
        let text = lines(&picture(), None).join("\n");
        assert!(text.starts_with("mirach up 1 d 02:03:04  received 24.7 M packets/s"), "{text}");
        assert!(text.contains("flows 1,000 of 131,072  connections 3"), "{text}");
        assert!(text.contains("vm19        1.23 M"), "{text}");
        assert!(text.contains("parse       1.00 M           45.0     50.0 %"), "{text}");
        assert!(text.contains("denied                         7  12,345"), "{text}");
        assert!(!text.contains("NETWORK"), "there are no flows: {text}");
        let wired = Picture { has_switch: false, ..picture() };
        assert_eq!(lines(&wired, None).len(), 1 + 1 + 21);
    }

    #[test]
    fn it_fits_any_terminal() {
        for rows in 0..60 {
            for columns in [0, 1, 20, 80, 200] {
                let shown = lines(&picture(), Some(Size { columns, rows }));
                assert!(shown.len() <= rows, "{} in {rows}", shown.len());
                assert!(shown.iter().all(|line| line.chars().count() <= columns));
            }
        }
        let shown = lines(&picture(), Some(Size { columns: 100, rows: 24 })).join("\n");
        for word in ["PORT", "ENGINE", "ELEMENT", "DROPPED"] {
            assert!(shown.contains(word), "ports leave room for the others: {shown}");
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        for (number, text) in [
            (0.0, "0"),
            (999.0, "999"),
            (999.6, "1.00 k"),
            (1234.0, "1.23 k"),
            (12_345.0, "12.3 k"),
            (123_456.0, "123 k"),
            (99_960.0, "100 k"),
            (9_996.0, "10.0 k"),
            (1e6, "1.00 M"),
            (2.5e9, "2.50 G"),
            (3e12, "3.00 T"),
        ] {
            assert_eq!(scaled(number), text);
        }
    }
}
