//! Frames that the thread makes: answers to who asks for an address or pings a router, questions of its own, and news for senders whose packets did not get there.

use std::net::IpAddr;

use drivers::nic::MacAddress;
use hugemem::{Packet, PacketPool};

use super::engines::Raised;
use super::state::State;
use super::upcalls::drop_for;
use crate::checksum;
use crate::engine::adapt::segments;
use crate::flow::{Action, Domain, Output};
use crate::headers::{ETHERNET, Fragment, Headers, NetworkKind, TransportKind, parse};
use crate::network::config::Mac;
use crate::network::topology::Place;
use crate::overlay::neighbour::{self, Purpose};
use crate::overlay::{fragment, mtu};
use crate::switch::{PortSlot, Reason};

/// Senders that are told, at one port, in a second; and as many at once.
pub(super) const TOLD_A_SECOND: u32 = 100;

/// Where an answer to a packet of this origin goes.
fn back(from: PortSlot, domain: Domain) -> Action {
    Action::to(match u16::try_from(domain.number()) {
        Ok(tunnel) if domain.is_tunnel() => Output::Tunnel(tunnel),
        _ => Output::Port(from.0),
    })
}

impl State {
    /// Answers who asked for an address.
    pub(super) fn answer_question(&mut self, raised: Raised, mac: Mac) {
        let view = raised.packet().bytes();
        let headers = parse(view, raised.packet().len());
        let Some(frame) = neighbour::answer(view, &headers, MacAddress(mac.0)) else {
            return raised.send(&mut self.engines, drop_for(Reason::Refused), None);
        };
        let (engine, from, domain) = (raised.engine, raised.from, raised.domain);
        drop(raised.take(&mut self.engines));
        self.send_made(frame.bytes(), engine, (from, domain), back(from, domain));
        self.counters.answered += 1;
    }

    /// Answers a ping to a router.
    pub(super) fn answer_echo(&mut self, raised: Raised) {
        let (engine, from, domain) = (raised.engine, raised.from, raised.domain);
        let headers = parse(raised.packet().bytes(), raised.packet().len());
        if !is_echo(raised.packet().bytes(), &headers) {
            return raised.send(&mut self.engines, drop_for(Reason::Refused), None);
        }
        let Some(mut packet) = raised.take(&mut self.engines) else { return };
        turn_round(packet.bytes_mut(), &headers);
        self.counters.answered += 1;
        if let Some(desk) = self.engines.desk(engine) {
            desk.originate(packet, from, domain, back(from, domain));
        }
    }

    /// Asks all of a network who has an address, in the name of its router.
    pub(super) fn ask_in_network(&mut self, network: u16, (router, mac): (IpAddr, Mac), about: IpAddr) {
        let Some(engine) = self.engines.first() else { return };
        let topology = self.brain.topology();
        let Some(network) = topology.networks.get(&network) else { return };
        let member = |place: &Place| match *place {
            Place::Port(_) => {
                let attachment = topology.attachment(*place)?;
                let bound = self.brain.bound(&attachment.config.name)?;
                Some((Output::Port(bound.slot), attachment.vlan))
            }
            Place::Tunnel(number) => {
                self.underlay.resolved(number)?;
                Some((Output::Tunnel(number), None))
            }
        };
        let members: Vec<_> = network.members.iter().filter_map(member).collect();
        self.counters.asked += 1;
        for (output, vlan) in members {
            let Some(frame) = neighbour::question(MacAddress(mac.0), router, about, vlan) else { return };
            // From nobody: it is for all of them.
            let nobody = (PortSlot(u16::MAX), Domain::port(u32::MAX));
            self.send_made(frame.bytes(), engine, nobody, Action::to(output));
        }
    }

    /// A packet came from the network between hosts that is in no tunnel.
    pub(super) fn take_underlay(&mut self, raised: Raised) {
        self.counters.underlay += 1;
        let view = raised.packet().bytes();
        let headers = parse(view, raised.packet().len());
        let now = self.now();
        let own = self.underlay.port().filter(|port| port.slot == raised.from);
        let (Some(own), None) = (own, headers.malformed) else {
            return raised.send(&mut self.engines, drop_for(Reason::Refused), None);
        };
        if let Some(message) = neighbour::read(view, &headers) {
            let news = message.from.is_some_and(|from| self.underlay.learn(from, message.claims, now));
            if message.purpose == Purpose::Question && self.underlay.is_own(message.about) {
                self.answer_question(raised, Mac(own.mac.0));
            } else if message.purpose == Purpose::Statement {
                drop(raised.take(&mut self.engines));
            } else {
                raised.send(&mut self.engines, drop_for(Reason::Filtered), None);
            }
            if news {
                self.publish();
            }
            return;
        }
        let for_us = raised.key.destination().is_some_and(|address| self.underlay.is_own(address));
        if for_us && raised.key.destination_mac() == own.mac && is_echo(view, &headers) {
            return self.answer_echo(raised);
        }
        raised.send(&mut self.engines, drop_for(Reason::Refused), None);
    }

    /// Asks for the next hops that are to be asked for.
    pub(super) fn ask_underlay(&mut self) {
        let now = self.now();
        let (questions, forgotten) = self.underlay.tick(now);
        if forgotten {
            self.publish();
        }
        let (Some(port), Some(engine)) = (self.underlay.port(), self.engines.first()) else { return };
        for (own, about) in questions {
            let Some(frame) = neighbour::question(port.mac, own, about, None) else { continue };
            self.counters.asked += 1;
            let action = Action::to(Output::Port(port.slot.0));
            self.send_made(frame.bytes(), engine, (port.slot, Domain::port(port.number)), action);
        }
    }

    /// Tells a sender that its packet's time ran out, and drops that.
    pub(super) fn tell_expired(&mut self, raised: Raised) {
        let router = self.brain.router_of(&raised.key);
        self.tell(raised, Reason::Expired, |packet, headers, answer| {
            router.is_some_and(|router| mtu::time_exceeded(packet, headers, router, answer))
        });
    }

    /// A packet is too long for its tunnel, or for the port that it is routed to, which take frames of so many bytes. It is cut where its sender allows that; others are told, and it is
    /// dropped.
    pub(super) fn too_big(&mut self, raised: Raised, longest: u16) {
        let packet = raised.packet();
        let headers = parse(packet.bytes(), packet.len());
        if fragment::is_allowed(packet, &headers) {
            let pieces = fragments(packet, usize::from(longest), &mut self.own);
            return self.send_in_pieces(raised, pieces);
        }
        self.tell(raised, Reason::TooLong, |packet, headers, answer| {
            let room = usize::from(longest).saturating_sub(usize::from(headers.network_at));
            mtu::too_big(packet, headers, room, answer)
        });
    }

    /// Sends these in place of the packet, the way that it would have gone.
    fn send_in_pieces(&mut self, raised: Raised, pieces: Option<Vec<Packet>>) {
        let Some(pieces) = pieces else {
            self.counters.no_buffer += 1;
            return raised.send(&mut self.engines, drop_for(Reason::NoBuffer), None);
        };
        let action = self.action_for(&raised);
        let (engine, from, domain) = (raised.engine, raised.from, raised.domain);
        self.counters.fragmented += 1;
        drop(raised.take(&mut self.engines));
        let Some(desk) = self.engines.desk(engine) else { return };
        pieces.into_iter().for_each(|piece| desk.originate(piece, from, domain, action));
    }

    fn tell(&mut self, raised: Raised, reason: Reason, make: impl FnOnce(&Packet, &Headers, &mut Packet) -> bool) {
        let now = self.now();
        let (engine, from, domain) = (raised.engine, raised.from, raised.domain);
        if self.told.may(from, now) {
            let headers = parse(raised.packet().bytes(), raised.packet().len());
            match self.own.take() {
                Some(mut answer) => {
                    if make(raised.packet(), &headers, &mut answer)
                        && let Some(desk) = self.engines.desk(engine)
                    {
                        self.counters.told += 1;
                        desk.originate(answer, from, domain, back(from, domain));
                    }
                }
                None => self.counters.no_buffer += 1,
            }
        }
        raised.send(&mut self.engines, drop_for(reason), None);
    }

    fn send_made(&mut self, bytes: &[u8], engine: usize, (from, domain): (PortSlot, Domain), action: Action) {
        if let Some(packet) = self.made_of(bytes)
            && let Some(desk) = self.engines.desk(engine)
        {
            desk.originate(packet, from, domain, action);
        }
    }
}

/// The packet, or each of its segments, in fragments.
fn fragments(packet: &Packet, longest: usize, pool: &mut PacketPool) -> Option<Vec<Packet>> {
    let cut = |packet: &Packet, pool: &mut PacketPool| {
        fragment::fragments(packet, &parse(packet.bytes(), packet.len()), longest, pool)
    };
    if packet.metadata().segmentation.is_none() {
        return cut(packet, pool);
    }
    let mut pieces = Vec::new();
    for segment in segments(packet, pool)? {
        pieces.extend(cut(&segment, pool)?);
    }
    Some(pieces)
}

/// Whether a frame is a whole echo request whose headers lie in `view`.
fn is_echo(view: &[u8], headers: &Headers) -> bool {
    let [kind, code] = match view.get(usize::from(headers.transport_at)..).and_then(<[u8]>::first_chunk::<4>) {
        Some([kind, code, _, _]) => [*kind, *code],
        None => return false,
    };
    let asks = match (headers.network, headers.transport) {
        (NetworkKind::Ipv4, TransportKind::Icmp) => kind == 8,
        (NetworkKind::Ipv6, TransportKind::Icmpv6) => kind == 128,
        _ => false,
    };
    asks && code == 0 && headers.fragment == Fragment::Whole && headers.malformed.is_none()
}

/// Makes an echo request its answer (RFC 792; RFC 4443, section 4.2).
fn turn_round(frame: &mut [u8], headers: &Headers) {
    let swap = |bytes: &mut [u8], at: usize, len: usize| {
        if let Some(pair) = bytes.get_mut(at..at + 2 * len) {
            pair.rotate_left(len);
        }
    };
    let (network, transport) = (usize::from(headers.network_at), usize::from(headers.transport_at));
    debug_assert!(network >= ETHERNET, "an IP packet lies behind an Ethernet header");
    swap(frame, 0, 6);
    let (request, answer) = match headers.network {
        NetworkKind::Ipv4 => {
            swap(frame, network + 12, 4);
            set_byte(frame, network + 8, 64, network + 10);
            (8_u8, 0_u8)
        }
        _ => {
            swap(frame, network + 8, 16);
            if let Some(hops) = frame.get_mut(network + 7) {
                *hops = 64;
            }
            (128, 129)
        }
    };
    debug_assert_eq!(frame.get(transport), Some(&request));
    set_byte(frame, transport, answer, transport + 2);
}

/// Writes the first byte of a word that the checksum at `sum_at` is over, and mends that (RFC 1624).
fn set_byte(frame: &mut [u8], at: usize, value: u8, sum_at: usize) {
    let Some([before, other]) = frame.get(at..).and_then(<[u8]>::first_chunk::<2>).copied() else { return };
    let Some(old) = frame.get(sum_at..).and_then(<[u8]>::first_chunk::<2>).copied() else { return };
    let new =
        checksum::update(u16::from_ne_bytes(old), checksum::sum(&[before, other]), checksum::sum(&[value, other]));
    if let Some(byte) = frame.get_mut(at) {
        *byte = value;
    }
    if let Some(sum) = frame.get_mut(sum_at..sum_at + 2) {
        sum.copy_from_slice(&new.to_ne_bytes());
    }
}
