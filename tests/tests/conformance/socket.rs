//! Two software 82599 cards in another process, each behind a vfio-user socket, joined by a cable.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use hugemem::{IovaSpace, MemoryRequest, PageChoice, Region};
use lab::card::{Card, Model};
use lab::conformance::{Bus, Cards, Expected, IXGBE, Ixgbe, OpenFiles};
use vfio::user::{Function, Options};

/// The rigs by name: memory that the cards share, and memory that they reach by message.
pub(crate) fn rigs() -> Result<[(&'static str, Cards<Sockets, Ixgbe>); 2]> {
    let rig =
        |message_dma, expected| -> Result<_> { Ok(Cards { bus: Sockets::new(message_dma)?, driver: Ixgbe, expected }) };
    Ok([
        ("ixgbe", rig(false, IXGBE)?),
        // Each piece of memory is a message to and fro, so the long series are shorter.
        ("ixgbe-messages", rig(true, Expected { frames: 2000, ..IXGBE })?),
    ])
}

/// The bus. Its process is started when the first check asks for it, and plays the same cards for all checks.
pub(crate) struct Sockets {
    message_dma: bool,
    card: Option<Card>,
    /// What was open when no card was.
    files: OpenFiles,
    /// How much was on each of the process's records when the cards were opened.
    known: BTreeMap<String, usize>,
}

impl Sockets {
    fn new(message_dma: bool) -> Result<Self> {
        Ok(Self { message_dma, card: None, files: OpenFiles::now()?, known: BTreeMap::new() })
    }

    fn card(&mut self) -> Result<&mut Card> {
        if self.card.is_none() {
            self.card = Some(Card::on_cable(Model::x520("02:1b:21:00:00:01"))?);
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
        self.known = self.records()?.into_iter().map(|(kind, entries)| (kind, entries.len())).collect();
        // What an earlier check that failed left open is not this one's.
        self.files = OpenFiles::now()?;
        Ok(())
    }

    fn memory(&mut self, _: usize, bytes: usize) -> Result<Region> {
        // Every card of these has an address space of its own.
        let mut space = IovaSpace::unlimited();
        Ok(MemoryRequest { bytes, page: PageChoice::Size4K, node: None }.allocate(&mut space)?.region)
    }

    fn function(&mut self, side: usize) -> Result<Function> {
        let message_dma = self.message_dma;
        let path = self.card()?.sockets().get(side).context("two sockets")?.clone();
        Ok(Function::connect(path, Options { message_dma, ..Options::default() })?)
    }

    fn set_link(&mut self, side: usize, up: bool) -> Result<bool> {
        let state = if up { "up" } else { "down" };
        self.card()?.tell(&format!("link {state} {side}"))?;
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
