//! Tunnels to other hosts: their next hops, and what goes through.

use super::frames::*;
use super::rig::*;
use crate::overlay::neighbour::{Purpose, read};
use crate::switch::Reason;
use crate::vswitch::report::{FlowStatus, TunnelState};

fn host(number: u8) -> String {
    let (other, last) = (3 - number, number);
    format!(
        r#"
        underlay = {{ port = "up", addresses = ["192.0.2.{number}/24"] }}
        network = [{{ name = "red", vni = 42 }}]
        port = [{{ name = "vm{last}", network = "red", macs = ["52:54:00:00:00:0{last}"], addresses = ["10.0.0.{last}"] }}]
        tunnel = [{{ network = "red", remote = "192.0.2.{other}" }}]
        "#
    )
}

const PEER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];

/// Answers the next question of the switch for 192.0.2.2 as a host with this Ethernet address would; gives who asked.
fn answer(rig: &mut Rig, peer: [u8; 6]) -> [u8; 6] {
    let asked = rig.next("up");
    let headers = crate::headers::parse(&asked, asked.len());
    let message = read(&asked, &headers).expect("a question");
    assert_eq!((message.purpose, message.about.to_string()), (Purpose::Question, "192.0.2.2".to_owned()));
    let asker = message.claims.0;
    rig.send("up", &arp(2, (peer, "192.0.2.2"), asker, "192.0.2.1"));
    asker
}

#[test]
fn packets_wait_for_the_next_hop_and_leave_in_order() {
    let mut rig = Rig::configured(1, &host(1));
    let frame = |number| numbered((mac(1), mac(2)), ("10.0.0.1", "10.0.0.2"), 1, number);
    for number in 0..3 {
        rig.send("vm1", &frame(number));
    }
    let tunnel = rig.handle.statistics().unwrap().tunnels.remove(0);
    assert_eq!((tunnel.state, tunnel.mac), (TunnelState::Resolving, None));
    let own = answer(&mut rig, PEER);
    // The station was unknown, so the packets were for everybody who is reached: they come when it is known.
    rig.send("up", &vxlan(PEER, own, &numbered((mac(2), mac(1)), ("10.0.0.2", "10.0.0.1"), 2, 0)));
    assert_eq!(number_of(&rig.next("vm1")), (2, 0));
    for number in 3..6 {
        rig.send("vm1", &frame(number));
        let outer = rig.next("up");
        assert_eq!((&outer[..6], &outer[6..12]), (&PEER[..], &own[..]));
        assert_eq!(outer[50..], frame(number), "behind 50 bytes of headers");
    }
    let tunnel = rig.handle.statistics().unwrap().tunnels.remove(0);
    assert_eq!((tunnel.state, tunnel.mac.unwrap().0), (TunnelState::Up, PEER));
    // Somebody else has the address now, and says so.
    let moved = [0x02, 0, 0, 0, 0, 0x78];
    rig.send("up", &arp(2, (moved, "192.0.2.2"), EVERYBODY, "192.0.2.2"));
    rig.until("packets go there", |rig| {
        rig.send("vm1", &frame(9));
        rig.next("up")[..6] == moved
    });
    rig.assert_balanced();
}

/// A frame as the other host sends it. Without a UDP checksum, as RFC 7348 allows.
fn vxlan(from: [u8; 6], to: [u8; 6], inside: &[u8]) -> Vec<u8> {
    let payload = [&[8, 0, 0, 0, 0, 0, 42, 0][..], inside].concat();
    let mut frame = udp((from, to), ("192.0.2.2", "192.0.2.1"), (50_000, 4789), &payload);
    frame[40..42].fill(0);
    frame
}

#[test]
fn packets_to_a_station_that_is_known_wait_for_its_host() {
    let stations = r#"remote = "192.0.2.2", learn = false, stations = [{ mac = "52:54:00:00:00:02" }] "#;
    let mut rig = Rig::configured(1, &host(1).replace(r#"remote = "192.0.2.2" "#, stations));
    let frame = |number| numbered((mac(1), mac(2)), ("10.0.0.1", "10.0.0.2"), 1, number);
    for number in 0..3 {
        rig.send("vm1", &frame(number));
        rig.settle();
    }
    assert_eq!(rig.handle.statistics().unwrap().control["waiting"], 3);
    answer(&mut rig, PEER);
    rig.send("vm1", &frame(3));
    for number in 0..4 {
        assert_eq!(rig.next("up")[50..], frame(number));
    }
    assert_eq!(rig.handle.statistics().unwrap().control["waiting"], 0);
    rig.assert_balanced();
}

#[test]
fn who_sends_too_much_for_the_tunnel_hears_of_it() {
    let mut rig = Rig::configured(1, &host(1));
    let own = answer(&mut rig, PEER);
    rig.send("up", &vxlan(PEER, own, &numbered((mac(2), mac(1)), ("10.0.0.2", "10.0.0.1"), 2, 0)));
    rig.next("vm1");
    let mut fits = udp((mac(1), mac(2)), ("10.0.0.1", "10.0.0.2"), (1, 2), &[7; 1450 - 28]);
    dont_fragment(&mut fits);
    rig.send("vm1", &fits);
    assert_eq!(rig.next("up").len(), 1514);
    let mut long = udp((mac(1), mac(2)), ("10.0.0.1", "10.0.0.2"), (1, 2), &[7; 1451 - 28]);
    dont_fragment(&mut long);
    rig.send("vm1", &long);
    let news = rig.next("vm1");
    assert_whole(&news);
    assert_eq!((news[34], news[35], &news[40..42]), (3, 4, &1450_u16.to_be_bytes()[..]));
    rig.assert_balanced();
}

#[test]
fn who_allows_fragments_gets_through_a_tunnel_that_is_too_narrow() {
    let mut rig = Rig::configured(1, &host(1));
    let own = answer(&mut rig, PEER);
    rig.send("up", &vxlan(PEER, own, &numbered((mac(2), mac(1)), ("10.0.0.2", "10.0.0.1"), 2, 0)));
    rig.next("vm1");
    let mut long = udp((mac(1), mac(2)), ("10.0.0.1", "10.0.0.2"), (1, 2), &[7; 1472]);
    may_fragment(&mut long);
    rig.send("vm1", &long);
    let pieces = [rig.next("up"), rig.next("up")];
    assert_eq!(pieces[0].len(), 50 + 14 + 20 + 1424);
    assert_eq!([&pieces[0][84..], &pieces[1][84..]].concat(), long[34..]);
    for (piece, word) in pieces.iter().zip([[0x20, 0], (1424_u16 / 8).to_be_bytes()]) {
        assert_eq!((&piece[50..62], &piece[70..72]), (&long[..12], &word[..]));
        let header = etherparse::Ipv4Header::from_slice(&piece[64..]).unwrap().0;
        assert_eq!(header.header_checksum, header.calc_header_checksum());
    }
    rig.settle();
    assert!(rig.sent.is_empty(), "nobody is told");
    assert_eq!((rig.drops(Reason::TooLong), rig.handle.statistics().unwrap().control["fragmented"]), (0, 1));
    rig.assert_balanced();
}

fn may_fragment(frame: &mut [u8]) {
    set_dont_fragment(frame, false);
}

fn dont_fragment(frame: &mut [u8]) {
    set_dont_fragment(frame, true);
}

fn set_dont_fragment(frame: &mut [u8], value: bool) {
    let mut header = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0;
    header.dont_fragment = value;
    header.header_checksum = header.calc_header_checksum();
    frame[14..34].copy_from_slice(&header.to_bytes());
}

#[test]
fn other_hosts_find_and_ping_this_one() {
    let mut rig = Rig::configured(1, &host(1));
    let own = answer(&mut rig, PEER);
    rig.send("up", &arp(1, (PEER, "192.0.2.2"), EVERYBODY, "192.0.2.1"));
    let told = rig.next("up");
    let message = read(&told, &crate::headers::parse(&told, told.len())).unwrap();
    assert_eq!(
        (message.purpose, message.about.to_string(), message.claims.0),
        (Purpose::Statement, "192.0.2.1".to_owned(), own)
    );
    rig.send("up", &ping((PEER, own), ("192.0.2.2", "192.0.2.1"), b"are you there"));
    let pong = rig.next("up");
    assert_whole(&pong);
    assert_eq!((&pong[..6], pong[34], &pong[26..30]), (&PEER[..], 0, &[192, 0, 2, 1][..]));
    // What is for others, or for nobody, is not.
    rig.send("up", &arp(1, (PEER, "192.0.2.2"), EVERYBODY, "192.0.2.99"));
    rig.send("up", &ping((PEER, own), ("192.0.2.2", "192.0.2.99"), b"?"));
    assert!(rig.taken().is_empty());
    rig.assert_balanced();
}

#[test]
fn two_hosts_carry_a_conversation() {
    let mut hosts = [1, 2].map(|number| Rig::configured(1, &host(number)));
    let slots = [1, 2].map(|number| hosts[number - 1].slot(&format!("vm{number}")));
    let ups = [0, 1].map(|place| hosts[place].slot("up"));
    let start = std::time::Instant::now();
    let mut got = [Vec::new(), Vec::new()];
    let mut number = 0;
    // Each says something from time to time till it has heard the other ten times.
    while got.iter().any(|got: &Vec<u32>| got.len() < 10) {
        assert!(start.elapsed() < DEADLINE, "{got:?}");
        for place in [0, 1] {
            let (me, you) = (place as u8 + 1, 2 - place as u8);
            let addresses = [me, you].map(|last| format!("10.0.0.{last}"));
            let frame = numbered((mac(me), mac(you)), (&addresses[0], &addresses[1]), 1, number);
            hosts[place].send_at(0, slots[place], &[&frame]);
            hosts[place].round();
            for (slot, frame) in std::mem::take(&mut hosts[place].sent) {
                if slot == ups[place] {
                    let other = 1 - place;
                    hosts[other].send_at(0, ups[other], &[&frame]);
                } else {
                    assert_whole(&frame);
                    got[place].push(number_of(&frame).1);
                }
            }
        }
        number += 1;
    }
    for got in got {
        assert!(got.is_sorted_by(|one, next| one < next), "in order, and each once: {got:?}");
    }
}

#[test]
fn a_flow_leads_into_a_tunnel_when_all_engines_know_that() {
    let mut rig = Rig::configured(2, &host(1));
    let own = answer(&mut rig, PEER);
    let frame = |number| numbered((mac(1), mac(2)), ("10.0.0.1", "10.0.0.2"), 1, number);
    rig.send("vm1", &frame(0));
    rig.settle();
    let up = rig.slot("up");
    let flow = |rig: &Rig| {
        let flows = rig.handle.flows(&Default::default(), 100).unwrap().flows;
        flows.into_iter().find(|flow| flow.destination_mac.ends_with("02") && flow.action.starts_with("into"))
    };
    // The station shows up behind the tunnel. Engine 1 does not look up for a while.
    let hello = vxlan(PEER, own, &numbered((mac(2), mac(1)), ("10.0.0.2", "10.0.0.1"), 2, 0));
    rig.turns[0].run(up, &[&hello]);
    let start = std::time::Instant::now();
    let changed = loop {
        rig.turns[0].attend();
        rig.vswitch.as_ref().inspect(|vswitch| vswitch.bell().call());
        assert!(start.elapsed() < DEADLINE);
        if let Some(flow) = flow(&rig) {
            break flow;
        }
    };
    assert_eq!(changed.state, FlowStatus::Pending);
    rig.until("all know it", |rig| flow(rig).is_some_and(|flow| flow.state == FlowStatus::Active));
}
