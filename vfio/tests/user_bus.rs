//! The vfio-user client against the vfio-user server.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use drivers::bus::{Bar, BusError, Interrupt, PciFunction};
use hugemem::{Iova, MemoryRequest, PageChoice, Region};
use std::os::unix::fs::FileExt;
use support::{BROKEN, Bed, LONG, State, until};
use vfio::user::server::{DmaError, Errno, Server};
use vfio::user::{Function, Options, UserError};

const IOVA: Iova = Iova::new(0x20_0000);

fn shared_region(bytes: usize) -> Region {
    let request = MemoryRequest { bytes, page: PageChoice::Size4K, node: None };
    request.allocate(&mut hugemem::IovaSpace::unlimited()).unwrap().region
}

#[test]
fn registers_answer_by_message_in_order() {
    let bed = Bed::new();
    let mut function = bed.connect();
    let id = function.id();
    assert_eq!((id.vendor, id.device, id.class, id.revision), (0x1234, 0x5678, 0x02_0000, 3));
    assert_eq!((id.subsystem_vendor, id.subsystem_device), (0xabcd, 1));
    let bar = function.bar(0).unwrap();
    assert_eq!(bar.size(), 0x4000);
    bar.store(0x10, 0x1122_3344_u32);
    bar.publish(0x18, 0x0102_0304_0506_0708_u64);
    bar.store(0x20, 0xaa_u8);
    bar.store(0x22, 0xbbcc_u16);
    assert_eq!(bar.load::<u32>(0x10), 0x1122_3344);
    assert_eq!(bar.load::<u64>(0x18), 0x0102_0304_0506_0708);
    assert_eq!(bar.load::<u16>(0x20), 0xaa);
    assert_eq!(bar.load::<u16>(0x22), 0xbbcc);
    // An access to a shared page is no message, and yet does not overtake a store that is one.
    for value in 1..1000_u32 {
        bar.store(0x30, value);
        assert_eq!(bed.state().registers[0x30..0x34], value.to_le_bytes());
    }
    bar.store_block(0x2040, &[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(bar.load::<u64>(0x2078), 8);
    // Nobody answers there.
    assert_eq!(bar.load::<u32>(0x4000), u32::MAX);
    assert_eq!(bar.load::<u32>(u32::try_from(BROKEN).unwrap()), u32::MAX);
    assert_eq!(bar.load::<u32>(0x10), 0x1122_3344, "one refusal ends nothing");
}

#[test]
fn a_shared_page_is_memory() {
    let bed = Bed::new();
    let bar = bed.connect().bar(0).unwrap();
    drop(bar);
    let mut function = bed.connect();
    let bar = function.bar(0).unwrap();
    bar.store(0x1010, 0xdead_beef_u32);
    assert_eq!(bed.shared_word(0x1010), 0xdead_beef);
    assert_eq!(bed.state().registers[0x1010], 0, "no message was sent");
    bed.page.write_all_at(&[1, 2, 3, 4], 0x1ffc).unwrap();
    assert_eq!(bar.load::<u32>(0x1ffc), 0x0403_0201);
    drop(function);
    assert_eq!(bar.load::<u32>(0x1ffc), u32::MAX, "the handle is parted from the device");
    bar.store(0x1010, 0_u32);
    assert_eq!(bed.shared_word(0x1010), 0xdead_beef);
}

#[test]
fn missing_parts_are_named() {
    let bed = Bed::new();
    // A server may be given all the time there is.
    let mut function = bed.connect_with(Options { timeout: Duration::MAX, ..Options::default() });
    for index in [1, 6] {
        assert!(matches!(function.bar(index), Err(BusError::Missing { .. })), "BAR {index}");
    }
    assert!(matches!(function.read_config(0x100), Err(BusError::Missing { .. })));
    assert!(matches!(function.read_config(2), Err(BusError::Missing { .. })));
    let error = function.interrupts(21).unwrap_err().to_string();
    assert!(error.contains("21 interrupt vectors wanted, 20 there"), "{error}");
}

#[test]
fn every_vector_signals_its_own_interrupt_until_it_is_replaced() {
    let bed = Bed::new();
    let mut function = bed.connect();
    assert_eq!(function.interrupt_count(), 20);
    let mut vectors = function.interrupts(20).unwrap();
    for (index, vector) in vectors.iter_mut().enumerate() {
        bed.signal(index);
        assert!(vector.wait(LONG).unwrap());
    }
    assert!(vectors.iter_mut().all(|vector| !vector.wait(Duration::ZERO).unwrap()));
    let mut fewer = function.interrupts(2).unwrap();
    let connected = bed.state().vectors.iter().filter(|vector| vector.is_some()).count();
    assert_eq!(connected, 2);
    bed.signal(1);
    assert!(fewer[1].wait(LONG).unwrap());
    assert!(!vectors[1].wait(Duration::ZERO).unwrap(), "the old one is quiet");
    function.interrupts(0).unwrap();
    assert!(bed.state().vectors.iter().all(Option::is_none));
}

#[test]
fn memory_is_shared_by_its_file() {
    let bed = Bed::new();
    let mut function = bed.connect();
    let region = shared_region(1 << 16);
    function.map(&region).unwrap();
    function.map(&region).unwrap();
    {
        let state = bed.state();
        let [map] = state.maps.as_slice() else { panic!("mapped once") };
        assert_eq!((map.iova, map.len), (region.iova().raw(), 1 << 16));
        assert!(map.readable && map.writable);
        let (file, offset) = map.file.as_ref().expect("with its file");
        let words = region.array::<std::sync::atomic::AtomicU32>(2, 4).unwrap();
        words[1].store(77, std::sync::atomic::Ordering::Relaxed);
        let file = std::fs::File::from(file.try_clone().unwrap());
        let mut raw = [0; 4];
        file.read_exact_at(&mut raw, offset + (words.iova().raw() - region.iova().raw()) + 4).unwrap();
        assert_eq!(u32::from_le_bytes(raw), 77);
    }
    // It can ask by message all the same.
    let dma = bed.dma();
    dma.write(region.iova().raw() + 8, &[9], LONG).unwrap();
    let other = shared_region(1 << 16);
    assert_eq!(other.iova(), region.iova());
    let error = function.map(&other).unwrap_err();
    assert!(matches!(&error, BusError::Mapping { action: "map", .. }), "{error}");
    assert!(error.to_string().contains("File exists"), "{error}");
    assert!(matches!(function.unmap(&other), Err(BusError::Mapping { action: "unmap", .. })));
    function.unmap(&region).unwrap();
    assert!(bed.state().maps.is_empty());
    assert_eq!(dma.write(region.iova().raw() + 8, &[9], LONG), Err(DmaError::Refused(Errno::FAULT)));
    drop(function);
}

#[test]
fn memory_without_a_file_is_reached_by_message() {
    let bed = Bed::new();
    let mut function = bed.connect();
    // More than two messages take.
    let region = Region::on_heap(5 << 19, IOVA).unwrap();
    function.map(&region).unwrap();
    assert!(bed.state().maps[0].file.is_none());
    let dma = bed.dma();
    let bytes: Vec<u8> = (0..region.len()).map(|index| index.to_le_bytes()[index % 3]).collect();
    dma.write(IOVA.raw(), &bytes, LONG).unwrap();
    let mut back = vec![0; bytes.len()];
    dma.read(IOVA.raw(), &mut back, LONG).unwrap();
    assert!(back == bytes);
    let refused = Err(DmaError::Refused(Errno::FAULT));
    let end = IOVA.raw() + region.len() as u64;
    assert_eq!(dma.read(end, &mut [0], LONG), refused);
    assert_eq!(dma.read(end - 1, &mut [0; 2], LONG), refused);
    assert_eq!(dma.write(IOVA.raw() - 1, &[0; 2], LONG), refused);
    assert_eq!(dma.read(u64::MAX, &mut [0; 2], LONG), refused);
    // Registers answer while memory is on its way.
    let bar = function.bar(0).unwrap();
    std::thread::scope(|scope| {
        let transfers = scope.spawn(|| {
            for _ in 0..20 {
                dma.write(IOVA.raw(), &bytes, LONG).unwrap();
                dma.read(IOVA.raw(), &mut vec![0; bytes.len()], LONG).unwrap();
            }
        });
        let mut value = 0_u32;
        while !transfers.is_finished() {
            value += 1;
            bar.store(0x40, value);
            assert_eq!(bar.load::<u32>(0x40), value);
        }
    });
    function.unmap(&region).unwrap();
    assert_eq!(dma.read(IOVA.raw(), &mut [0], LONG), refused);
    drop(function);
    assert_eq!(dma.read(IOVA.raw(), &mut [0], LONG), Err(DmaError::Gone));
}

#[test]
fn memory_can_be_kept_from_the_server() {
    let bed = Bed::new();
    let mut function = bed.connect_with(Options { message_dma: true, timeout: LONG, name: Some("card".into()) });
    assert_eq!(function.name(), "card");
    let region = shared_region(4096);
    function.map(&region).unwrap();
    assert!(bed.state().maps[0].file.is_none());
    bed.dma().write(region.iova().raw(), b"by message", LONG).unwrap();
    let mut back = [0; 10];
    bed.dma().read(region.iova().raw(), &mut back, LONG).unwrap();
    assert_eq!(&back, b"by message");
}

#[test]
fn bus_mastering_is_off_and_memory_decoding_on_after_a_reset() {
    let bed = Bed::new();
    let mut function = bed.connect();
    assert_eq!(bed.state().config[4], 2, "memory decoding");
    function.set_bus_master(true).unwrap();
    assert_eq!(bed.state().config[4], 6);
    function.reset().unwrap();
    let seen = |state: &State| (state.config[4] & 6, state.resets);
    assert_eq!(seen(&bed.state()), (2, 1));
    function.write_config(0x40, 0x0102_0304).unwrap();
    assert_eq!(function.read_config(0x40).unwrap(), 0x0102_0304);
    function.set_bus_master(true).unwrap();
    drop(function);
    until("the device is stopped", || bed.state().ends.len() == 1);
    assert_eq!(seen(&bed.state()).1, 2);
    assert_eq!(bed.state().config[4] & 4, 0);
}

#[test]
fn clients_are_served_one_after_the_other() {
    let bed = Bed::new();
    let first = bed.connect();
    let error = Function::connect(&bed.path, Options { timeout: Duration::from_millis(50), ..Options::default() });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("does it serve another client?"), "{error}");
    assert_eq!(bed.state().sessions, 1);
    drop(first);
    let second = bed.connect();
    assert_eq!(second.id().vendor, 0x1234);
    assert_eq!(bed.state().ends.as_slice(), [None], "the first left in good order");
}

#[test]
fn a_server_that_stops_is_a_removed_device() {
    let mut bed = Bed::new();
    let mut function = bed.connect();
    let bar = function.bar(0).unwrap();
    let region = shared_region(4096);
    function.map(&region).unwrap();
    bar.store(0x1000, 5_u32);
    bed.stop();
    until("the shared page is gone", || bar.load::<u32>(0x1000) == u32::MAX);
    assert_eq!(bar.load::<u32>(0x10), u32::MAX);
    bar.store(0x10, 1_u32);
    bar.store(0x1000, 1_u32);
    assert_eq!(bed.shared_word(0x1000), 5);
    assert!(matches!(function.read_config(0), Err(BusError::Gone { .. })));
    assert!(matches!(function.reset(), Err(BusError::Gone { .. })));
    assert!(matches!(function.interrupts(1), Err(BusError::Gone { .. })));
    // By hanging up it has given all memory back.
    function.unmap(&region).unwrap();
    assert!(matches!(function.unmap(&region), Err(BusError::Mapping { .. })));
    assert!(matches!(function.bar(2), Err(BusError::Gone { .. })));
    assert!(!bed.path.exists(), "the server has removed its socket");
}

#[test]
fn a_socket_is_taken_only_from_the_dead() {
    let mut bed = Bed::new();
    let in_use = Server::bind(&bed.path).unwrap_err();
    assert_eq!(in_use, UserError::InUse { path: bed.path.clone() });
    bed.connect();
    bed.stop();
    let folder = tempfile::tempdir().unwrap();
    let stale = folder.path().join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    let server = Server::bind(&stale).unwrap();
    // Somebody puts another file there: it is not ours to remove.
    std::fs::remove_file(&stale).unwrap();
    std::fs::write(&stale, "mine").unwrap();
    drop(server);
    assert_eq!(std::fs::read_to_string(&stale).unwrap(), "mine");
    let error = Server::bind(&stale).unwrap_err().to_string();
    assert!(error.contains("a file that is no socket is in its place"), "{error}");
    let error = Server::bind(folder.path().join("a/b")).unwrap_err().to_string();
    assert!(error.contains("folder does not exist"), "{error}");
    let nobody = Function::connect(folder.path().join("none"), Options::default()).unwrap_err().to_string();
    assert!(nobody.contains("start the server first"), "{nobody}");
}
