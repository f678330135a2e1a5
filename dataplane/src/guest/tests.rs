//! Guest memory under honest and hostile owners.

#![allow(clippy::unwrap_used, reason = "tests")]

mod files;
mod loss;
mod table;
