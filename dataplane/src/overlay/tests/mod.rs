#![allow(clippy::unwrap_used, reason = "tests")]

mod fragments;
mod mtu;
mod mutations;
mod neighbour;
mod offloads;
mod tunnels;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use hugemem::{Foreign, Iova, Packet, PacketPool, Region};

use super::*;
use crate::headers::{Headers, parse};
use crate::whole;
use drivers::nic::MacAddress;

const HERE: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const THERE: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const ARRIVAL: Arrival = Arrival { network: 7, tunnel: 3 };

fn v4() -> Addresses {
    Addresses::V4 { local: Ipv4Addr::new(192, 0, 2, 1), remote: Ipv4Addr::new(192, 0, 2, 2) }
}

fn v6() -> Addresses {
    let [local, remote] = ["2001:db8::1", "2001:db8::ffff:2"].map(|address| address.parse::<Ipv6Addr>().unwrap());
    Addresses::V6 { local, remote }
}

/// A tunnel of each kind, with and without a tag and checksums.
fn encapsulations() -> Vec<Encapsulation> {
    let mut all = Vec::new();
    for kind in [TunnelKind::Vxlan, TunnelKind::Geneve] {
        for addresses in [v4(), v6()] {
            for (vlan, checksum) in [(None, false), (None, true), (Some(0x2005), true)] {
                let plain = Encapsulation::new(kind, 0xab_cdef, addresses, HERE, THERE);
                all.push(Encapsulation { vlan, checksum, mtu: 9000, ..plain });
            }
        }
    }
    all
}

/// The tunnel's other end.
fn terminations(encapsulation: &Encapsulation) -> Terminations {
    let (local, remote) = encapsulation.addresses.ends();
    let addresses = Addresses::new(remote, local).unwrap();
    let Encapsulation { kind, vni, .. } = *encapsulation;
    Terminations::new([Termination { kind, vni, addresses, zero_checksum: true, arrival: ARRIVAL }])
}

fn pool(count: usize, room: usize) -> PacketPool {
    Region::on_heap(count * (room + 256) + 4096, Iova::new(0)).unwrap().packets(count, room).unwrap()
}

fn packet(bytes: &[u8]) -> Packet {
    let mut packet = pool(1, bytes.len().max(64)).take().unwrap();
    packet.write(bytes).unwrap();
    packet
}

/// A packet whose first `own` bytes are its own, and the rest somebody else's.
#[expect(unsafe_code, reason = "pieces are addresses")]
fn foreign(bytes: &[u8], own: usize) -> Packet {
    let region = Region::on_heap(8192, Iova::new(0)).unwrap();
    let mut packet = region.packets_with_foreign(1, 128, 64).unwrap().take().unwrap();
    let (own, rest) = bytes.split_at(own.min(bytes.len()));
    packet.write(own).unwrap();
    for part in rest.chunks(601) {
        let part: &'static mut [u8] = Box::leak(part.to_vec().into_boxed_slice());
        let len = u32::try_from(part.len()).unwrap();
        // SAFETY: the bytes are never freed.
        let part = unsafe { Foreign::new(std::ptr::NonNull::from(part).cast(), len) };
        assert!(packet.attach(part));
    }
    packet
}

fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut bytes = vec![0; packet.len()];
    assert_eq!(whole::read(packet, 0, &mut bytes), packet.len());
    bytes
}

fn headers_of(packet: &Packet) -> Headers {
    parse(packet.bytes(), packet.len())
}

/// Does what the port would have to.
fn complete(packet: &mut Packet) {
    if let hugemem::Checksum::Partial { start, offset } = packet.metadata().checksum {
        assert!(crate::checksum::complete_packet(packet, start, offset));
        packet.metadata_mut().checksum = hugemem::Checksum::Unknown;
    }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

/// A TCP segment over IPv4, as somebody else would write it, with `len` bytes of payload and traffic class `class`.
fn tcp(class: u8, len: usize) -> Vec<u8> {
    let mut ip = etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::TCP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
    ip.dscp = etherparse::IpDscp::try_new(class >> 2).unwrap();
    ip.ecn = etherparse::IpEcn::try_new(class & 3).unwrap();
    ip.dont_fragment = true;
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 8], [2, 0, 0, 0, 0, 9]);
    let builder = builder.ip(etherparse::IpHeaders::Ipv4(ip, Default::default())).tcp(1000, 80, 12_345, 4096);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &payload(len)).unwrap();
    bytes
}

/// A datagram over IPv6.
fn udp6(class: u8, len: usize) -> Vec<u8> {
    let [from, to] = ["fd00::1", "fd00::2"].map(|address| address.parse::<Ipv6Addr>().unwrap().octets());
    let ip = etherparse::Ipv6Header {
        traffic_class: class,
        hop_limit: 64,
        next_header: etherparse::IpNumber::UDP,
        source: from,
        destination: to,
        ..Default::default()
    };
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 8], [2, 0, 0, 0, 0, 9]);
    let builder = builder.ip(etherparse::IpHeaders::Ipv6(ip, Default::default())).udp(1000, 53);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &payload(len)).unwrap();
    bytes
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
