//! Every fault there is, at several positions, in batches and alone.

use drivers::copy_engine::{CopyDevice, CopyEngine, EngineState};
use models::dsa::{Fault, Planned, When};

use super::{Bench, chip};
use crate::bench::{Count, NAME};
use crate::common::Watchdog;

/// Devices that say of copies which are underway that they are done, and wrote other bytes, or not yet. No driver can tell.
fn is_beyond_proof(fault: Fault) -> bool {
    matches!(fault, Fault::CopySkipped | Fault::CopyWrong | Fault::CompleteEarly)
}

/// Faults that have the device reach for memory that it was not given.
fn reaches_out(fault: Fault) -> bool {
    matches!(fault, Fault::DmaStray | Fault::DmaRefused | Fault::CompletionWild)
}

/// Faults after which what the driver does cannot be right, because it does not know yet.
fn misleads(fault: Fault) -> bool {
    matches!(fault, Fault::QueueDisabled | Fault::ResetSpontaneous)
}

/// Once, always, and now and then.
fn times() -> Vec<When> {
    let mut times: Vec<When> = [0, 1, 5, 31, 33, 70].into_iter().map(When::Once).collect();
    times.extend([When::From(0), When::From(9), When::Every(8), When::Random { seed: 3, chance: 20 }]);
    times
}

fn strikes(fault: Fault, when: When) {
    let planned = Planned::new(fault, when);
    let what = planned.to_string();
    let mut bench = Bench::open(chip(Vec::new())).unwrap();
    assert!(bench.run(40), "{what}: before it strikes");
    bench.user.count = Count::default();
    bench.user.lenient = is_beyond_proof(fault);
    bench.faults(&[planned]);
    let whole = bench.run(120);
    let Count { copied, failed, wrong } = bench.user.count;
    if !is_beyond_proof(fault) {
        assert_eq!(wrong, 0, "{what}: called done and is not");
    }
    let state = bench.channel.as_ref().map(|channel| channel.state()).unwrap();
    if whole {
        assert_eq!(copied + failed, 120, "{what}");
    } else {
        assert_eq!(state, EngineState::Broken, "{what}");
        let error = bench.engine.check().expect_err("an engine that broke is named").to_string();
        assert!(error.contains(NAME), "{what}: {error}");
    }
    if !reaches_out(fault) {
        assert_eq!(bench.control.faults().len(), 0, "{what}: {:?}", bench.control.faults());
        assert!(misleads(fault) || bench.control.violations().is_empty(), "{what}: {:?}", bench.control.violations());
    }
    if fault == Fault::Removed {
        // It does not come back. Its memory was taken away from it, so all jobs are at home.
        let gone = bench.control.is_removed();
        let stopped = bench.stop();
        assert_eq!(stopped.is_err(), gone, "{what}: {stopped:?}");
        assert_eq!(bench.user.underway(), 0, "{what}");
        bench.user.check_redone();
    } else {
        if is_beyond_proof(fault) {
            bench.pass(50);
            bench.user.forget();
            bench.user.lenient = false;
        }
        bench.recovers(&what);
        bench.user.check_all(&what);
    }
    bench.end();
}

#[test]
fn every_fault_that_strikes_a_running_device_ends_in_recovery_or_a_typed_error() {
    let watchdog = Watchdog::new("faults".to_owned());
    for fault in Fault::ALL {
        for when in times() {
            watchdog.next(Planned::new(*fault, when).to_string());
            strikes(*fault, when);
        }
    }
}

#[test]
fn every_fault_that_is_there_before_the_device_is_opened_ends_as_well() {
    let watchdog = Watchdog::new("faults from the start".to_owned());
    for fault in Fault::ALL {
        let planned = Planned::new(*fault, When::From(0));
        watchdog.next(planned.to_string());
        match Bench::open(chip(vec![planned])) {
            Ok(mut bench) => {
                bench.user.lenient = is_beyond_proof(*fault);
                bench.run(60);
                assert!(is_beyond_proof(*fault) || bench.user.count.wrong == 0, "{planned}");
                bench.end();
            }
            Err(error) => assert!(error.to_string().contains(NAME), "{planned}: {error}"),
        }
    }
}

/// A device that is dropped under a fault leaves no map behind, and no job of a driver that is gone writes.
#[test]
fn a_device_that_is_dropped_under_any_fault_leaves_nothing_behind() {
    let watchdog = Watchdog::new("drops".to_owned());
    for fault in Fault::ALL {
        watchdog.next(fault.to_string());
        let mut bench = Bench::open(chip(Vec::new())).unwrap();
        bench.faults(&[Planned::from(*fault)]);
        let channel = bench.channel.as_mut().unwrap();
        while bench.user.push_any(channel) {}
        channel.submit();
        bench.pass(2);
        bench.end();
    }
}

/// What cannot be used is refused when it is opened, with a sentence about it.
#[test]
fn capabilities_that_cannot_be_are_named() {
    for (fault, word) in [
        (Fault::QueuesNone, "WQCAP"),
        (Fault::EntriesNone, "WQCAP"),
        (Fault::GroupsNone, "GRPCAP"),
        (Fault::EnginesNone, "ENGCAP"),
        (Fault::QueuesMany, "255 queues"),
        (Fault::DedicatedNone, "dedicated"),
        (Fault::LimitsOne, "GENCAP"),
        (Fault::ConfigurationFixed, "fixed"),
        (Fault::OperationsNone, "OPCAP"),
        (Fault::OffsetsWild, "OFFSETS"),
        (Fault::VersionZero, "version 0.0"),
        (Fault::Absent, "does not answer"),
        (Fault::EnableRefused, "refuses to be enabled"),
        (Fault::QueueRefused, "refuses to enable work queue 0"),
        (Fault::CommandStuck, "CMDSTS"),
    ] {
        let error =
            Bench::open(chip(vec![Planned::new(fault, When::From(0))])).err().unwrap_or_else(|| panic!("{fault}"));
        let error = error.to_string();
        assert!(error.contains(word) && error.contains(NAME), "{fault}: {error}");
    }
}
