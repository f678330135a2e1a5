//! A link that comes and goes is no fault of the card: nobody raises an alarm, and nothing is lost that waited.

use std::time::Duration;

use drivers::nic::Nic;
use models::ixgbe::{Doorbells, Fault};

use crate::bench::{Bench, Plan};
use crate::common::Watchdog;

/// Both directions until everything that waited is through; in order on each queue.
fn drain(bench: &mut Bench, received: &mut [Vec<u64>], sent: &mut Vec<u64>) {
    for _ in 0..30 {
        bench.pass(4);
        for (all, numbers) in received.iter_mut().zip(bench.receive()) {
            all.extend(numbers);
        }
        sent.extend(bench.sent());
        bench.held();
    }
}

fn with_the_cable_out_and_in(plan: &Plan) {
    let what = format!("{} pairs, {:?}", plan.pairs, plan.chip.doorbells);
    let _watchdog = Watchdog::new(what.clone());
    let mut bench = Bench::open(plan).unwrap();
    bench.start().unwrap();
    assert!(bench.nic.link().up);
    let pairs = bench.queues.len();
    let (mut given, mut sent, mut received) = (Vec::new(), Vec::new(), vec![Vec::new(); pairs]);
    for _ in 0..4 {
        bench.control.with(|chip, _| chip.set_link(false));
        // Far beyond the patience with a queue that holds packets.
        for _ in 0..30 {
            bench.offer();
            for pair in 0..pairs {
                given.extend(bench.send(pair, 1));
            }
            bench.pass(2);
            assert_eq!(bench.receive().concat(), [0; 0], "{what}: frames without a link");
            assert_eq!(bench.sent(), [0; 0], "{what}: frames without a link");
            bench.clock.pause(Duration::from_secs(1));
            bench.check().unwrap_or_else(|error| panic!("{what}, while the link is down: {error}"));
            assert!(!bench.nic.link().up, "{what}");
        }
        bench.control.with(|chip, _| chip.set_link(true));
        bench.pass(40);
        let link = bench.nic.link();
        assert!(link.up && link.speed_mbps == Some(10_000), "{what}: {link:?}");
        drain(&mut bench, &mut received, &mut sent);
        bench.clock.pause(Duration::from_secs(1));
        bench.check().unwrap_or_else(|error| panic!("{what}, when the link is back: {error}"));
    }
    sent.sort_unstable();
    assert_eq!(sent, given, "{what}: all that waited was sent");
    assert!(received.iter().all(|numbers| numbers.is_sorted()), "{what}: {received:?}");
    assert_eq!(bench.count.received, 120, "{what}: all that waited was received");
    assert_eq!(bench.held(), 0);
    bench.recovers(&what);
}

#[test]
fn a_cable_that_is_pulled_out_and_put_back_loses_nothing_that_waits() {
    Plan::all().for_each(|plan| with_the_cable_out_and_in(&plan));
}

/// Up and down again under traffic: no alarm, and everything comes through in the end.
#[test]
fn a_link_that_flaps_under_traffic_loses_nothing_that_waits() {
    let mut bench = Bench::open(&Plan::new(2, Doorbells::Shared)).unwrap();
    bench.start().unwrap();
    bench.fault(Some(Fault::LinkFlap));
    let mut seen = [0; 2];
    let mut received = [Vec::new(), Vec::new()];
    let (mut given, mut sent) = (Vec::new(), Vec::new());
    for round in 0..300 {
        bench.offer();
        given.extend(bench.send(round % 2, 1));
        bench.pass(11);
        for (all, numbers) in received.iter_mut().zip(bench.receive()) {
            all.extend(numbers);
        }
        sent.extend(bench.sent());
        bench.held();
        seen[usize::from(bench.nic.link().up)] += 1;
        bench.clock.pause(Duration::from_secs(1));
        bench.check().unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    assert!(seen.iter().all(|count| *count > 50), "down and up: {seen:?}");
    bench.fault(None);
    bench.pass(40);
    drain(&mut bench, &mut received, &mut sent);
    sent.sort_unstable();
    assert_eq!(sent, given);
    assert!(received.iter().all(|numbers| numbers.is_sorted()), "{received:?}");
    assert_eq!(bench.count.received, 300);
    bench.recovers("a link that flaps");
}
