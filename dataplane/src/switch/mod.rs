//! The switch: a pipeline of elements that takes whole batches from ports to ports by what the flow table says.
//!
//! A [`Pipeline`] belongs to one engine. Each of its elements ([`Stage`]) does one thing to a whole batch, and to those packets only that want it. Packets
//! stay in their places until the last element, [`Stage::Queue`], gives each to the [`Outputs`], to control, to a coprocessor, lets
//! it wait, or drops it under a [`Reason`]; the sums are exact ([`SwitchStatistics::is_balanced`]).
//!
//! What the pipeline does not know goes up: control has a [`Desk`] for each engine, takes packets from it, publishes flows, and sends packets back, in order.
//! Everything else that control decides, the [`Layout`] of ports and tunnels, meters, captures, goes the same way.
//!
//! There are no queues and no threads in here, and no clock: time is an argument. The pipeline allocates nothing, takes no lock and does not call the
//! kernel.

mod capture;
mod coprocessor;
mod copy;
mod counters;
mod elements;
mod explain;
mod layout;
mod meter;
mod nat;
mod outputs;
mod pipeline;
mod reason;
mod rewrite;
mod set;
mod slots;
mod stage;
mod trace;
mod upcall;

pub use capture::{Capture, CaptureCounters, CaptureRequest, Captured, MOST_TAPS, Point, Tap};
pub use coprocessor::{CoprocessorEnd, CoprocessorRings, Handed, INCOMING, MOST_COPROCESSORS};
pub use counters::{Flowing, StageStatistics, SwitchCells, SwitchStatistics};
pub use explain::Explained;
pub use layout::{Layout, MOST_MIRRORS, Member, PortFacts, Target, TunnelTo};
pub use meter::{Demand, METERS, Rate};
pub use nat::{Endpoint, NatTable, Translation};
pub use outputs::{Outputs, PortSlot};
pub use pipeline::{Pipeline, PipelineOptions};
pub use reason::Reason;
pub use set::MOST as MOST_PACKETS;
pub use stage::Stage;
pub use trace::{MOST_TRACERS, Trace, TraceCounters, TraceFilter, TraceRequest, Traced, Tracer};
pub use upcall::{Back, Desk, Event, Ticket, Why};

#[cfg(test)]
mod tests;
