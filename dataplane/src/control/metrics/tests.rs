#![allow(clippy::unwrap_used, reason = "tests")]
use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::text::{Exposition, Kind};
use super::*;

/// A sample: its labels, and its value as it is written.
type Samples = BTreeMap<String, Vec<(BTreeMap<String, String>, String)>>;

/// Reads the format strictly: every rule of its description that concerns what stands in the text.
fn parse(text: &str) -> Samples {
    assert!(text.ends_with('\n'), "the last line has an end");
    let mut samples = Samples::new();
    let mut done = HashSet::new();
    let mut family: Option<(String, String)> = None;
    let mut helped = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty() && done.insert(name.to_owned()), "{name} comes once, with words about it");
            helped = name.to_owned();
            family = None;
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, helped, "the type follows the help");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            family = Some((name.to_owned(), kind.to_owned()));
        } else {
            let (name, labels, value) = sample(line);
            let (family, kind) = family.as_ref().unwrap_or_else(|| panic!("{line} has no type"));
            let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} is not of {family}"));
            let known = if kind == "histogram" { &["_bucket", "_sum", "_count"][..] } else { &[""] };
            assert!(known.contains(&suffix), "{line}");
            if suffix != "_sum" && kind != "gauge" && !name.ends_with("_seconds_total") {
                value.parse::<u64>().unwrap_or_else(|_| panic!("{line} counts"));
            } else {
                value.parse::<f64>().unwrap_or_else(|_| panic!("{line} is a number"));
            }
            let all = samples.entry(name).or_default();
            assert!(all.iter().all(|(others, _)| *others != labels), "{line} stands twice");
            all.push((labels, value));
        }
    }
    samples
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, String) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line} has no value"));
    let (name, mut rest) = line.split_at(end);
    let is_name = |name: &str| {
        let fits = |(place, byte): (usize, u8)| {
            byte.is_ascii_alphabetic() || byte == b'_' || (place > 0 && byte.is_ascii_digit())
        };
        !name.is_empty() && name.bytes().enumerate().all(fits)
    };
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            assert!(is_name(label), "{line}");
            let mut value = String::new();
            let mut characters = after.char_indices();
            rest = loop {
                match characters.next().unwrap_or_else(|| panic!("{line}: a label does not end")) {
                    (place, '"') => break &after[place + 1..],
                    (_, '\\') => value.push(match characters.next().unwrap().1 {
                        'n' => '\n',
                        escaped @ ('\\' | '"') => escaped,
                        other => panic!("{line}: \\{other}"),
                    }),
                    (_, other) => value.push(other),
                }
            };
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap_or_else(|| panic!("{line}"));
    }
    let value = rest.strip_prefix(' ').unwrap();
    assert!(!value.contains(' '), "{line} has no time");
    (name.to_owned(), labels, value.to_owned())
}

#[test]
fn any_label_and_number_comes_out_as_it_went_in() {
    let mut exposition = Exposition::default();
    let odd = "a\"b\\c\nd{e}=,ü \\n";
    let mut family = exposition.family("odd_total", Kind::Counter, "a \\ and\na line");
    family.sample(&[("port", odd), ("engine", "0")], u64::MAX);
    family.sample(&[], 7);
    exposition.family("seconds", Kind::Gauge, "time").sample(&[("a", "")], 0.000_000_25);
    let mut family = exposition.family("latency_seconds", Kind::Histogram, "time");
    family.histogram(&[("x", "y")], &[(0.001, 3), (0.5, 4)], 9, 1.5);
    let text = exposition.finish();
    assert!(text.starts_with("# HELP odd_total a \\\\ and\\na line\n# TYPE odd_total counter\n"), "{text}");
    let samples = parse(&text);
    assert_eq!(samples["odd_total"][0].0["port"], odd);
    assert_eq!(samples["odd_total"][0].1, u64::MAX.to_string());
    assert_eq!(samples["odd_total"][1], (BTreeMap::new(), "7".to_owned()));
    assert_eq!(samples["seconds"][0].1, "0.00000025");
    let buckets: Vec<(&str, &str)> = samples["latency_seconds_bucket"]
        .iter()
        .map(|(labels, value)| (labels["le"].as_str(), value.as_str()))
        .collect();
    assert_eq!(buckets, [("0.001", "3"), ("0.5", "4"), ("+Inf", "9")]);
    assert_eq!(
        (samples["latency_seconds_count"][0].1.as_str(), samples["latency_seconds_sum"][0].1.as_str()),
        ("9", "1.5")
    );
}

fn server() -> (MetricsServer, SocketAddr) {
    let address = "127.0.0.1:0".parse().unwrap();
    let server = MetricsServer::serve(&address, || Ok("x 1\n".to_owned())).unwrap();
    let MetricsAddress::Tcp(address) = *server.address() else { panic!("it is another") };
    (server, address)
}

/// Sends `request` and gives the whole answer.
fn ask(mut stream: impl Read + Write, request: &[u8]) -> String {
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    // Only guards against hanging for ever.
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

#[test]
fn only_get_of_metrics_is_answered() {
    let (_server, address) = server();
    let whole = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: 4\r\n\
                 Connection: close\r\n\r\nx 1\n";
    assert_eq!(ask(tcp(address), b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n"), whole);
    assert_eq!(ask(tcp(address), b"GET /metrics?x=1 HTTP/1.0\n\n"), whole);
    assert_eq!(ask(tcp(address), b"HEAD /metrics HTTP/1.1\r\n\r\n"), whole.trim_end_matches("x 1\n"));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
        ("GET /metrics\r\n\r\n", "400"),
        ("\r\n\r\n", "400"),
        ("GET /metrics HTTP/2.0\r\n\r\n", "505"),
        ("GET /metrics SPDY and more\r\n\r\n", "400"),
    ] {
        let answer = ask(tcp(address), request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    let endless = [b"GET /metrics HTTP/1.1\r\n".to_vec(), vec![b'x'; 9 << 10]].concat();
    assert!(ask(tcp(address), &endless).starts_with("HTTP/1.1 431 "));
    // In pieces, with the end of what it says.
    let mut slow = tcp(address);
    for byte in b"GET /metrics HTTP/1.1\r\n\r" {
        slow.write_all(&[*byte]).unwrap();
    }
    assert_eq!(ask(&slow, b"\n"), whole);
}

#[test]
fn a_crowd_that_says_nothing_keeps_nobody_out() {
    let (server, address) = server();
    let crowd: Vec<TcpStream> = (0..100).map(|_| tcp(address)).collect();
    let mut half = tcp(address);
    half.write_all(b"GET /met").unwrap();
    let mut gone = tcp(address);
    gone.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    gone.shutdown(Shutdown::Both).unwrap();
    assert!(ask(tcp(address), b"GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200"));
    // Dropping the server waits for none of them.
    drop(server);
    drop(crowd);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_unix_socket_does_as_well_and_failures_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.sock");
    let address: MetricsAddress = path.to_str().unwrap().parse().unwrap();
    let server = MetricsServer::serve(&address, || Err("it rains".to_owned())).unwrap();
    let answer = ask(UnixStream::connect(&path).unwrap(), b"GET /metrics HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\nit rains\n"), "{answer}");
    let error = MetricsServer::serve(&address, || Ok(String::new())).unwrap_err().to_string();
    assert!(error.contains("metrics.sock") && error.contains("--metrics"), "{error}");
    drop(server);
    assert!(!path.exists());
}

#[test]
fn addresses_are_read_as_they_are_written() {
    for text in ["127.0.0.1:9100", "[::1]:9100"] {
        let address: MetricsAddress = text.parse().unwrap();
        assert_eq!(address.to_string(), format!("http://{text}/metrics"));
    }
    assert_eq!("./m.sock".parse(), Ok(MetricsAddress::Unix("./m.sock".into())));
    for text in ["", "9100", ":9100", "localhost:9100", "1.2.3.4", "1.2.3.4:99999"] {
        assert_eq!(text.parse::<MetricsAddress>(), Err(NotMetricsAddress), "{text}");
    }
}

mod collected {
    use super::*;
    use crate::clock::CycleClock;
    use crate::histogram::Histogram;
    use crate::stats::{PortStatistics, QueueStatistics, Statistics};
    use crate::vswitch::report::{
        CountReport, DurationBucket, DurationReport, ElementReport, EngineReport, LatencyReport, SliceReport,
        VswitchStatistics,
    };
    use drivers::nic::{Counters, DropReason};

    fn queue(packets: u64) -> QueueStatistics {
        let mut counters = Counters::default();
        (counters.packets, counters.bytes) = (packets, packets * 100);
        counters.drop_packets(DropReason::BadLength, packets / 10);
        QueueStatistics { counters, busy_cycles: packets * 1000, busy_polls: packets / 4, ..QueueStatistics::default() }
    }

    fn ports() -> Statistics {
        let mut latency = Histogram::new();
        for value in [100, 255, 256, 5_000, 2_000_000_000] {
            latency.record(value);
        }
        let port = |name: &str, packets| PortStatistics {
            name: name.to_owned(),
            rx: vec![queue(packets), queue(packets * 2)],
            tx: vec![queue(packets * 3)],
            latency: Some(latency.clone()),
            device: vec![("rx_crc_errors", packets)],
            ..PortStatistics::default()
        };
        // Names may hold anything that a spec lets through.
        Statistics { ports: vec![port("a", 100), port("b:/-\"\\", 40)], ..Statistics::default() }
    }

    fn counts(packets: u64) -> CountReport {
        let named = |all: &[(&str, u64)]| all.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        CountReport {
            packets: named(&[("received", packets), ("delivered", packets - 3), ("held", 1), ("batches", packets / 8)]),
            drops: named(&[("denied", 2), ("no_route", 0)]),
            malformed: named(&[("runt", 1)]),
            elements: vec![ElementReport { element: "look up".to_owned(), packets, ..ElementReport::default() }],
        }
    }

    fn switch() -> VswitchStatistics {
        let engine = |engine, packets| EngineReport { engine, running: true, counts: counts(packets) };
        let through = DurationReport {
            count: 9,
            sum: 9_000,
            buckets: vec![DurationBucket { at_most: 255, count: 3 }, DurationBucket { at_most: 1023, count: 8 }],
            ..DurationReport::default()
        };
        VswitchStatistics {
            engines: vec![engine(0, 1000), engine(1, 500)],
            latency: LatencyReport { through, ..LatencyReport::default() },
            slices: vec![SliceReport {
                name: "gold".to_owned(),
                flows: 5,
                most_flows: Some(9),
                ..SliceReport::default()
            }],
            ..VswitchStatistics::default()
        }
    }

    fn sum(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> u64 {
        let fits = |found: &BTreeMap<String, String>| {
            labels.iter().all(|(name, value)| found.get(*name).is_some_and(|found| found == value))
        };
        let found = samples.get(name).unwrap_or_else(|| panic!("no {name}")).iter();
        found.filter(|(labels, _)| fits(labels)).map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    }

    #[test]
    fn sums_are_those_of_the_api() {
        let clock = CycleClock::with_rate(1_000_000_000);
        let (ports, switch) = (ports(), switch());
        let samples = parse(&exposition(&ports, clock, Some(&switch)));
        for port in &ports.ports {
            let of = |name: &str| port.totals().into_iter().find(|(total, _)| total == name).unwrap().1;
            for (direction, short) in [("received", "rx"), ("sent", "tx")] {
                let labels = [("port", port.name.as_str()), ("direction", direction)];
                assert_eq!(sum(&samples, "mirach_port_packets_total", &labels), of(&format!("{short}_packets")));
                assert_eq!(sum(&samples, "mirach_port_bytes_total", &labels), of(&format!("{short}_bytes")));
                assert_eq!(
                    sum(&samples, "mirach_port_dropped_packets_total", &labels),
                    of(&format!("{short}_dropped"))
                );
                let bad = [labels[0], labels[1], ("reason", "bad_length")];
                assert_eq!(
                    sum(&samples, "mirach_port_dropped_packets_total", &bad),
                    of(&format!("{short}_bad_length"))
                );
            }
            let device = [("port", port.name.as_str()), ("counter", "rx_crc_errors")];
            assert_eq!(sum(&samples, "mirach_port_device_total", &device), port.device[0].1);
        }
        for engine in &switch.engines {
            let number = engine.engine.to_string();
            let of = |name: &str, label: (&'static str, &str)| sum(&samples, name, &[("engine", &number), label]);
            for (event, packets) in &engine.counts.packets {
                match event.as_str() {
                    "held" => assert_eq!(sum(&samples, "mirach_engine_held_packets", &[("engine", &number)]), *packets),
                    "batches" => {
                        assert_eq!(sum(&samples, "mirach_engine_batches_total", &[("engine", &number)]), *packets)
                    }
                    event => assert_eq!(of("mirach_engine_packets_total", ("event", event)), *packets),
                }
            }
            for (reason, packets) in &engine.counts.drops {
                assert_eq!(of("mirach_engine_dropped_packets_total", ("reason", reason)), *packets);
            }
            assert_eq!(of("mirach_element_packets_total", ("element", "look up")), engine.counts.elements[0].packets);
        }
        assert_eq!(sum(&samples, "mirach_slice_flows_limit", &[("slice", "gold")]), 9);
        // Without a switch there is nothing of one.
        let wired = parse(&exposition(&ports, clock, None));
        assert!(wired.contains_key("mirach_port_packets_total") && !wired.contains_key("mirach_flows"));
    }

    #[test]
    fn buckets_ascend_to_the_number_of_all() {
        let samples = parse(&exposition(&ports(), CycleClock::with_rate(1_000_000_000), Some(&switch())));
        for (family, labels) in [
            ("mirach_port_latency_seconds", &[("port", "a")][..]),
            ("mirach_switch_latency_seconds", &[("phase", "through")]),
        ] {
            let fits = |found: &BTreeMap<String, String>| labels.iter().all(|(name, value)| found[*name] == *value);
            let found = samples[&format!("{family}_bucket")].iter().filter(|(labels, _)| fits(labels));
            let buckets: Vec<(f64, u64)> =
                found.map(|(labels, value)| (labels["le"].parse().unwrap(), value.parse().unwrap())).collect();
            assert!(buckets.is_sorted_by(|left, right| left.0 < right.0 && left.1 <= right.1), "{buckets:?}");
            let last = *buckets.last().unwrap();
            assert_eq!(last, (f64::INFINITY, sum(&samples, &format!("{family}_count"), labels)));
        }
        let within = |bound: &str| sum(&samples, "mirach_port_latency_seconds_bucket", &[("port", "a"), ("le", bound)]);
        assert_eq!((within("0.000000255"), within("0.000001023"), within("0.000016383"), within("+Inf")), (2, 3, 4, 5));
    }
}
