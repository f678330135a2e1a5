//! Receive and transmit rings.
#![allow(clippy::unwrap_used, reason = "tests")]

mod faults;
mod receive;
mod transmit;
