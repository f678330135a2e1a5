//! `mirach device`: software cards on vfio-user sockets, for emulators and drivers to be plugged into.

mod arguments;
mod status;
mod wire;
mod words;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::Context;
use drivers::nic::MacAddress;
use models::card::{self, Options};
use models::ixgbe::{Config, Ixgbe};
use serde_json::{Value, json};
use vfio::user::server::Server;

use self::arguments::{After, IxgbeArguments};
use self::status::{Card, Status};
use self::words::Word;
use crate::output;
use crate::signals::Signals;

pub(crate) use self::arguments::DeviceArguments;

/// How long a word on stdin may wait.
const LOOK: Duration = Duration::from_millis(20);

/// Runs the command.
pub(crate) fn execute(device: DeviceArguments) -> anyhow::Result<ExitCode> {
    let arguments::Chip::Ixgbe(arguments) = device.chip;
    let mistake = wire::mistake(&arguments.wires, arguments.sockets.len());
    if let Some(mistake) = mistake.or_else(|| twice(&arguments.sockets)) {
        eprintln!("error: {mistake}");
        return Ok(ExitCode::from(2));
    }
    // Before any thread exists, so that all of them leave the signals to this one.
    let signals = Signals::block().context("cannot block SIGINT and SIGTERM")?;
    let cards = plug(&arguments)?;
    let ended = announce(&cards, arguments.json).and_then(|()| watch(&cards, &signals, &arguments));
    signals.release();
    let statuses: Vec<Status> = cards.iter().map(Card::status).collect();
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

/// Makes the cards and serves them.
fn plug(arguments: &IxgbeArguments) -> anyhow::Result<Vec<Card>> {
    let first = arguments.mac.unwrap_or(Config::default().mac);
    let macs: Vec<MacAddress> = (0..arguments.sockets.len()).map(|number| counted(first, number)).collect();
    // All sockets first: what is most likely to fail costs nothing yet.
    let servers = arguments.sockets.iter().map(Server::bind).collect::<Result<Vec<_>, _>>()?;
    let wires = wire::lay(&arguments.wires, &macs)?;
    let mut cards = Vec::with_capacity(servers.len());
    for (((server, laid), mac), socket) in servers.into_iter().zip(wires).zip(macs).zip(&arguments.sockets) {
        let mut chip = Ixgbe::new(config(arguments, mac));
        if let Some(After::Frames(frames)) = arguments.fault_after {
            chip.set_fault_after(arguments.fault, frames);
        }
        let name = socket.file_name().map_or_else(|| "ixgbe".into(), |name| name.to_string_lossy().into_owned());
        let served = card::serve(server, Options::named(name), chip, laid.wire)?;
        cards.push(Card { socket: socket.clone(), control: served.control(), served, traffic: laid.traffic });
    }
    Ok(cards)
}

fn config(arguments: &IxgbeArguments, mac: MacAddress) -> Config {
    let [a, b, c, d, e, f] = mac.0;
    Config {
        kind: arguments.kind.into(),
        module: arguments.module.into(),
        doorbells: arguments.doorbells.into(),
        overrun: arguments.overrun.into(),
        mac,
        // As Intel's cards derive it from the address.
        serial: u64::from_be_bytes([a, b, c, 0xff, 0xff, d, e, f]),
        fault: if arguments.fault_after.is_none() { arguments.fault } else { None },
        ..Config::default()
    }
}

/// The address `number` further on.
fn counted(first: MacAddress, number: usize) -> MacAddress {
    let [a, b, c, d, e, f] = first.0;
    let next = u64::from_be_bytes([0, 0, a, b, c, d, e, f]).wrapping_add(number as u64);
    let [_, _, mac @ ..] = next.to_be_bytes();
    MacAddress(mac)
}

/// Says that clients can connect, and how.
fn announce(cards: &[Card], json: bool) -> anyhow::Result<()> {
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
        output::line("words on stdin: fault NAME|none [CARD], link up|down [CARD], show, quit")?;
    }
    Ok(())
}

/// QEMU's argument for a card.
fn device(socket: &Path) -> Value {
    json!({"driver": "vfio-user-pci", "socket": {"type": "unix", "path": socket.display().to_string()}})
}

/// Until it is time to end. `true` when a card has failed.
fn watch(cards: &[Card], signals: &Signals, arguments: &IxgbeArguments) -> anyhow::Result<bool> {
    let words = words::listen().context("cannot start a thread for stdin")?;
    let start = Instant::now();
    let end = arguments.seconds.map(Duration::from_secs);
    let mut fault_at = match arguments.fault_after {
        Some(After::Time(time)) => Some(time),
        _ => None,
    };
    loop {
        if signals.wait(LOOK) || end.is_some_and(|end| start.elapsed() >= end) {
            return Ok(false);
        }
        if fault_at.take_if(|time| start.elapsed() >= *time).is_some() {
            cards.iter().for_each(|card| card.control.with(|chip, _| chip.set_fault(arguments.fault)));
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
fn obey(words: &Receiver<Result<Word, String>>, cards: &[Card], json: bool) -> anyhow::Result<bool> {
    for word in words.try_iter() {
        match word {
            Ok(Word::Quit) => return Ok(true),
            Ok(Word::Show) => {
                let statuses: Vec<Status> = cards.iter().map(Card::status).collect();
                show("show", &statuses, json)?;
            }
            Ok(Word::Fault(fault, number)) => {
                each(cards, number, |card| card.control.with(|chip, _| chip.set_fault(fault)));
            }
            Ok(Word::Link(up, number)) => each(cards, number, |card| card.control.with(|chip, _| chip.set_link(up))),
            Err(error) => eprintln!("error: {error}"),
        }
    }
    Ok(false)
}

/// For one card, or for all.
fn each(cards: &[Card], number: Option<usize>, work: impl Fn(&Card)) {
    match number {
        None => cards.iter().for_each(work),
        Some(number) => match cards.get(number) {
            Some(card) => work(card),
            None => eprintln!("error: there is no card {number}: the first is 0, and there are {}", cards.len()),
        },
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_count_up() {
        assert_eq!(counted(MacAddress([2, 0, 0, 0, 1, 0xff]), 1), MacAddress([2, 0, 0, 0, 2, 0]));
    }
}
