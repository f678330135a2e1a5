#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    reason = "tests"
)]

mod frames;
mod rig;

mod answers;
mod changes;
mod coprocessors;
mod first_packets;
mod limits;
mod mirrors;
mod ports;
mod questions;
mod tunnels;
