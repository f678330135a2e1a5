//! Tests of wires.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use super::*;

fn take(wire: &mut impl Wire) -> Option<Vec<u8>> {
    wire.begin();
    let frame = wire.peek()?.to_vec();
    wire.advance();
    Some(frame)
}

/// Both ends get along until `done`, which has five seconds.
fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < deadline, "nothing happens any more");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_cable_keeps_order_and_is_finite() {
    let (mut a, mut b) = cable();
    let sent = (0_u32..5000).take_while(|number| a.transmit(&number.to_be_bytes())).count();
    assert_eq!(sent, 1024);
    assert!(b.transmit(&[7; 60]));
    let received = std::iter::from_fn(|| take(&mut b)).map(|frame| u32::from_be_bytes(frame.try_into().unwrap()));
    assert!(received.eq(0..1024));
    assert!(a.transmit(&[9; 60]) && take(&mut a) == Some(vec![7; 60]) && take(&mut b) == Some(vec![9; 60]));
    assert_eq!(a.peek(), None);
}

#[test]
fn a_peer_is_found_whoever_comes_first_and_waited_for_when_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cable");
    // A process that died left its socket.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut first = Peer::open(&path).unwrap();
    for round in 0..3_u8 {
        assert!(first.transmit(&[0xee; 60]), "lost, not held back");
        let mut second = Peer::open(&path).unwrap();
        until(|| {
            first.begin();
            first.is_connected() && second.is_connected()
        });
        assert!(first.transmit(&[round; 9000]) && second.transmit(&[round + 100; 60]));
        let mut got = None;
        until(|| {
            got = got.take().or_else(|| take(&mut second));
            got.is_some()
        });
        assert_eq!(got.unwrap(), [round; 9000]);
        assert_eq!(take(&mut first).unwrap(), [round + 100; 60]);
        // A slow reader holds the sender back, and nothing is lost.
        let mut sent = 0_u32;
        while sent < 100_000 && first.transmit(&sent.to_be_bytes()) {
            sent += 1;
        }
        assert!(sent < 100_000);
        assert!((0..sent).all(|number| take(&mut second).unwrap() == number.to_be_bytes()));
        drop(second);
        until(|| take(&mut first).is_none() && !first.is_connected());
    }
    drop(first);
    assert!(!path.exists());
}

#[test]
fn peers_that_listen_at_the_same_path_find_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cable");
    let mut first = Peer::open(&path).unwrap();
    // As if both had found a dead one's socket at the same moment, and this one had been the slower.
    std::fs::remove_file(&path).unwrap();
    let mut second = Peer::open(&path).unwrap();
    until(|| {
        first.begin();
        second.begin();
        first.is_connected() && second.is_connected()
    });
    drop(first);
    assert!(path.exists(), "it is the other one's");
    drop(second);
    assert!(!path.exists());
}

#[test]
fn a_capture_is_played_once_and_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a.pcap"), folder.path().join("b.pcap"));
    let frames: Vec<Vec<u8>> = (60..70).map(|len| vec![u8::try_from(len).unwrap(); len]).collect();
    let mut wire = Pcap::open(None, Some(&first)).unwrap();
    assert!(frames.iter().all(|frame| wire.transmit(frame)));
    wire.begin();
    let mut wire = Pcap::open(Some(&first), Some(&second)).unwrap();
    assert!(std::iter::from_fn(|| take(&mut wire)).eq(frames));
    assert!(wire.failure().is_none());
    // An end that is missing is told, and ends the playing.
    let bytes = std::fs::read(&first).unwrap();
    std::fs::write(&first, &bytes[..bytes.len() - 1]).unwrap();
    let mut wire = Pcap::open(Some(&first), None).unwrap();
    assert_eq!(std::iter::from_fn(|| take(&mut wire)).count(), 9);
    assert!(wire.failure().is_some() && wire.failure().is_none());
    std::fs::write(&first, b"no capture at all, but some text").unwrap();
    let error = Pcap::open(Some(&first), None).unwrap_err().to_string();
    assert!(error.contains("a.pcap") && error.contains("no capture in the pcap format"), "{error}");
}

#[test]
fn a_name_that_is_none_is_refused_by_name() {
    let error = Tap::open("much/too:long for an interface").unwrap_err().to_string();
    assert!(error.contains("much/too:long"), "{error}");
}

#[test]
fn a_generator_alone_checks_what_comes_back() {
    let mut wire = Traffic::alone(TrafficPlan { count: 3, flows: 2, ..TrafficPlan::default() });
    let counters = wire.counters();
    let frames: Vec<Vec<u8>> = std::iter::from_fn(|| take(&mut wire)).collect();
    assert_eq!(frames.len(), 3);
    assert!([0, 1, 2].iter().all(|index| wire.transmit(&frames[*index])));
    assert!(wire.transmit(&[0; 60]) && wire.transmit(&frames[0]));
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((count(&counters.seen), count(&counters.foreign), count(&counters.disordered)), (5, 1, 1));
}
