//! The ixgbe driver on a card that misbehaves: whatever the card does, the driver neither panics nor hangs nor lends it what
//! is not its own, ends as [`expected`] says, within its deadlines, and works again once the card behaves.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod chaos;
mod ends;
mod every;
mod expected;
mod flows;
mod link;
mod served;
mod socket;
mod strike;
mod watch;
