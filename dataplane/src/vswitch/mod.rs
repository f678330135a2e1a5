//! The thread that is control of the switch: it decides on first packets, makes changes, and knows the answers to questions about all of it.
//!
//! A [`Vswitch`] owns the thread; dropping it ends the thread. The thread owns the [`network::Brain`](crate::network::Brain), the flow table's
//! [`Writer`](crate::flow::Writer), and for each engine the [`Desk`](crate::switch::Desk) at the other end of the engine's
//! [`Pipeline`]. Others ask through [`Handle`]s; their requests are carried out between two of its rounds.

mod capture;
mod error;
mod handle;
pub mod report;
mod state;

use std::sync::Arc;

use hugemem::PacketPool;

pub use capture::{CaptureRequest, RunningCapture};
pub use error::VswitchError;
pub use handle::{Attached, Handle};

use crate::bell::Bell;
use crate::clock::CycleClock;
use crate::switch::Pipeline;

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
    bell: Arc<Bell>,
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
        let _ = (options, engine_bells, pools, own);
        Err(VswitchError::Gone)
    }

    /// What engines call when they have something for the thread.
    #[must_use]
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// A way to ask it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}
