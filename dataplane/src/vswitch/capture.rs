//! Captures: a tap in each engine, and one place where what they took comes together.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::handle::Shared;
use super::report::CapturedFrame;
use crate::clock::{CycleClock, cycles};
use crate::flow::Domain;
use crate::switch::{Capture, Captured, Point, PortSlot};
use crate::whole;

/// What is to be captured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaptureRequest {
    /// Where in the pipeline.
    pub points: Vec<Point>,
    /// Only what came from this port, or leaves for it.
    pub port: Option<String>,
    /// Only what is in this network.
    pub network: Option<String>,
    /// Bytes of each packet that are kept.
    pub bytes: usize,
}

/// Numbers of captures and traces whose users have gone. The thread ends them when it comes by.
pub(super) type Ended = Mutex<Vec<u32>>;

/// What numbers in captured packets mean, as it was when the capture began.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// Ports by slot.
    pub(super) ports: HashMap<PortSlot, String>,
    /// Networks by the domains that lie in them alone.
    pub(super) networks: HashMap<Domain, String>,
    pub(super) clock: CycleClock,
}

/// A capture that goes on until this is dropped.
pub struct RunningCapture {
    number: u32,
    /// One for each engine.
    captures: Vec<Capture>,
    names: Names,
    /// A cycle, and the time since 1970 then.
    moment: (u64, u64),
    shared: Arc<Shared>,
    /// The engine that is looked at next.
    next: usize,
}

impl RunningCapture {
    pub(super) fn new(number: u32, captures: Vec<Capture>, names: Names, shared: Arc<Shared>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let moment = (cycles(), u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        Self { number, captures, names, moment, shared, next: 0 }
    }

    /// The next packet, if there is one now. Packets of one engine come in order; those of several engines take turns.
    #[expect(clippy::should_implement_trait, reason = "there may be more after there was none")]
    pub fn next(&mut self) -> Option<CapturedFrame> {
        let count = self.captures.len();
        for turn in 0..count {
            let engine = (self.next + turn) % count;
            let Some(capture) = self.captures.get_mut(engine) else { continue };
            if let Ok(captured) = capture.packets.pop() {
                self.next = (engine + 1) % count;
                return Some(self.named(engine, &captured));
            }
        }
        None
    }

    /// Packets that were captured, whether they were asked for already or not.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.captures.iter().map(|capture| capture.counters.taken()).sum()
    }

    /// Packets that were not captured, because nobody asked for the ones before in time.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.captures.iter().map(|capture| capture.counters.missed()).sum()
    }

    /// The switch has ended, and there will be no more packets.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.captures.iter().all(|capture| capture.packets.is_abandoned() && capture.packets.is_empty())
    }

    fn named(&self, engine: usize, captured: &Captured) -> CapturedFrame {
        let mut bytes = vec![0; captured.packet.len()];
        whole::read(&captured.packet, 0, &mut bytes);
        let (cycle, nanoseconds) = self.moment;
        let clock = &self.names.clock;
        let nanoseconds = if captured.cycle >= cycle {
            nanoseconds.saturating_add(clock.nanoseconds(captured.cycle - cycle))
        } else {
            nanoseconds.saturating_sub(clock.nanoseconds(cycle - captured.cycle))
        };
        let name = |slot: PortSlot| self.names.ports.get(&slot).cloned().unwrap_or_else(|| slot.to_string());
        CapturedFrame {
            nanoseconds,
            engine,
            point: captured.point,
            port: name(captured.from),
            to: captured.to.map(name),
            network: self.names.networks.get(&captured.domain).cloned(),
            reason: captured.reason,
            len: captured.len,
            bytes,
        }
    }
}

impl Drop for RunningCapture {
    fn drop(&mut self) {
        self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        self.shared.bell.call();
    }
}

impl fmt::Debug for RunningCapture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningCapture").field("number", &self.number).finish_non_exhaustive()
    }
}
