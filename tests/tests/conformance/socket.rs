//! Software devices in another process, each behind a vfio-user socket: two 82599 cards that are joined by a cable, or a copy engine.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use hugemem::{IovaSpace, MemoryRequest, PageChoice, Region};
use lab::card::{Card, Model};
use lab::conformance::{Bus, Cards, Expected, IXGBE, Ixgbe, OpenFiles};
use lab::copy_conformance::{self, Engines, IoatDriver};
use vfio::user::{Function, Options};

use crate::engines::{BY_MESSAGE, ENGINES, EXPECTED, LONGEST};

/// The rigs by name: memory that the cards share, and memory that they reach by message.
pub(crate) fn rigs() -> Result<[(&'static str, Cards<Sockets, Ixgbe>); 2]> {
    let rig = |message_dma, expected| -> Result<_> {
        let bus = Sockets::new(|| Card::on_cable(Model::x520("02:1b:21:00:00:01")), message_dma)?;
        Ok(Cards { bus, driver: Ixgbe, expected })
    };
    Ok([
        ("ixgbe", rig(false, IXGBE)?),
        // Each piece of memory is a message to and fro, so the long series are shorter.
        ("ixgbe-messages", rig(true, Expected { frames: 2000, ..IXGBE })?),
    ])
}

/// The rigs of I/OAT by name.
pub(crate) fn ioat() -> Result<[(&'static str, Engines<Sockets, IoatDriver>); 2]> {
    let rig = |message_dma, expected: copy_conformance::Expected| -> Result<_> {
        let card = || {
            let (channels, longest) = (ENGINES.to_string(), LONGEST.to_string());
            Card::copy_engine("ioat", &["--channels", &channels, "--longest", &longest])
        };
        // A process can be kept from answering.
        let expected = copy_conformance::Expected { not_offered: &[], ..expected };
        Ok(Engines { bus: Sockets::new(card, message_dma)?, driver: IoatDriver, expected })
    };
    Ok([
        ("ioat", rig(false, copy_conformance::Expected { fails_alone: false, jobs: 20_000, ..EXPECTED })?),
        ("ioat-messages", rig(true, BY_MESSAGE)?),
    ])
}

/// How long the process may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The bus. Its process is started when the first check asks for it, and plays the same devices for all checks but those that come after they were pulled out.
pub(crate) struct Sockets {
    start: fn() -> Result<Card>,
    message_dma: bool,
    card: Option<Card>,
    /// Where the next memory is.
    space: IovaSpace,
    /// The devices were pulled out, for good.
    is_removed: bool,
    /// What was open when no device was.
    files: OpenFiles,
    /// How much was on each of the process's records when the cards were opened.
    known: BTreeMap<String, usize>,
}

impl Sockets {
    fn new(start: fn() -> Result<Card>, message_dma: bool) -> Result<Self> {
        let (space, files, known) = (IovaSpace::unlimited(), OpenFiles::now()?, BTreeMap::new());
        Ok(Self { start, message_dma, card: None, space, is_removed: false, files, known })
    }

    fn card(&mut self) -> Result<&mut Card> {
        if self.card.is_none() {
            self.card = Some((self.start)()?);
        }
        self.card.as_mut().context("it was just started")
    }

    /// What the cards have on record, by card and kind.
    fn records(&mut self) -> Result<BTreeMap<String, Vec<String>>> {
        let shown = self.card()?.show()?;
        let mut records = BTreeMap::new();
        for (number, card) in shown["cards"].as_array().context("no cards")?.iter().enumerate() {
            for kind in ["dma_faults", "violations"] {
                let entries = card[kind].as_array().with_context(|| format!("no {kind} in {card}"))?;
                records.insert(format!("{kind} of card {number}"), entries.iter().map(ToString::to_string).collect());
            }
        }
        Ok(records)
    }
}

impl Bus for Sockets {
    type Function = Function;

    fn prepare(&mut self) -> Result<()> {
        if self.is_removed {
            (self.card, self.is_removed) = (None, false);
        }
        // Every device of these has an address space of its own.
        self.space = IovaSpace::unlimited();
        self.known = self.records()?.into_iter().map(|(kind, entries)| (kind, entries.len())).collect();
        // What an earlier check that failed left open is not this one's.
        self.files = OpenFiles::now()?;
        Ok(())
    }

    fn memory(&mut self, _: usize, bytes: usize) -> Result<Region> {
        Ok(MemoryRequest { bytes, page: PageChoice::Size4K, node: None }.allocate(&mut self.space)?.region)
    }

    fn function(&mut self, side: usize) -> Result<Function> {
        let message_dma = self.message_dma;
        let path = self.card()?.sockets().get(side).context("two sockets")?.clone();
        Ok(Function::connect(path, Options { name: None, timeout: TIMEOUT, message_dma })?)
    }

    fn set_link(&mut self, side: usize, up: bool) -> Result<bool> {
        let state = if up { "up" } else { "down" };
        self.card()?.tell(&format!("link {state} {side}"))?;
        Ok(true)
    }

    fn remove(&mut self) -> Result<bool> {
        self.card()?.tell("remove all")?;
        self.is_removed = true;
        Ok(true)
    }

    fn silence(&mut self, silent: bool) -> Result<bool> {
        self.card()?.silence(silent)?;
        Ok(true)
    }

    fn complaints(&mut self) -> Result<Vec<String>> {
        let records = self.records()?;
        let new = |(kind, entries): (&String, &Vec<String>)| {
            let known = self.known.get(kind).copied().unwrap_or(0);
            entries.iter().skip(known).map(|entry| format!("{kind}: {entry}")).collect::<Vec<_>>()
        };
        Ok(records.iter().flat_map(new).collect())
    }

    fn leftovers(&mut self) -> Result<Vec<String>> {
        self.files.opened_since()
    }
}
