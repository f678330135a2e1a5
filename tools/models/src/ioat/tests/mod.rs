//! Tests of the engine by a driver of a few lines.
#![allow(clippy::unwrap_used, reason = "tests")]

mod copies;
mod errors;
mod faults;
mod hostile;
mod mini;
mod registers;
mod served;
