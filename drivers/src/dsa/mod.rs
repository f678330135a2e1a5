//! Intel DSA (Data Streaming Accelerator): a copy engine in Xeon processors from Sapphire Rapids (8086:0b25) on, and in Granite Rapids D (11fb).
//!
//! [`Dsa::open`] takes a device over and makes a [`CopyDevice`](crate::copy_engine::CopyDevice) of it. Its [`Channel`]s are
//! [`CopyEngine`](crate::copy_engine::CopyEngine)s: one work queue is one channel. [`matches()`] tells whether a PCI function is such a device.
//!
//! From bottom to top: `registers` is the table of registers, `status` names what a completion says, `software_error` what SWERR says, `command` is
//! how the device is told what to do, `descriptor` is one copy or one batch in 64 bytes, `queue` knows which of them are whose, `portal` is
//! where they go, `channel` is the copy path, `recovery` mends a queue without blocking anybody, `capabilities` is what the device can do,
//! `layout` writes its configuration, `reset` stops it for good, `report` tells the owner what became of the channels, and `engine` puts it all together.
//!
//! # Order
//!
//! A device may finish descriptors in any order. Each copy has a completion record of its own; only the record of the oldest one that is not
//! settled is looked at, so jobs come back as they were pushed. What is pushed together travels as one batch: one store to the portal.
//!
//! # Trust
//!
//! A record is believed when its status is one that a copy can have. Any other is a lie, after which the work queue is aborted and disabled, and its
//! jobs come back as unproven; so is a record that is written when none is due. A batch that is over with copies in it that said nothing
//! ends the same way. Every wait ends. What cannot be told from the truth: a device that says that a copy which is underway is done and has
//! written other bytes, or none.
//!
//! # Failures
//!
//! A page fault or another error of one copy costs that copy alone: block-on-fault is off, the job comes back as failed, and whoever pushed it does all
//! of it by the processor. Where it faulted is in the [`Record`]. A queue that hangs, loses descriptors (SWERR) or lies is mended here
//! (abort, disable, enable). A device that halts has stopped all queues: its channels are broken until the device is stopped and started.
//!
//! # What it needs and what it leaves out
//!
//! A device that can be configured (GENCAP). No PASID: addresses are those of the device's own domain; the other way in, by Linux' `idxd` driver and virtual
//! addresses, uses [`Queue`] from outside of this crate. A shared work queue needs ENQCMD, which needs a PASID of the process: over kernel VFIO and vfio-user there is none
//! (see [`Bar::can_enqueue`](crate::bus::Bar::can_enqueue)). Fills, comparisons, CRC, DIF, delta records, the event log, and traffic classes are left to others.

mod capabilities;
mod channel;
mod command;
mod descriptor;
mod engine;
mod layout;
mod options;
mod portal;
mod queue;
mod recovery;
mod registers;
mod report;
mod reset;
mod software_error;
mod status;

pub use channel::Channel;
pub use engine::{Dsa, matches};
pub use options::{Config, Summary, Version};
pub use portal::Portal;
pub use queue::{Queue, Shape};
pub use report::{Cause, End, Record, Report};
pub use software_error::SoftwareError;
pub use status::Status;
