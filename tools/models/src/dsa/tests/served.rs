//! The device on a socket, and a driver at the other end.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use drivers::bus::{Bar, Interrupt, PciFunction};
use hugemem::{IovaSpace, MemoryRequest, PageChoice, Region};
use vfio::user::server::Server;
use vfio::user::{Function, Options as ClientOptions};

use super::mini::{INTERRUPT, TOLD, at, command, operation};
use crate::card::{self, Options};
use crate::dsa::{Config, Dsa};
use crate::wire::Null;

/// Where things are in the driver's region.
const SOURCE: usize = 0x4000;
const TARGET: usize = 0x1_0008;

fn memory() -> Region {
    let request = MemoryRequest { bytes: 1 << 18, page: PageChoice::Size4K, node: None };
    request.allocate(&mut IovaSpace::unlimited()).unwrap().region
}

#[test]
fn a_driver_uses_a_device_at_the_other_end_of_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dsa");
    let chip = Dsa::new(Config::default());
    let served = card::serve(Server::bind(&path).unwrap(), Options::named("dsa"), chip, Null).unwrap();
    let control = served.control();
    for (message_dma, faults) in [(false, 0), (true, 1)] {
        let options = ClientOptions { message_dma, ..ClientOptions::default() };
        let mut function = Function::connect(&path, options).unwrap();
        assert_eq!((function.id().device, function.interrupt_count()), (0x0b25, 9));
        let region = memory();
        function.map(&region).unwrap();
        function.set_bus_master(true).unwrap();
        let (bar, portals) = (function.bar(0).unwrap(), function.bar(2).unwrap());
        let mut interrupts = function.interrupts(2).unwrap();
        let words = region.array::<AtomicU64>((1 << 18) / 8, 4096).unwrap();
        let base = words.iova().raw();
        let put = |at: usize, value: u64| words[at / 8].store(value, Ordering::Relaxed);
        let get = |at: usize| words[at / 8].load(Ordering::Acquire);
        let bytes = 40_000;
        (0..bytes / 8).for_each(|word| put(SOURCE + 8 * word, 0x0101 * word as u64));
        let deadline = Instant::now() + Duration::from_secs(20);
        let run = |number: u32, operand: u32| {
            bar.store(at::CMD, number << 20 | operand);
            while bar.load::<u32>(at::CMDSTS) >> 31 != 0 {
                assert!(Instant::now() < deadline, "the command does not end");
            }
            bar.load::<u32>(at::CMDSTS)
        };
        let offsets: u64 = bar.load(at::OFFSETS);
        let table = |index: u32| u32::try_from(offsets >> (16 * index) & 0xffff).unwrap() * 0x100;
        bar.store(table(1), 16_u32);
        bar.store(table(1) + 8, 0x11_u32);
        bar.store(table(1) + 12, 31_u32);
        bar.store(table(0), 1_u64);
        bar.store(table(0) + 32, 1_u64);
        assert_eq!((run(command::ENABLE_DEVICE, 0), run(command::ENABLE_WQ, 0)), (0, 0));
        let mut copy = |record: usize, source: u64| {
            let mut copy = [
                operation::MOVE << 56 | (TOLD | INTERRUPT) << 32,
                base + record as u64,
                source,
                base + TARGET as u64,
                bytes as u64,
                0,
                0,
                0,
            ];
            copy[4] |= 1 << 32;
            portals.store_block(0x40, &copy);
            assert!(interrupts[1].wait(Duration::from_secs(20)).unwrap());
            get(record)
        };
        assert_eq!(copy(0, base + SOURCE as u64), 1);
        assert!((0..bytes / 8).all(|word| get(TARGET + 8 * word) == get(SOURCE + 8 * word)));
        assert_eq!(control.fault_count(), faults);
        // An address that is not mapped: refused, recorded, and the driver gets to know.
        assert_eq!((copy(64, base + (1 << 20)), get(64 + 8)), (3, base + (1 << 20)));
        assert_eq!(control.fault_count(), faults + 1);
        assert_eq!(run(command::DISABLE_DEVICE, 0), 0);
    }
    assert!(control.violations().is_empty(), "{:?}", control.violations());
    assert_eq!(control.with(|chip, _| chip.counts().descriptors), 4);
    served.stop().unwrap();
}
