//! One conformance suite for every driver on every bus, written over [`drivers::nic`] alone.
//!
//! A [`Rig`] opens two cards that are joined by a cable; the checks send frames on one and look at what arrives on the other. What a card
//! computes (checksums, segments, hashes) is computed again here, in software that shares nothing with drivers or
//! models. Each check opens the cards anew, and at its end all buffers must have come home, the cards must have nothing to complain about, and
//! nothing may be left behind.
//!
//! A check finds out whether the card offers what it is about. Where a card does not, the rig has to say so in its table
//! ([`Rig::not_offered`]): the check then runs as `NAME-is-not-offered`, and fails when the card offers it after all.
//!
//! A rig is mostly put together from a [`Bus`] and a [`Driver`] ([`Cards`]). The suite needs no lab: the drivers, their memory and the standard library suffice, so that it runs in a guest too.

mod bench;
mod cards;
mod checks;
mod files;
pub mod frame;
mod kernel;
pub(crate) mod patience;
mod rig;
pub mod segment;
pub mod toeplitz;

use anyhow::{Result, bail};

pub use cards::{Bus, Cards, Driver, Expected, IXGBE, Ixgbe, Virtio};
pub use files::OpenFiles;
pub use kernel::Kernel;
pub use rig::{RealTime, Rig};

use crate::suite::Suite;

/// How a check ended that found no fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The card does it right.
    Passed,
    /// The card does not offer what the check is about.
    NotOffered,
}

/// A check by name.
pub(crate) type Check<R> = (&'static str, fn(&mut R) -> Result<Outcome>);

/// Runs all checks on a rig, under names that begin with `prefix`.
pub fn run<R: Rig>(suite: &mut Suite, prefix: &str, rig: &mut R) {
    let table = rig.not_offered();
    run_checks(suite, prefix, rig, &checks::all(), table);
}

/// Runs checks on a rig. Those that the table names must find out that the rig does not offer what they are about, all others that it does.
pub(crate) fn run_checks<R>(
    suite: &mut Suite,
    prefix: &str,
    rig: &mut R,
    checks: &[Check<R>],
    table: &[(&'static str, &'static str)],
) {
    suite.check(&format!("{prefix}::the-table-names-checks"), || {
        match table.iter().find(|(name, _)| !checks.iter().any(|(known, _)| known == name)) {
            Some((name, _)) => bail!("there is no check {name}"),
            None => Ok(()),
        }
    });
    for (name, check) in checks {
        match table.iter().find(|(listed, _)| listed == name) {
            None => suite.check(&format!("{prefix}::{name}"), || match check(rig)? {
                Outcome::Passed => Ok(()),
                Outcome::NotOffered => bail!("the device does not offer it, and the rig's table does not say so"),
            }),
            Some((_, why)) => suite.check(&format!("{prefix}::{name}-is-not-offered"), || match check(rig)? {
                Outcome::NotOffered => Ok(()),
                Outcome::Passed => bail!("the device offers it, though the table says: {why}"),
            }),
        }
    }
}
