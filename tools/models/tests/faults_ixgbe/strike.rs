//! A fault strikes: before the card is opened, under traffic, and under a driver that is dropped.

use models::ixgbe::Fault;

use crate::bench::{Bench, Plan};
use crate::common::{Memory, Watchdog};
use crate::expected::{Expected, First, Frames, Kind, Step, expected, is_final, strays};

/// Seconds under traffic: more than the driver's patience with a queue that hangs.
const SECONDS: usize = 9;

/// Remembers the first error; those that follow from it only have to name the device.
struct Errors<'a> {
    what: &'a str,
    first: First,
}

impl Errors<'_> {
    /// Whether it went well.
    fn note<T>(&mut self, step: Step, result: &Result<T, drivers::nic::NicError>) -> bool {
        if let Err(error) = result {
            let kind = Kind::of(error, self.what);
            self.first.get_or_insert((step, kind));
        }
        result.is_ok()
    }
}

/// Traffic for some seconds, or until `check` complains.
fn use_for(bench: &mut Bench, errors: &mut Errors<'_>) {
    for _ in 0..SECONDS {
        let used = bench.use_it();
        if !errors.note(Step::Check, &used) {
            return;
        }
    }
}

/// Every frame is somewhere: with the driver, dropped by name, on the wire or with the card.
fn frames_are_accounted_for(bench: &mut Bench, fault: Fault, frames: Frames, what: &str) {
    if !is_final(fault) {
        // With the link up again or the card at rest, what can come has come.
        bench.pass(60);
        bench.receive();
        bench.sent();
    }
    let (count, drops) = (bench.count, bench.drops());
    let dropped: u64 = drops.iter().map(|(_, count)| count).sum();
    let missed = bench.statistic("rx_missed_errors") * u64::from(fault != Fault::StatisticsJump);
    let known = count.received + dropped + missed + bench.waiting();
    let text = format!("{what}: {count:?}, dropped {drops:?}, missed {missed}, waiting {}", bench.waiting());
    match frames {
        Frames::Kept | Frames::Merged(_) => assert!(known <= count.offered, "{text}"),
        _ => assert_eq!(known, count.offered, "{text}"),
    }
    match frames {
        Frames::Dropped(reasons) => {
            assert!(dropped > 20 && drops.iter().all(|(reason, _)| reasons.contains(reason)), "{text}");
        }
        Frames::Merged(reason) => assert!(drops.iter().all(|(found, _)| *found == reason) && dropped > 0, "{text}"),
        Frames::Missed if bench.queues.len() == 1 => assert!(missed > 20, "{text}"),
        _ => assert_eq!((dropped, missed), (0, 0), "{text}"),
    }
    assert_eq!(count.strange > 0, frames == Frames::Strange, "{text}");
}

/// Nothing but what the card does on its own strays.
fn nothing_strays(bench: &Bench, fault: Fault, what: &str) {
    let strayed = bench.control.fault_count() > 0;
    assert!(!strayed || strays(fault), "{what}: {:?}", bench.control.faults());
}

/// The card is gone: everything comes back all the same.
fn ends_without_a_card(mut bench: Bench, errors: &mut Errors<'_>) {
    for _ in 0..2 {
        let stopped = bench.stop();
        errors.note(Step::Stop, &stopped);
        assert_eq!(bench.memory.sources.available(), Memory::SENDABLE, "{}: packets are lost", errors.what);
        let started = bench.start();
        assert!(!errors.note(Step::Start, &started), "{}: starts without a card", errors.what);
    }
    bench.end();
}

/// The card misbehaves before it is opened.
pub(crate) fn is_there_before(fault: Fault, plan: &Plan) {
    let what = format!("{fault} from the start, {} pairs, {:?}", plan.pairs, plan.chip.doorbells);
    let _watchdog = Watchdog::new(what.clone());
    let Expected { before, frames, .. } = expected(fault, plan.chip.doorbells);
    let mut errors = Errors { what: &what, first: None };
    let mut plan = plan.clone();
    plan.chip.fault = Some(fault);
    let opened = Bench::open(&plan);
    errors.note(Step::Open, &opened);
    let Ok(mut bench) = opened else {
        // That all memory is back was checked in there.
        return assert_eq!(errors.first, before, "{what}");
    };
    let started = bench.start();
    if errors.note(Step::Start, &started) {
        use_for(&mut bench, &mut errors);
        if errors.first.is_none() {
            frames_are_accounted_for(&mut bench, fault, frames, &what);
        }
    } else {
        assert!(bench.queues.is_empty());
    }
    assert_eq!(errors.first, before, "{what}");
    nothing_strays(&bench, fault, &what);
    if is_final(fault) {
        return ends_without_a_card(bench, &mut errors);
    }
    bench.fault(None);
    bench.recovers(&what);
}

/// The card begins to misbehave under traffic.
pub(crate) fn strikes_a_running_card(fault: Fault, plan: &Plan) {
    let what = format!("{fault} under traffic, {} pairs, {:?}", plan.pairs, plan.chip.doorbells);
    let _watchdog = Watchdog::new(what.clone());
    let Expected { during, frames, .. } = expected(fault, plan.chip.doorbells);
    let mut errors = Errors { what: &what, first: None };
    let mut bench = Bench::open(plan).unwrap();
    bench.start().unwrap();
    bench.use_it().unwrap_or_else(|error| panic!("{what}: before the fault: {error}"));
    bench.fault(Some(fault));
    use_for(&mut bench, &mut errors);
    if errors.first.is_none() {
        frames_are_accounted_for(&mut bench, fault, frames, &what);
    }
    // Stopping and starting while the fault lasts.
    for _ in 0..2 {
        let stopped = bench.stop();
        errors.note(Step::Stop, &stopped);
        assert_eq!(bench.memory.sources.available(), Memory::SENDABLE, "{what}: packets stay with the card");
        bench.settle();
        let started = bench.start();
        if errors.note(Step::Start, &started) {
            bench.settle();
            let used = bench.use_it();
            errors.note(Step::Check, &used);
        }
    }
    assert_eq!(errors.first, during, "{what}");
    nothing_strays(&bench, fault, &what);
    if is_final(fault) && during.is_some() {
        return ends_without_a_card(bench, &mut errors);
    }
    bench.fault(None);
    bench.recovers(&what);
}

/// A driver that is dropped in the midst of it gives everything back but what the card may still write to.
pub(crate) fn is_dropped(fault: Fault, plan: &Plan) {
    let what = format!("{fault}, dropped");
    let _watchdog = Watchdog::new(what.clone());
    let mut bench = Bench::open(plan).unwrap();
    bench.start().unwrap();
    bench.fault(Some(fault));
    let _reported = bench.use_it();
    let Bench { control, queues, nic, memory, .. } = bench;
    drop((queues, nic));
    assert_eq!((control.mapped(), control.enabled_vectors()), (0, 0), "{what}");
    memory.is_whole();
}
