//! The forwarder between ports that need neither hardware nor privileges.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use dataplane::config::{EngineConfig, Poll};
use dataplane::forwarder::{Forwarder, ForwarderError, Health, Stopped};
use dataplane::port::Port;
use drivers::nic::DropReason;

use support::{Behaviour, cores, generator, null, scripted};

fn config() -> EngineConfig {
    EngineConfig { burst: 32, poll: Poll::Adaptive, hold: Duration::from_secs(60), ..EngineConfig::default() }
}

/// Runs until all sources have ended, then stops. The deadline only guards against hanging for ever.
fn run(config: EngineConfig, ports: Vec<Port>) -> Stopped {
    let forwarder = Forwarder::start(config, &cores(), ports).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !forwarder.is_exhausted() {
        assert!(Instant::now() < deadline, "{:?}", forwarder.statistics());
        std::thread::sleep(Duration::from_millis(2));
    }
    let stopped = forwarder.stop();
    assert!(stopped.problems.is_empty(), "{:?}", stopped.problems);
    stopped
}

/// Received equals sent plus named drops, exactly.
fn assert_conserved(stopped: &Stopped) {
    let received = stopped.statistics.received().counters;
    let sent = stopped.statistics.sent().counters;
    assert_eq!(received.packets, sent.packets + sent.dropped_total(), "{:?}", stopped.statistics);
}

#[test]
fn all_frames_of_two_generators_arrive_in_order() {
    for poll in [Poll::Always, Poll::Adaptive] {
        let ports = vec![
            generator("left", "gen=max,count=50000,flows=7"),
            generator("right", "gen=max,size=64-1514,count=30000"),
        ];
        let stopped = run(EngineConfig { poll, ..config() }, ports);
        assert_conserved(&stopped);
        let [Some(left), Some(right)] = &stopped.generators[..] else { panic!("two generators report") };
        assert_eq!((left.sent, right.received), (50_000, 50_000));
        assert_eq!((right.sent, left.received), (30_000, 30_000));
        for report in [left, right] {
            assert_eq!(
                (report.lost, report.reordered, report.duplicates, report.corrupt, report.foreign),
                (0, 0, 0, 0, 0)
            );
            assert_eq!(report.latency.count(), report.received);
        }
        assert_eq!(stopped.statistics.latency().unwrap().count(), 80_000);
    }
}

#[test]
fn ports_of_unequal_width_lose_nothing() {
    for (left, right) in [(3, 1), (1, 4), (2, 2), (3, 2)] {
        let ports = vec![
            generator("left", &format!("gen=max,count=9001,flows=12,queues={left}")),
            generator("right", &format!("gen=max,count=9002,flows=12,queues={right}")),
        ];
        let stopped = run(config(), ports);
        assert_conserved(&stopped);
        let [Some(first), Some(second)] = &stopped.generators[..] else { panic!("two generators report") };
        assert_eq!((first.received, second.received), (9002, 9001), "{left} and {right} queues");
    }
}

#[test]
fn several_pairs_share_the_engines() {
    let ports =
        (0..3).flat_map(|pair| [generator(&format!("gen{pair}"), "gen=max,count=1000"), null(&format!("null{pair}"))]);
    let stopped = run(config(), ports.collect());
    assert_conserved(&stopped);
    for port in stopped.statistics.ports.iter().filter(|port| port.name.starts_with("null")) {
        assert_eq!(port.tx_total().counters.packets, 1000, "{}", port.name);
    }
}

#[test]
fn a_full_port_costs_named_drops_and_delays_nobody_else() {
    let (full, _) = scripted("full", Behaviour::Full);
    let ports = vec![
        generator("source", "gen=max,count=5000"),
        full,
        generator("bystander", "gen=max,count=20000"),
        null("sink"),
    ];
    let stopped = run(EngineConfig { hold: Duration::ZERO, ..config() }, ports);
    assert_conserved(&stopped);
    let full = stopped.statistics.ports[1].tx_total().counters;
    assert_eq!((full.packets, full.dropped(DropReason::Full)), (0, 5000));
    assert_eq!(stopped.statistics.ports[3].tx_total().counters.packets, 20_000);
}

#[test]
fn packets_that_wait_at_a_stop_are_counted_as_stopped() {
    let (full, _) = scripted("full", Behaviour::Full);
    let ports = vec![generator("source", "gen=max"), full];
    let forwarder = Forwarder::start(config(), &cores(), ports).unwrap();
    while forwarder.statistics().received().counters.packets == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let stopped = forwarder.stop();
    assert_conserved(&stopped);
    assert_eq!(stopped.statistics.sent().counters.dropped(DropReason::Stopped), 32);
    assert!(stopped.unfinished || stopped.problems.is_empty());
}

#[test]
fn a_stop_drains_what_was_received() {
    let (slow, script) = scripted("slow", Behaviour::OneAtATime);
    let ports = vec![generator("source", "gen=max"), slow];
    let forwarder = Forwarder::start(config(), &cores(), ports).unwrap();
    while forwarder.statistics().sent().counters.packets < 100 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let stopped = forwarder.stop();
    assert_conserved(&stopped);
    assert_eq!(stopped.statistics.sent().counters.dropped_total(), 0);
    assert!(script.is_stopped());
    assert_eq!(stopped.statistics.ports[1].device, [("stops", 1)], "what a device counted until it had stopped");
}

#[test]
fn an_endless_forwarder_stops_at_once_when_idle() {
    let ports = vec![null("left"), null("right")];
    let mut forwarder = Forwarder::start(config(), &cores(), ports).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(forwarder.check(), Health::Well);
    assert!(!forwarder.is_exhausted());
    let stopped = forwarder.stop();
    assert!(!stopped.unfinished && stopped.problems.is_empty());
}

#[test]
fn a_sleeping_engine_wakes_for_packets() {
    let (source, script) = scripted("source", Behaviour::Wakes);
    let forwarder = Forwarder::start(config(), &cores(), vec![source, null("sink")]).unwrap();
    for round in 1..=50 {
        // Now and then long enough for the engine to fall asleep, and the last moments before that are tried too.
        std::thread::sleep(Duration::from_micros(40 * round));
        script.supply(3);
        let deadline = Instant::now() + Duration::from_secs(30);
        while forwarder.statistics().sent().counters.packets < 3 * round {
            assert!(Instant::now() < deadline, "wake-up {round} was lost");
            std::thread::yield_now();
        }
    }
    assert!(script.was_armed());
    assert_conserved(&forwarder.stop());
}

#[test]
fn a_panic_in_an_engine_is_reported_and_devices_are_stopped() {
    let (broken, script) = scripted("broken", Behaviour::Panics);
    let mut forwarder = Forwarder::start(config(), &cores(), vec![generator("source", "gen=max"), broken]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while forwarder.check() != Health::Broken {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
    let stopped = forwarder.stop();
    let [ForwarderError::Panicked { ports, said, .. }] = &stopped.problems[..] else {
        panic!("{:?}", stopped.problems)
    };
    assert_eq!((ports.as_str(), said.as_str()), ("source and broken", "scripted panic"));
    assert_conserved(&stopped);
    assert!(script.is_stopped());
}

#[test]
fn a_device_that_fails_is_started_anew_and_counters_go_on() {
    let (sick, script) = scripted("sick", Behaviour::OneAtATime);
    let mut forwarder = Forwarder::start(config(), &cores(), vec![generator("source", "gen=max"), sick]).unwrap();
    let sent = |forwarder: &Forwarder| forwarder.statistics().sent().counters.packets;
    while sent(&forwarder) < 100 {
        std::thread::sleep(Duration::from_millis(1));
    }
    script.fall_ill();
    let Health::Changed { restarted, lost } = forwarder.check() else { panic!("it was ill") };
    assert!(restarted[0].contains("scripted illness") && lost.is_empty(), "{restarted:?} {lost:?}");
    let before = sent(&forwarder);
    assert!(before >= 100);
    while sent(&forwarder) < before + 100 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(forwarder.check(), Health::Well);
    let stopped = forwarder.stop();
    assert_conserved(&stopped);
}

#[test]
fn a_device_that_fails_again_and_again_is_given_up() {
    let (sick, script) = scripted("sick", Behaviour::OneAtATime);
    let ports = vec![generator("source", "gen=max"), sick, generator("bystander", "gen=max"), null("sink")];
    let mut forwarder = Forwarder::start(config(), &cores(), ports).unwrap();
    for _ in 0..5 {
        script.fall_ill();
        let Health::Changed { restarted, lost } = forwarder.check() else { panic!("it was ill") };
        assert_eq!((restarted.len(), lost.len()), (1, 0));
    }
    script.fall_ill();
    let Health::Changed { restarted, lost } = forwarder.check() else { panic!("another pair is left") };
    assert!(lost[0].contains("5 restarts within a minute") && restarted.is_empty(), "{restarted:?} {lost:?}");
    assert!(script.is_stopped());
    assert_eq!(forwarder.check(), Health::Well, "nobody asks a port that was given up");
    assert_conserved(&forwarder.stop());
}

#[test]
fn a_device_that_does_not_come_back_takes_only_its_partner_along() {
    let (dead, script) = scripted("dead", Behaviour::OneAtATime);
    let ports = vec![generator("partner", "gen=max"), dead, generator("bystander", "gen=max"), null("sink")];
    let mut forwarder = Forwarder::start(config(), &cores(), ports).unwrap();
    let sent = |forwarder: &Forwarder, port: usize| forwarder.statistics().ports[port].tx_total().counters.packets;
    let wait_for = |forwarder: &Forwarder, port, packets| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while sent(forwarder, port) < packets {
            assert!(Instant::now() < deadline, "{:?}", forwarder.statistics());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    wait_for(&forwarder, 1, 100);
    script.fall_ill_for_good();
    let Health::Changed { restarted, lost } = forwarder.check() else { panic!("another pair is left") };
    assert!(lost[0].contains("scripted illness") && restarted.is_empty(), "{restarted:?} {lost:?}");
    assert!(script.is_stopped());
    assert_eq!(forwarder.statistics().ports[1].device, [("stops", 1)], "counted to the end");
    let (before, bystander) = (sent(&forwarder, 1), sent(&forwarder, 3));
    assert!(before >= 100, "what was counted stays");
    wait_for(&forwarder, 3, bystander + 100);
    assert_eq!((forwarder.check(), sent(&forwarder, 1)), (Health::Well, before));
    let stopped = forwarder.stop();
    assert_conserved(&stopped);
    let [ForwarderError::Port(error)] = &stopped.problems[..] else { panic!("{:?}", stopped.problems) };
    assert!(error.to_string().contains("scripted illness"), "{error}");
}

#[test]
fn a_forwarder_without_a_pair_left_is_broken() {
    let (dead, script) = scripted("dead", Behaviour::OneAtATime);
    let mut forwarder = Forwarder::start(config(), &cores(), vec![generator("partner", "gen=max"), dead]).unwrap();
    script.fall_ill_for_good();
    assert_eq!((forwarder.check(), forwarder.check()), (Health::Broken, Health::Broken));
    let stopped = forwarder.stop();
    assert_eq!(stopped.problems.len(), 1, "{:?}", stopped.problems);
    assert_conserved(&stopped);
}

#[test]
fn ports_must_come_in_pairs_and_are_stopped_otherwise() {
    let (lonely, script) = scripted("lonely", Behaviour::Full);
    let error = Forwarder::start(config(), &cores(), vec![lonely]).unwrap_err();
    assert!(matches!(error, ForwarderError::Unpaired(1)));
    assert!(script.is_stopped());
}

#[test]
fn an_engine_that_cannot_be_pinned_is_an_error_and_ports_are_stopped() {
    let (port, script) = scripted("port", Behaviour::Full);
    let nowhere = dataplane::config::CoreList::new([1000]).unwrap();
    let error = Forwarder::start(config(), &nowhere, vec![port, null("sink")]).unwrap_err();
    assert!(error.to_string().contains("engine 0: cannot run on its core"), "{error}");
    assert!(script.is_stopped());
}

#[test]
fn joins_name_ports_and_cores() {
    let forwarder = Forwarder::start(config(), &cores(), vec![null("left"), null("right")]).unwrap();
    let core = cores().iter().next().unwrap();
    assert_eq!(forwarder.joins()[0].to_string(), format!("left <-> right, 1 engine, core {core}"));
}
