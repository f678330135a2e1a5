//! Software cards and copy engines, each served at a socket by `mirach device` for a guest to be plugged into.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::process::{Running, bound_to_us};
use crate::{binaries, leftovers, wait};

/// From a word to the process to its effect in what it prints.
const ANSWER: Duration = Duration::from_secs(60);

/// What it prints when a client can connect to a socket.
const READY: &str = "listening";

/// What is in the line that answers to `show`.
const SHOWN: &str = "\"show\"";

/// What a card is to be, in the words of `mirach device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// The chip, and with it what the port is: `x520`, `x540` or `x550`.
    pub chip: &'static str,
    /// Whether its doorbells are memory that driver and card share (`shared`), or registers like all others, each access
    /// to which is a message (`trapped`).
    pub doorbells: &'static str,
    /// Its Ethernet address.
    pub address: &'static str,
}

impl Model {
    /// An 82599 with an SFP+ cage, shared doorbells, and this address.
    #[must_use]
    pub fn x520(address: &'static str) -> Self {
        Self { chip: "x520", doorbells: "shared", address }
    }

    fn arguments(self, wire: &str) -> [&str; 8] {
        ["--wire", wire, "--kind", self.chip, "--doorbells", self.doorbells, "--mac", self.address]
    }
}

/// A process that plays one card, or two cards with a cable between them. Killed on drop.
pub struct Card {
    process: Running,
    words: ChildStdin,
    sockets: Vec<PathBuf>,
    folder: TempDir,
}

impl Card {
    /// A card whose wire is the tap `interface` in `namespace`, which goes with the card.
    ///
    /// # Errors
    ///
    /// It does not come up; the error has what it printed.
    pub fn on_tap(namespace: &Namespace, interface: &str, model: Model) -> Result<Self> {
        let wire = format!("tap={interface}");
        Self::start("ixgbe", 1, &model.arguments(&wire), |words| namespace.command(words))
    }

    /// Two cards whose wires are the two ends of a cable; the address of the second one is the next.
    ///
    /// # Errors
    ///
    /// They do not come up; the error has what the process printed.
    pub fn on_cable(model: Model) -> Result<Self> {
        Self::start("ixgbe", 2, &model.arguments("cable"), here)
    }

    /// A copy engine of a kind, `ioat` or `dsa`, with these arguments for `mirach device`.
    ///
    /// # Errors
    ///
    /// It does not come up; the error has what the process printed.
    pub fn copy_engine(kind: &str, arguments: &[&str]) -> Result<Self> {
        Self::start(kind, 1, arguments, here)
    }

    fn start(kind: &str, sockets: usize, arguments: &[&str], command: impl FnOnce(&[&str]) -> Command) -> Result<Self> {
        let folder = leftovers::folder("card")?;
        let sockets: Vec<PathBuf> = (0..sockets).map(|number| folder.path().join(format!("socket{number}"))).collect();
        // The static binary of the guests: it runs here as well.
        let mut words = vec![text(&binaries::guest("mirach")?)?, "device".to_owned(), kind.to_owned()];
        for socket in &sockets {
            words.extend(["--socket".to_owned(), text(socket)?]);
        }
        words.push("--json".to_owned());
        words.extend(arguments.iter().copied().map(str::to_owned));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let log = File::create(folder.path().join("log"))?;
        let mut command = command(&words);
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().context("cannot start `mirach device`")?;
        let words = child.stdin.take().context("`mirach device` has no standard input")?;
        let mut card = Self { process: Running(child), words, sockets, folder };
        card.expect(0, READY, card.sockets.len())?;
        Ok(card)
    }

    /// Where clients connect, one socket for each card.
    #[must_use]
    pub fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    /// Gives the process a line, such as `link down` or `fault NAME`.
    ///
    /// # Errors
    ///
    /// The process has ended.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let told = writeln!(self.words, "{line}").and_then(|()| self.words.flush());
        told.with_context(|| format!("`mirach device` has ended: {}", self.log()))
    }

    /// What the process knows of its cards now: counters, and what it recorded.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn show(&mut self) -> Result<Value> {
        let from = self.log().len();
        self.tell("show")?;
        self.expect(from, SHOWN, 1)?;
        let log = self.log();
        let line = log.get(from..).unwrap_or_default().lines().find(|line| line.contains(SHOWN)).unwrap_or_default();
        serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))
    }

    /// One of the counters of each of its cards.
    ///
    /// # Errors
    ///
    /// There is none of that name, or the process does not answer.
    pub fn counter(&mut self, name: &str) -> Result<Vec<u64>> {
        let shown = self.show()?;
        let cards = shown["cards"].as_array().context("no cards")?;
        let counter = |card: &Value| card["counters"][name].as_u64();
        cards.iter().map(|card| counter(card).with_context(|| format!("no counter {name} in {card}"))).collect()
    }

    /// Fails when a card recorded DMA outside of what was mapped, or a rule of the datasheet that its driver broke.
    ///
    /// # Errors
    ///
    /// It did, or the process does not answer.
    pub fn recorded_nothing(&mut self) -> Result<()> {
        let shown = self.show()?;
        let cards = shown["cards"].as_array().filter(|cards| !cards.is_empty()).context("no cards")?;
        for card in cards {
            for list in ["dma_faults", "violations"] {
                let entries = card[list].as_array().with_context(|| format!("no {list} in {card}"))?;
                if !entries.is_empty() {
                    bail!("the model recorded {list}: {entries:#?}");
                }
            }
        }
        Ok(())
    }

    /// Stops the process without a word to anybody, or lets it go on.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub fn silence(&self, silent: bool) -> Result<()> {
        let signal = if silent { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(&self.process.0), signal).context("cannot signal `mirach device`")
    }

    /// What it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until `word` is in `count` lines that it printed after the first `from` bytes.
    fn expect(&mut self, from: usize, word: &str, count: usize) -> Result<()> {
        wait::until(&format!("`{word}` from mirach device"), ANSWER, || {
            let log = self.log();
            let found = log.get(from..).unwrap_or_default().lines().filter(|line| line.contains(word)).count();
            if found < count && self.process.has_ended() {
                bail!("it ended");
            }
            Ok((found >= count).then_some(()))
        })
        .with_context(|| self.log())
    }
}

/// A command on this host, in no namespace of its own.
fn here(words: &[&str]) -> Command {
    let (program, arguments) = words.split_first().unwrap_or((&"", &[]));
    let mut command = bound_to_us(Path::new(program));
    command.args(arguments);
    command
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is no UTF-8", path.display()))
}
