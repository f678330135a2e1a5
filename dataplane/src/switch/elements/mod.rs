//! The elements of the pipeline. Each does one thing to a whole batch.

mod coprocessor;
mod decapsulate;
mod encapsulate;
mod look_up;
mod meter;
mod mirror;
mod parse;
mod policy;
mod queue;
mod replicate;
mod rewrite;
mod sample;

use hugemem::PacketPool;

use super::capture::Taps;
use super::coprocessor::Coprocessors;
use super::counters::{SwitchCells, SwitchStatistics};
use super::layout::Layout;
use super::outputs::Outputs;
use super::set::Set;
use super::slots::Slots;
use super::stage::Stage;
pub(super) use coprocessor::HandOver;
pub(super) use decapsulate::Decapsulate;
pub(super) use encapsulate::Encapsulate;
pub(super) use look_up::LookUp;
pub(super) use meter::Metering;
pub(super) use mirror::Mirror;
pub(super) use parse::Parse;
pub(super) use policy::Policy;
pub(super) use queue::Queue;
pub(super) use replicate::{MOST_COPIES, Replicate};
pub(super) use rewrite::Rewriting;
pub(super) use sample::Sample;

/// What elements work with beside the batch.
pub(super) struct Context<'a> {
    /// Cycle at which the batch was received.
    pub(super) now: u64,
    /// The world around.
    pub(super) layout: &'a Layout,
    /// Buffers for copies.
    pub(super) pool: &'a mut PacketPool,
    /// Where packets go.
    pub(super) outputs: &'a mut Outputs,
    /// Rings to coprocessors.
    pub(super) coprocessors: &'a mut Coprocessors,
    /// What is counted.
    pub(super) statistics: &'a mut SwitchStatistics,
    /// Where latencies are noted.
    pub(super) cells: &'a SwitchCells,
    /// Captures.
    pub(super) taps: &'a mut Taps,
}

/// A step of the pipeline.
pub(super) trait Element {
    /// Which one it is.
    const STAGE: Stage;

    /// The packets that it has something to do with.
    fn wanted(&self, slots: &Slots) -> Set;

    /// Does it to the packets in `set`, which is not empty.
    fn process(&mut self, set: Set, slots: &mut Slots, context: &mut Context<'_>);
}
