//! The chip as a driver sees it.

mod bench;
pub(super) mod frames;
mod interrupts;
mod mini;
mod registers;
mod rings;
