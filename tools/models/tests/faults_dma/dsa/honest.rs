//! A device that behaves: all sizes and alignments, full rings, any order, several channels, a device that is stopped in the middle of its work.

use drivers::bus::{Clock, PciFunction};
use drivers::copy_engine::{CopyDevice, CopyEngine, CopyOutcome, EngineState};
use drivers::dsa::{self, Dsa};
use hugemem::Iova;
use models::card::{self, Options, Time};
use models::dsa::{Config, Dsa as Chip, Fault, Planned, Version, When};
use models::wire::Null;
use models::{StepClock, watched_region};
use std::sync::{Arc, Mutex};

use super::{Bench, chip, config};
use crate::bench::{Count, Field, NAME, TURN, UNIT, User};
use crate::common::Watchdog;

#[test]
fn both_versions_copy_every_size_and_alignment() {
    let _watchdog = Watchdog::new("sizes and alignments".to_owned());
    for (version, number, handles) in [(Version::One, 0x100, false), (Version::Two, 0x200, true)] {
        let mut bench = Bench::open(Config { version, interrupt_handles: handles, ..chip(Vec::new()) }).unwrap();
        let summary = *bench.engine.summary();
        assert_eq!((summary.version, summary.unit, summary.batch), (dsa::Version(number), UNIT, 8));
        assert!(summary.interrupts && !summary.shared);
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
        assert_eq!(bench.engine.records()[0], dsa::Record::default());
        bench.recovers("a device that behaves");
        bench.user.check_all("a device that behaves");
        bench.end();
    }
}

/// Completions come late, overtake each other, and in reverse: jobs come back in order all the same.
#[test]
fn any_order_of_completions_is_one_order_of_jobs() {
    let _watchdog = Watchdog::new("any order".to_owned());
    for faults in
        [&[Fault::CompleteReverse][..], &[Fault::CompleteLate], &[Fault::CompleteReverse, Fault::CompleteLate]]
    {
        let mut bench = Bench::open(chip(Vec::new())).unwrap();
        let random = |seed, fault: &Fault| Planned::new(*fault, When::Random { seed, chance: 128 });
        bench.faults(&(1..).zip(faults).map(|(seed, fault)| random(seed, fault)).collect::<Vec<_>>());
        assert!(bench.run(3000));
        assert_eq!(bench.user.count, Count { copied: 3000, ..Count::default() }, "{faults:?}");
        assert_eq!(bench.engine.records()[0], dsa::Record::default(), "{faults:?}");
        bench.recovers("any order");
        bench.user.check_all("any order");
        bench.end();
    }
}

#[test]
fn a_full_ring_hands_jobs_back_and_nothing_starts_before_it_is_submitted() {
    // The work queue holds fewer descriptors than the ring: the rest waits its turn.
    let mut bench = Bench::open(Config { entries: 2, queues: 1, ..chip(Vec::new()) }).unwrap();
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
    for _ in 0..4 {
        clock.pause(TURN);
        channel.complete(&mut done);
    }
    // No more than there is room for.
    assert_eq!((done.len(), done.capacity(), channel.underway()), (20, 20, 12));
    bench.user.take(&done);
    done.clear();
    assert_eq!(channel.complete(&mut done), 12);
    bench.user.take(&done);
    assert_eq!(bench.user.count, Count { copied: 32, ..Count::default() });
    assert_eq!(bench.control.violations(), [""; 0], "the work queue was never overfull");
    bench.end();
}

#[test]
fn a_device_that_is_stopped_gives_all_jobs_back() {
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
    bench.recovers("a device that was stopped");
    bench.end();
}

#[test]
fn a_channel_that_sleeps_is_woken() {
    for interrupt_handles in [false, true] {
        let mut bench = Bench::open(Config { interrupt_handles, ..chip(Vec::new()) }).unwrap();
        for jobs in [1, 5] {
            let channel = bench.channel.as_mut().unwrap();
            assert!(!channel.arm(), "nothing is underway");
            (0..jobs).for_each(|_| assert!(bench.user.push(channel, 0, 64, 100)));
            channel.submit();
            let before = bench.control.interrupts();
            assert!(channel.arm());
            bench.clock.pause(TURN);
            assert_eq!(bench.control.interrupts() - before, 1, "one for {jobs} copies");
            assert!(!channel.arm(), "a job is done already");
            let mut done = Vec::with_capacity(8);
            assert_eq!((channel.complete(&mut done), channel.state()), (jobs, EngineState::Working));
            assert!(done.iter().all(|done| done.outcome == CopyOutcome::Copied));
            bench.user.take(&done);
        }
        bench.end();
    }
}

/// Channels of one device, one of which fails: the others go on.
#[test]
fn channels_fail_and_are_mended_apart() {
    let _watchdog = Watchdog::new("channels".to_owned());
    let options = Options { time: Time::PerPoll(TURN), ..Options::named(NAME) };
    let (function, device) = card::new(options, Chip::new(chip(Vec::new())), Null).unwrap();
    let control = device.control();
    let card = Mutex::new(device);
    let clock: Arc<dyn Clock> = Arc::new(StepClock::new(move || {
        card.lock().unwrap().poll();
    }));
    let config = dsa::Config { channels: 3, ..config() };
    let (rings, _) = watched_region(config.ring_memory(), Iova::new(0x20_0000));
    let mut engine = Dsa::open(function, Arc::clone(&clock), &rings, config).unwrap();
    let mut users: Vec<User> = (0..3_u64)
        .map(|number| {
            let (data, _) = watched_region(Field::BYTES + 4096, Iova::new(0x4000_0000 + (number << 28)));
            engine.map(&data).unwrap();
            User::new(Field::new(data), number)
        })
        .collect();
    let mut channels: Vec<_> = engine.start().unwrap().into_iter().map(|(channel, _)| channel).collect();
    assert_eq!(channels.iter().map(dsa::Channel::number).collect::<Vec<_>>(), [0, 1, 2]);
    let pass = || clock.pause(TURN);
    let mut before = [0; 3];
    for faults in [&[][..], &["hang@3#1", "completion-ones@40#2"], &["descriptor-lost@every:25#0"]] {
        let planned: Vec<Planned> = faults.iter().map(|fault| fault.parse().unwrap()).collect();
        control.with(|chip, _| chip.set_faults(&planned));
        for (user, channel) in users.iter_mut().zip(&mut channels) {
            user.count = Count::default();
            assert!(user.run(channel, 200, pass), "{faults:?}: {:?} {:?}", channel.record(), user.count);
            let Count { copied, failed, wrong } = user.count;
            let is_struck = faults.iter().any(|fault| fault.ends_with(&format!("#{}", channel.number())));
            // A batch can be struck whose copies had all been shown to be done.
            assert!(wrong == 0 && copied + failed == 200 && (is_struck || failed == 0), "{faults:?}: {:?}", user.count);
            let record = channel.record();
            let mended = record.hangs + record.lies
                - std::mem::replace(&mut before[usize::from(channel.number())], record.hangs + record.lies);
            assert_eq!(mended > 0, is_struck, "{faults:?}: {record:?}");
        }
        engine.check().unwrap();
    }
    control.with(|chip, _| chip.set_faults(&[]));
    engine.stop(channels, &mut Vec::new()).unwrap();
    users.iter_mut().for_each(|user| user.check_all("channels"));
    assert_eq!((control.fault_count(), control.violations().len()), (0, 0));
}
