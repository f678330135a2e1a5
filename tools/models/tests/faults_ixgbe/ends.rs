//! A card that confirms no reset, on a bus that can neither reset it nor take memory away: what it was lent stays lent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use drivers::bus::{BusError, PciFunction, PciId};
use hugemem::{IovaRange, Region};
use models::card::{Function, Window};
use models::ixgbe::{self as chip, Doorbells, Fault};

use crate::bench::{Bench, NAME, Plan};
use crate::common::{Memory, Watchdog};
use crate::expected::Kind;

/// A bus that may be powerless.
struct Bus {
    function: Function<chip::Ixgbe>,
    powerless: Arc<AtomicBool>,
}

impl Bus {
    fn can(&self) -> Result<(), BusError> {
        if self.powerless.load(Ordering::Relaxed) {
            return Err(BusError::Missing { device: NAME.to_owned(), missing: "the bus has no power over it".into() });
        }
        Ok(())
    }
}

impl PciFunction for Bus {
    type Bar = Window<chip::Ixgbe>;
    type Interrupt = models::EventInterrupt;

    fn name(&self) -> &str {
        self.function.name()
    }

    fn id(&self) -> PciId {
        self.function.id()
    }

    fn read_config(&self, offset: u16) -> Result<u32, BusError> {
        self.function.read_config(offset)
    }

    fn write_config(&mut self, offset: u16, value: u32) -> Result<(), BusError> {
        self.function.write_config(offset, value)
    }

    fn bar(&mut self, index: u8) -> Result<Self::Bar, BusError> {
        self.function.bar(index)
    }

    fn iova_ranges(&self) -> Result<Vec<IovaRange>, BusError> {
        self.function.iova_ranges()
    }

    fn map(&mut self, region: &Region) -> Result<(), BusError> {
        self.function.map(region)
    }

    fn unmap(&mut self, region: &Region) -> Result<(), BusError> {
        self.can()?;
        self.function.unmap(region)
    }

    fn interrupt_count(&self) -> u16 {
        self.function.interrupt_count()
    }

    fn interrupts(&mut self, count: u16) -> Result<Vec<Self::Interrupt>, BusError> {
        self.function.interrupts(count)
    }

    fn set_bus_master(&mut self, enabled: bool) -> Result<(), BusError> {
        self.function.set_bus_master(enabled)
    }

    fn reset(&mut self) -> Result<(), BusError> {
        self.can()?;
        self.function.reset()
    }
}

/// Under traffic, the card and the bus stop to obey. Packets are underway then.
fn out_of_control() -> (Bench<Bus>, Arc<AtomicBool>) {
    let powerless = Arc::new(AtomicBool::new(false));
    let with = Arc::clone(&powerless);
    let plan = Plan::new(2, Doorbells::Shared);
    let mut bench = Bench::open_on(&plan, |function| Bus { function, powerless: with }).unwrap();
    bench.start().unwrap();
    bench.use_it().unwrap();
    bench.control.with(|chip, _| chip.set_link(false));
    bench.pass(2);
    bench.send(0, 7);
    bench.send(1, 4);
    bench.fault(Some(Fault::ResetNeverDone));
    powerless.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(Kind::of(&bench.stop().unwrap_err(), "stop"), Kind::Timeout);
        assert_eq!(bench.memory.sources.available(), Memory::SENDABLE - 11, "the card may still read them");
        assert_eq!(Kind::of(&bench.start().unwrap_err(), "start"), Kind::Timeout);
        assert!(bench.queues.is_empty());
    }
    (bench, powerless)
}

#[test]
fn what_a_card_out_of_control_was_lent_comes_back_when_it_stops() {
    let _watchdog = Watchdog::new("out of control for a while".to_owned());
    // Either the card obeys again, or the bus does.
    for card in [false, true] {
        let (mut bench, powerless) = out_of_control();
        if card {
            bench.fault(None);
        } else {
            powerless.store(false, Ordering::Relaxed);
        }
        bench.stop().unwrap();
        assert_eq!(bench.memory.sources.available(), Memory::SENDABLE);
        bench.fault(None);
        bench.control.with(|chip, _| chip.set_link(true));
        bench.recovers("back under control");
    }
}

#[test]
fn what_a_card_out_of_control_was_lent_is_never_used_again() {
    let _watchdog = Watchdog::new("out of control for good".to_owned());
    let (bench, _powerless) = out_of_control();
    let Bench { nic, memory, .. } = bench;
    drop(nic);
    memory.is_whole();
    let held: Vec<_> = memory.let_go().into_iter().filter(|(_, watch)| watch.upgrade().is_some()).collect();
    assert!(held.iter().any(|(name, _)| *name == "buffers"), "memory that the card may write to was given away");
}
