//! What a card's wire is to be, as said on the command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use dataplane::port::{PortSpec, Rate};
use drivers::nic::MacAddress;
use models::wire::{self, Loopback, Null, Pcap, Peer, Tap, Traffic, TrafficCounters, TrafficPlan, Wire};

/// A wire, or both ends of one between two cards.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum WireSpec {
    /// Joins the two cards of this process.
    Cable,
    /// What the card sends comes back to it.
    Loop,
    /// Nobody.
    Null,
    /// A card of another process.
    Peer(PathBuf),
    /// An interface of the kernel.
    Tap(String),
    /// Capture files to play and to write.
    Pcap { input: Option<PathBuf>, output: Option<PathBuf> },
    /// A generator and checking sink.
    Generator(TrafficPlan),
}

const KINDS: &str =
    "cable, tap=NAME, pcap=IN[,out=OUT], gen=RATE[,size=64][,flows=N][,count=N], peer=SOCKET, loop or null";

impl FromStr for WireSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once('=').unwrap_or((text, ""));
        match kind {
            "cable" | "loop" | "null" if text.contains(['=', ',']) => Err(format!("`{kind}` takes nothing more")),
            "cable" => Ok(Self::Cable),
            "loop" => Ok(Self::Loop),
            "null" => Ok(Self::Null),
            "peer" if rest.is_empty() => Err("give the path of a socket: peer=SOCKET".to_owned()),
            "peer" => Ok(Self::Peer(rest.into())),
            // Written as for ports.
            "tap" | "pcap" | "gen" => Self::from_port(text.parse().map_err(|error| format!("{error}"))?),
            _ => Err(format!("a wire is {KINDS}")),
        }
    }
}

impl WireSpec {
    fn from_port(port: PortSpec) -> Result<Self, String> {
        match port {
            PortSpec::Tap(tap) if tap.queues == 1 => Ok(Self::Tap(tap.name)),
            PortSpec::Tap(_) => Err("a wire to a tap has one queue; leave out `queues`".to_owned()),
            PortSpec::Pcap(pcap) if pcap.repeat == 1 => Ok(Self::Pcap { input: pcap.input, output: pcap.output }),
            PortSpec::Pcap(_) => Err("a wire plays a capture once; leave out `loop`".to_owned()),
            PortSpec::Generator(plan) => {
                if plan.size.shortest != plan.size.longest || plan.queues.is_some() {
                    return Err("a wire makes frames of one length and has no queues: gen=RATE,size=64".to_owned());
                }
                let flows = u16::try_from(plan.flows).ok().filter(|flows| *flows <= MOST_FLOWS);
                let rate = match plan.rate {
                    Rate::Maximum => 0,
                    Rate::PerSecond(rate) => rate,
                };
                Ok(Self::Generator(TrafficPlan {
                    frame_bytes: plan.size.shortest.into(),
                    count: plan.count.unwrap_or(u64::MAX),
                    flows: flows.ok_or_else(|| format!("a wire makes at most {MOST_FLOWS} flows"))?,
                    rate,
                    ..TrafficPlan::default()
                }))
            }
            _ => Err(format!("a wire is {KINDS}")),
        }
    }
}

/// Flows are told apart by UDP ports from 1024 on.
const MOST_FLOWS: u16 = 64_000;

/// A wire, and what is counted on it when it makes frames.
pub(super) struct Laid {
    pub(super) wire: Box<dyn Wire>,
    pub(super) traffic: Option<Arc<TrafficCounters>>,
}

impl Laid {
    fn new(wire: impl Wire + 'static) -> Self {
        Self { wire: Box::new(wire), traffic: None }
    }

    fn generator(wire: Traffic) -> Self {
        let traffic = Some(wire.counters());
        Self { wire: Box::new(wire), traffic }
    }
}

/// How many wires are wanted for the cards, if not so many.
pub(super) fn mistake(specs: &[WireSpec], cards: usize) -> Option<String> {
    let both = |spec: &WireSpec| matches!(spec, WireSpec::Cable);
    if specs.len() > 1 && specs.iter().any(both) || cards != 2 && specs.iter().any(both) {
        return Some("`--wire cable` joins two cards: give two sockets and no other wire".to_owned());
    }
    let of_all = |spec: &WireSpec| matches!(spec, WireSpec::Loop | WireSpec::Null);
    match specs {
        [spec] if both(spec) || of_all(spec) || cards == 1 => None,
        [WireSpec::Generator(_)] if cards == 2 => None,
        _ if specs.len() == cards => None,
        _ => Some(format!(
            "{cards} cards and {} wires: give as many --wire as --socket, or one `cable` or `gen` for two cards, or one `loop` or `null`",
            specs.len()
        )),
    }
}

/// Lays the wires of `cards`, whose number is right. `macs` are the addresses of the cards.
pub(super) fn lay(specs: &[WireSpec], macs: &[MacAddress]) -> anyhow::Result<Vec<Laid>> {
    match (specs, macs) {
        ([WireSpec::Cable], _) => {
            let (one, two) = wire::cable();
            Ok(vec![Laid::new(one), Laid::new(two)])
        }
        ([WireSpec::Generator(plan)], [first, second]) => {
            // What the one makes goes through its card, a forwarder, and the other card, where it is checked.
            let one = TrafficPlan { target: *first, source: *second, ..*plan };
            let two = TrafficPlan { target: *second, source: *first, ..*plan };
            let (one, two) = Traffic::pair(one, two);
            Ok(vec![Laid::generator(one), Laid::generator(two)])
        }
        ([spec], _) => macs.iter().map(|mac| single(spec, *mac)).collect(),
        _ => specs.iter().zip(macs).map(|(spec, mac)| single(spec, *mac)).collect(),
    }
}

fn single(spec: &WireSpec, mac: MacAddress) -> anyhow::Result<Laid> {
    Ok(match spec {
        WireSpec::Cable | WireSpec::Null => Laid::new(Null),
        WireSpec::Loop => Laid::new(Loopback::<Vec<u8>>::default()),
        WireSpec::Peer(path) => Laid::new(Peer::open(path)?),
        WireSpec::Tap(name) => Laid::new(Tap::open(name)?),
        WireSpec::Pcap { input, output } => Laid::new(Capture(Pcap::open(input.as_deref(), output.as_deref())?)),
        WireSpec::Generator(plan) => Laid::generator(Traffic::alone(TrafficPlan { target: mac, ..*plan })),
    })
}

/// Capture files that say what goes wrong with them.
struct Capture(Pcap);

impl Wire for Capture {
    fn peek(&mut self) -> Option<&[u8]> {
        self.0.peek()
    }

    fn advance(&mut self) {
        self.0.advance();
    }

    fn transmit(&mut self, frame: &[u8]) -> bool {
        self.0.transmit(frame)
    }

    fn begin(&mut self) {
        self.0.begin();
        if let Some(error) = self.0.failure() {
            eprintln!("error: capture file: {error}; it is not used any more");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn spec(text: &str) -> WireSpec {
        text.parse().unwrap()
    }

    #[test]
    fn wires_are_understood() {
        assert_eq!(spec("cable"), WireSpec::Cable);
        assert_eq!(spec("tap=lan0"), WireSpec::Tap("lan0".to_owned()));
        assert_eq!(spec("peer=/run/a=b,c"), WireSpec::Peer("/run/a=b,c".into()));
        let files = WireSpec::Pcap { input: Some("a.pcap".into()), output: Some("b.pcap".into()) };
        assert_eq!(spec("pcap=a.pcap,out=b.pcap"), files);
        let plan = TrafficPlan { frame_bytes: 128, flows: 7, rate: 1_500_000, ..TrafficPlan::default() };
        assert_eq!(spec("gen=1.5M,size=128,flows=7"), WireSpec::Generator(plan));
        for (text, words) in [
            ("cabel", "a wire is cable"),
            ("loop=1", "takes nothing more"),
            ("peer=", "path of a socket"),
            ("tap=a,queues=2", "one queue"),
            ("pcap=a,loop=0", "plays a capture once"),
            ("gen=1k,size=64-128", "one length"),
            ("gen=much", "packets a second"),
            ("gen=1,flows=65536", "at most 64000"),
        ] {
            let error = text.parse::<WireSpec>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn each_card_has_a_wire() {
        let [cable, generator, null] = ["cable", "gen=max", "null"].map(spec);
        for (specs, cards, fits) in [
            (vec![cable.clone()], 2, true),
            (vec![cable.clone()], 1, false),
            (vec![cable, null.clone()], 2, false),
            (vec![generator.clone()], 2, true),
            (vec![generator.clone()], 1, true),
            (vec![generator.clone()], 3, false),
            (vec![null.clone()], 3, true),
            (vec![generator, null.clone()], 2, true),
            (vec![null.clone(), null], 1, false),
            (vec![], 1, false),
        ] {
            assert_eq!(mistake(&specs, cards).is_none(), fits, "{specs:?} for {cards}");
        }
    }
}
