//! The Prometheus endpoint.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::tenants::Daemon;
use serde_json::{Value, json};

use crate::scene::{close, set};

const ADDRESS: &str = "127.0.0.1:9100";
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks as Prometheus does; the header and the body.
fn get(daemon: &Daemon, path: &str) -> Result<(String, String)> {
    let address: SocketAddr = ADDRESS.parse()?;
    daemon.namespace.enter(|| {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {ADDRESS}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no end of the header")?;
        Ok((head.to_owned(), body.to_owned()))
    })
}

/// Every sample by its name with labels.
fn samples(body: &str) -> Result<BTreeMap<String, f64>> {
    let lines = body.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').with_context(|| format!("no sample: {line}"))?;
            Ok((name.to_owned(), value.parse().with_context(|| format!("no number: {line}"))?))
        })
        .collect()
}

/// The sum of all samples of a name that have these labels.
fn sum(samples: &BTreeMap<String, f64>, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let fits = |key: &str| {
        let (own, rest) = key.split_once('{').unwrap_or((key, ""));
        own == name && labels.iter().all(|(label, value)| rest.contains(&format!("{label}=\"{value}\"")))
    };
    let mut found = samples.iter().filter(|(key, _)| fits(key)).peekable();
    found.peek()?;
    Some(found.map(|(_, value)| value).sum())
}

pub(crate) fn sums() -> Result<()> {
    let (daemon, mut crowd) = set(&["--metrics", ADDRESS])?;
    // Something is dropped as well.
    crowd.station(0)?.send(std::iter::repeat_n(&[0x52; 60][..], 25))?;
    crowd.run(Duration::from_millis(300))?;
    crowd.settle()?;
    daemon.must_balance()?;
    let (head, body) = get(&daemon, "/metrics")?;
    ensure!(head.starts_with("HTTP/1.1 200") && head.to_ascii_lowercase().contains("text/plain"), "{head}");
    let samples = samples(&body)?;
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    let equal = |name: &str, labels: &[(&str, &str)], value: &Value| -> Result<()> {
        let expected = value.as_u64().with_context(|| format!("no {name} in the statistics"))? as f64;
        let seen = sum(&samples, name, labels);
        ensure!(seen == Some(expected), "{name} {labels:?} is {seen:?} and not {expected}");
        Ok(())
    };
    let ports = daemon.call("port.stats", json!({}))?;
    for port in ports["ports"].as_array().context("no ports")? {
        let name = port["name"].as_str().context("no name")?;
        for (direction, word) in [("rx", "received"), ("tx", "sent")] {
            for what in ["packets", "bytes"] {
                let value = &port["counters"][format!("{direction}_{what}")];
                equal(&format!("mirach_port_{what}_total"), &[("port", name), ("direction", word)], value)?;
            }
        }
    }
    let statistics = daemon.statistics()?;
    let drops = statistics["sums"]["drops"].as_object().context("no drops")?;
    ensure!(drops.values().filter_map(Value::as_u64).sum::<u64>() >= 25, "nothing was dropped: {drops:?}");
    for (reason, count) in drops.iter().filter(|(_, count)| **count != 0) {
        equal("mirach_engine_dropped_packets_total", &[("reason", reason)], count)?;
    }
    let (head, _) = get(&daemon, "/nothing")?;
    ensure!(head.starts_with("HTTP/1.1 404"), "{head}");
    close(daemon, crowd)
}
