//! Frames of machines, made with a library that shares nothing with what is tested.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail};
use etherparse::PacketBuilder;

use crate::conformance::frame::tagged;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The address of everybody.
pub const BROADCAST: Mac = [0xff; 6];

/// `52:54:00:00:00:NUMBER`.
#[must_use]
pub const fn mac(number: u8) -> Mac {
    [0x52, 0x54, 0, 0, 0, number]
}

/// The address as it is written.
#[must_use]
pub fn text(mac: Mac) -> String {
    let mut text = String::new();
    for (place, byte) in mac.into_iter().enumerate() {
        let colon = if place == 0 { "" } else { ":" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{colon}{byte:02x}");
    }
    text
}

/// What is in front of a packet's payload, but for the ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// Ethernet address that it is for.
    pub to: Mac,
    /// Ethernet address of its sender.
    pub from: Mac,
    /// VLAN of its tag.
    pub tag: Option<u16>,
    /// Internet address of its sender.
    pub source: IpAddr,
    /// Internet address that it is for.
    pub target: IpAddr,
    /// Routers that it may still pass.
    pub hops: u8,
}

impl Envelope {
    /// Without a tag, for 64 routers.
    ///
    /// # Errors
    ///
    /// An address is none.
    pub fn new((from, source): (Mac, &str), (to, target): (Mac, &str)) -> Result<Self> {
        Ok(Self { to, from, tag: None, source: source.parse()?, target: target.parse()?, hops: 64 })
    }

    /// The same with a tag.
    #[must_use]
    pub fn tagged(self, vlan: u16) -> Self {
        Self { tag: Some(vlan), ..self }
    }

    /// The same as it leaves a router with this address towards `to`.
    #[must_use]
    pub fn routed(self, router: Mac, to: Mac) -> Self {
        Self { from: router, to, hops: self.hops - 1, ..self }
    }

    /// Writes a UDP datagram into `frame`.
    ///
    /// # Errors
    ///
    /// The addresses are of different families, or the payload is too long.
    pub fn udp(&self, ports: (u16, u16), payload: &[u8], frame: &mut Vec<u8>) -> Result<()> {
        frame.clear();
        let written = match (self.source, self.target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                self.ethernet(0x0800, frame);
                let builder = PacketBuilder::ipv4(source.octets(), target.octets(), self.hops);
                builder.udp(ports.0, ports.1).write_to_vec(frame, payload)
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                self.ethernet(0x86dd, frame);
                let builder = PacketBuilder::ipv6(source.octets(), target.octets(), self.hops);
                builder.udp(ports.0, ports.1).write_to_vec(frame, payload)
            }
            _ => bail!("{} and {} are of different families", self.source, self.target),
        };
        written.context("cannot make a datagram")
    }

    /// An echo request.
    ///
    /// # Errors
    ///
    /// As [`Self::udp`].
    pub fn ping(&self, id: u16, sequence: u16) -> Result<Vec<u8>> {
        let mut frame = Vec::new();
        let payload = [0x61; 40];
        let written = match (self.source, self.target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                self.ethernet(0x0800, &mut frame);
                let builder = PacketBuilder::ipv4(source.octets(), target.octets(), self.hops);
                builder.icmpv4_echo_request(id, sequence).write_to_vec(&mut frame, &payload)
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                self.ethernet(0x86dd, &mut frame);
                let builder = PacketBuilder::ipv6(source.octets(), target.octets(), self.hops);
                builder.icmpv6_echo_request(id, sequence).write_to_vec(&mut frame, &payload)
            }
            _ => bail!("{} and {} are of different families", self.source, self.target),
        };
        written.context("cannot make an echo request")?;
        Ok(frame)
    }

    fn ethernet(&self, kind: u16, frame: &mut Vec<u8>) {
        frame.extend(self.to);
        frame.extend(self.from);
        if let Some(vlan) = self.tag {
            frame.extend([0x81, 0]);
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend(kind.to_be_bytes());
    }
}

/// An ARP packet (RFC 826) in a frame from `from` to `to`: operation 1 asks, 2 answers.
#[must_use]
pub fn arp(
    (to, from): (Mac, Mac),
    operation: u8,
    sender: (Mac, Ipv4Addr),
    target: (Mac, Ipv4Addr),
    tag: Option<u16>,
) -> Vec<u8> {
    let mut frame = [to, from].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    for (mac, address) in [sender, target] {
        frame.extend(mac);
        frame.extend(address.octets());
    }
    frame.resize(60, 0);
    match tag {
        Some(vlan) => tagged(&frame, vlan),
        None => frame,
    }
}

/// A neighbour solicitation (type 135, RFC 4861) or an unasked advertisement (136) for `about`, whose option says that its Ethernet address is `own`.
///
/// # Errors
///
/// It cannot be made.
pub fn neighbour(
    (to, from): (Mac, Mac),
    kind: u8,
    (source, target): (Ipv6Addr, Ipv6Addr),
    about: Ipv6Addr,
    own: Mac,
) -> Result<Vec<u8>> {
    let mut frame = [to, from].concat();
    frame.extend([0x86, 0xdd]);
    let (flags, option) = if kind == 136 { ([0x20, 0, 0, 0], 2) } else { ([0; 4], 1) };
    let mut rest = about.octets().to_vec();
    rest.extend([option, 1]);
    rest.extend(own);
    let builder = PacketBuilder::ipv6(source.octets(), target.octets(), 255);
    builder.icmpv6_raw(kind, 0, flags).write_to_vec(&mut frame, &rest).context("cannot make a neighbour message")?;
    Ok(frame)
}
