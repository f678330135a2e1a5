//! Two software 82599 cards in this process, joined by a cable.

use std::sync::Weak;

use anyhow::{Context, Result};
use drivers::nic::MacAddress;
use hugemem::{Iova, Region};
use lab::conformance::{Bus, Cards, Expected, IXGBE, Ixgbe};
use models::card::{self, Control, Function, Options};
use models::ixgbe::{Config, Doorbells, Ixgbe as Chip, Kind, Overrun};
use models::wire::cable;

use crate::mover::Mover;

/// The rigs by name: tail registers that are shared memory, and tail registers of which the card sees every write; a
/// card that makes frames wait on the cable, and a card that drops them; memory at hand, and memory by message.
pub(crate) fn rigs() -> [(&'static str, Cards<InProcess, Ixgbe>); 4] {
    let rig = |change: fn(&mut InProcess), expected| {
        let mut bus = InProcess::default();
        change(&mut bus);
        Cards { bus, driver: Ixgbe, expected }
    };
    [
        ("ixgbe", rig(|_| (), IXGBE)),
        ("ixgbe-trapped", rig(|bus| bus.doorbells = Doorbells::Trapped, IXGBE)),
        ("ixgbe-copper", rig(|bus| (bus.kind, bus.overrun) = (Kind::X540, Overrun::Drop), IXGBE)),
        ("ixgbe-messages", rig(|bus| bus.messages = true, Expected { frames: 5000, ..IXGBE })),
    ]
}

/// The bus.
#[derive(Default)]
pub(crate) struct InProcess {
    kind: Kind,
    doorbells: Doorbells,
    overrun: Overrun,
    messages: bool,
    cards: Option<(Mover, [Control<Chip>; 2])>,
    functions: [Option<Function<Chip>>; 2],
    watches: Vec<(usize, Weak<()>)>,
}

impl InProcess {
    fn controls(&self) -> Result<&[Control<Chip>; 2]> {
        Ok(&self.cards.as_ref().context("the cards are not there")?.1)
    }
}

impl Bus for InProcess {
    type Function = Function<Chip>;

    fn prepare(&mut self) -> Result<()> {
        self.cards = None;
        self.watches.clear();
        let chip = |last| {
            Chip::new(Config {
                kind: self.kind,
                mac: MacAddress([2, 0x1b, 0x21, 0, 0, last]),
                doorbells: self.doorbells,
                overrun: self.overrun,
                ..Config::default()
            })
        };
        let options = |name: &str| Options { message_dma: self.messages, ..Options::named(name) };
        let (left, right) = cable();
        let (first, mut first_card) = card::new(options("left"), chip(1), left)?;
        let (second, mut second_card) = card::new(options("right"), chip(2), right)?;
        let controls = [first_card.control(), second_card.control()];
        let mover = Mover::new(move || !(first_card.poll().is_idle() & second_card.poll().is_idle()));
        self.cards = Some((mover, controls));
        self.functions = [Some(first), Some(second)];
        Ok(())
    }

    fn memory(&mut self, side: usize, bytes: usize) -> Result<Region> {
        let (region, watch) = models::watched_region(bytes, Iova::new(0x1000_0000 * (side as u64 + 1)));
        self.watches.push((side, watch));
        Ok(region)
    }

    fn function(&mut self, side: usize) -> Result<Function<Chip>> {
        self.functions[side].take().context("the card is open")
    }

    fn set_link(&mut self, side: usize, up: bool) -> Result<bool> {
        self.controls()?[side].with(|chip, _| chip.set_link(up));
        Ok(true)
    }

    fn complaints(&mut self) -> Result<Vec<String>> {
        let mut complaints = Vec::new();
        for control in self.controls()? {
            complaints.extend(control.violations());
            complaints.extend(control.faults().iter().map(|fault| format!("{fault:?}")));
        }
        Ok(complaints)
    }

    fn leftovers(&mut self) -> Result<Vec<String>> {
        let mut leftovers = Vec::new();
        for (side, control) in self.controls()?.iter().enumerate() {
            let (regions, vectors) = (control.mapped(), control.enabled_vectors());
            if (regions, vectors) != (0, 0) {
                leftovers.push(format!("side {side}: {regions} maps, {vectors} interrupt vectors"));
            }
        }
        let held = self.watches.iter().filter(|(_, watch)| watch.upgrade().is_some());
        leftovers.extend(held.map(|(side, _)| format!("side {side}: its memory, of which a buffer was lost")));
        Ok(leftovers)
    }
}
