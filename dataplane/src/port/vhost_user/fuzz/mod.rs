//! What fuzzing runs: functions that take any bytes and must come back. `fuzz/` in the workspace's folder gives them to a fuzzer; the tests
//! here give them the same bytes each time.
//!
//! The bytes are a script: what a guest or a VMM does, honest steps mixed with wild ones, so that mutation gets past the first check.
//! A target checks what must hold whatever the script does: it ends, no panic, no bad access, frames have the size of frames,
//! no buffer stays away.

mod input;
mod rings;

pub use rings::{packed_ring, racing_ring, split_ring};

pub use super::session::fuzz::session;
pub(super) use input::Input;

#[cfg(test)]
mod tests;
