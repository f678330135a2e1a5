//! Tests of the frame, with a chip of a few registers.
#![allow(clippy::unwrap_used, reason = "tests")]

mod served;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drivers::bus::{Bar, Interrupt, PciFunction, PciId};
use hugemem::{Iova, Region};

use super::*;
use crate::memory::{Access, DmaFault};
use crate::wire::Wire;

/// Registers of [`Sender`] on its shared page.
const RING: u32 = 0x1000;
const TAIL: u32 = 0x1004;
/// Elsewhere: counts its reads; and rings vector 1 when written.
const READS: u32 = 0x10;
const BELL: u32 = 0x14;

/// Sends frames: descriptors of 16 bytes (address, length, status) at `RING`, as many as `TAIL` says.
#[derive(Default)]
pub(super) struct Sender {
    head: u32,
    reads: u64,
    hint: Hint,
    trapped: bool,
}

impl Sender {
    fn send(&mut self, bus: &mut Bus, wire: &mut dyn Wire) -> Result<(), Dma> {
        let at = u64::from(bus.register(0, RING)) + 16 * u64::from(self.head);
        let mut descriptor = [0; 16];
        bus.read(&mut self.hint, at, &mut descriptor)?;
        let [address, length] =
            [&descriptor[..8], &descriptor[8..]].map(|part| u64::from_le_bytes(part.try_into().unwrap()));
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        bus.read(&mut Hint::default(), address, &mut frame)?;
        assert!(wire.transmit(&frame));
        bus.write(&mut self.hint, at + 8, &u64::MAX.to_le_bytes())?;
        bus.commit();
        self.head += 1;
        bus.signal(0);
        Ok(())
    }
}

impl Chip for Sender {
    fn layout(&self) -> Layout {
        let window = |bar, bytes| WindowLayout {
            bar,
            bytes,
            wide: true,
            shared: Vec::new(),
            doorbells: Vec::new(),
            trapped: self.trapped,
        };
        Layout {
            id: PciId { vendor: 0x1234, device: 0x5678, class: 0x02_0000, ..PciId::default() },
            windows: vec![
                WindowLayout { shared: std::iter::once(0x1000..0x2000).collect(), ..window(0, 0x2000) },
                window(4, 0x4000),
            ],
            msix_window: 4,
            vectors: 2,
            serial: Some(0x1122_3344_5566_7788),
        }
    }

    fn load(&mut self, bus: &mut Bus, _bar: u8, offset: u32, _bytes: u32) -> u64 {
        self.reads += 1;
        if offset == READS { self.reads } else { bus.register(0, offset).into() }
    }

    fn store(&mut self, bus: &mut Bus, _bar: u8, offset: u32, _bytes: u32, value: u64) {
        match offset {
            BELL => bus.signal(1),
            READS => bus.violation("READS is read-only"),
            _ => bus.set_register(0, offset, u32::try_from(value).unwrap()),
        }
    }

    fn reset(&mut self, bus: &mut Bus) {
        *self = Self { trapped: self.trapped, ..Self::default() };
        bus.set_register(0, RING, 0);
        bus.set_register(0, TAIL, 0);
    }

    fn poll(&mut self, bus: &mut Bus, wire: &mut dyn Wire, _budget: usize) -> Work {
        let mut work = Work::default();
        while self.head < bus.register(0, TAIL) {
            match self.send(bus, wire) {
                Ok(()) => work.transmitted += 1,
                Err(Dma::Refused) => self.head += 1,
                Err(Dma::Pending) => break,
            }
        }
        work
    }
}

#[derive(Default)]
pub(super) struct Sent(Vec<Vec<u8>>);

impl Wire for Sent {
    fn peek(&mut self) -> Option<&[u8]> {
        None
    }

    fn advance(&mut self) {}

    fn transmit(&mut self, frame: &[u8]) -> bool {
        self.0.push(frame.to_vec());
        true
    }
}

const BASE: u64 = 0x10_0000;

fn card(options: Options, chip: Sender) -> (Function<Sender>, Device<Sender, Sent>, Region) {
    let (mut function, device) = new(options, chip, Sent::default()).unwrap();
    let region = Region::on_heap(8192, Iova::new(BASE)).unwrap();
    function.map(&region).unwrap();
    function.set_bus_master(true).unwrap();
    (function, device, region)
}

/// A ring of `count` frames of 8 bytes each, that follow it in memory. Returns the words of ring and frames.
fn ring(region: &Region, count: usize) -> hugemem::DmaArray<AtomicU64> {
    let words = region.array::<AtomicU64>(3 * count, 4096).unwrap();
    for index in 0..count {
        let frame = words.iova().raw() + 16 * count as u64 + 8 * index as u64;
        words[2 * index].store(frame, Ordering::Relaxed);
        words[2 * index + 1].store(8, Ordering::Relaxed);
        words[2 * count + index].store(index as u64, Ordering::Relaxed);
    }
    words
}

fn start(bar: &impl Bar, words: &hugemem::DmaArray<AtomicU64>, count: u32) {
    bar.store(RING, u32::try_from(words.iova().raw()).unwrap());
    bar.publish(TAIL, count);
}

#[test]
fn a_chip_moves_frames_and_signals() {
    for trapped in [false, true] {
        let (mut function, mut device, region) = card(Options::default(), Sender { trapped, ..Sender::default() });
        let (bar, mut interrupts) = (function.bar(0).unwrap(), function.interrupts(2).unwrap());
        let words = ring(&region, 3);
        start(&bar, &words, 3);
        assert_eq!(device.poll().transmitted, 3);
        assert_eq!(device.wire().0, [0_u64, 1, 2].map(|frame| frame.to_le_bytes().to_vec()));
        assert!((0..3).all(|index| words[2 * index + 1].load(Ordering::Acquire) == u64::MAX));
        assert!(interrupts[0].wait(Duration::from_secs(5)).unwrap());
        assert!(!interrupts[1].wait(Duration::ZERO).unwrap());
        bar.store(BELL, 1_u32);
        assert!(interrupts[1].wait(Duration::from_secs(5)).unwrap());
        let control = device.control();
        assert_eq!((control.fault_count(), control.interrupts(), control.enabled_vectors()), (0, 2, 2));
        // Only trapped registers call the chip: two stores, no loads; a load does not look like one of its own.
        assert_eq!(bar.load::<u32>(TAIL), 3);
        assert_eq!(bar.load::<u32>(READS), if trapped { 2 } else { 1 });
    }
}

#[test]
fn memory_by_message_gives_the_same_result_in_more_polls() {
    let options = Options { message_dma: true, ..Options::named("far") };
    let (mut function, mut device, region) = card(options, Sender::default());
    let (bar, mut interrupts) = (function.bar(0).unwrap(), function.interrupts(1).unwrap());
    let words = ring(&region, 3);
    start(&bar, &words, 3);
    assert_eq!(device.poll(), Work { other: true, ..Work::default() });
    let polls = (1..20).find(|_| device.poll().is_idle()).unwrap();
    assert!(polls > 6, "two messages for each frame, not {polls} polls in all");
    assert_eq!(device.wire().0, [0_u64, 1, 2].map(|frame| frame.to_le_bytes().to_vec()));
    assert!((0..3).all(|index| words[2 * index + 1].load(Ordering::Acquire) == u64::MAX));
    assert!(interrupts[0].wait(Duration::from_secs(5)).unwrap());
    assert_eq!(device.control().fault_count(), 0);
    // What the driver has changed since is read again.
    words[6].store(77, Ordering::Relaxed);
    words[1].store(8, Ordering::Relaxed);
    function.reset().unwrap();
    function.set_bus_master(true).unwrap();
    start(&bar, &words, 1);
    while !device.poll().is_idle() {}
    assert_eq!(device.wire().0.last().unwrap(), &77_u64.to_le_bytes());
    function.unmap(&region).unwrap();
    start(&bar, &words, 2);
    while !device.poll().is_idle() {}
    assert_eq!(device.control().fault_count(), 1);
}

#[test]
fn memory_that_is_not_mapped_is_refused_and_recorded() {
    let (mut function, mut device, region) = card(Options::default(), Sender::default());
    let bar = function.bar(0).unwrap();
    let words = ring(&region, 2);
    words[0].store(BASE + 8192 - 4, Ordering::Relaxed);
    start(&bar, &words, 2);
    assert_eq!(device.poll().transmitted, 1);
    let control = function.control();
    assert_eq!(control.faults(), [DmaFault { address: BASE + 8192, bytes: 4, access: Access::Read }]);
    // Without bus mastering nothing happens and nothing is recorded; with the fault everything is.
    function.set_bus_master(false).unwrap();
    bar.store(TAIL, 3_u32);
    assert!(device.poll().is_idle());
    assert_eq!(control.fault_count(), 1);
    function.set_bus_master(true).unwrap();
    control.with(|_, bus| bus.refuse_dma(true));
    bar.store(TAIL, 4_u32);
    assert!(device.poll().is_idle());
    assert_eq!(control.fault_count(), 2);
}

#[test]
fn accesses_across_maps_are_split() {
    let (mut function, device, _region) = card(Options::default(), Sender::default());
    let next = Region::on_heap(4096, Iova::new(BASE + 8192)).unwrap();
    function.map(&next).unwrap();
    let text = *b"across the border";
    device.control().with(|_, bus| {
        bus.write(&mut Hint::default(), BASE + 8192 - 5, &text).unwrap();
        let mut back = [0; 17];
        bus.read(&mut Hint::default(), BASE + 8192 - 5, &mut back).unwrap();
        assert_eq!(back, text);
        let end = BASE + 8192 + 4096 - 5;
        assert_eq!(bus.write(&mut Hint::default(), end, &text), Err(Dma::Refused));
        bus.read(&mut Hint::default(), end, &mut back[..5]).unwrap();
        assert_eq!(&back[..5], &[0; 5], "an access that is refused writes nothing");
    });
}

#[test]
fn a_removed_card_shows_ones() {
    let (mut function, mut device, region) = card(Options::default(), Sender::default());
    let bar = function.bar(0).unwrap();
    let words = ring(&region, 1);
    device.control().remove();
    start(&bar, &words, 1);
    assert!(device.poll().is_idle() && device.wire().0.is_empty());
    assert_eq!((bar.load::<u32>(TAIL), bar.load::<u64>(READS)), (u32::MAX, u64::MAX));
    assert_eq!(function.read_config(0).unwrap(), u32::MAX);
    assert!(matches!(function.reset(), Err(drivers::bus::BusError::Gone { .. })));
}

#[test]
fn dropping_the_function_takes_memory_and_vectors_away() {
    let (mut function, device, region) = card(Options::default(), Sender::default());
    let (bar, interrupts) = (function.bar(0).unwrap(), function.interrupts(2).unwrap());
    start(&bar, &ring(&region, 1), 1);
    drop((function, interrupts));
    let control = device.control();
    assert_eq!((control.mapped(), control.enabled_vectors()), (0, 0));
    assert_eq!(bar.load::<u32>(TAIL), 0, "it was reset");
}

#[test]
fn shared_registers_have_every_width() {
    let (mut function, device, _region) = card(Options::default(), Sender::default());
    let bar = function.bar(0).unwrap();
    bar.store(0x1100, 0x8877_6655_4433_2211_u64);
    assert_eq!(device.control().with(|_, bus| bus.register(0, 0x1104)), 0x8877_6655);
    assert_eq!((bar.load::<u8>(0x1103), bar.load::<u16>(0x1102)), (0x44, 0x4433));
    bar.store(0x1101, 0xaa_u8);
    bar.store(0x1106, 0xbbcc_u16);
    assert_eq!(bar.load::<u64>(0x1100), 0xbbcc_6655_4433_aa11);
    assert_eq!((bar.load::<u32>(0x1102), bar.load::<u32>(0x2000)), (u32::MAX, u32::MAX), "misaligned, outside");
}

#[test]
fn configuration_space_is_that_of_a_pci_express_endpoint() {
    let (mut function, device, _region) = card(Options::default(), Sender::default());
    assert_eq!(function.read_config(0).unwrap(), 0x5678_1234);
    // Sizing of windows, of which 0 and 4 are wide.
    for (register, size) in [(0x10, 0xffff_e00c), (0x14, u32::MAX), (0x18, 0), (0x20, 0xffff_c00c), (0x24, u32::MAX)] {
        function.write_config(register, u32::MAX).unwrap();
        assert_eq!(function.read_config(register).unwrap(), size, "{register:#x}");
    }
    let mut found = Vec::new();
    let mut at = function.read_config(0x34).unwrap() & 0xff;
    while at != 0 {
        let word = function.read_config(u16::try_from(at).unwrap()).unwrap();
        found.push((word & 0xff, at));
        at = word >> 8 & 0xff;
    }
    assert_eq!(found, [(0x01, 0x40), (0x11, 0x70), (0x10, 0xa0)]);
    assert_eq!(function.read_config(0x70).unwrap() >> 16, 1, "two vectors");
    assert_eq!(function.read_config(0x104).unwrap(), 0x5566_7788);
    // A function level reset through Device Control.
    function.bar(0).unwrap().store(TAIL, 9_u32);
    assert!(device.control().with(|_, bus| bus.is_master()));
    function.write_config(0xa8, 0x8000).unwrap();
    assert_eq!(function.bar(0).unwrap().load::<u32>(TAIL), 0);
    assert!(!device.control().with(|_, bus| bus.is_master()));
    assert_eq!(function.read_config(0xa8).unwrap() & 0x8000, 0, "the bit reads 0");
}

#[test]
fn time_can_pass_by_polls_alone() {
    let options = Options { time: Time::PerPoll(Duration::from_millis(1)), ..Options::default() };
    let (function, mut device, _region) = card(options, Sender::default());
    (0..7).for_each(|_| assert!(device.poll().is_idle()));
    assert_eq!(function.control().with(|_, bus| bus.now()), Duration::from_millis(7));
}
