//! Coprocessors come and go with the configuration: before any flow names one, all engines have it, and it goes when none does any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use hugemem::{Iova, Region};

use super::error::VswitchError;
use super::report::CoprocessorReport;
use super::state::State;
use crate::bell::Bell;
use crate::coprocessor::{Coprocessor, Side, Work};
use crate::network::Change;
use crate::switch::CoprocessorRings;

/// Buffers of each engine for the packets of one coprocessor, and bytes of one.
const BUFFERS: usize = 1024;
const ROOM: usize = 2048;

/// The coprocessors that run, by number.
#[derive(Default)]
pub(super) struct Coprocessors(BTreeMap<u16, Running>);

struct Running {
    port: String,
    work: Work,
    coprocessor: Coprocessor,
}

/// A coprocessor that no engine knows yet.
pub(super) struct Prepared {
    number: u16,
    running: Running,
    /// For each engine.
    #[expect(clippy::vec_box, reason = "they go to their engines in these boxes")]
    rings: Vec<Box<CoprocessorRings>>,
}

impl State {
    /// Starts the coprocessors that a change brings.
    pub(super) fn start_coprocessors(&self, change: &Change) -> Result<Vec<Prepared>, VswitchError> {
        let wanted =
            change.topology().coprocessors.iter().filter(|(number, _)| !self.coprocessors.0.contains_key(number));
        let prepare = |(number, wanted): (&u16, &crate::network::topology::Coprocessing)| {
            let fails = |reason: String| VswitchError::Coprocessor { port: wanted.port.clone(), reason };
            let bell = Arc::new(Bell::new().map_err(|error| fails(error.to_string()))?);
            let (mut rings, mut sides) = (Vec::new(), Vec::new());
            for engine in 0..self.engines.all.len() {
                let size = BUFFERS * (ROOM + hugemem::HEADROOM) + ROOM;
                let pool = Region::on_heap(size, Iova::new(0)).and_then(|region| region.packets(BUFFERS, ROOM));
                let pool = pool.map_err(|error| fails(format!("there is no memory for it: {error}")))?;
                let Some(own) = self.engines.bell(engine) else { continue };
                let (made, end) = CoprocessorRings::new(*number, pool, Arc::clone(&bell));
                rings.push(made);
                sides.push(Side { end, bell: Arc::clone(own) });
            }
            let work = wanted.work.clone();
            let coprocessor = Coprocessor::start(&wanted.port, bell, sides, work.clone());
            let coprocessor = coprocessor.map_err(|error| fails(error.to_string()))?;
            let running = Running { port: wanted.port.clone(), work, coprocessor };
            Ok(Prepared { number: *number, running, rings })
        };
        wanted.map(prepare).collect()
    }

    /// Tells the engines of coprocessors, before they hear of flows that name them.
    pub(super) fn attach_coprocessors(&mut self, prepared: Vec<Prepared>) {
        for Prepared { number, running, rings } in prepared {
            for (engine, rings) in rings.into_iter().enumerate() {
                if let Some(desk) = self.engines.desk(engine) {
                    desk.attach_coprocessor(rings);
                }
            }
            self.coprocessors.0.insert(number, running);
        }
    }

    /// Ends the coprocessors that the configuration does not have any more, now that engines were told of flows without them, and tells the others what to do.
    pub(super) fn settle_coprocessors(&mut self) {
        let wanted = &self.brain.topology().coprocessors;
        for (number, running) in &mut self.coprocessors.0 {
            if let Some(wanted) = wanted.get(number)
                && wanted.work != running.work
            {
                running.work = wanted.work.clone();
                running.coprocessor.set(wanted.work.clone());
            }
        }
        let gone: Vec<u16> =
            self.coprocessors.0.keys().filter(|number| !wanted.contains_key(number)).copied().collect();
        for number in gone {
            // What is with it is lost.
            self.coprocessors.0.remove(&number);
            self.engines.detach_coprocessor(number);
        }
    }

    pub(super) fn coprocessor_reports(&self) -> Vec<CoprocessorReport> {
        let report = |(number, running): (&u16, &Running)| {
            let done = running.coprocessor.done();
            CoprocessorReport {
                number: *number,
                port: running.port.clone(),
                running: !running.coprocessor.has_ended(),
                packets: done.packets,
                bytes: done.bytes,
                denied: done.denied,
                overflowed: done.overflowed,
                waiting: done.waiting,
                cpu_nanoseconds: done.cpu_nanoseconds,
            }
        };
        self.coprocessors.0.iter().map(report).collect()
    }
}
