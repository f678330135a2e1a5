//! Whether the card gets on with its queues. What hangs without a sign of its own is found by what does not happen.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::statistics::Statistics;
use crate::health::{self, Health, PATIENCE, Progress, Watch};

/// Watches all queues of a card from its handle, about once a second.
#[derive(Debug)]
pub(super) struct Vigil {
    /// By pair.
    transmit: Vec<Watch>,
    receive: Vec<Watch>,
    /// What receive queues had found when [`Vigil::look`] was called.
    found: Vec<Progress>,
    /// Pause frames that had come when it was last asked.
    paused: u64,
    /// Packets that the card had put into rings by then.
    delivered: i64,
    /// Some of these have not been found in any ring.
    owes: bool,
}

impl Vigil {
    /// For a card with `pairs` queue pairs.
    pub(super) fn new(pairs: u16) -> Self {
        let watches = || alloc::vec![Watch::default(); pairs.into()];
        let found = Vec::with_capacity(pairs.into());
        Self { transmit: watches(), receive: watches(), found, paused: 0, delivered: 0, owes: false }
    }

    /// The card was started anew.
    pub(super) fn restart(&mut self, statistics: &Statistics) {
        self.transmit.fill(Watch::default());
        self.receive.fill(Watch::default());
        self.delivered = statistics.delivered();
        self.owes = false;
    }

    /// To be called before statistics are gathered: what they then count is either found by a later look or missing.
    pub(super) fn look(&mut self, health: &Health) {
        self.found.clear();
        self.found.extend(health.receive_progress());
    }

    /// A sentence about what hangs. `statistics` were gathered after [`Vigil::look`]; `up` tells of the link.
    pub(super) fn ask(&mut self, health: &Health, statistics: &Statistics, up: bool, now: Duration) -> Option<String> {
        let hung = self.transmits(health, statistics, up, now);
        // Both are to be asked, so that none measures from an old question.
        let stalled = self.receives(statistics, now);
        if let Some(pair) = hung {
            return Some(health::hung(pair));
        }
        stalled.then(|| {
            alloc::format!(
                "it hands out nothing: it counts good packets, and for {} s none was in any receive ring; stop and \
                 start the port",
                PATIENCE.as_secs(),
            )
        })
    }

    /// The first transmit queue that hangs.
    fn transmits(&mut self, health: &Health, statistics: &Statistics, up: bool, now: Duration) -> Option<u16> {
        let paused = core::mem::replace(&mut self.paused, statistics.pauses());
        let hung = health::first_hung(&mut self.transmit, health.progress(), now)?;
        if !up || paused != self.paused {
            // Nothing can leave, or the other end asks us to wait: patience starts anew when that ends.
            self.transmit.fill(Watch::default());
            return None;
        }
        Some(hung)
    }

    /// Whether packets came and no receive queue, all of which were looked at, has seen any. The card does not say
    /// for which queue they were.
    fn receives(&mut self, statistics: &Statistics, now: Duration) -> bool {
        let delivered = core::mem::replace(&mut self.delivered, statistics.delivered());
        self.owes |= self.delivered > delivered;
        let (mut hang, mut moved) = (true, false);
        for (watch, progress) in self.receive.iter_mut().zip(&self.found) {
            moved |= watch.moves(*progress);
            hang &= watch.hangs(*progress, now);
        }
        self.owes &= !moved;
        if !self.owes {
            // A quiet wire: patience starts when something comes.
            self.receive.iter_mut().for_each(Watch::forget);
        }
        hang && self.owes
    }
}
