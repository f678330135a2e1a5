//! What the driver makes of single faults: which job fails and why, what is counted, and that all others are done.

use drivers::copy_engine::{CopyDevice, CopyEngine, CopyFailure, CopyJob, CopyOutcome, EngineState};
use drivers::dsa::{Record, Status};
use models::dsa::{Fault, Planned, ResetKind, When};

use super::{Bench, chip};
use crate::bench::TURN;
use crate::common::Watchdog;

/// Twenty copies, each submitted alone, so that descriptors are numbered as jobs are; one is struck. What became of each, and what was counted.
fn twenty(fault: Fault, at: u64) -> (Vec<CopyOutcome>, Record, Bench) {
    let mut bench = Bench::open(chip(Vec::new())).unwrap();
    bench.faults(&[Planned::new(fault, When::Once(at))]);
    let (clock, channel) = (bench.clock.clone(), bench.channel.as_mut().unwrap());
    for index in 0..20 {
        assert!(bench.user.push(channel, index, 64, 200));
        channel.submit();
    }
    let mut done = Vec::with_capacity(64);
    for _ in 0..10_000 {
        clock.pause(TURN);
        channel.complete(&mut done);
        if channel.underway() == 0 && channel.state() != EngineState::Recovering {
            break;
        }
    }
    bench.user.take(&done);
    assert_eq!((bench.user.underway(), bench.user.count.wrong), (0, 0), "{fault}@{at}");
    (bench.user.outcomes.clone(), bench.engine.records()[0], bench)
}

#[test]
fn a_copy_that_failed_is_named_with_its_reason_and_costs_nothing_else() {
    let _watchdog = Watchdog::new("errors".to_owned());
    for (fault, failure, status) in [
        (Fault::ErrorPageFault, CopyFailure::Source, 0x03),
        (Fault::ErrorPageFaultWrite, CopyFailure::Target, 0x83),
        (Fault::CopyPartial, CopyFailure::Target, 0x83),
        (Fault::ErrorPageResponse, CopyFailure::Source, 0x04),
        (Fault::ErrorTranslation, CopyFailure::Source, 0x22),
        (Fault::ErrorOperation, CopyFailure::Refused, 0x10),
        (Fault::ErrorFlags, CopyFailure::Refused, 0x11),
        (Fault::ErrorReserved, CopyFailure::Refused, 0x12),
        (Fault::ErrorSize, CopyFailure::Refused, 0x13),
        (Fault::ErrorOverlap, CopyFailure::Refused, 0x16),
        (Fault::ErrorAlignment, CopyFailure::Refused, 0x1c),
        (Fault::ErrorHardware, CopyFailure::Integrity, 0x20),
        (Fault::ErrorHardwareReadback, CopyFailure::Integrity, 0x21),
    ] {
        for at in [0, 1, 7, 19] {
            let (outcomes, record, mut bench) = twenty(fault, at);
            let struck: Vec<_> = outcomes.iter().enumerate().filter(|(_, it)| **it != CopyOutcome::Copied).collect();
            assert_eq!(struck, [(usize::try_from(at).unwrap(), &CopyOutcome::Failed(failure))], "{fault}@{at}");
            let mut expected = Record::default();
            (expected.failures, expected.status) = (1, Status(status));
            (expected.faults, expected.fault_address) = (u64::from(Status(status).is_fault()), record.fault_address);
            assert_eq!(record, expected, "{fault}: no queue was stopped");
            bench.recovers(&fault.to_string());
            bench.end();
        }
    }
}

#[test]
fn a_queue_that_fails_is_mended_and_only_what_it_did_not_prove_comes_back_as_failed() {
    let _watchdog = Watchdog::new("queues".to_owned());
    type Counter = fn(&Record) -> u64;
    let (hangs, lies, drops, stops): (Counter, Counter, Counter, Counter) =
        (|it| it.hangs, |it| it.lies, |it| it.drops, |it| it.stops);
    for (fault, counter) in [
        (Fault::CompleteNever, hangs),
        (Fault::CompletionZero, hangs),
        (Fault::DescriptorLost, hangs),
        (Fault::Hang, hangs),
        (Fault::CompletionOnes, lies),
        (Fault::CompletionStatus, lies),
        (Fault::CompletionBytes, lies),
        (Fault::ErrorPredicate, lies),
        (Fault::ErrorBatch, lies),
        (Fault::ErrorBatchPageFault, lies),
        (Fault::ErrorCount, lies),
        (Fault::ErrorUnknown, lies),
        (Fault::ErrorDualcast, lies),
        (Fault::ErrorReadbackPageFault, lies),
        (Fault::ErrorRecordPageFault, drops),
        (Fault::ErrorRecordAlignment, drops),
        (Fault::CompletionWild, drops),
        (Fault::ErrorInterruptHandle, stops),
        (Fault::ErrorPrivilege, stops),
        (Fault::ErrorTrafficClass, stops),
        (Fault::QueueDisabled, stops),
    ] {
        for at in [0, 7, 19] {
            let (outcomes, record, mut bench) = twenty(fault, at);
            let struck = outcomes[usize::try_from(at).unwrap()];
            assert!(matches!(struck, CopyOutcome::Failed(_)), "{fault}@{at}: {struck:?}");
            assert_eq!(counter(&record), 1, "{fault}@{at}: {record:?}");
            assert_eq!(record.hangs + record.lies + record.drops + record.stops, 1, "{fault}@{at}: {record:?}");
            let before = usize::try_from(at).unwrap();
            // What came before had been proven, unless the queue lied: then nothing that it had said and nobody had read counts.
            let proven = outcomes.iter().take(before).all(|outcome| *outcome == CopyOutcome::Copied);
            assert!(proven, "{fault}@{at}: {outcomes:?}");
            if record.drops > 0 {
                assert!(record.software_error.to_string().contains("work queue 0"), "{}", record.software_error);
            }
            let channel = bench.channel.as_ref().unwrap();
            assert_eq!(channel.state(), EngineState::Working, "{fault}@{at}");
            bench.recovers(&fault.to_string());
            bench.end();
        }
    }
}

#[test]
fn a_device_that_halts_is_named_and_gives_its_jobs_back_when_it_is_stopped() {
    for kind in [ResetKind::Software, ResetKind::Function] {
        let mut bench = Bench::open(chip(Vec::new())).unwrap();
        let (clock, channel) = (bench.clock.clone(), bench.channel.as_mut().unwrap());
        (0..10).for_each(|index| assert!(bench.user.push(channel, index, 64, 200)));
        bench.control.with(|chip, bus| chip.halt(bus, kind));
        channel.submit();
        let mut done = Vec::with_capacity(16);
        for _ in 0..1000 {
            clock.pause(TURN);
            channel.complete(&mut done);
        }
        assert_eq!((done.len(), channel.underway(), channel.state(), channel.room()), (0, 10, EngineState::Broken, 0));
        let named = bench.engine.check().expect_err("it halted").to_string();
        assert!(named.contains("channel 0 is out of use: the device halted"), "{named}");
        bench.recovers("a device that halted");
        bench.user.check_all("a device that halted");
        // Also one that has nothing to do.
        bench.engine.check().unwrap();
        bench.control.with(|chip, bus| chip.halt(bus, kind));
        let named = bench.engine.check().expect_err("it halted").to_string();
        assert!(named.contains("it halted (GENSTS)"), "{named}");
        bench.recovers("a device that halted");
        bench.end();
    }
}

/// Jobs wait until they can be given back: a queue that cannot be disabled may still write.
#[test]
fn jobs_stay_away_until_the_queue_has_stopped() {
    for stuck in [Fault::CommandStuck, Fault::CommandFails] {
        let mut bench = Bench::open(chip(Vec::new())).unwrap();
        bench.faults(&[Planned::new(Fault::Hang, When::Once(3)), Planned::new(stuck, When::From(0))]);
        let (clock, channel) = (bench.clock.clone(), bench.channel.as_mut().unwrap());
        for index in 0..10 {
            assert!(bench.user.push(channel, index, 64, 200));
            channel.submit();
        }
        let mut done = Vec::with_capacity(16);
        for _ in 0..20_000 {
            clock.pause(TURN);
            channel.complete(&mut done);
        }
        assert_eq!((done.len(), channel.underway(), channel.state()), (3, 7, EngineState::Broken), "{stuck}");
        bench.user.take(&done);
        let named = bench.engine.check().expect_err("it is out of use").to_string();
        assert!(named.contains("could not be disabled"), "{stuck}: {named}");
        // The bus has a stronger reset.
        bench.stop().unwrap();
        assert_eq!((bench.user.underway(), bench.user.count.failed), (0, 7), "{stuck}");
        bench.recovers(&stuck.to_string());
        bench.end();
    }
}

#[test]
fn a_queue_that_fails_again_and_again_is_given_up() {
    let mut bench = Bench::open(chip(Vec::new())).unwrap();
    bench.faults(&[Planned::new(Fault::CompleteNever, When::From(0))]);
    assert!(!bench.run(100));
    assert_eq!(bench.user.underway(), 0, "it was disabled each time, so nothing stays away");
    let named = bench.engine.check().expect_err("it is out of use").to_string();
    assert!(named.contains("again and again") && named.contains("3 hangs"), "{named}");
    bench.recovers("a queue that answers nothing");
    bench.end();
}

#[test]
fn memory_that_is_not_mapped_fails_its_own_copy_alone_and_the_address_is_told() {
    let mut bench = Bench::open(chip(Vec::new())).unwrap();
    let (clock, channel) = (bench.clock.clone(), bench.channel.as_mut().unwrap());
    let unmapped = hugemem::Iova::new(0x7000_0123);
    let here = bench.user.field.region.iova();
    let mut done = Vec::with_capacity(64);
    for token in 0..30 {
        let (source, target, length) = match token % 4 {
            0 => (unmapped, here, 100),
            2 => (here, unmapped, 100),
            _ => (here, here, 0),
        };
        channel.push(CopyJob::new(source, target, length, token).unwrap()).unwrap();
    }
    channel.submit();
    for _ in 0..1000 {
        clock.pause(TURN);
        channel.complete(&mut done);
    }
    assert_eq!(done.len(), 30);
    for (token, done) in (0_u64..).zip(&done) {
        let expected = match token % 4 {
            0 => CopyOutcome::Failed(CopyFailure::Source),
            2 => CopyOutcome::Failed(CopyFailure::Target),
            _ => CopyOutcome::Copied,
        };
        assert_eq!((done.token, done.outcome), (token, expected));
    }
    let record = channel.record();
    assert_eq!((record.failures, record.faults, record.fault_address & !0xfff), (15, 15, unmapped.raw() & !0xfff));
    assert_eq!(record.hangs + record.lies + record.drops + record.stops, 0);
    assert_eq!(channel.state(), EngineState::Working, "no queue is to blame for what it was asked");
    bench.recovers("memory that is not mapped");
    bench.end();
}
