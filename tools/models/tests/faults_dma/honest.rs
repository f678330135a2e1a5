//! An engine that behaves: all sizes and alignments, full rings, an engine that is stopped in the middle of its work.

use drivers::bus::PciFunction;
use drivers::copy_engine::{CopyEngine, CopyOutcome, EngineState};
use drivers::ioat::Version;
use models::ioat::{Config, Kind};

use crate::bench::{Bench, Count, TURN, UNIT, chip};
use crate::common::Watchdog;

#[test]
fn every_kind_copies_every_size_and_alignment() {
    let _watchdog = Watchdog::new("sizes and alignments".to_owned());
    for (kind, version) in [(Kind::IceLake, 0x34), (Kind::Skylake, 0x33), (Kind::Broadwell(3), 0x32)] {
        let mut bench = Bench::open(Config { kind, ..chip(Vec::new()) }).unwrap();
        assert_eq!((bench.engine.summary().version, bench.engine.summary().unit), (Version(version), UNIT));
        let unit = UNIT as usize;
        let edges = [0, 1, 2, 7, 8, 63, 64, 65, 1514, unit - 1, unit, unit + 1, 2 * unit, 3 * unit + 17, 4 * unit - 1];
        let clock = bench.clock.clone();
        for alignment in 0..16 {
            for (index, length) in edges.into_iter().enumerate() {
                let channel = bench.channel.as_mut().unwrap();
                assert!(bench.user.push(channel, alignment, 64 + (alignment * 7 + index) % 64, length));
                channel.submit();
                let mut done = Vec::with_capacity(4);
                for _ in 0..10 {
                    clock.pause(TURN);
                    channel.complete(&mut done);
                }
                bench.user.take(&done);
                assert_eq!(bench.user.underway(), 0, "{length} bytes at {alignment}");
            }
        }
        assert_eq!(bench.user.count, Count { copied: 16 * edges.len() as u64, ..Count::default() });
        assert!(bench.run(2000));
        assert_eq!(bench.user.count.copied, 16 * edges.len() as u64 + 2000);
        assert_eq!((bench.user.count.wrong, bench.control.fault_count()), (0, 0));
        assert_eq!(bench.control.violations(), [""; 0]);
        bench.recovers("an engine that behaves");
        bench.user.check_all("an engine that behaves");
        bench.end();
    }
}

/// The count of descriptors wraps at 16 bits.
#[test]
fn more_descriptors_than_the_doorbell_can_count() {
    let _watchdog = Watchdog::new("a wrapped count".to_owned());
    let mut bench = Bench::open(chip(Vec::new())).unwrap();
    let (clock, channel, user) = (bench.clock.clone(), bench.channel.as_mut().unwrap(), &mut bench.user);
    let mut done = Vec::with_capacity(64);
    for _ in 0..70_000 / 32 + 1 {
        (0..32).for_each(|at| assert!(user.push(channel, at, 64, 8)));
        channel.submit();
        clock.pause(TURN);
        channel.complete(&mut done);
        assert_eq!(done.len(), 32);
        // Looking at all guards would take long; bytes are looked at elsewhere.
        user.take(&done);
        done.clear();
    }
    assert_eq!((user.count.failed, user.count.wrong), (0, 0));
    bench.end();
}

#[test]
fn a_full_ring_hands_jobs_back_and_nothing_starts_before_it_is_submitted() {
    let mut bench = Bench::open(chip(Vec::new())).unwrap();
    let (clock, channel) = (bench.clock.clone(), bench.channel.as_mut().unwrap());
    let mut pushed = 0;
    while bench.user.push(channel, 0, 64, 100) {
        pushed += 1;
    }
    assert_eq!((pushed, channel.room(), channel.longest()), (32, 0, 32 * UNIT));
    let mut done = Vec::with_capacity(20);
    clock.pause(TURN);
    assert_eq!(channel.complete(&mut done), 0);
    channel.submit();
    clock.pause(TURN);
    // No more than there is room for.
    assert_eq!((channel.complete(&mut done), done.capacity(), channel.underway()), (20, 20, 12));
    bench.user.take(&done);
    done.clear();
    assert_eq!(channel.complete(&mut done), 12);
    bench.user.take(&done);
    assert_eq!(bench.user.count, Count { copied: 32, ..Count::default() });
    bench.end();
}

#[test]
fn an_engine_that_is_stopped_gives_all_jobs_back() {
    let mut bench = Bench::open(chip(Vec::new())).unwrap();
    for turns in [0, 1] {
        let channel = bench.channel.as_mut().unwrap();
        (0..10).for_each(|at| assert!(bench.user.push(channel, at, 64, 3000)));
        channel.submit();
        (0..5).for_each(|at| assert!(bench.user.push(channel, at, 64, 3000)));
        bench.pass(turns);
        let before = bench.user.count;
        bench.stop().unwrap();
        assert_eq!(bench.user.underway(), 0);
        let copied = bench.user.count.copied - before.copied;
        assert_eq!(copied, if turns == 0 { copied } else { 10 }, "what was done before it was stopped is done");
        bench.pass(10);
        bench.user.check_redone();
        assert!(bench.engine.function().read_config(4).unwrap() & 4 == 0, "it is off the bus");
        bench.start().unwrap();
    }
    bench.recovers("an engine that was stopped");
    bench.end();
}

#[test]
fn a_channel_that_sleeps_is_woken() {
    let mut bench = Bench::open(chip(Vec::new())).unwrap();
    let channel = bench.channel.as_mut().unwrap();
    assert!(bench.engine.summary().interrupts);
    assert!(bench.user.push(channel, 0, 64, 100));
    channel.submit();
    assert!(channel.arm());
    let before = bench.control.interrupts();
    bench.clock.pause(TURN);
    assert_eq!(bench.control.interrupts() - before, 1);
    assert!(!channel.arm(), "a job is done already");
    let mut done = Vec::with_capacity(4);
    assert_eq!((channel.complete(&mut done), channel.state()), (1, EngineState::Working));
    assert_eq!(done[0].outcome, CopyOutcome::Copied);
    bench.user.take(&done);
    bench.end();
}
