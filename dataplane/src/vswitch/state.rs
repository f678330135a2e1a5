//! Everything that the thread owns.

use std::sync::Arc;

use super::capture::{CaptureRequest, RunningCapture};
use super::error::VswitchError;
use super::handle::{Attached, Reply, Shared};
use super::report::{Explanation, FlowFilter, FlowList, VswitchStatistics};
use crate::network::{Brain, Config};
use crate::switch::PortSlot;

/// Everything that the thread owns.
#[derive(Default)]
pub(super) struct State {
    brain: Brain,
}

fn unfinished() -> VswitchError {
    VswitchError::Refused("the switch cannot do this yet".into())
}

impl State {
    pub(super) fn config(&self) -> &Config {
        self.brain.config()
    }

    pub(super) fn plan(&self, config: Config) -> Result<Vec<String>, VswitchError> {
        Ok(self.brain.plan(config)?.lines().to_vec())
    }

    pub(super) fn attach(&mut self, _: String, _: Attached, reply: Reply<PortSlot>) {
        let _ = reply.try_send(Err(unfinished()));
    }

    pub(super) fn detach(&mut self, _: &str) -> Result<(), VswitchError> {
        Err(unfinished())
    }

    pub(super) fn change(
        &mut self,
        _: Box<dyn FnOnce(&mut Config) -> Result<(), String> + Send>,
        reply: Reply<Vec<String>>,
    ) {
        let _ = reply.try_send(Err(unfinished()));
    }

    pub(super) fn flows(&mut self, _: &FlowFilter, _: usize, reply: Reply<FlowList>) {
        let _ = reply.try_send(Err(unfinished()));
    }

    pub(super) fn why(&mut self, _: &str, _: &[u8]) -> Result<Explanation, VswitchError> {
        Err(unfinished())
    }

    pub(super) fn begin_capture(&mut self, _: &CaptureRequest, _: Arc<Shared>) -> Result<RunningCapture, VswitchError> {
        Err(unfinished())
    }

    pub(super) fn statistics(&self) -> VswitchStatistics {
        VswitchStatistics::default()
    }
}
