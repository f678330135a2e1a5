//! What the switch answers itself.

use super::frames::*;
use super::rig::*;
use crate::overlay::neighbour::{Purpose, question, read};
use crate::switch::Reason;
use drivers::nic::MacAddress;

const ROUTED: &str = r#"
network = [
    { name = "red", routers = ["10.0.0.254/24", "2001:db8::ff/64"] },
    { name = "blue", routers = ["10.1.0.254/24"] },
]
port = [
    { name = "red1", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1", "2001:db8::1"] },
    { name = "red2", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2", "2001:db8::2"] },
    { name = "blue1", network = "blue", macs = ["52:54:00:00:00:03"], addresses = ["10.1.0.3"] },
    { name = "blue2", network = "blue", anti-spoofing = false },
]
route = [{ network = "red", prefix = "10.1.0.0/24", to = "blue" }]
"#;

/// What a frame says about who has an address.
fn told(frame: &[u8]) -> (Purpose, String, [u8; 6]) {
    let headers = crate::headers::parse(frame, frame.len());
    let message = read(frame, &headers).expect("it says who has an address");
    (message.purpose, message.about.to_string(), message.claims.0)
}

#[test]
fn questions_for_addresses_are_answered_here() {
    let mut rig = Rig::configured(1, ROUTED);
    for (target, has) in [("10.0.0.254", ROUTER), ("10.0.0.2", mac(2))] {
        rig.send("red1", &arp(1, (mac(1), "10.0.0.1"), EVERYBODY, target));
        let answer = rig.next("red1");
        assert_eq!(told(&answer), (Purpose::Statement, target.to_owned(), has));
        assert_eq!(answer[..6], mac(1));
    }
    for (target, has) in [("2001:db8::ff", ROUTER), ("2001:db8::2", mac(2))] {
        let asked = question(MacAddress(mac(1)), "2001:db8::1".parse().unwrap(), target.parse().unwrap(), None);
        rig.send("red1", asked.unwrap().bytes());
        let answer = rig.next("red1");
        assert_eq!(told(&answer), (Purpose::Statement, target.to_owned(), has));
        assert_whole(&answer);
    }
    assert!(rig.taken().is_empty(), "nobody else was asked");
    assert_eq!(rig.handle.statistics().unwrap().control["answered"], 4);
}

#[test]
fn a_router_answers_pings() {
    let mut rig = Rig::configured(1, ROUTED);
    for (own, router) in [("10.0.0.1", "10.0.0.254"), ("2001:db8::1", "2001:db8::ff")] {
        for payload in [&b""[..], b"odd", &[7; 1400]] {
            let request = ping((mac(1), ROUTER), (own, router), payload);
            assert_whole(&request);
            rig.send("red1", &request);
            let answer = rig.next("red1");
            assert_whole(&answer);
            assert_eq!(answer.len(), request.len());
            assert_eq!((&answer[..6], &answer[6..12]), (&mac(1)[..], &ROUTER[..]));
            let sliced = etherparse::SlicedPacket::from_ethernet(&answer).unwrap();
            match sliced.transport.unwrap() {
                etherparse::TransportSlice::Icmpv4(icmp) => {
                    let kind = icmp.icmp_type();
                    assert!(matches!(kind, etherparse::Icmpv4Type::EchoReply(it) if (it.id, it.seq) == (7, 9)));
                    assert_eq!(icmp.payload(), payload);
                }
                etherparse::TransportSlice::Icmpv6(icmp) => {
                    let kind = icmp.icmp_type();
                    assert!(matches!(kind, etherparse::Icmpv6Type::EchoReply(it) if (it.id, it.seq) == (7, 9)));
                    assert_eq!(icmp.payload(), payload);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    rig.assert_balanced();
}

#[test]
fn a_sender_hears_that_time_ran_out_from_its_router() {
    let mut rig = Rig::configured(1, ROUTED);
    let frame = |ttl| udp_with_ttl((mac(1), ROUTER), ("10.0.0.1", "10.1.0.3"), (1, 2), ttl, b"far away");
    rig.send("red1", &frame(2));
    let routed = rig.next("blue1");
    assert_whole(&routed);
    assert_eq!((&routed[..6], routed[22]), (&mac(3)[..], 1));
    rig.send("red1", &frame(1));
    let news = rig.next("red1");
    assert_whole(&news);
    // ICMP time exceeded, from the router, with the packet's first bytes.
    assert_eq!((news[34], news[35], &news[26..30]), (11, 0, &[10, 0, 0, 254][..]));
    assert_eq!(news[42..], frame(1)[14..]);
    // Not as often as somebody likes.
    let slot = rig.slot("red1");
    let start = std::time::Instant::now();
    for _ in 0..10 {
        rig.send_at(0, slot, &vec![frame(1).as_slice(); 30]);
        rig.settle();
    }
    let seconds = start.elapsed().as_secs() as usize + 2;
    let news = rig.taken().len();
    assert!((90..=100 * seconds).contains(&news), "{news} in {seconds} s");
    assert_eq!(rig.drops(Reason::Expired), 301);
    rig.assert_balanced();
}

#[test]
fn first_packets_wait_till_the_router_knows_who_has_the_address() {
    let mut rig = Rig::configured(1, ROUTED);
    let frame = |number| numbered((mac(1), ROUTER), ("10.0.0.1", "10.1.0.9"), 1, number);
    for number in 0..3 {
        rig.send("red1", &frame(number));
    }
    let asked = rig.next("blue2");
    assert_eq!(told(&asked), (Purpose::Question, "10.1.0.9".into(), ROUTER));
    assert_eq!(told(&rig.next("blue1")).0, Purpose::Question);
    rig.settle();
    assert!(rig.sent.is_empty());
    rig.send("blue2", &arp(2, (mac(9), "10.1.0.9"), ROUTER, "10.1.0.254"));
    rig.send("red1", &frame(3));
    for number in 0..4 {
        let got = rig.next("blue2");
        assert_whole(&got);
        assert_eq!((number_of(&got), &got[..6], &got[6..12]), ((1, number), &mac(9)[..], &ROUTER[..]));
    }
    rig.assert_balanced();
}

#[test]
fn a_port_whose_packets_wait_leaves_room_for_those_of_others() {
    let mut rig = Rig::configured(1, ROUTED);
    let slot = rig.slot("red1");
    for last in 100..200 {
        let frame = udp((mac(1), ROUTER), ("10.0.0.1", &format!("10.1.0.{last}")), (1, 2), b"nobody is there");
        rig.send_at(0, slot, &vec![frame.as_slice(); 16]);
        rig.settle();
    }
    let waiting = rig.handle.statistics().unwrap().control["waiting"];
    assert!((1..=128).contains(&waiting), "{waiting}");
    rig.sent.clear();
    rig.send("red2", &numbered((mac(2), ROUTER), ("10.0.0.2", "10.1.0.9"), 1, 0));
    rig.settle();
    rig.send("blue2", &arp(2, (mac(9), "10.1.0.9"), ROUTER, "10.1.0.254"));
    rig.until("it comes through", |rig| rig.sent.iter().any(|(_, frame)| frame.ends_with(&[0, 0, 0, 1, 0, 0, 0, 0])));
    rig.assert_balanced();
}

#[test]
fn a_router_says_what_the_port_behind_it_takes() {
    let mut rig = Rig::configured(1, ROUTED);
    let packet = |len: usize, forbidden: bool| {
        let mut frame = udp((mac(1), ROUTER), ("10.0.0.1", "10.1.0.3"), (1, 2), &vec![7; len - 28]);
        let mut header = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0;
        header.dont_fragment = forbidden;
        header.header_checksum = header.calc_header_checksum();
        frame[14..34].copy_from_slice(&header.to_bytes());
        frame
    };
    rig.send("red1", &packet(1500, true));
    assert_eq!(rig.next("blue1").len(), 1514);
    rig.send("red1", &packet(1501, true));
    let news = rig.next("red1");
    assert_whole(&news);
    assert_eq!((news[34], news[35], &news[40..42]), (3, 4, &1500_u16.to_be_bytes()[..]));
    rig.send("red1", &packet(1900, false));
    let pieces = [rig.next("blue1"), rig.next("blue1")];
    assert_eq!(pieces.each_ref().map(|piece| piece.len() - 34), [1480, 1880 - 1480]);
    assert!(pieces.iter().all(|piece| (piece[22], &piece[..6]) == (63, &mac(3)[..])), "routed like others");
    rig.assert_balanced();
}
