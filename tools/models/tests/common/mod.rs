//! What the suites share: memory that is watched and guarded, frames, an end to what hangs, and the bench for virtio-net.
#![allow(dead_code, unused_imports, reason = "each suite uses a part")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod frames;
mod memory;
pub(crate) mod virtio;
mod watchdog;

pub(crate) use frames::{frame, look_at};
pub(crate) use memory::Memory;
pub(crate) use watchdog::Watchdog;

/// Room of each buffer.
pub(crate) const ROOM: usize = 2048;
