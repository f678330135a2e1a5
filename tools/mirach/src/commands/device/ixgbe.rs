//! Software 82599 cards.

use std::process::ExitCode;

use drivers::nic::MacAddress;
use models::card::{self, Control, Options};
use models::ixgbe::{Config, Fault, Ixgbe};
use vfio::user::server::Server;

use super::arguments::{After, IxgbeArguments};
use super::model::{Card, Facts, Model};
use super::wire;

/// Runs the cards.
pub(super) fn execute(arguments: &IxgbeArguments) -> anyhow::Result<ExitCode> {
    let common = &arguments.common;
    let later = match arguments.fault_after {
        Some(After::Time(time)) => Some(time),
        _ => None,
    };
    let fault = arguments.fault;
    let later = later.map(|time| (time, move |control: &Control<Ixgbe>| control.with(|chip, _| chip.set_fault(fault))));
    super::run(common, wire::mistake(&arguments.wires, common.sockets.len()), || plug(arguments), later)
}

/// Makes the cards and serves them.
fn plug(arguments: &IxgbeArguments) -> anyhow::Result<Vec<Card<Ixgbe>>> {
    let first = arguments.mac.unwrap_or(Config::default().mac);
    let macs: Vec<MacAddress> = (0..arguments.common.sockets.len()).map(|number| counted(first, number)).collect();
    // All sockets first: what is most likely to fail costs nothing yet.
    let servers = arguments.common.sockets.iter().map(Server::bind).collect::<Result<Vec<_>, _>>()?;
    let wires = wire::lay(&arguments.wires, &macs)?;
    let mut cards = Vec::with_capacity(servers.len());
    for (((server, laid), mac), socket) in servers.into_iter().zip(wires).zip(macs).zip(&arguments.common.sockets) {
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

impl Model for Ixgbe {
    const HELP: &'static str = "give `fault NAME|none [CARD]`, `link up|down [CARD]`, `show` or `quit`";

    fn obey(control: &Control<Self>, verb: &str, object: &str) -> Result<(), String> {
        match (verb, object) {
            ("fault", "none") => control.with(|chip, _| chip.set_fault(None)),
            ("fault", name) => {
                let fault = name.parse::<Fault>().map_err(|error| error.to_string())?;
                control.with(|chip, _| chip.set_fault(Some(fault)));
            }
            ("link", "up" | "down") => control.with(|chip, _| chip.set_link(object == "up")),
            _ => return Err(format!("`{verb} {object}` is not understood: {}", Self::HELP)),
        }
        Ok(())
    }

    fn facts(card: &Card<Self>) -> Facts {
        let (transmitted, received) = card.served.moved();
        let (link, offloads) = card.control.with(|chip, _| (chip.is_link_up(), chip.offloads()));
        let counters = vec![
            ("tx_frames", transmitted),
            ("rx_frames", received),
            ("interrupts", card.control.interrupts()),
            ("tx_checksums", offloads.tx_checksums),
            ("tx_segmentations", offloads.tx_segmentations),
            ("tx_tags", offloads.tx_tags),
            ("rx_checksums", offloads.rx_checksums),
            ("rx_tags", offloads.rx_tags),
        ];
        Facts { what: "link", state: if link { "up" } else { "down" }.to_owned(), counters }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_count_up() {
        assert_eq!(counted(MacAddress([2, 0, 0, 0, 1, 0xff]), 1), MacAddress([2, 0, 0, 0, 2, 0]));
    }
}
