//! The drivers of copy engines, I/OAT and DSA, on engines that misbehave: whatever the engine does, each job comes back once and in order, none is called done that
//! is not, nothing is written to memory that was given back, every wait ends, and the engine works again once it behaves.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod dsa;
mod every;
mod honest;
mod lies;
mod socket;
