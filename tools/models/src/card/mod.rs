//! What all chips have in common: a card with a chip on it, plugged into a bus on one side and a wire on the other.
//!
//! A chip's model implements [`Chip`]. [`new`] makes a card of it, in two halves: [`Function`] is the PCI function for a driver in this
//! process, [`Device`] is polled to move the card on, from whichever thread. [`serve`] makes one for the clients of a vfio-user socket, on threads of its own.
//! [`Control`] looks into the card and meddles with it.
//!
//! # Registers
//!
//! Pages of registers without side effects are shared memory ([`WindowLayout::shared`]): driver and chip look at the same words, without lock
//! and without call. Any other access takes the card's lock and calls the chip, but for 64 bytes that are written at once: they are posted, in order
//! with all other accesses, so that a driver does not wait while the chip moves bytes.
//!
//! # Memory
//!
//! [`Bus::read`] and [`Bus::write`] reach what was mapped for the card. Everything else is refused and recorded. A client may
//! have memory that it does not share; its bytes travel by message, and nobody waits for them while the card is locked:
//!
//! 1. A read of such memory gives [`Dma::Pending`]. The chip gives the piece of work up without a change of state.
//! 2. The poll ends, the card is unlocked, the bytes are fetched, and kept.
//! 3. At the next poll the chip begins again and finds them. When the piece is done it says so: [`Bus::commit`].
//!
//! Writes by message go out in order after the poll, and interrupts after them.
//!
//! # Time
//!
//! A card's time passes as it does, or with each poll alone ([`Time`]), so that a test can be the same each time.
//!
//! # What it does not do
//!
//! Pins (INTx), power management beyond the registers, virtual functions.

mod bus;
mod chip;
mod config_space;
mod core;
mod device;
mod errands;
mod function;
mod idle;
mod options;
mod registers;
mod remote;
mod running;
mod serve;

pub use bus::{Bus, Dma};
pub use chip::{BlockWrite, Chip, Layout, WindowLayout, Work};
pub use device::{Control, Device, new};
pub use function::{Function, Window};
pub use options::{Options, Time};
pub use running::Running;
pub use serve::{Served, serve};

pub use crate::memory::Hint;

#[cfg(test)]
mod tests;
