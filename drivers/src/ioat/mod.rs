//! Intel I/OAT (QuickData, CBDMA) 3.2 to 3.4: a copy engine in the processors from Broadwell to Ice Lake.
//!
//! [`Ioat::open`] takes an engine over. It is a [`CopyDevice`](crate::copy_engine::CopyDevice) that hands out its [`Channel`]s, which are
//! [`CopyEngine`](crate::copy_engine::CopyEngine)s, and takes them back with all jobs that they still have. [`matches()`] tells
//! whether a PCI function is one.
//!
//! From bottom to top: `registers` is the table of registers, `errors` names what halts a channel, `descriptor` is one copy in memory, `ring` knows
//! which of them are whose, `channel` is the copy path, `recovery` mends a channel without blocking anybody, `reset` stops one for
//! good, `report` tells the owner of the engine what became of its channels, and `engine` puts it all together.
//!
//! Nothing that the engine writes is believed unless it can be true. A completion names the last descriptor that is done; one that names
//! none that is underway is a lie, after which the channel is reset and all jobs come back as unproven. To tell old answers from new ones, at most half of the
//! ring is underway. Every wait ends. What cannot be told from the truth: an engine that says that a copy which is underway is done
//! and has written other bytes, or none.
//!
//! What this driver leaves to others: fills, XOR, P+Q, CRC, DIF, direct cache access.

mod channel;
mod descriptor;
mod engine;
mod errors;
mod options;
mod recovery;
mod registers;
mod report;
mod reset;
mod ring;

pub use channel::Channel;
pub use engine::{Ioat, matches};
pub use errors::Errors;
pub use options::{Config, Summary, Version};
pub use report::Record;
