//! Whatever a card does, its driver leaves nothing behind in the process. One test, alone in its process, because it counts
//! what the process has.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "each suite uses a part")]

mod common;

#[path = "faults_ixgbe/bench.rs"]
mod bench;
#[path = "faults_ixgbe/expected.rs"]
mod expected;
#[path = "faults_ixgbe/flows.rs"]
mod flows;
#[path = "faults_ixgbe/served.rs"]
mod served;
#[path = "faults_ixgbe/strike.rs"]
mod strike;

use std::time::{Duration, Instant};

use models::ixgbe::{Doorbells, Fault};

use bench::Plan;
use served::{Death, Dma, the_server_dies};
use strike::{is_dropped, is_there_before, strikes_a_running_card};

/// Descriptors, threads and mappings of memory files.
fn held() -> (usize, usize, usize) {
    let entries = |path| std::fs::read_dir(path).unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let maps = maps.lines().filter(|line| line.contains("memfd:")).count();
    (entries("/proc/self/fd"), entries("/proc/self/task"), maps)
}

/// Threads that watch the time end a moment after what they watch.
fn is_back_to(before: (usize, usize, usize), what: &str) {
    let start = Instant::now();
    while held() != before {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: {:?} instead of {before:?}", held());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn no_fault_leaves_a_descriptor_a_thread_or_a_mapping_behind() {
    let before = held();
    let plan = Plan::new(2, Doorbells::Shared);
    for fault in Fault::ALL {
        is_there_before(*fault, &plan);
        strikes_a_running_card(*fault, &plan);
        is_dropped(*fault, &plan);
    }
    is_back_to(before, "faults");
    for death in [Death::Ends, Death::FallsSilent] {
        the_server_dies(death, Dma::Message);
        is_back_to(before, "a server that dies");
    }
}
