//! A card that answers at random, for a fixed list of seeds: never a panic, a hang or an access to what was not mapped.

use models::ixgbe::{Chaos, Doorbells};

use crate::bench::{Bench, Plan};
use crate::common::Watchdog;
use crate::expected::Kind;

const SEEDS: u64 = 100;

/// The seed also chooses what kind of card it is.
fn plan(seed: u64) -> Plan {
    let doorbells = if seed & 1 == 0 { Doorbells::Shared } else { Doorbells::Trapped };
    Plan::new(if seed & 2 == 0 { 1 } else { 2 }, doorbells)
}

fn is_in_bounds(bench: &Bench, what: &str) {
    bench.memory.is_whole();
    assert_eq!(bench.control.fault_count(), 0, "{what}: {:?}", bench.control.faults());
}

/// At random from the first access on. `true` when the driver took the card for one.
fn from_the_start(chaos: Chaos, what: &str) -> bool {
    let mut plan = plan(chaos.seed);
    plan.chaos = Some(chaos);
    let mut bench = match Bench::open(&plan) {
        Ok(bench) => bench,
        Err(error) => {
            Kind::of(&error, what);
            return false;
        }
    };
    let mut carried = false;
    for _ in 0..2 {
        let started = bench.start();
        carried |= started.is_ok();
        let used = started.and_then(|()| bench.use_it());
        for error in [used, bench.stop()].into_iter().filter_map(Result::err) {
            Kind::of(&error, what);
        }
    }
    is_in_bounds(&bench, what);
    bench.recovers(what);
    carried
}

/// Honest at first, then at random, then honest again.
fn in_the_middle(chaos: Chaos, what: &str) {
    let mut bench = Bench::open(&plan(chaos.seed)).unwrap();
    bench.start().unwrap();
    bench.use_it().unwrap();
    bench.control.with(|chip, _| chip.set_chaos(Some(chaos)));
    for _ in 0..2 {
        let used = bench.use_it();
        let stopped = bench.stop();
        for error in [used, stopped, bench.start()].into_iter().filter_map(Result::err) {
            Kind::of(&error, what);
        }
    }
    is_in_bounds(&bench, what);
    bench.recovers(what);
}

/// Returns how many cards got as far as carrying traffic.
fn run(registers: u8, rings: u8) -> usize {
    let watchdog = Watchdog::new("chaos".to_owned());
    let mut carried = 0;
    for seed in 0..SEEDS {
        let chaos = Chaos { seed, registers, rings };
        let what = format!("{chaos:?}");
        watchdog.next(what.clone());
        carried += usize::from(from_the_start(chaos, &what));
        in_the_middle(chaos, &what);
    }
    carried
}

#[test]
fn every_register_at_random() {
    assert_eq!(run(255, 0), 0, "nobody can drive such a card");
}

#[test]
fn few_registers_at_random() {
    assert!(run(1, 0) > 10, "too few cards get as far as traffic");
}

#[test]
fn rings_at_random() {
    assert_eq!(run(0, 64), 100);
}

#[test]
fn few_answers_in_rings_at_random() {
    assert_eq!(run(0, 6), 100);
}

#[test]
fn registers_and_rings_at_random() {
    assert!(run(1, 24) > 10, "too few cards get as far as traffic");
}
