//! `mirach device`: software cards on vfio-user sockets, for emulators and drivers to be plugged into.

mod arguments;
mod dsa;
mod ioat;
mod ixgbe;
mod model;
mod status;
mod wire;
mod words;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::Context;
use models::card::Control;
use serde_json::{Value, json};

use self::arguments::{CommonArguments, Kind};
use self::model::{Card, Model};
use self::status::Status;
use self::words::Word;
use crate::output;
use crate::signals::Signals;

pub(crate) use self::arguments::DeviceArguments;

/// How long a word on stdin may wait.
const LOOK: Duration = Duration::from_millis(20);

/// Runs the command.
pub(crate) fn execute(device: DeviceArguments) -> anyhow::Result<ExitCode> {
    match device.kind {
        Kind::Ixgbe(arguments) => ixgbe::execute(&arguments),
        Kind::Ioat(arguments) => ioat::execute(&arguments),
        Kind::Dsa(arguments) => dsa::execute(&arguments),
    }
}

/// Something that is done to all cards after a while.
type Later<Deed> = (Duration, Deed);

/// Serves the cards that `plug` makes until it is time to end. `mistake` is what is wrong with the arguments, if anything.
fn run<C: Model>(
    arguments: &CommonArguments,
    mistake: Option<String>,
    plug: impl FnOnce() -> anyhow::Result<Vec<Card<C>>>,
    later: Option<Later<impl Fn(&Control<C>)>>,
) -> anyhow::Result<ExitCode> {
    if let Some(mistake) = mistake.or_else(|| twice(&arguments.sockets)) {
        eprintln!("error: {mistake}");
        return Ok(ExitCode::from(2));
    }
    // Before any thread exists, so that all of them leave the signals to this one.
    let signals = Signals::block().context("cannot block SIGINT and SIGTERM")?;
    let cards = plug()?;
    let ended = announce(&cards, arguments.json).and_then(|()| watch(&cards, &signals, arguments, later));
    signals.release();
    let statuses: Vec<Status> = cards.iter().map(Status::of).collect();
    let mut failed = false;
    for card in cards {
        if let Err(error) = card.served.stop() {
            eprintln!("error: {error}");
            failed = true;
        }
    }
    failed |= ended?;
    show("summary", &statuses, arguments.json)?;
    failed |= arguments.strict && !statuses.iter().all(Status::is_clean);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn twice(sockets: &[PathBuf]) -> Option<String> {
    let repeated = sockets.iter().enumerate().find(|(index, path)| sockets.iter().take(*index).any(|one| one == *path));
    repeated.map(|(_, path)| format!("the socket {} is given twice: each card needs its own", path.display()))
}

/// Says that clients can connect, and how.
fn announce<C: Model>(cards: &[Card<C>], json: bool) -> anyhow::Result<()> {
    for card in cards {
        let socket = card.socket.display().to_string();
        if json {
            let path = std::path::absolute(&card.socket)?;
            output::json(&json!({"type": "listening", "socket": socket, "qemu_device": device(&path)}))?;
        } else {
            output::line(&format!("listening on {socket}"))?;
        }
    }
    if !json {
        let mut text = "QEMU 10.1 or later, with as much memory as you like in both places:\n  qemu-system-x86_64 \
                        -machine q35,memory-backend=ram -m 1G -object memory-backend-memfd,id=ram,size=1G,share=on"
            .to_owned();
        for card in cards {
            let argument = device(&std::path::absolute(&card.socket)?).to_string().replace('\'', r"'\''");
            // Writing to a string cannot fail.
            let _ = write!(text, " \\\n    -device '{argument}'");
        }
        output::line(&text)?;
        output::line(&format!("words on stdin: {}", C::HELP.trim_start_matches("give ").replace('`', "")))?;
    }
    Ok(())
}

/// QEMU's argument for a card.
fn device(socket: &Path) -> Value {
    json!({"driver": "vfio-user-pci", "socket": {"type": "unix", "path": socket.display().to_string()}})
}

/// Until it is time to end. `true` when a card has failed.
fn watch<C: Model>(
    cards: &[Card<C>],
    signals: &Signals,
    arguments: &CommonArguments,
    mut later: Option<Later<impl Fn(&Control<C>)>>,
) -> anyhow::Result<bool> {
    let words = words::listen(C::HELP).context("cannot start a thread for stdin")?;
    let start = Instant::now();
    let end = arguments.seconds.map(Duration::from_secs);
    loop {
        if signals.wait(LOOK).is_some() || end.is_some_and(|end| start.elapsed() >= end) {
            return Ok(false);
        }
        if let Some((_, deed)) = later.take_if(|(time, _)| start.elapsed() >= *time) {
            cards.iter().for_each(|card| deed(&card.control));
        }
        if let Some(card) = cards.iter().find(|card| !card.served.is_alive()) {
            eprintln!("error: {}: the card has ended", card.socket.display());
            return Ok(true);
        }
        if obey(&words, cards, arguments.json)? {
            return Ok(false);
        }
    }
}

/// Does what was said on stdin. `true` when it is to end.
fn obey<C: Model>(words: &Receiver<Result<Word, String>>, cards: &[Card<C>], json: bool) -> anyhow::Result<bool> {
    for word in words.try_iter() {
        let obeyed = match word {
            Ok(Word::Quit) => return Ok(true),
            Ok(Word::Show) => {
                let statuses: Vec<Status> = cards.iter().map(Status::of).collect();
                show("show", &statuses, json)?;
                Ok(())
            }
            Ok(Word::Deed { verb, object, card }) => each(cards, card, |card| C::obey(&card.control, &verb, &object)),
            Err(error) => Err(error),
        };
        if let Err(error) = obeyed {
            eprintln!("error: {error}");
        }
    }
    Ok(false)
}

/// For one card, or for all.
fn each<C>(
    cards: &[Card<C>],
    number: Option<usize>,
    work: impl Fn(&Card<C>) -> Result<(), String>,
) -> Result<(), String> {
    let Some(number) = number else { return cards.iter().try_for_each(work) };
    let card = cards.get(number);
    let none = || format!("there is no card {number}: the first is 0, and there are {}", cards.len());
    card.ok_or_else(none).and_then(work)
}

fn show(kind: &str, statuses: &[Status], json: bool) -> anyhow::Result<()> {
    if json {
        let cards: Vec<Value> = statuses.iter().map(Status::object).collect();
        output::json(&json!({"type": kind, "cards": cards}))?;
    } else {
        statuses.iter().try_for_each(|status| output::line(&status.text()))?;
    }
    Ok(())
}
