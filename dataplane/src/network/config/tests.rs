#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use super::*;

/// A file that uses everything.
const WHOLE: &str = r#"
[underlay]
port = "uplink"
addresses = ["192.0.2.1/24", "2001:db8::1/64"]
gateways = ["192.0.2.254"]
mtu = 9000

[[slice]]
name = "gold"
flows = 100000
connections = 50000
packets-per-second = 1000000
bits-per-second = "10G"
share = 4

[[network]]
name = "red"
vni = 100
slice = "gold"
routers = ["10.0.0.1/24", "fd00::1/64"]
router-mac = "02:00:00:00:00:01"
broadcast-packets-per-second = 1000

[[network]]
name = "blue"
vni = 200
vlan = 20
routers = ["10.1.0.1/24"]
learned-macs = 16
ageing-seconds = 60

[[group]]
name = "web"
rules = [
    { direction = "in", action = "allow", protocol = "tcp", ports = "80-443", remote = "10.0.0.0/8" },
    { direction = "in", action = "deny", protocol = "icmp", icmp-type = 5 },
    { direction = "out", action = "allow" },
]

[[port]]
name = "vm0"
network = "red"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.2", "fd00::2"]
groups = ["web"]
packets-per-second = 500000

[[port]]
name = "vm1"
network = "blue"
tagged = true
anti-spoofing = false
learned-macs = 8

[[route]]
network = "red"
prefix = "10.1.0.0/24"
to = "blue"

[[route]]
network = "blue"
prefix = "0.0.0.0/0"
to = "red"
via = "10.0.0.254"

[[tunnel]]
network = "red"
remote = "198.51.100.7"
kind = "geneve"
learn = false
stations = [{ mac = "52:54:00:00:00:09", addresses = ["10.0.0.9", "10.9.0.0/16"] }]
"#;

fn parse(text: &str) -> Result<Config, Bad> {
    Config::from_toml(text, Path::new("switch.toml"))
}

#[test]
fn a_file_with_everything_reads_back_as_it_was_written() {
    let config = parse(WHOLE).unwrap();
    assert_eq!((config.networks.len(), config.ports.len(), config.routes.len()), (2, 2, 2));
    assert_eq!(config.slices[0].bits_per_second, Some(BitRate(10_000_000_000)));
    assert_eq!(config.groups[0].rules[0].ports, Some(PortRange { first: 80, last: 443 }));
    let written = toml::to_string(&config).unwrap();
    assert_eq!(parse(&written).unwrap(), config, "as TOML");
    let written = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&written).unwrap(), config, "as JSON");
}

#[test]
fn values_of_the_example_above_are_what_the_schema_describes() {
    let schema = serde_json::to_value(schema()).unwrap();
    for key in ["underlay", "slice", "network", "group", "port", "route", "tunnel"] {
        assert!(schema["properties"][key].is_object(), "{key}: {schema}");
    }
    assert_eq!(schema["$defs"]["Prefix"]["type"], "string");
    assert!(schema["$defs"]["PortConfig"]["properties"]["anti-spoofing"].is_object());
}

/// What is replaced in [`WHOLE`], by what, a word of the reason, and the text at whose line the error is.
const BAD: &[(&str, &str, &str, &str)] = &[
    // No TOML, or no configuration.
    ("mtu = 9000", "mtu = ", "string values must be quoted", "mtu = "),
    ("mtu = 9000", "mtu = 90000", "u16", "mtu = 90000"),
    ("share = 4", "shares = 4", "shares", "shares"),
    ("[[route]]\nnetwork = \"red\"", "[[rout]]\nnetwork = \"red\"", "rout", "[[rout]]"),
    ("macs = [\"52:54:00:00:00:01\"]", "macs = [\"52:54:00:00:01\"]", "52:54:00:12:34:56", "macs = [\"52:54:00:00:01"),
    ("macs = [\"52:54:00:00:00:01\"]", "macs = [\"ff:ff:ff:ff:ff:ff\"]", "station", "macs = [\"ff"),
    ("remote = \"10.0.0.0/8\"", "remote = \"10.0.0.7/8\"", "behind its length", "10.0.0.7/8"),
    ("remote = \"10.0.0.0/8\"", "remote = \"10.0.0.0/33\"", "prefix", "10.0.0.0/33"),
    ("ports = \"80-443\"", "ports = \"443-80\"", "8000-8999", "443-80"),
    ("ports = \"80-443\"", "ports = 65536", "8000-8999", "65536"),
    ("protocol = \"tcp\"", "protocol = \"tpc\"", "tcp, udp", "tpc"),
    ("bits-per-second = \"10G\"", "bits-per-second = \"10 G\"", "250M", "10 G"),
    ("direction = \"out\"", "direction = \"away\"", "away", "away"),
    ("kind = \"geneve\"", "kind = \"gre\"", "gre", "gre"),
    ("routers = [\"10.1.0.1/24\"]", "routers = [\"10.1.0.1\"]", "length", "\"10.1.0.1\"]"),
    ("[[slice]]\nname = \"gold\"", "[[slice]]", "name", "[[slice]]"),
    // Parts that do not fit.
    ("name = \"blue\"", "name = \"red\"", "already", "name = \"red\"\nvni = 200"),
    ("name = \"blue\"", "name = \"b lue\"", "letters", "b lue"),
    ("vni = 200", "vni = 100", "`red` has VNI 100", "vni = 100\nvlan"),
    ("vni = 200", "vni = 16777216", "16777215", "vni = 16777216"),
    ("vlan = 20", "vlan = 4095", "4094", "vlan = 4095"),
    ("slice = \"gold\"", "slice = \"silver\"", "there is gold", "silver"),
    ("share = 4", "share = 0", "1 to 1000", "share = 0"),
    ("flows = 100000", "flows = 0", "leave it out", "flows = 0"),
    ("protocol = \"tcp\", ports", "ports", "needs `protocol`", "ports = \"80"),
    ("protocol = \"icmp\"", "protocol = \"udp\"", "icmp or icmpv6", "icmp-type"),
    ("protocol = \"tcp\", ports = \"80-443\"", "protocol = \"icmpv6\"", "icmp", "icmpv6"),
    ("macs = [\"52:54:00:00:00:01\"]", "", "anti-spoofing = false", "[[port]]\nname = \"vm0\""),
    ("addresses = [\"10.0.0.2\", \"fd00::2\"]", "", "anti-spoofing = false", "[[port]]\nname = \"vm0\""),
    ("addresses = [\"10.0.0.2\"", "addresses = [\"10.0.0.1\"", "router", "\"10.0.0.1\","),
    ("addresses = [\"10.0.0.2\"", "addresses = [\"224.0.0.2\"", "host", "224.0.0.2"),
    ("groups = [\"web\"]", "groups = [\"wbe\"]", "there is web", "wbe"),
    ("groups = [\"web\"]", "groups = [\"web\", \"web\"]", "twice", "\"web\", "),
    ("name = \"vm0\"\nnetwork = \"red\"", "name = \"vm0\"\nnetwork = \"green\"", "blue, red", "green"),
    ("name = \"vm0\"", "name = \"uplink\"", "underlay", "name = \"uplink\""),
    ("name = \"vm1\"\nnetwork = \"blue\"", "name = \"vm1\"\nnetwork = \"red\"", "no `vlan`", "tagged"),
    ("to = \"blue\"", "to = \"bleu\"", "no network `bleu`", "bleu"),
    ("prefix = \"10.1.0.0/24\"", "prefix = \"fd01::/64\"", "IPv6", "to = \"blue\""),
    ("via = \"10.0.0.254\"", "via = \"10.7.0.254\"", "no prefix", "via = "),
    ("via = \"10.0.0.254\"", "via = \"fd00::9\"", "one family", "via = "),
    ("remote = \"198.51.100.7\"", "remote = \"192.0.2.1\"", "another host", "remote = \"192"),
    ("gateways = [\"192.0.2.254\"]", "", "no gateway", "remote = \"198"),
    ("gateways = [\"192.0.2.254\"]", "gateways = [\"198.51.100.1\"]", "none of the prefixes", "gateways"),
    ("mtu = 9000", "mtu = 576", "1280", "mtu = 576"),
    ("mac = \"52:54:00:00:00:09\"", "mac = \"52:54:00:00:00:01\"", "`vm0` has", "stations"),
    ("\"10.0.0.9\"", "\"10.0.0.2\"", "`vm0` has", "stations"),
    ("[[tunnel]]\nnetwork = \"red\"", "[[tunnel]]\nnetwork = \"reed\"", "no network `reed`", "reed"),
    ("vni = 100\n", "", "no `vni`", "[[tunnel]]\nnetwork = "),
];

#[test]
fn a_bad_file_is_named_with_its_line_and_the_reason() {
    for (old, new, word, place) in BAD {
        assert!(WHOLE.contains(old), "{old}");
        let text = WHOLE.replacen(old, new, 1);
        let bad = parse(&text).expect_err(new);
        assert_eq!(bad.file, Path::new("switch.toml"));
        assert!(bad.reason.contains(word), "{new}: {bad}");
        let start = text.find(place).unwrap_or_else(|| panic!("{place}"));
        // A place of two lines says which one is meant by the second.
        let first = 1 + text[..start].matches('\n').count();
        let lines = first..=first + place.trim_end().matches('\n').count();
        assert!(lines.contains(&bad.line), "{new}: {bad}, expected at line {lines:?}");
        assert!(bad.to_string().starts_with("switch.toml:") && !bad.to_string().contains('\n'), "{bad}");
    }
}

#[test]
fn prefixes_hold_their_addresses() {
    for (prefix, inside, outside) in [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
        ("0.0.0.0/0", "255.255.255.255", "::"),
        ("10.0.0.7", "10.0.0.7", "10.0.0.6"),
        ("fd00::/64", "fd00::ffff:1", "fd00:0:0:1::"),
        ("::/0", "ffff::", "0.0.0.0"),
    ] {
        let parsed: Prefix = prefix.parse().unwrap();
        assert_eq!(parsed.to_string(), prefix);
        assert!(parsed.contains(inside.parse().unwrap()) && !parsed.contains(outside.parse().unwrap()), "{prefix}");
    }
    assert_eq!("10.0.0.0/30".parse::<Prefix>().unwrap().bounds(), (0x0a00_0000, 0x0a00_0003));
}
