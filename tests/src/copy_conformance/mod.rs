//! One conformance suite for every driver of copy engines on every bus, written over [`drivers::copy_engine`] alone.
//!
//! A [`Rig`] opens a device; the checks copy with its engines and look at every byte: those that were to be copied, those beside the targets, and
//! those of jobs that failed or were given back, which nobody may write to any more. Each check opens the device anew. At its end all jobs must have come home, the
//! device must have nothing to complain about, and nothing may be left behind.
//!
//! [`run`] makes all checks but those that reach for memory that is not mapped: these leave a record, with the device and with an IOMMU, so that they are
//! made apart ([`run_strays`]), after it was seen that there was none. [`await_removal`] is for devices that somebody else pulls out.
//!
//! As in the suite for network cards, a check finds out whether the device offers what it is about, and the rig's table has to say so where it does not. A rig
//! is mostly put together from a [`Bus`](crate::conformance::Bus) and a [`Driver`] ([`Engines`]). The suite needs no lab, so that it runs in a guest too.

mod bench;
mod checks;
mod driver;
mod rig;
mod user;

pub use self::checks::await_removal;
pub use self::driver::{Driver, IoatDriver};
pub use self::rig::{Engines, Expected, Plan, Rig};

use crate::conformance::run_checks;
use crate::suite::Suite;

/// Runs the checks that leave nothing on record, under names that begin with `prefix`.
pub fn run<R: Rig>(suite: &mut Suite, prefix: &str, rig: &mut R) {
    let table = rig.expected().not_offered;
    run_checks(suite, prefix, rig, &checks::all(), table);
}

/// Runs the checks that reach for memory that is not mapped.
pub fn run_strays<R: Rig>(suite: &mut Suite, prefix: &str, rig: &mut R) {
    run_checks(suite, prefix, rig, &checks::strays(), &[]);
}
