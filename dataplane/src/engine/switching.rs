//! The switch as an engine runs it.

use std::fmt;
use std::sync::Arc;

use super::peers::Peers;
use crate::bell::Bell;
use crate::switch::{Outputs, Pipeline};

/// Packets that may lie in the outputs for one destination: a batch, and all copies that one may make.
const ROOM: usize = 128 + 1024;

/// What an engine needs to switch: the pipeline, and whom to wake.
pub struct Switching {
    pub(super) pipeline: Pipeline,
    pub(super) outputs: Outputs,
    /// Of the thread that decides on what the pipeline does not know.
    pub(super) control: Arc<Bell>,
    pub(super) peers: Peers,
}

impl Switching {
    /// Switching by `pipeline` between up to `ports` ports. `control` is the bell of the thread that has the other end of the pipeline's rings, `peers` the
    /// way to the other engines.
    #[must_use]
    pub fn new(pipeline: Pipeline, ports: u16, control: Arc<Bell>, peers: Peers) -> Self {
        Self { pipeline, outputs: Outputs::new(ports, ROOM), control, peers }
    }

    /// Publishes its counters.
    pub(super) fn publish(&self) {
        self.pipeline.publish();
    }

    /// Its pipeline.
    pub fn pipeline(&mut self) -> &mut Pipeline {
        &mut self.pipeline
    }
}

impl fmt::Debug for Switching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switching")
            .field("pipeline", &self.pipeline)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}
