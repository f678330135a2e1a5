//! The engine on a socket, and a driver at the other end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use drivers::bus::{Bar, Interrupt, PciFunction};
use hugemem::{IovaSpace, MemoryRequest, PageChoice, Region};
use vfio::user::server::Server;
use vfio::user::{Function, Options as ClientOptions};

use super::mini::{COMPLETE, HALTED, IDLE, INTERRUPT, at};
use crate::card::{self, Options};
use crate::ioat::{Config, Ioat};
use crate::wire::Null;

/// Where things are in the driver's region.
const DESCRIPTOR: usize = 0x1000;
const SOURCE: usize = 0x4000;
const TARGET: usize = 0x1_0003 & !7;

fn memory() -> Region {
    let request = MemoryRequest { bytes: 1 << 18, page: PageChoice::Size4K, node: None };
    request.allocate(&mut IovaSpace::unlimited()).unwrap().region
}

#[test]
fn a_driver_uses_an_engine_at_the_other_end_of_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine");
    let chip = Ioat::new(Config::default());
    let served = card::serve(Server::bind(&path).unwrap(), Options::named("engine"), chip, Null).unwrap();
    let control = served.control();
    for (message_dma, faults) in [(false, 0), (true, 1)] {
        let options = ClientOptions { message_dma, ..ClientOptions::default() };
        let mut function = Function::connect(&path, options).unwrap();
        assert_eq!((function.id().device, function.interrupt_count()), (0x0b00, 1));
        let region = memory();
        function.map(&region).unwrap();
        function.set_bus_master(true).unwrap();
        let (bar, mut interrupts) = (function.bar(0).unwrap(), function.interrupts(1).unwrap());
        let words = region.array::<AtomicU64>((1 << 18) / 8, 4096).unwrap();
        let base = words.iova().raw();
        let put = |at: usize, value: u64| words[at / 8].store(value, Ordering::Relaxed);
        let get = |at: usize| words[at / 8].load(Ordering::Acquire);
        let bytes = 40_000;
        (0..bytes / 8).for_each(|word| put(SOURCE + 8 * word, 0x0101 * word as u64));
        let descriptor = |source: u64| {
            put(DESCRIPTOR, (COMPLETE | INTERRUPT) << 32 | bytes as u64);
            put(DESCRIPTOR + 8, source);
            put(DESCRIPTOR + 16, base + TARGET as u64);
            put(DESCRIPTOR + 24, base + DESCRIPTOR as u64);
            bar.store(0x03, 0x09_u8);
            bar.store(at::CHANCTRL, 0x1d_u16);
            bar.store(at::CHANCMP, base);
            bar.store(at::CHAINADDR, base + DESCRIPTOR as u64);
            bar.publish(at::DMACOUNT, 1_u16);
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        descriptor(base + SOURCE as u64);
        while get(0) == 0 {
            assert!(Instant::now() < deadline, "nothing happens");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(interrupts[0].wait(Duration::from_secs(20)).unwrap());
        assert_eq!(get(0), (base + DESCRIPTOR as u64) | IDLE);
        assert!((0..bytes / 8).all(|word| get(TARGET + 8 * word) == get(SOURCE + 8 * word)));
        assert_eq!(control.fault_count(), faults);
        // An address that is not mapped: refused, recorded, and the driver gets to know.
        put(0, 0);
        descriptor(base + (1 << 20));
        assert!(interrupts[0].wait(Duration::from_secs(20)).unwrap());
        assert_eq!((get(0), bar.load::<u32>(at::CHANERR)), (HALTED, 1 << 8));
        assert_eq!(function.read_config(0x180).unwrap(), 1 << 8);
        assert_eq!(control.fault_count(), faults + 1);
        bar.store(at::CHANERR, 1_u32 << 8);
        function.write_config(0x180, 1 << 8).unwrap();
        assert_eq!(function.read_config(0x180).unwrap(), 0);
    }
    assert!(control.violations().is_empty(), "{:?}", control.violations());
    served.stop().unwrap();
}
