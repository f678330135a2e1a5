//! Sessions leave nothing behind. One test, alone in its process, because it counts what the process has.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::os::fd::AsFd;

use drivers::bus::{Bar, PciFunction};
use hugemem::{IovaSpace, MemoryRequest, PageChoice, Region};
use rustix::event::{EventfdFlags, eventfd};
use support::raw::{self, Raw, message};
use support::{Bed, memory, until};

/// Descriptors, threads and mappings of memory files.
fn held() -> (usize, usize, usize) {
    let entries = |path| std::fs::read_dir(path).unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let maps = maps.lines().filter(|line| line.contains("memfd:")).count();
    (entries("/proc/self/fd"), entries("/proc/self/task"), maps)
}

fn session(bed: &Bed, region: &Region) {
    let mut function = bed.connect();
    let bar = function.bar(0).unwrap();
    bar.store(0x1000, 1_u32);
    function.map(region).unwrap();
    let vectors = function.interrupts(20).unwrap();
    drop(function);
    drop((bar, vectors));
}

fn rude(bed: &Bed) {
    let mut client = Raw::connect(&bed.path);
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let file = memory(0x1000, true);
    // Uninvited, too many, refused, and left behind.
    client.ask_with(raw::RESET, &[], &[event.as_fd(), file.as_fd()]);
    client.ask_with(raw::DMA_MAP, &[0; 32], &[event.as_fd(), file.as_fd()]);
    client.ask_with(raw::SET_IRQS, &raw::words(&[20, 0x24, 2, 0, 2]), &[event.as_fd(), event.as_fd()]);
    client.ask_with(raw::SET_IRQS, &raw::words(&[20, 0x24, 2, 0, 2]), &[event.as_fd(); 3]);
    client.send_with(&message(1, raw::RESET, raw::NO_REPLY, 0, &[]), &[file.as_fd(); 33]);
    assert!(client.receive().is_none());
}

#[test]
fn sessions_leave_nothing_behind() {
    let request = MemoryRequest { bytes: 1 << 20, page: PageChoice::Size4K, node: None };
    let region = request.allocate(&mut IovaSpace::unlimited()).unwrap().region;
    let bed = Bed::new();
    let round = |count: usize| {
        session(&bed, &region);
        rude(&bed);
        until("both sessions have ended", || bed.state().ends.len() == 2 * count);
        // The last session's way to memory is the fake's, and the channel lives as long.
        bed.state().dma = None;
    };
    round(1);
    let before = held();
    for count in 2..20 {
        round(count);
    }
    until("all is given back", || held() == before);
    drop(bed);
    until("the server is gone", || held().1 < before.1);
}
