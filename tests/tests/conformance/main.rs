//! The conformance suite on models of cards: in this process, and over vfio-user sockets.

mod ixgbe;
mod mover;
mod socket;
mod virtio;

use std::process::ExitCode;

use lab::conformance;
use lab::suite::Suite;

fn main() -> ExitCode {
    lab::leftovers::remove();
    let mut suite = Suite::from_arguments();
    for (name, mut rig) in virtio::rigs() {
        conformance::run(&mut suite, &format!("inprocess::{name}"), &mut rig);
    }
    for (name, mut rig) in ixgbe::rigs() {
        conformance::run(&mut suite, &format!("inprocess::{name}"), &mut rig);
    }
    match socket::rigs() {
        Ok(rigs) => {
            for (name, mut rig) in rigs {
                conformance::run(&mut suite, &format!("socket::{name}"), &mut rig);
            }
        }
        Err(error) => suite.check("socket", || Err(error)),
    }
    suite.finish()
}
