//! The session with a VMM: the back-end of the vhost-user protocol.
//!
//! Each port has one thread ([`thread`]) that serves one peer after the other, from whichever side the connection came ([`endpoint`]).
//! What a peer sends is put together ([`wire`]), checked and acted on ([`state`], [`rings`], [`memory`]); what it is told about is the
//! [`device`]. The queues themselves are with engines: the session starts and stops the rings behind them.
//!
//! The types of messages come from the `vhost` crate. The loop is our own: that crate's ends the session at messages which have to be answered,
//! and waits without a deadline.
//!
//! A peer is trusted with nothing. Sizes are checked before room is made, geometry is frozen while a ring runs, files have to be
//! what they should be, every wait has a deadline. What a peer may be told of ([`Breach::is_refusal`]) is refused and changes nothing, if it asked to
//! hear of it; anything else ends its session, and afterwards everything is as before it came. All this thread can do to the others is wait.

mod announce;
mod arguments;
mod breach;
mod config;
mod control;
mod device;
mod endpoint;
mod features;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod limit;
mod memory;
mod pace;
mod rings;
mod socket;
mod state;
mod thread;
mod wire;

pub use arguments::arguments;
use breach::Breach;
pub use control::{open, open_with};
