//! Interrupts: causes, masks, vectors, throttling.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::super::{Config, Fault};
use super::bench::{Bench, rang};

const EICR: u32 = 0x800;
const EICS: u32 = 0x808;
const EIAC: u32 = 0x810;
const EITR: u32 = 0x820;
const EIMS: u32 = 0x880;
const EIMC: u32 = 0x888;
const EIAM: u32 = 0x890;
const GPIE: u32 = 0x898;
const EICS_EX: u32 = 0xa90;
const EIMS_EX: u32 = 0xaa0;
const EIAM_EX: u32 = 0xad0;
const LSC: u32 = 1 << 20;
/// GPIE: several vectors, automatic masks when a vector fires, other causes stay when EICR is read.
const SEVERAL: u32 = 1 << 4 | 1 << 30 | 1 << 5;

/// A card whose link rests.
fn quiet() -> Bench {
    Bench::new(Config { link_up: false, ..Config::default() })
}

fn poll(bench: &mut Bench) {
    bench.pass(Duration::from_micros(100));
}

#[test]
fn a_vector_fires_once_for_a_cause_that_is_set_and_enabled() {
    let mut bench = quiet();
    let mut vectors = bench.vectors(3);
    bench.store(GPIE, SEVERAL);
    bench.store(EICS, 1 << 1);
    poll(&mut bench);
    assert!(!rang(&mut vectors[1]), "not enabled");
    bench.store(EIMS, 1 << 1);
    poll(&mut bench);
    assert!(rang(&mut vectors[1]) && !rang(&mut vectors[0]) && !rang(&mut vectors[2]));
    poll(&mut bench);
    assert!(!rang(&mut vectors[1]), "the cause stays set and does not fire again");
    assert_eq!(bench.load(EICR), 1 << 1);
    bench.store(EICR, 1 << 1);
    assert_eq!(bench.load(EICS), 0);
    bench.store(EICS, 1 << 1);
    poll(&mut bench);
    assert!(rang(&mut vectors[1]));
    bench.store(EIMC, 1 << 1);
    assert_eq!(bench.load(EIMS), 0);
}

#[test]
fn causes_clear_and_mask_themselves_as_configured() {
    let mut bench = quiet();
    let mut vectors = bench.vectors(2);
    bench.store(GPIE, SEVERAL);
    bench.store(EIAC, 1);
    bench.store(EIAM, 1);
    bench.store(EIMS, 3);
    bench.store(EICS, 3);
    poll(&mut bench);
    assert!(rang(&mut vectors[0]) && rang(&mut vectors[1]));
    assert_eq!(bench.load(EICS), 2, "the first cleared itself");
    assert_eq!(bench.load(EIMS), 2, "the first masked itself");
    // What happens while it is masked is not lost.
    bench.store(EIAM, 0);
    bench.store(EICS, 1);
    poll(&mut bench);
    assert!(!rang(&mut vectors[0]));
    bench.store(EIMS, 1);
    poll(&mut bench);
    assert!(rang(&mut vectors[0]));
}

#[test]
fn a_cause_that_the_driver_sets_opens_its_automatic_mask() {
    let mut bench = quiet();
    let mut vectors = bench.vectors(40);
    bench.store(GPIE, SEVERAL);
    bench.store(EIAM_EX, u32::MAX);
    bench.store(EIAM_EX + 4, u32::MAX);
    bench.store(EICS_EX + 4, 1 << 2);
    assert_eq!(bench.load(EIMS_EX + 4), 1 << 2);
    poll(&mut bench);
    assert!(rang(&mut vectors[34]), "vectors beyond 15 have causes too");
    assert_eq!(bench.load(EIMS_EX + 4), 0);
    assert_eq!(bench.load(EICS_EX + 4), 0, "and they clear themselves");
}

#[test]
fn queues_ring_the_vectors_that_ivar_says() {
    let mut bench = quiet();
    let mut vectors = bench.vectors(8);
    bench.store(GPIE, SEVERAL);
    // Receive queue 3 to vector 5, transmit queue 2 to vector 6; nothing else is valid.
    bench.store(0x904, 0x0085_8600);
    bench.store(EIMS, 0xffff);
    bench.control().with(|chip, _| {
        chip.interrupts.receive(1 << 3 | 1 << 2);
        chip.interrupts.transmit(1 << 2 | 1 << 3);
    });
    poll(&mut bench);
    let rings: Vec<bool> = vectors.iter_mut().map(rang).collect();
    assert_eq!(rings, [false, false, false, false, false, true, true, false]);
}

#[test]
fn an_interval_keeps_vectors_apart() {
    let mut bench = quiet();
    let mut vectors = bench.vectors(1);
    bench.store(GPIE, SEVERAL);
    bench.store(EIAC, 1);
    bench.store(EIMS, 1);
    // 250 units of 2.048 us are more than five polls.
    bench.store(EITR, 250 << 3);
    let mut rings = 0;
    for _ in 0..24 {
        bench.store(EICS, 1);
        poll(&mut bench);
        rings += u32::from(rang(&mut vectors[0]));
    }
    assert_eq!(rings, 4);
}

#[test]
fn the_link_rings_the_vector_of_other_causes() {
    let mut bench = Bench::new(Config::default());
    let mut vectors = bench.vectors(4);
    bench.store(GPIE, SEVERAL);
    bench.store(0xa00, 0x8300);
    bench.store(EIMS, LSC);
    bench.milliseconds(30);
    assert!(rang(&mut vectors[3]));
    assert_eq!(bench.load(EICS), LSC);
    assert_eq!(bench.load(EICR), LSC);
    assert_eq!(bench.load(EICR), 0, "reading clears what is no queue");
}

#[test]
fn with_one_vector_reading_the_causes_clears_and_masks() {
    let mut bench = quiet();
    let mut vectors = bench.vectors(1);
    bench.store(0x900, 0x80);
    bench.store(EIAM, 1);
    bench.store(EIMS, 1 | LSC);
    bench.control().with(|chip, _| chip.interrupts.receive(1));
    poll(&mut bench);
    assert!(rang(&mut vectors[0]));
    assert_eq!(bench.load(EIMS), 1 | LSC, "nothing masks itself before EICR is read");
    assert_eq!(bench.load(EICR), 1);
    assert_eq!((bench.load(EICR), bench.load(EIMS)), (0, LSC));
}

#[test]
fn interrupts_are_lost_or_storm_on_request() {
    for (fault, expected) in [(Fault::InterruptsLost, 0), (Fault::InterruptsStorm, 5)] {
        let mut bench = Bench::new(Config { link_up: false, fault: Some(fault), ..Config::default() });
        let mut vectors = bench.vectors(1);
        bench.store(GPIE, SEVERAL);
        bench.store(0x900, 0x80);
        bench.store(EIMS, 1);
        bench.store(EICS, if fault == Fault::InterruptsLost { 1 } else { 0 });
        let rings = (0..5).filter(|_| {
            poll(&mut bench);
            rang(&mut vectors[0])
        });
        assert_eq!(rings.count(), expected);
    }
}
