//! A card on a socket, and a driver at the other end.

use std::time::Instant;

use drivers::bus::BusError;
use hugemem::{IovaSpace, MemoryRequest, PageChoice};
use vfio::user::server::Server;
use vfio::user::{Function, Options as ClientOptions};

use super::*;
use crate::wire::{CableEnd, cable};

fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "nothing happens any more");
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Bed {
    served: Served<Sender>,
    wire: CableEnd,
    path: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl Bed {
    fn new(chip: Sender) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("card");
        let (near, wire) = cable();
        let served = serve(Server::bind(&path).unwrap(), Options::named("served"), chip, near).unwrap();
        Self { served, wire, path, _folder: folder }
    }

    fn plug(&self, message_dma: bool) -> Function {
        Function::connect(&self.path, ClientOptions { message_dma, ..ClientOptions::default() }).unwrap()
    }

    fn receive(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        until(|| {
            while let Some(frame) = self.wire.peek() {
                frames.push(frame.to_vec());
                self.wire.advance();
            }
            frames.len() >= count
        });
        frames
    }
}

fn memory() -> Region {
    let request = MemoryRequest { bytes: 1 << 16, page: PageChoice::Size4K, node: None };
    request.allocate(&mut IovaSpace::unlimited()).unwrap().region
}

#[test]
fn a_driver_uses_a_card_at_the_other_end_of_a_socket() {
    for (trapped, message_dma) in [(false, false), (true, false), (false, true)] {
        let mut bed = Bed::new(Sender { trapped, ..Sender::default() });
        let control = bed.served.control();
        for round in 1..=2 {
            let mut function = bed.plug(message_dma);
            assert_eq!((function.id().device, function.interrupt_count()), (0x5678, 2));
            let region = memory();
            function.map(&region).unwrap();
            function.set_bus_master(true).unwrap();
            let (bar, mut interrupts) = (function.bar(0).unwrap(), function.interrupts(2).unwrap());
            let words = ring(&region, 5);
            start(&bar, &words, 5);
            assert_eq!(bed.receive(5), [0_u64, 1, 2, 3, 4].map(|frame| frame.to_le_bytes().to_vec()));
            assert!(interrupts[0].wait(Duration::from_secs(20)).unwrap(), "trapped {trapped} messages {message_dma}");
            until(|| words[9].load(Ordering::Acquire) == u64::MAX);
            bar.store(BELL, 1_u32);
            assert!(interrupts[1].wait(Duration::from_secs(20)).unwrap());
            assert_eq!(control.fault_count(), 0);
            assert_eq!(bed.served.moved(), (5 * round, 0));
            function.reset().unwrap();
            assert_eq!((bar.load::<u32>(TAIL), control.mapped()), (0, 1));
            drop((bar, interrupts, function));
            until(|| (control.mapped(), control.enabled_vectors()) == (0, 0));
        }
        let path = bed.path.clone();
        assert!(bed.served.is_alive());
        bed.served.stop().unwrap();
        assert!(!path.exists());
    }
}

#[test]
fn an_access_to_memory_that_the_client_did_not_map_is_recorded() {
    for message_dma in [false, true] {
        let bed = Bed::new(Sender::default());
        let control = bed.served.control();
        let mut function = bed.plug(message_dma);
        let region = memory();
        function.map(&region).unwrap();
        function.set_bus_master(true).unwrap();
        let words = ring(&region, 1);
        let nowhere = region.iova().raw() + region.len() as u64;
        words[0].store(nowhere, Ordering::Relaxed);
        start(&function.bar(0).unwrap(), &words, 1);
        until(|| control.fault_count() == 1);
        assert_eq!(control.faults(), [DmaFault { address: nowhere, bytes: 8, access: Access::Read }]);
        // What was mapped, and is no longer.
        function.unmap(&region).unwrap();
        function.bar(0).unwrap().store(TAIL, 2_u32);
        until(|| control.fault_count() == 2);
    }
}

#[test]
fn a_card_that_is_pulled_out_is_gone_for_the_client() {
    let bed = Bed::new(Sender::default());
    let mut function = bed.plug(false);
    function.map(&memory()).unwrap();
    let bar = function.bar(0).unwrap();
    assert_eq!(bar.load::<u32>(TAIL), 0);
    let control = bed.served.control();
    control.remove();
    assert_eq!((bar.load::<u32>(TAIL), bar.load::<u32>(READS)), (u32::MAX, u32::MAX));
    assert!(matches!(function.reset(), Err(BusError::Gone { .. } | BusError::System { .. })));
    drop(function);
    until(|| control.mapped() == 0);
    assert_eq!(control.with(|_, bus| bus.register(0, TAIL)), u32::MAX, "nobody plugs it in again");
}
