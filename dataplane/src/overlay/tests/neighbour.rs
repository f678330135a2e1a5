//! ARP and neighbour discovery.

use etherparse::{ArpOperation, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};

use super::*;
use crate::overlay::neighbour::{Message, Purpose, answer, question, read};

const ASKER: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xaa]);

fn read_bytes(bytes: &[u8]) -> Option<Message> {
    read(bytes, &parse(bytes, bytes.len()))
}

fn answer_bytes(bytes: &[u8], mac: MacAddress) -> Option<Vec<u8>> {
    Some(answer(bytes, &parse(bytes, bytes.len()), mac)?.bytes().to_vec())
}

#[test]
fn an_arp_question_is_read_and_answered() {
    for vlan in [None, Some(0x2005)] {
        let asked = question(ASKER, ip("10.0.0.1"), ip("10.0.0.2"), vlan).unwrap();
        let bytes = asked.bytes();
        let parsed = SlicedPacket::from_ethernet(bytes).unwrap();
        let Some(NetSlice::Arp(arp)) = parsed.net else { panic!("no ARP") };
        assert_eq!((arp.operation(), arp.sender_hw_addr()), (ArpOperation::REQUEST, &ASKER.0[..]));
        assert_eq!((arp.sender_protocol_addr(), arp.target_protocol_addr()), (&[10, 0, 0, 1][..], &[10, 0, 0, 2][..]));
        assert_eq!(bytes[..6], [0xff; 6]);
        let from = Some(ip("10.0.0.1"));
        let expected = Message { purpose: Purpose::Question, about: ip("10.0.0.2"), from, claims: ASKER };
        assert_eq!(read_bytes(bytes), Some(expected));

        let answer = answer_bytes(bytes, THERE).unwrap();
        assert_eq!(answer[..12], [ASKER.0, THERE.0].concat());
        assert_eq!(answer.len(), bytes.len());
        let parsed = SlicedPacket::from_ethernet(&answer).unwrap();
        assert_eq!(parsed.link_exts.len(), usize::from(vlan.is_some()));
        let Some(NetSlice::Arp(arp)) = parsed.net else { panic!("no ARP") };
        assert_eq!((arp.operation(), arp.sender_hw_addr()), (ArpOperation::REPLY, &THERE.0[..]));
        assert_eq!((arp.target_hw_addr(), arp.target_protocol_addr()), (&ASKER.0[..], &[10, 0, 0, 1][..]));
        let about = ip("10.0.0.2");
        let expected = Message { purpose: Purpose::Statement, about, from: Some(about), claims: THERE };
        assert_eq!(read_bytes(&answer), Some(expected));
        assert_eq!(answer_bytes(&answer, HERE), None, "an answer is not answered");
    }
}

#[test]
fn arp_without_an_address_and_about_oneself_is_told_apart() {
    let asked = question(ASKER, ip("0.0.0.0"), ip("10.0.0.2"), None).unwrap();
    let message = read_bytes(asked.bytes()).unwrap();
    assert_eq!((message.purpose, message.from), (Purpose::Question, None));
    assert!(answer_bytes(asked.bytes(), THERE).is_some());
    let told = question(ASKER, ip("10.0.0.2"), ip("10.0.0.2"), None).unwrap();
    assert_eq!(read_bytes(told.bytes()).unwrap().purpose, Purpose::Statement);
    assert!(answer_bytes(told.bytes(), THERE).is_none());
    let mut other = told.bytes().to_vec();
    other[21] = 3;
    assert_eq!(read_bytes(&other), None, "reverse ARP");
    assert!(question(ASKER, ip("10.0.0.2"), ip("::1"), None).is_none());
}

#[test]
fn a_solicitation_is_read_and_answered() {
    let (from, about) = (ip("fe80::1"), ip("2001:db8::12:3456"));
    let asked = question(ASKER, from, about, None).unwrap();
    let bytes = asked.bytes();
    assert_eq!(bytes[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    let expected = Message { purpose: Purpose::Question, about, from: Some(from), claims: ASKER };
    assert_eq!(read_bytes(bytes), Some(expected));
    check_icmp(bytes, from, ip("ff02::1:ff12:3456"));

    let answer = answer_bytes(bytes, THERE).unwrap();
    assert_eq!(answer[..12], [ASKER.0, THERE.0].concat());
    let header = check_icmp(&answer, about, from);
    let Icmpv6Type::NeighborAdvertisement(flags) = header else { panic!("{header:?}") };
    assert!(flags.solicited && flags.r#override && !flags.router);
    let expected = Message { purpose: Purpose::Statement, about, from: Some(about), claims: THERE };
    assert_eq!(read_bytes(&answer), Some(expected));
    assert_eq!(answer_bytes(&answer, HERE), None);
}

fn check_icmp(bytes: &[u8], from: IpAddr, to: IpAddr) -> Icmpv6Type {
    let parsed = SlicedPacket::from_ethernet(bytes).unwrap();
    let Some(NetSlice::Ipv6(network)) = parsed.net else { panic!("no IPv6") };
    let header = network.header().to_header();
    assert_eq!((IpAddr::from(header.source), IpAddr::from(header.destination), header.hop_limit), (from, to, 255));
    let Some(TransportSlice::Icmpv6(icmp)) = parsed.transport else { panic!("no ICMPv6") };
    assert!(icmp.is_checksum_valid(header.source, header.destination));
    icmp.header().icmp_type
}

#[test]
fn who_has_no_address_yet_is_answered_with_everybody() {
    let about = ip("fe80::5");
    let asked = question(ASKER, ip("::"), about, None).unwrap();
    assert_eq!(read_bytes(asked.bytes()), None, "who has no address gives no Ethernet address either");
    // Without the option.
    let mut probe = asked.bytes()[..14 + 40 + 24].to_vec();
    probe[19] = 24;
    mend(&mut probe);
    let message = read_bytes(&probe).unwrap();
    assert_eq!((message.purpose, message.from, message.claims), (Purpose::Question, None, ASKER));
    let answer = answer_bytes(&probe, THERE).unwrap();
    assert_eq!(answer[..6], [0x33, 0x33, 0, 0, 0, 1]);
    let header = check_icmp(&answer, about, ip("ff02::1"));
    assert!(matches!(header, Icmpv6Type::NeighborAdvertisement(flags) if !flags.solicited && flags.r#override));
}

/// Gives a message a right checksum again.
fn mend(frame: &mut [u8]) {
    frame[56..58].fill(0);
    let len = frame.len() - 54;
    let sum = crate::checksum::pseudo_header(&frame[22..54], 58, len) + crate::checksum::sum(&frame[54..]);
    let checksum = !crate::checksum::fold(sum);
    frame[56..58].copy_from_slice(&checksum.to_ne_bytes());
}

#[test]
fn discovery_that_the_rfc_wants_ignored_is_ignored() {
    let asked = question(ASKER, ip("fe80::1"), ip("fe80::2"), None).unwrap();
    let change = |at: usize, byte: u8| {
        let mut frame = asked.bytes().to_vec();
        frame[at] = byte;
        mend(&mut frame);
        read_bytes(&frame)
    };
    assert!(change(6, 2).is_some(), "only the sender changes");
    assert_eq!(change(21, 254), None, "from behind a router");
    assert_eq!(change(55, 1), None, "code");
    assert_eq!(change(62, 0xff), None, "about a group");
    assert_eq!(change(22, 0xff), None, "from a group");
    assert_eq!(change(79, 0), None, "an option without length");
    assert_eq!(change(79, 2), None, "an option beyond the end");
    assert_eq!(change(54, 133), None, "a router solicitation");
    let mut wrong = asked.bytes().to_vec();
    wrong[70] ^= 1;
    assert_eq!(read_bytes(&wrong), None, "checksum");
    for len in 0..asked.bytes().len() {
        assert_eq!(read_bytes(&asked.bytes()[..len]), None, "{len} bytes");
    }
}
