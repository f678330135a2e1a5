//! Traces: a tracer in each engine, and one place where what they saw comes together, in words.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::VswitchError;
use super::handle::Shared;
use super::report::{ExplanationStep, TracedPacket};
use super::state::State;
use crate::clock::{CycleClock, cycles};
use crate::switch::{self, Explained, Layout, MOST_TRACERS, PortSlot, Trace, TraceFilter, Traced, Tracer};

/// Packets of each engine that may wait to be asked for.
const ROOM: usize = 256;
/// Most packets a second of each engine.
const MOST_A_SECOND: u32 = 1000;

/// What is to be traced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceRequest {
    /// The port whose packets are followed.
    pub port: String,
    /// Only those from or to this IP address.
    pub address: Option<IpAddr>,
    /// Only those of this IP protocol.
    pub protocol: Option<u8>,
    /// Only those from or to this port of TCP, UDP or SCTP.
    pub transport_port: Option<u16>,
    /// Packets a second that each engine follows, 1 to 1000.
    pub per_second: u32,
}

/// A trace that goes on until this is dropped.
pub struct RunningTrace {
    number: u32,
    /// One for each engine.
    traces: Vec<Trace>,
    layout: Arc<Layout>,
    ports: HashMap<PortSlot, String>,
    clock: CycleClock,
    /// A cycle, and the time since 1970 then.
    moment: (u64, u64),
    shared: Arc<Shared>,
}

impl State {
    /// Begins a trace in all engines.
    pub(super) fn begin_trace(
        &mut self,
        request: &TraceRequest,
        shared: Arc<Shared>,
    ) -> Result<RunningTrace, VswitchError> {
        let TraceRequest { port, address, protocol, transport_port, per_second } = request;
        let (from, _) = self.ports.find(port).ok_or_else(|| VswitchError::NoPort(port.clone()))?;
        if self.traces.len() >= MOST_TRACERS {
            return Err(VswitchError::Trace { most: MOST_TRACERS });
        }
        let number = self.next_capture;
        let clock = self.options.clock;
        let wanted = switch::TraceRequest {
            number,
            from,
            filter: TraceFilter { address: *address, protocol: *protocol, port: *transport_port },
            interval: clock.cycles_per_second() / u64::from((*per_second).clamp(1, MOST_A_SECOND)),
            room: ROOM,
        };
        self.next_capture = number.wrapping_add(1);
        self.traces.push(number);
        let mut traces = Vec::new();
        for engine in 0..self.engines.all.len() {
            let (tracer, trace) = Tracer::new(&wanted);
            if let Some(desk) = self.engines.desk(engine) {
                desk.begin_trace(tracer);
            }
            traces.push(trace);
        }
        let ports = self.ports.iter().map(|(slot, port)| (slot, port.name.clone())).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let moment = (cycles(), u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        Ok(RunningTrace { number, traces, layout: Arc::clone(&self.layout), ports, clock, moment, shared })
    }
}

impl RunningTrace {
    /// The packets that were followed since this was asked last, as they came, at most `most` of them.
    pub fn take(&mut self, most: usize) -> Vec<TracedPacket> {
        let mut taken: Vec<(usize, Traced)> = Vec::new();
        for (engine, trace) in self.traces.iter_mut().enumerate() {
            let packets = std::iter::from_fn(|| trace.packets.pop().ok());
            taken.extend(packets.take(most - taken.len().min(most)).map(|traced| (engine, traced)));
        }
        taken.sort_by_key(|(_, traced)| traced.cycle);
        taken.iter().map(|(engine, traced)| self.in_words(*engine, traced)).collect()
    }

    /// Packets that were followed and are not told, because those before were not asked for in time.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.traces.iter().map(|trace| trace.counters.missed()).sum()
    }

    /// The switch has ended, and there will be no more packets.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.traces.iter().all(|trace| trace.packets.is_abandoned() && trace.packets.is_empty())
    }

    fn in_words(&self, engine: usize, traced: &Traced) -> TracedPacket {
        let name = |slot: PortSlot| self.ports.get(&slot).cloned().unwrap_or_else(|| slot.to_string());
        let (cycle, nanoseconds) = self.moment;
        TracedPacket {
            nanoseconds: if traced.cycle >= cycle {
                nanoseconds.saturating_add(self.clock.nanoseconds(traced.cycle - cycle))
            } else {
                nanoseconds.saturating_sub(self.clock.nanoseconds(cycle - traced.cycle))
            },
            engine,
            came_back: traced.came_back,
            steps: traced.explained(&self.layout).iter().map(|step| named(step, name)).collect(),
            dropped: traced.dropped().map(|reason| reason.name().to_owned()),
        }
    }
}

/// A step with names in the place of slots.
pub(super) fn named(step: &Explained, name: impl Fn(PortSlot) -> String) -> ExplanationStep {
    let mut text = step.text.clone();
    if let Some((before, slot)) = text.split_once("port slot ")
        && let Ok(slot) = slot.parse()
    {
        text = format!("{before}port {}", name(PortSlot(slot)));
    }
    ExplanationStep { element: step.stage.name().to_owned(), text }
}

impl Drop for RunningTrace {
    fn drop(&mut self) {
        self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        self.shared.bell.call();
    }
}

impl fmt::Debug for RunningTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningTrace").field("number", &self.number).finish_non_exhaustive()
    }
}
