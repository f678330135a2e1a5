//! Packets that go up to control and come back, and what else control tells an engine: one ring in each direction.
//!
//! A packet that no flow knows goes up whole as an [`Upcall`] with a number of its own. Control decides, publishes a flow that is *pending* at this
//! engine, and answers through its [`Desk`]: the packet comes back with its action, then the flow is activated. Meanwhile the engine holds what it
//! finds to be of a pending flow. When it learns that the flow is activated, all of the flow's packets that went up have numbers
//! below that of its next upcall; when control has answered these, the held packets go on in order, and the flow is active. Nothing is lost and nothing
//! overtakes.
//!
//! Everything is bounded: the rings, what each port may have with control, the packets and flows that wait, and for how long they do.

mod desk;
mod hold;
mod link;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hugemem::Packet;

use super::capture::Tap;
use super::coprocessor::CoprocessorRings;
use super::layout::Layout;
use super::meter::Rate;
use super::outputs::PortSlot;
use super::trace::Tracer;
use crate::flow::{Action, Domain, FlowIndex, FlowKey, Table};
pub use desk::{Desk, Event, Ticket};
pub(super) use hold::{Held, Hold};
pub(super) use link::Link;

/// Flows that may be activated at an engine at a time; the desk waits with more.
pub(super) const ACTIVATIONS: usize = 8192;
/// Places of the ring to control that only things which control lent may take.
pub(super) const RESERVED: usize = 8;

/// Why a packet went up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    /// No flow knows it.
    Miss,
    /// Its flow's action says so.
    Asked,
    /// Control is to answer it itself.
    Local,
    /// It may take no further hop.
    TimeExceeded,
    /// It is too long for the tunnel, which carries frames of up to so many bytes.
    TooBig(u16),
    /// It came on an underlay port and is not for a tunnel.
    Underlay,
}

/// A packet for control.
#[derive(Debug)]
pub(super) struct Upcall {
    pub(super) sequence: u64,
    pub(super) packet: Packet,
    pub(super) from: PortSlot,
    pub(super) domain: Domain,
    pub(super) key: FlowKey,
    pub(super) why: Why,
    /// Cycle at which it went up.
    pub(super) since: u64,
    /// The coprocessor that it has passed.
    pub(super) done: u16,
}

/// What an engine sends to control.
pub(super) enum Raised {
    /// A packet.
    Upcall(Upcall),
    /// What an order made unnecessary.
    Back(Back),
}

/// What control lent to an engine, and frees.
#[derive(Debug, Default)]
pub struct Back {
    /// The flow table that was replaced.
    pub table: Option<Arc<Table>>,
    /// The layout that was replaced.
    pub layout: Option<Arc<Layout>>,
    /// A capture that ended, or for which there was no room.
    pub tap: Option<Box<Tap>>,
    /// A trace that ended, or for which there was no room.
    pub tracer: Option<Box<Tracer>>,
    /// Rings to a coprocessor that was taken out, or for which there was no room.
    pub coprocessor: Option<Box<CoprocessorRings>>,
}

/// A packet that comes from control.
#[derive(Debug)]
pub(super) struct Injected {
    pub(super) packet: Packet,
    pub(super) action: Action,
    /// The flow that it counts for.
    pub(super) index: Option<FlowIndex>,
    pub(super) from: PortSlot,
    pub(super) domain: Domain,
    /// Cycle at which it went up; `None` when control made it.
    pub(super) since: Option<u64>,
    /// The coprocessor that it had passed before, 0 for none.
    pub(super) done: u16,
}

/// What control asks of an engine.
pub(super) enum Order {
    /// Nothing but to notice what is answered.
    Nothing,
    /// This packet goes on.
    Inject(Injected),
    /// The flow is there, and what the engine holds of it may go when everything before is back.
    Activate(FlowIndex),
    /// From the next batch on these hold.
    Adopt {
        /// The new flow table, if it is another one.
        table: Option<Arc<Table>>,
        /// The new layout, if it is another one.
        layout: Option<Arc<Layout>>,
    },
    /// A meter's limits.
    Meter(u16, Rate),
    /// A capture begins.
    Tap(Box<Tap>),
    /// A trace begins.
    Trace(Box<Tracer>),
    /// The capture or trace of this number ends.
    Untap(u32),
    /// Packets go to this coprocessor from now on.
    Attach(Box<CoprocessorRings>),
    /// No more packets go to the coprocessor of this number.
    Detach(u16),
}

/// An order, and what is answered with it.
pub(super) struct Answer {
    /// All upcalls up to this number are answered, with this order or before.
    pub(super) handled: u64,
    /// The port whose upcall is answered with this order.
    pub(super) settles: Option<PortSlot>,
    pub(super) order: Order,
}

/// What both ends look at.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Activations that the engine is through with.
    settled: AtomicU64,
}

impl Shared {
    fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }
}

/// The two ends of the rings: the engine's and control's. `upcalls` packets may wait for control, and `orders` for the engine.
pub(super) fn rings(upcalls: usize, orders: usize, ports: usize) -> (Link, Desk) {
    let (raise, raised) = rtrb::RingBuffer::new(upcalls + RESERVED);
    let (answer, answers) = rtrb::RingBuffer::new(orders);
    let shared = Arc::new(Shared::default());
    (Link::new(raise, answers, Arc::clone(&shared), ports), Desk::new(raised, answer, shared))
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Miss => "no flow knows it",
            Self::Asked => "its flow's action sends it to control",
            Self::Local => "control answers it",
            Self::TimeExceeded => "its time to live ran out",
            Self::TooBig(most) => return write!(f, "it is longer than the {most} bytes that the tunnel carries"),
            Self::Underlay => "it came on an underlay port, and is not for a tunnel",
        })
    }
}

#[cfg(test)]
mod tests;
