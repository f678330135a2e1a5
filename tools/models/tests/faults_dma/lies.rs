//! What the driver makes of single faults: which job fails and why, what is counted, and that all others are done.

use drivers::copy_engine::{CopyDevice, CopyEngine, CopyFailure, CopyOutcome, EngineState};
use drivers::ioat::Record;
use models::ioat::{Fault, Planned, When};
use models::plan::Lie;

use crate::bench::{Bench, TURN, chip};
use crate::common::Watchdog;

/// Twenty copies at once, of which one is struck: what became of each, and what was counted.
fn twenty(fault: Fault, at: u64) -> (Vec<CopyOutcome>, Record, Bench) {
    let mut bench = Bench::open(chip(Vec::new())).unwrap();
    bench.faults(&[Planned::new(fault, When::Once(at))]);
    let (clock, channel) = (bench.clock.clone(), bench.channel.as_mut().unwrap());
    (0..20).for_each(|index| assert!(bench.user.push(channel, index, 64, 200)));
    channel.submit();
    let mut done = Vec::with_capacity(64);
    for _ in 0..10_000 {
        clock.pause(TURN);
        channel.complete(&mut done);
        if channel.underway() == 0 {
            break;
        }
    }
    bench.user.take(&done);
    assert_eq!((bench.user.underway(), bench.user.count.wrong), (0, 0), "{fault}@{at}");
    (bench.user.outcomes.clone(), bench.engine.records()[0], bench)
}

#[test]
fn the_copy_that_failed_is_named_with_its_reason_and_those_behind_it_are_done() {
    let _watchdog = Watchdog::new("errors".to_owned());
    let expected = [
        (Fault::ErrorSourceAddress, CopyFailure::Source),
        (Fault::ErrorRead, CopyFailure::Source),
        (Fault::ErrorTargetAddress, CopyFailure::Target),
        (Fault::ErrorWrite, CopyFailure::Target),
        (Fault::CopyPartial, CopyFailure::Target),
        (Fault::ErrorChipsetIntegrity, CopyFailure::Integrity),
        (Fault::ErrorEngineIntegrity, CopyFailure::Integrity),
        (Fault::ErrorControl, CopyFailure::Refused),
        (Fault::ErrorLength, CopyFailure::Refused),
        (Fault::ErrorCommand, CopyFailure::Unproven),
        (Fault::Halt, CopyFailure::Unproven),
        (Fault::HaltPartial, CopyFailure::Unproven),
        (Fault::HaltSilent, CopyFailure::Unproven),
        (Fault::ResetSpontaneous, CopyFailure::Unproven),
        (Fault::Hang, CopyFailure::Unproven),
    ];
    for (fault, failure) in expected {
        for at in [0, 1, 7, 19] {
            let (outcomes, record, mut bench) = twenty(fault, at);
            let struck: Vec<_> = outcomes.iter().enumerate().filter(|(_, it)| **it != CopyOutcome::Copied).collect();
            assert_eq!(struck, [(usize::try_from(at).unwrap(), &CopyOutcome::Failed(failure))], "{fault}@{at}");
            assert_eq!((record.halts, record.hangs), if fault == Fault::Hang { (0, 1) } else { (1, 0) }, "{fault}");
            assert_eq!(record.lies, 0, "{fault}");
            assert_eq!(record.errors.bits(), fault.error().map_or(0, |errors| errors.bits()), "{fault}");
            bench.recovers(&fault.to_string());
            bench.end();
        }
    }
}

#[test]
fn a_completion_that_cannot_be_true_is_counted_and_proves_nothing() {
    let _watchdog = Watchdog::new("lies".to_owned());
    for fault in [
        Fault::CompletionZero,
        Fault::CompletionWild,
        Fault::CompletionStale,
        Fault::CompletionOnes,
        Fault::CompletionState,
    ] {
        let mut bench = Bench::open(chip(Vec::new())).unwrap();
        assert!(bench.run(40));
        bench.faults(&[Planned::new(fault, When::Once(0))]);
        let (clock, channel) = (bench.clock.clone(), bench.channel.as_mut().unwrap());
        assert!(bench.user.push(channel, 0, 64, 200));
        channel.submit();
        let mut done = Vec::with_capacity(4);
        for _ in 0..10_000 {
            clock.pause(TURN);
            channel.complete(&mut done);
        }
        assert_eq!(done.len(), 1, "{fault}");
        assert_eq!(done[0].outcome, CopyOutcome::Failed(CopyFailure::Unproven), "{fault}");
        bench.user.take(&done);
        let record = channel.record();
        assert!(record.lies + record.hangs == 1 && record.halts == 0, "{fault}: {record:?}");
        assert_eq!(channel.state(), EngineState::Working, "{fault}");
        bench.recovers(&fault.to_string());
        bench.end();
    }
}

/// What is not underway cannot be done; so nothing that the same completion says is believed.
#[test]
fn a_completion_of_what_was_never_submitted_proves_nothing() {
    let (outcomes, record, mut bench) = twenty(Fault::CompletionAhead, 19);
    assert_eq!(outcomes, [CopyOutcome::Failed(CopyFailure::Unproven); 20]);
    assert_eq!((record.lies, record.halts, record.hangs), (1, 0, 0));
    bench.recovers("a completion ahead");
    bench.end();
}

#[test]
fn a_soft_error_is_none() {
    let (outcomes, record, bench) = twenty(Fault::ErrorSoft, 4);
    assert!(outcomes.iter().all(|outcome| *outcome == CopyOutcome::Copied));
    assert_eq!(record, Record::default());
    bench.end();
}

/// Jobs wait until they can be given back: an engine that cannot be stopped may still write.
#[test]
fn jobs_stay_away_until_the_engine_has_stopped() {
    let mut bench = Bench::open(chip(Vec::new())).unwrap();
    bench.faults(&[Planned::new(Fault::Hang, When::Once(3)), Planned::new(Fault::ResetNeverDone, When::From(0))]);
    let (clock, channel) = (bench.clock.clone(), bench.channel.as_mut().unwrap());
    (0..10).for_each(|index| assert!(bench.user.push(channel, index, 64, 200)));
    channel.submit();
    let mut done = Vec::with_capacity(16);
    for _ in 0..20_000 {
        clock.pause(TURN);
        channel.complete(&mut done);
    }
    assert_eq!((done.len(), channel.underway(), channel.state(), channel.room()), (3, 7, EngineState::Broken, 0));
    bench.user.take(&done);
    assert!(!bench.user.push(channel, 0, 64, 200));
    let named = bench.engine.check().expect_err("it is out of use").to_string();
    assert!(named.contains("channel 0 is out of use: a reset of it never ended"), "{named}");
    // The bus has a stronger reset.
    bench.stop().unwrap();
    assert_eq!((bench.user.underway(), bench.user.count.failed), (0, 7));
    bench.recovers("an engine that could not be stopped");
    bench.end();
}

#[test]
fn memory_that_is_not_mapped_fails_its_own_copy_alone() {
    let mut bench = Bench::open(chip(Vec::new())).unwrap();
    let (clock, channel) = (bench.clock.clone(), bench.channel.as_mut().unwrap());
    let unmapped = hugemem::Iova::new(0x7000_0000);
    let here = bench.user.field.region.iova();
    let mut done = Vec::with_capacity(64);
    for token in 0..30 {
        let (source, length) = if token % 2 == 0 { (unmapped, 100) } else { (here, 0) };
        channel.push(drivers::copy_engine::CopyJob::new(source, here, length, token).unwrap()).unwrap();
    }
    channel.submit();
    for _ in 0..1000 {
        clock.pause(TURN);
        channel.complete(&mut done);
    }
    assert_eq!(done.len(), 30);
    for (token, done) in (0_u64..).zip(&done) {
        let copied = done.outcome == CopyOutcome::Copied;
        assert_eq!((done.token, copied), (token, token % 2 == 1));
    }
    assert_eq!(channel.state(), EngineState::Working, "no channel is to blame for what it was asked");
    bench.recovers("memory that is not mapped");
    bench.end();
}
