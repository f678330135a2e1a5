//! The flow table: from the headers of a packet to what is done with it.
//!
//! A [`FlowKey`] is made of a frame's [`Headers`](crate::headers::Headers). The table brings it to a dense [`FlowIndex`], and what is known of a
//! flow lies in arrays by index: its key, its [`Action`], its [`FlowState`], and one array of [`Counts`] for each engine.
//!
//! One writer, many readers. Control owns the [`Writer`]; each engine owns a [`Reader`]. All look at the same [`Table`], which is made of
//! atomics: readers take no lock and never wait, and the writer never waits for them.
//!
//! - *Look-up* ([`Reader::lookup`]) goes in stages over a whole batch, each of which asks for the memory that the next will read: hash keys, compare
//!   tags, compare keys. Keys in a row that are the same are looked for once. The wide key (3-tuple) comes first, and is skipped as long as no flow has one; then the narrow
//!   key (5-tuple); what is in neither goes up to control.
//! - *Inserting* and *removing* change single entries in place. A key and its action are written before the entry can be found, and never
//!   change while it can. An index is used again only when every reader has said ([`Reader::quiesce`]) that it holds no index from before.
//! - *Changing many flows at once*, growing, and drawing new secret words for the hash ([`Writer::begin`]) build a second table beside the first, a bounded
//!   piece at a time, while flows come and go. It differs in its buckets alone: entries and counts are shared, and an
//!   index means the same flow in both. Each engine takes it between two batches ([`Reader::swap`]), so every packet
//!   sees all of the change or nothing of it; the old one goes back to control, which frees it.
//! - *Expiry*, *eviction* and *quotas* are the writer's, with bounded work a call. Time is an argument, in whatever unit the callers agree on.
//!
//! The hash is a [`KeyedHash`] with secret words, so nobody outside can choose flows that meet in a bucket.

mod action;
mod bucket;
mod grace;
mod hash;
mod key;
#[cfg(all(test, loom))]
mod loom_tests;
mod memory;
mod packed;
mod probe;
mod reader;
mod segment;
mod table;
#[cfg(all(test, not(loom)))]
mod tests;
mod writer;

pub use action::{Action, FlowState, Output, Rewrite, VlanRewrite};
pub use hash::KeyedHash;
pub use key::{Domain, FlowKey, KeyFields};
pub(crate) use packed::PackedAction;
pub use reader::{Lookups, Reader};
pub use segment::Counts;
pub use table::Table;
pub use writer::{Change, Fate, Flow, MOST_FLOWS, Progress, Refused, TableError, Usage, Writer};

/// Where a flow lies in the arrays of the table. A small number, used again after the flow is gone and all readers know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct FlowIndex(u32);

impl FlowIndex {
    /// The index as a number, for arrays beside the table.
    #[must_use]
    #[inline]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// The atomics of the table: the real ones, or loom's when a model is being checked.
mod sync {
    #[cfg(loom)]
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering, fence};
    #[cfg(not(loom))]
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
}
