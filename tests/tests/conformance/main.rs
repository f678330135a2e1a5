//! The conformance suites on models of cards and copy engines: in this process, and over vfio-user sockets.

mod engines;
mod ixgbe;
mod mover;
mod socket;
mod virtio;

use std::process::ExitCode;

use lab::conformance;
use lab::copy_conformance::{self, Rig};
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
    for (name, mut rig) in engines::ioat() {
        copies(&mut suite, &format!("inprocess::{name}"), &mut rig);
    }
    match socket::rigs() {
        Ok(rigs) => {
            for (name, mut rig) in rigs {
                conformance::run(&mut suite, &format!("socket::{name}"), &mut rig);
            }
        }
        Err(error) => suite.check("socket", || Err(error)),
    }
    match socket::ioat() {
        Ok(rigs) => {
            for (name, mut rig) in rigs {
                copies(&mut suite, &format!("socket::{name}"), &mut rig);
            }
        }
        Err(error) => suite.check("socket", || Err(error)),
    }
    suite.finish()
}

/// All checks of a device with copy engines.
fn copies<R: Rig>(suite: &mut Suite, prefix: &str, rig: &mut R) {
    copy_conformance::run(suite, prefix, rig);
    copy_conformance::run_strays(suite, prefix, rig);
}
