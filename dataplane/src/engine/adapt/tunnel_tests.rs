//! Cutting inside tunnels: the segments have to be the bytes that cutting first and encapsulating then would give.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{Ipv4Addr, Ipv6Addr};

use drivers::nic::MacAddress;

use super::tests::{CARD, UDP, V4, V6, VM, adapt, bytes_of, foreign, frame, large, packet, payload, pool};
use super::*;
use crate::overlay::{Addresses, Encapsulation, Template, TunnelKind, encapsulate};
use hugemem::{Iova, Region};

const TUNNELS: Gives = Gives { tunnels: true, ..CARD };

/// Tunnels of each kind, with and without a tag and checksums.
fn templates() -> Vec<Template> {
    let [local, remote] = ["2001:db8::1", "2001:db8::2"].map(|address| address.parse::<Ipv6Addr>().unwrap());
    let v6 = Addresses::V6 { local, remote };
    let v4 = Addresses::V4 { local: Ipv4Addr::new(192, 0, 2, 1), remote: Ipv4Addr::new(192, 0, 2, 2) };
    let mut all = Vec::new();
    for kind in [TunnelKind::Vxlan, TunnelKind::Geneve] {
        for addresses in [v4, v6] {
            for (checksum, vlan) in [(false, None), (true, Some(3))] {
                let plain = Encapsulation::new(kind, 77, addresses, MacAddress([2; 6]), MacAddress([4; 6]));
                all.push(Encapsulation { checksum, vlan, mtu: 9000, ..plain }.template().unwrap());
            }
        }
    }
    all
}

/// Adapts one packet to a queue with `offloads`.
fn cut(packet: Packet, gives: Gives, offloads: Offloads) -> (Vec<Vec<u8>>, QueueStatistics) {
    let mut backlog = Backlog::new(4, gives);
    backlog.batch.push(packet).unwrap();
    let mut statistics = QueueStatistics::default();
    let mut adapter = Adapter::new(false, Some(pool(7, 2048)));
    let pieces = adapt(&mut adapter, &mut backlog, 5, offloads, &mut statistics);
    (pieces, statistics)
}

#[test]
fn cutting_in_a_tunnel_gives_what_cutting_before_it_would() {
    for template in templates() {
        for (kind, v6) in [(V4, false), (V6, true), (UDP, false), (UDP, true)] {
            for (len, size) in [(4000, 1448), (60_000, 1400), (9000, 3001), (101, 100), (5, 1)] {
                let (frame, start) = frame(kind, v6, &payload(len));
                let region = Region::on_heap(1 << 16, Iova::new(0)).unwrap();
                let mut source = pool(64, 2048);
                let (_slots, from_vm) = foreign(&region, &frame, 128, 4096);
                for (mut whole, gives) in [(packet(&mut source, &frame), CARD), (from_vm, VM)] {
                    large(&mut whole, kind, size, start);
                    encapsulate(&mut whole, &template, 9).unwrap();
                    let (pieces, statistics) = cut(whole, gives, Offloads::empty());
                    assert_eq!(statistics.counters.dropped_total(), 0);

                    let mut before = packet(&mut source, &frame);
                    large(&mut before, kind, size, start);
                    let (plain, _) = cut(before, CARD, Offloads::empty());
                    assert_eq!((pieces.len(), statistics.cut), (plain.len(), plain.len() as u64 - 1));
                    for (piece, plain) in pieces.iter().zip(plain) {
                        let mut segment = packet(&mut source, &plain);
                        encapsulate(&mut segment, &template, 9).unwrap();
                        assert!(complete(&mut segment));
                        assert_eq!(*piece, bytes_of(&segment), "{kind:?}, {len} bytes in {size}, {template:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_queue_that_cuts_plain_frames_alone_gets_tunnels_cut() {
    let able = Offloads::all() - Offloads::TUNNEL_CUTTING;
    for template in templates() {
        let (frame, start) = frame(V4, false, &payload(3000));
        let mut source = pool(16, 2048);
        let mut tunnelled = || {
            let mut whole = packet(&mut source, &frame);
            large(&mut whole, V4, 1000, start);
            encapsulate(&mut whole, &template, 9).unwrap();
            whole
        };
        let mut backlog = Backlog::new(4, TUNNELS);
        backlog.batch.push(tunnelled()).unwrap();
        let mut adapter = Adapter::new(false, Some(pool(7, 2048)));
        assert!(!adapter.fits(&backlog.batch, TUNNELS, able));
        assert!(adapter.fits(&backlog.batch, TUNNELS, Offloads::all()));
        adapter.adapt(&mut backlog, 64, able, &mut QueueStatistics::default());
        let (completed, _) = cut(tunnelled(), TUNNELS, Offloads::empty());
        assert_eq!(backlog.stage.len(), 3);
        // The queue's device completes the inner checksum; the outer one is right then.
        for (mut piece, expected) in backlog.stage.drain_front(3).zip(completed) {
            assert!(matches!(piece.metadata().checksum, Checksum::Partial { .. }));
            assert!(complete(&mut piece));
            assert_eq!(bytes_of(&piece), expected);
        }
    }
}

#[test]
fn tunnels_that_are_none_are_dropped_by_name() {
    let template = templates()[0];
    let (frame, start) = frame(V4, false, &payload(3000));
    let mut source = pool(16, 2048);
    let mut drops = |change: &dyn Fn(&mut Packet)| {
        let mut whole = packet(&mut source, &frame);
        large(&mut whole, V4, 1000, start);
        encapsulate(&mut whole, &template, 9).unwrap();
        change(&mut whole);
        cut(whole, CARD, Offloads::empty()).1.counters.dropped(DropReason::BadHeader)
    };
    assert_eq!(drops(&|_| {}), 0);
    assert_eq!(drops(&|packet| packet.bytes_mut()[23] = 6), 1, "no UDP outside");
    assert_eq!(drops(&|packet| packet.bytes_mut()[14] = 0x4f), 1, "outer headers longer than they are");
    assert_eq!(drops(&|packet| packet.bytes_mut()[12] = 9), 1, "no IP outside");
    assert_eq!(drops(&|packet| packet.metadata_mut().inner = std::num::NonZeroU16::new(30)), 1);
    assert_eq!(drops(&|packet| packet.metadata_mut().inner = std::num::NonZeroU16::new(60_000)), 1);
}
