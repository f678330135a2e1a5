//! Who has which address: ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861), read and answered.
//!
//! Control knows which addresses there are, so questions need not reach everybody: [`read`] says what a frame asks, [`answer`] makes the answer, [`question`] asks on
//! the network between hosts. A [`Frame`] lies on the stack; nothing is allocated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use drivers::nic::MacAddress;

use crate::checksum::{fold, pseudo_header, sum};
use crate::headers::{ETHERNET, Headers, MOST_TAGS, NetworkKind, TransportKind, ether_type, protocol};

const ARP: usize = 28;
const IPV6: usize = 40;
/// A solicitation or an advertisement, without options.
const DISCOVERY: usize = 24;
/// An option that holds an Ethernet address.
const OPTION: usize = 8;
const LONGEST: usize = ETHERNET + 4 * MOST_TAGS + IPV6 + DISCOVERY + OPTION;
const BROADCAST: MacAddress = MacAddress([0xff; 6]);
/// ICMPv6 types (RFC 4861, sections 4.3 and 4.4).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Flags of an advertisement: an answer to a question; and it replaces what was known.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Options (RFC 4861, section 4.6.1).
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;

/// What a message is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Purpose {
    /// It asks who has an address.
    Question,
    /// It says who has an address, asked or not.
    Statement,
}

/// A message about who has an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// What it is for.
    pub purpose: Purpose,
    /// The address that it is about.
    pub about: IpAddr,
    /// Of a question: the IP address of who asks; `None` when it has none yet, and asks whether somebody else has this one. Of a statement:
    /// the same as `about`.
    pub from: Option<IpAddr>,
    /// The Ethernet address that the sender claims. For anti-spoofing it has to be that of the frame too.
    pub claims: MacAddress,
}

/// A short frame on the stack.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Frame {
    /// Its bytes, from the Ethernet header on.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn new() -> Self {
        Self { bytes: [0; LONGEST], len: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.len).zip(bytes) {
            *to = *from;
        }
        self.len = (self.len + bytes.len()).min(LONGEST);
    }
}

/// What `frame`, whose headers are `headers`, says about who has an address. `None` when it is no such message, or one that has to be ignored
/// (RFC 4861, section 7.1).
#[must_use]
pub fn read(frame: &[u8], headers: &Headers) -> Option<Message> {
    if headers.malformed.is_some() {
        return None;
    }
    match headers.network {
        NetworkKind::Arp => read_arp(frame.get(usize::from(headers.network_at)..)?.first_chunk()?),
        NetworkKind::Ipv6 if headers.transport == TransportKind::Icmpv6 => read_discovery(frame, headers),
        _ => None,
    }
}

fn read_arp(packet: &[u8; ARP]) -> Option<Message> {
    let claims = MacAddress(*packet[8..].first_chunk()?);
    let sender = Ipv4Addr::from(*packet[14..].first_chunk::<4>()?);
    let target = Ipv4Addr::from(*packet[24..].first_chunk::<4>()?);
    let from = Some(IpAddr::V4(sender)).filter(|_| !sender.is_unspecified());
    match u16::from_be_bytes([packet[6], packet[7]]) {
        // Somebody who asks for its own address tells others that it is there (RFC 5227, section 3).
        1 if sender != target => Some(Message { purpose: Purpose::Question, about: IpAddr::V4(target), from, claims }),
        1 | 2 => from.map(|about| Message { purpose: Purpose::Statement, about, from, claims }),
        _ => None,
    }
}

fn read_discovery(frame: &[u8], headers: &Headers) -> Option<Message> {
    let at = usize::from(headers.transport_at);
    let network: &[u8; IPV6] = frame.get(usize::from(headers.network_at)..)?.first_chunk()?;
    let message = frame.get(at..headers.end as usize)?;
    let [kind @ (SOLICITATION | ADVERTISEMENT), 0, _, _, flags, ..] = *message.first_chunk::<DISCOVERY>()? else {
        return None;
    };
    // From this link alone; no router forwards a packet with all hops left.
    let whole = pseudo_header(&network[8..], protocol::ICMPV6, message.len()) + sum(message);
    if headers.ttl != u8::MAX || fold(whole) != u16::MAX {
        return None;
    }
    let address = |bytes: &[u8]| bytes.first_chunk::<16>().map(|address| Ipv6Addr::from(*address));
    let (source, destination) = (address(&network[8..])?, address(&network[24..])?);
    let target = address(message.get(8..)?)?;
    if target.is_multicast() || source.is_multicast() {
        return None;
    }
    let wanted = if kind == SOLICITATION { SOURCE_ADDRESS } else { TARGET_ADDRESS };
    let option = link_address(message.get(DISCOVERY..)?, wanted)?;
    let about = IpAddr::V6(target);
    if kind == ADVERTISEMENT {
        // To many it cannot be an answer.
        let impossible = source.is_unspecified() || (destination.is_multicast() && flags & SOLICITED != 0);
        let claims = option.or_else(|| sender(frame)).filter(|_| !impossible)?;
        return Some(Message { purpose: Purpose::Statement, about, from: Some(about), claims });
    }
    let from = Some(IpAddr::V6(source)).filter(|_| !source.is_unspecified());
    if from.is_none() && (option.is_some() || destination != solicited_node(target)) {
        return None;
    }
    Some(Message { purpose: Purpose::Question, about, from, claims: option.or_else(|| sender(frame))? })
}

/// The Ethernet address in the first option of kind `wanted`: `Some(None)` when there is none, `None` when the options make no sense.
fn link_address(mut options: &[u8], wanted: u8) -> Option<Option<MacAddress>> {
    while let [kind, units, ..] = *options {
        let (option, rest) = options.split_at_checked(usize::from(units) * 8).filter(|_| units > 0)?;
        if kind == wanted && units == 1 {
            return Some(option.get(2..).and_then(<[u8]>::first_chunk).map(|address| MacAddress(*address)));
        }
        options = rest;
    }
    options.is_empty().then_some(None)
}

fn sender(frame: &[u8]) -> Option<MacAddress> {
    frame.get(6..)?.first_chunk().map(|address| MacAddress(*address))
}

/// The group that whoever has `address` listens to (RFC 4291, section 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// Ethernet address of an IPv6 group (RFC 2464, section 7).
fn group_mac(group: Ipv6Addr) -> MacAddress {
    let [.., a, b, c, d] = group.octets();
    MacAddress([0x33, 0x33, a, b, c, d])
}

/// The answer to the question in `frame`, whose headers are `headers`: `mac` has the address. It has the VLAN tags of the question. `None` when the frame is no question.
#[must_use]
pub fn answer(frame: &[u8], headers: &Headers, mac: MacAddress) -> Option<Frame> {
    let message = read(frame, headers).filter(|message| message.purpose == Purpose::Question)?;
    let tags = frame.get(12..usize::from(headers.network_at))?;
    let asker = sender(frame)?;
    let mut answer = Frame::new();
    match (message.about, message.from) {
        (IpAddr::V4(about), from) => {
            let from = match from {
                Some(IpAddr::V4(from)) => from,
                _ => Ipv4Addr::UNSPECIFIED,
            };
            answer.put(&asker.0);
            answer.put(&mac.0);
            answer.put(tags);
            put_arp(&mut answer, 2, (mac, about), (message.claims, from));
        }
        (IpAddr::V6(about), Some(IpAddr::V6(from))) => {
            answer.put(&asker.0);
            answer.put(&mac.0);
            answer.put(tags);
            put_discovery(&mut answer, ADVERTISEMENT, SOLICITED | OVERRIDE, about, (about, from), mac);
        }
        (IpAddr::V6(about), _) => {
            // Whoever asks has no address yet: everybody is told (RFC 4861, section 7.2.4).
            let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            answer.put(&group_mac(all).0);
            answer.put(&mac.0);
            answer.put(tags);
            put_discovery(&mut answer, ADVERTISEMENT, OVERRIDE, about, (about, all), mac);
        }
    }
    Some(answer)
}

/// A question of ours, who have the addresses `mac` and `from`: who has `about`? In VLAN `vlan` (tag control information). `None` when one address is of IPv4 and the
/// other of IPv6.
#[must_use]
pub fn question(mac: MacAddress, from: IpAddr, about: IpAddr, vlan: Option<u16>) -> Option<Frame> {
    let mut frame = Frame::new();
    let ethernet = |frame: &mut Frame, to: MacAddress, kind: u16| {
        frame.put(&to.0);
        frame.put(&mac.0);
        if let Some(tag) = vlan {
            frame.put(&ether_type::VLAN.to_be_bytes());
            frame.put(&tag.to_be_bytes());
        }
        frame.put(&kind.to_be_bytes());
    };
    match (from, about) {
        (IpAddr::V4(from), IpAddr::V4(about)) => {
            ethernet(&mut frame, BROADCAST, ether_type::ARP);
            put_arp(&mut frame, 1, (mac, from), (MacAddress::default(), about));
        }
        (IpAddr::V6(from), IpAddr::V6(about)) => {
            let group = solicited_node(about);
            ethernet(&mut frame, group_mac(group), ether_type::IPV6);
            put_discovery(&mut frame, SOLICITATION, 0, about, (from, group), mac);
        }
        _ => return None,
    }
    Some(frame)
}

/// Puts an ARP packet, from one to the other, behind what `frame` holds.
fn put_arp(frame: &mut Frame, operation: u8, from: (MacAddress, Ipv4Addr), to: (MacAddress, Ipv4Addr)) {
    frame.put(&[0, 1, 8, 0, 6, 4, 0, operation]);
    for (mac, address) in [from, to] {
        frame.put(&mac.0);
        frame.put(&address.octets());
    }
}

/// Puts an IPv6 packet, from one address to the other, behind what `frame` holds: a message about `target` with the address `mac`.
fn put_discovery(
    frame: &mut Frame,
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    (from, to): (Ipv6Addr, Ipv6Addr),
    mac: MacAddress,
) {
    let mut message = [0; DISCOVERY + OPTION];
    message[0] = kind;
    message[4] = flags;
    message[8..24].copy_from_slice(&target.octets());
    message[24] = if kind == SOLICITATION { SOURCE_ADDRESS } else { TARGET_ADDRESS };
    message[25] = 1;
    message[26..].copy_from_slice(&mac.0);
    let [.., a, b] = message.len().to_be_bytes();
    let mut addresses = [0; 32];
    addresses[..16].copy_from_slice(&from.octets());
    addresses[16..].copy_from_slice(&to.octets());
    let checksum = !fold(pseudo_header(&addresses, protocol::ICMPV6, message.len()) + sum(&message));
    message[2..4].copy_from_slice(&checksum.to_ne_bytes());
    frame.put(&[0x60, 0, 0, 0, a, b, protocol::ICMPV6, u8::MAX]);
    frame.put(&addresses);
    frame.put(&message);
}
