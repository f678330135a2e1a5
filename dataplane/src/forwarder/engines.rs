//! Engines: what each serves, and how queues come to them and back.

use std::sync::Arc;

use super::bond::Bond;
use super::{Forwarder, ForwarderError};
use crate::bell::Bell;
use crate::engine::plan::QueueId;
use crate::engine::{Engine, EngineError, Finished, Load, Running};

/// A running engine and what it serves.
pub(super) struct Serving {
    pub(super) running: Running,
    pub(super) number: usize,
    pub(super) core: usize,
    /// The receive queues that it polls.
    pub(super) queues: Vec<QueueId>,
    /// Of these it has something.
    pub(super) bonds: Vec<Bond>,
    /// Of these, it was asked for what it has in vain.
    pub(super) owed: Vec<Bond>,
}

/// A bell for the engine of that number.
pub(super) fn bell(engine: usize) -> Result<Arc<Bell>, EngineError> {
    let bell = Bell::new().map(Arc::new);
    bell.map_err(|source| EngineError::System { engine, action: "make its bell", source })
}

impl Forwarder {
    /// The lowest number that no engine has.
    pub(super) fn free_number(&self) -> usize {
        let taken = |number: &usize| self.engines.iter().any(|serving| serving.number == *number);
        (0..).find(|number| !taken(number)).unwrap_or_default()
    }

    /// The cores that no engine runs on.
    pub(super) fn free_cores(&self) -> Vec<usize> {
        let taken = |core: &usize| self.engines.iter().any(|serving| serving.core == *core);
        self.config.cores.iter().filter(|core| !taken(core)).collect()
    }

    /// Starts an engine on a core that has none. What it was to have is back in the stations if it does not start.
    pub(super) fn start_engine(&mut self, core: usize, bell: Arc<Bell>, load: Load) -> Result<usize, EngineError> {
        let number = self.free_number();
        let copier = self.copying().and_then(|copying| copying.copier(&bell)).map(Box::new);
        let load = Load { copier, ..load };
        let engine = Engine { number, core, config: self.config.engine, load, clock: self.clock, bell };
        match engine.start() {
            Ok(running) => {
                let (queues, bonds, owed) = Default::default();
                self.engines.push(Serving { running, number, core, queues, bonds, owed });
                Ok(number)
            }
            Err((error, finished)) => {
                self.put_back(finished);
                Err(error)
            }
        }
    }

    /// Gives an engine what belongs to `bond`. On failure all of that bond has to be withdrawn.
    pub(super) fn give(&mut self, number: usize, bond: Bond, load: Load) -> Result<(), EngineError> {
        let Some(serving) = self.engines.iter_mut().find(|serving| serving.number == number) else { return Ok(()) };
        let lanes = load.lanes.iter().map(|lane| lane.id());
        let queues: Vec<QueueId> = lanes.chain(load.inputs.iter().map(|input| input.id())).collect();
        // An engine that does not answer may have got it all the same, and is asked for it.
        if !serving.bonds.contains(&bond) {
            serving.bonds.push(bond);
        }
        match serving.running.add(load) {
            Ok(()) => {
                serving.queues.extend(queues);
                Ok(())
            }
            Err((error, finished)) => {
                self.put_back(finished);
                Err(error)
            }
        }
    }

    /// Puts queues into their stations.
    pub(super) fn put_back(&mut self, finished: Finished) {
        if let (Some(copier), Some(copying)) = (finished.copier, self.copying()) {
            copying.take_back(*copier);
        }
        for receiver in finished.receivers {
            if let Some(station) = self.stations.iter_mut().find(|station| station.id == receiver.id.port) {
                station.receivers.insert(receiver.id.queue, receiver);
            }
        }
        for mut transmitter in finished.transmitters {
            if let Some(station) = self.stations.iter_mut().find(|station| station.id == transmitter.id.port) {
                // The next partner may need another one, or none.
                transmitter.pool = None;
                station.transmitters.insert(transmitter.id.queue, transmitter);
            }
        }
    }

    /// Takes back all queues of a bond: what was received is sent. The engines go on with the others'. An engine that is left with nothing
    /// ends. One that does not answer gives the queues back later: see [`Forwarder::tend`].
    pub(super) fn withdraw(&mut self, bond: Bond) {
        // Those that only pass packets on to an engine with a transmit queue come last in, and go first.
        for place in (0..self.engines.len()).rev() {
            let Some(serving) = self.engines.get_mut(place) else { continue };
            if !serving.bonds.contains(&bond) {
                continue;
            }
            match serving.running.remove(bond.ports()) {
                Ok(finished) => {
                    serving.queues.retain(|queue| !bond.contains(queue.port));
                    serving.bonds.retain(|other| *other != bond);
                    serving.owed.retain(|other| *other != bond);
                    self.put_back(finished);
                }
                Err(error @ EngineError::Silent { .. }) => {
                    if !serving.owed.contains(&bond) {
                        tracing::warn!("{error}; its queues are asked for again");
                        serving.owed.push(bond);
                    }
                }
                Err(error) => {
                    self.problems.push(error.into());
                    self.broken = true;
                }
            }
        }
        self.end_idle_engines();
    }

    /// An engine may still have something of the port.
    pub(super) fn is_owed(&self, port: usize) -> bool {
        self.engines.iter().any(|serving| serving.owed.iter().any(|bond| bond.contains(port)))
    }

    /// Takes back what engines gave back after nobody waited for it any more, and asks again for what they still have.
    pub(super) fn recover_queues(&mut self) {
        for place in 0..self.engines.len() {
            let Some(serving) = self.engines.get_mut(place) else { break };
            let late = serving.running.late();
            let again = if serving.running.is_behind() { Vec::new() } else { serving.owed.clone() };
            self.put_back(late);
            for bond in again {
                self.withdraw(bond);
            }
        }
        self.end_idle_engines();
    }

    /// Ends engines that have nothing to do any more.
    pub(super) fn end_idle_engines(&mut self) {
        // The switch has one on every core, always.
        if self.broken || self.switch.is_some() {
            return;
        }
        for serving in self.engines.extract_if(.., |one| one.bonds.is_empty()).collect::<Vec<_>>() {
            self.end_engine(serving);
        }
    }

    /// Stops all engines at once and waits for them: all queues come back.
    pub(super) fn stop_engines(&mut self) {
        let engines = std::mem::take(&mut self.engines);
        for serving in &engines {
            serving.running.ask_to_stop();
        }
        for serving in engines {
            self.end_engine(serving);
        }
    }

    fn end_engine(&mut self, Serving { running, number, bonds, .. }: Serving) {
        let finished = running.stop();
        if let Some(said) = &finished.panic {
            let of_bonds = |id| bonds.iter().any(|bond| bond.contains(id));
            let stations = self.stations.iter().filter(|station| of_bonds(station.id));
            let ports = stations.map(|station| station.name.as_str()).collect::<Vec<_>>().join(" and ");
            self.problems.push(ForwarderError::Panicked { engine: number, ports, said: said.to_string() });
            self.broken = true;
        }
        self.unfinished |= finished.unfinished;
        self.put_back(finished);
    }
}
