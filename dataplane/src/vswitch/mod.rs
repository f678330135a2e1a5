//! The thread that is control of the switch: it decides on first packets, makes changes, and knows the answers to questions about all of it.
//!
//! A [`Vswitch`] owns the thread; dropping it ends the thread. The thread owns the [`network::Brain`](crate::network::Brain), the flow table's
//! [`Writer`](crate::flow::Writer), and for each engine the [`Desk`](crate::switch::Desk) at the other end of the engine's
//! [`Pipeline`]. Others ask through [`Handle`]s; their requests are carried out between two of its rounds.
//!
//! A round takes what the engines sent, each in its turn, and then does a bounded piece of whatever takes long: changes, walks over flows that may not be true any
//! more, ageing, answers. When there is nothing it sleeps on its [`Bell`], which engines call, and it calls theirs when they got orders.
//!
//! - *First packets.* A flow is made pending in all engines, the packet is sent back, and then each engine is told that the flow is decided on. So packets that came up
//!   before go first, and an engine has taken the layout that the flow was made for before it uses the flow.
//! - *Packets that wait here* wait for an Ethernet address (of a tunnel's next hop, of a routed packet's destination), for three seconds, or for a change. They
//!   are decided on in their order as if they came then, and flows that are made of them are used when all of them have gone.
//! - *Changes* are made one after another. Whatever can fail comes before anything is changed; then a second table is built by the new rules while engines go on with
//!   the first, and each takes table and layout together. First packets of the networks that change wait meanwhile. Ports that come and go, stations that move, are no
//!   such changes: their flows are walked over and changed one by one.
//! - *Slots* of ports, and their numbers, are used again when no flow names them and all engines know.
//!
//! Nothing here trusts a packet: what packets can make grow has a bound, and each port's packets have one of their own.

mod ageing;
mod answers;
mod capture;
mod captures;
mod change;
mod coprocessors;
mod counters;
mod engines;
mod error;
mod flows;
mod handle;
mod layouts;
mod limits;
mod per_second;
mod ports;
pub mod report;
mod shares;
mod state;
mod statistics;
mod thread;
mod trace;
mod underlay;
mod upcalls;
mod waiting;
mod walk;
mod why;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::thread::JoinHandle;

use hugemem::PacketPool;

pub use capture::{CaptureRequest, RunningCapture};
pub use error::VswitchError;
pub use handle::{Attached, Handle};
pub use trace::{RunningTrace, TraceRequest};

use crate::bell::Bell;
use crate::clock::CycleClock;
use crate::switch::Pipeline;
use handle::Shared;
use state::State;

/// Ports that the switch can have at a time.
pub const MOST_PORTS: u16 = 256;

/// How large the switch is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VswitchOptions {
    /// Engines, which are numbered from 0.
    pub engines: usize,
    /// Flows that the table may grow to.
    pub flows: u32,
    /// How fast the cycle counter runs.
    pub clock: CycleClock,
}

/// The switch's thread.
#[derive(Debug)]
pub struct Vswitch {
    handle: Handle,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Vswitch {
    /// Starts the thread, and gives a pipeline for each engine, in the order of their numbers. `engine_bells` wake the engines, each of `pools` holds copies of one engine's
    /// packets, and `own` the packets that the thread makes.
    ///
    /// # Errors
    /// When there is no memory for the flow table, or no thread.
    pub fn start(
        options: VswitchOptions,
        engine_bells: Vec<Arc<Bell>>,
        pools: Vec<PacketPool>,
        own: PacketPool,
    ) -> Result<(Self, Vec<Pipeline>), VswitchError> {
        let shared = Shared::new().map_err(VswitchError::Start)?;
        let (state, pipelines) = State::new(options, engine_bells, pools, own, Arc::clone(&shared))?;
        let (handle, requests) = Handle::new(Arc::clone(&shared));
        let thread = thread::start(state, requests, Arc::clone(&shared)).map_err(VswitchError::Start)?;
        Ok((Self { handle, shared, thread: Some(thread) }, pipelines))
    }

    /// What engines call when they have something for the thread.
    #[must_use]
    pub fn bell(&self) -> &Arc<Bell> {
        &self.shared.bell
    }

    /// The thread has ended, which it does only by a fault: nobody decides on first packets any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// A way to ask it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Vswitch {
    /// Ends the thread, and waits for it: it is never further away than the end of its round.
    fn drop(&mut self) {
        self.shared.end();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the switch's thread had ended by a fault");
        }
    }
}
