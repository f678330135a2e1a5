//! A frame in words, such as `tcp 10.0.0.1:1000 > 10.0.0.2:80`.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use dataplane::network::Config;
use dataplane::network::config::Mac;
use dataplane::network::topology::ROUTER_MAC;
use drivers::nic::MacAddress;

use super::frame::{Frame, Kind};

/// Sends from and to where nothing is known.
const UNKNOWN_SENDER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
const UNKNOWN_RECEIVER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// Bytes behind the headers when nothing is said of the size.
const PAYLOAD: usize = 16;
/// Bytes of the longest frame that can be asked for.
const LONGEST: usize = 9018;

const EXPECTED: &str =
    "expected words such as 'tcp 10.0.0.1:1000 > 10.0.0.2:80', hexadecimal digits, or the name of a capture file";

/// A frame in words.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Words {
    kind: Kind,
    source: IpAddr,
    destination: IpAddr,
    ports: (u16, u16),
    from: Option<[u8; 6]>,
    to: Option<[u8; 6]>,
    vlan: Option<u16>,
    ttl: u8,
    size: Option<usize>,
}

impl FromStr for Words {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let spaced = text.replace("->", " > ").replace('>', " > ");
        let mut words = spaced.split_whitespace();
        let mut next = || words.next().ok_or_else(|| format!("`{text}` is no frame: {EXPECTED}"));
        let kind = Kind::named(next()?).ok_or_else(|| format!("`{text}` is no frame: {EXPECTED}"))?;
        let (source, source_port) = end(next()?, kind)?;
        let arrow = next()?;
        if arrow != ">" && arrow != "to" {
            return Err(format!(
                "`{arrow}` stands where > was expected, between where the frame is from and where it goes"
            ));
        }
        let (destination, destination_port) = end(next()?, kind)?;
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(format!("{source} and {destination} are not of one family"));
        }
        if kind == Kind::Arp && source.is_ipv6() {
            return Err("arp is for IPv4; neighbour discovery of IPv6 can be given in hexadecimal digits".to_owned());
        }
        let ports = (source_port, destination_port);
        let mut said = Self { kind, source, destination, ports, from: None, to: None, vlan: None, ttl: 64, size: None };
        while let Some(key) = words.next() {
            let value = words.next().ok_or_else(|| format!("`{key}` has no value"))?;
            said.option(key, value)?;
        }
        Ok(said)
    }
}

/// An address, with a port where the protocol has ports.
fn end(text: &str, kind: Kind) -> Result<(IpAddr, u16), String> {
    if kind.has_ports() {
        let end: SocketAddr = text
            .parse()
            .map_err(|_| format!("`{text}` is no address with a port (expected 10.0.0.1:80 or [fd00::1]:80)"))?;
        return Ok((end.ip(), end.port()));
    }
    let address = text.parse().map_err(|_| format!("`{text}` is no IP address (expected 10.0.0.1 or fd00::1)"))?;
    Ok((address, 0))
}

impl Words {
    fn option(&mut self, key: &str, value: &str) -> Result<(), String> {
        let mac =
            || value.parse::<MacAddress>().map(|mac| mac.0).map_err(|_| format!("`{value}` is no Ethernet address"));
        let wrong = |range: &str| format!("{key} `{value}`: expected {range}");
        match key {
            "from" => self.from = Some(mac()?),
            "to" => self.to = Some(mac()?),
            "vlan" => {
                let vlan = value.parse().ok().filter(|vlan| (1..=4094).contains(vlan));
                self.vlan = Some(vlan.ok_or_else(|| wrong("1 to 4094"))?);
            }
            "ttl" => self.ttl = value.parse().map_err(|_| wrong("0 to 255"))?,
            "size" => {
                let size = value.parse().ok().filter(|size| (14..=LONGEST).contains(size));
                self.size = Some(size.ok_or_else(|| wrong("14 to 9018 bytes, not counting the frame check sequence"))?);
            }
            _ => {
                return Err(format!(
                    "`{key}` is not known here; there are from MAC, to MAC, vlan N, ttl N and size BYTES"
                ));
            }
        }
        Ok(())
    }

    /// The frame as it would come from `port`, with the Ethernet addresses that the configuration knows.
    pub(super) fn frame(&self, port: &str, config: &Config) -> Frame {
        let from = self.from.or_else(|| self.sender(port, config)).unwrap_or(UNKNOWN_SENDER);
        let to = self.to.or_else(|| self.receiver(port, config)).unwrap_or(UNKNOWN_RECEIVER);
        let frame = Frame::ethernet(from, if self.kind == Kind::Arp { [0xff; 6] } else { to }, self.vlan);
        let headers = frame.bytes().len() + self.kind.header() + if self.source.is_ipv4() { 20 } else { 40 };
        let payload = self.size.map_or(PAYLOAD, |size| size.saturating_sub(headers));
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) if self.kind == Kind::Arp => {
                frame.arp(from, source, destination)
            }
            (source, destination) => frame.ip(self.kind, (source, destination), self.ports, self.ttl, payload),
        }
    }

    fn sender(&self, port: &str, config: &Config) -> Option<[u8; 6]> {
        let attached = || config.ports.iter().filter(|one| one.name == port);
        let with_address = attached().find(|one| one.addresses.iter().any(|prefix| prefix.contains(self.source)));
        let attachment = with_address.or_else(|| attached().next())?;
        attachment.macs.first().map(|mac| mac.0)
    }

    /// That of whoever has the address in one of the port's networks; behind a router, that of the router.
    fn receiver(&self, port: &str, config: &Config) -> Option<[u8; 6]> {
        let names: Vec<&str> =
            config.ports.iter().filter(|one| one.name == port).map(|one| one.network.as_str()).collect();
        let ports = config.ports.iter().filter(|one| names.contains(&one.network.as_str()));
        let there = ports.filter(|one| one.addresses.iter().any(|prefix| prefix.contains(self.destination)));
        let stations = config.tunnels.iter().filter(|one| names.contains(&one.network.as_str()));
        let remote = stations.flat_map(|tunnel| &tunnel.stations);
        let remote = remote.filter(|one| one.addresses.iter().any(|prefix| prefix.contains(self.destination)));
        let known = there.filter_map(|one| one.macs.first()).chain(remote.map(|one| &one.mac)).next();
        if let Some(mac) = known {
            return Some(mac.0);
        }
        let mut networks = config.networks.iter().filter(|network| names.contains(&network.name.as_str()));
        let router = |mac: Option<Mac>| mac.unwrap_or(ROUTER_MAC).0;
        networks.find_map(|network| {
            let neighbour = network.routers.iter().any(|one| one.prefix.contains(self.destination));
            let own = network.routers.iter().any(|one| one.address == self.destination);
            (!network.routers.is_empty() && (own || !neighbour)).then(|| router(network.router_mac))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn config() -> Config {
        let text = r#"
            [underlay]
            port = "up"
            addresses = ["192.0.2.1/24"]
            [[network]]
            name = "red"
            vni = 1
            routers = ["10.0.0.254/24"]
            [[network]]
            name = "blue"
            [[port]]
            name = "a"
            network = "red"
            macs = ["52:54:00:00:00:0a"]
            addresses = ["10.0.0.1"]
            [[port]]
            name = "b"
            network = "red"
            macs = ["52:54:00:00:00:0b"]
            addresses = ["10.0.0.2"]
            [[port]]
            name = "c"
            network = "blue"
            macs = ["52:54:00:00:00:0c"]
            addresses = ["10.0.0.2"]
            [[tunnel]]
            network = "red"
            remote = "192.0.2.7"
            stations = [{ mac = "52:54:00:00:00:0d", addresses = ["10.0.0.4"] }]
        "#;
        Config::from_toml(text, std::path::Path::new("test")).unwrap()
    }

    #[test]
    fn addresses_are_those_that_the_configuration_knows() {
        let router = MacAddress(ROUTER_MAC.0).to_string();
        for (text, source, destination) in [
            ("tcp 10.0.0.1:1 > 10.0.0.2:2", "52:54:00:00:00:0a", "52:54:00:00:00:0b"),
            ("udp 10.0.0.1:1->10.0.0.4:2", "52:54:00:00:00:0a", "52:54:00:00:00:0d"),
            ("icmp 10.0.0.1 to 10.0.0.254", "52:54:00:00:00:0a", router.as_str()),
            ("icmp 10.0.0.1 > 8.8.8.8", "52:54:00:00:00:0a", router.as_str()),
            ("icmp 10.9.9.9 > 10.0.0.77", "52:54:00:00:00:0a", "02:00:00:00:00:02"),
            ("arp 10.0.0.1 > 10.0.0.2", "52:54:00:00:00:0a", "ff:ff:ff:ff:ff:ff"),
            (
                "tcp 10.0.0.1:1 > 10.0.0.2:2 to 52:54:00:00:00:99 from 52:54:00:00:00:98",
                "52:54:00:00:00:98",
                "52:54:00:00:00:99",
            ),
        ] {
            let frame = text.parse::<Words>().unwrap().frame("a", &config());
            assert_eq!((frame.source(), frame.destination()), (source.to_owned(), destination.to_owned()), "{text}");
        }
        let words: Words = "tcp [fd00::1]:1 > [fd00::2]:2".parse().unwrap();
        assert_eq!(words.frame("nowhere", &config()).source(), "02:00:00:00:00:01");
    }

    #[test]
    fn what_is_no_frame_is_said() {
        for (text, reason) in [
            ("", "expected words such as"),
            ("gre 1.2.3.4 > 1.2.3.5", "expected words such as"),
            ("tcp 10.0.0.1 > 10.0.0.2", "expected 10.0.0.1:80"),
            ("icmp 10.0.0.1:7 > 10.0.0.2", "is no IP address"),
            ("icmp 10.0.0.1 < 10.0.0.2", "where > was expected"),
            ("icmp 10.0.0.1 > fd00::1", "one family"),
            ("arp fd00::1 > fd00::2", "arp is for IPv4"),
            ("icmp 10.0.0.1 >", "expected words such as"),
            ("icmp 10.0.0.1 > 10.0.0.2 vlan", "has no value"),
            ("icmp 10.0.0.1 > 10.0.0.2 vlan 4095", "1 to 4094"),
            ("icmp 10.0.0.1 > 10.0.0.2 size 9", "14 to 9018"),
            ("icmp 10.0.0.1 > 10.0.0.2 colour red", "there are from MAC"),
            ("icmp 10.0.0.1 > 10.0.0.2 from red", "no Ethernet address"),
        ] {
            let error = text.parse::<Words>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
