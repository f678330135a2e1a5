//! A port in a forwarder.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::plan::QueueId;
use crate::engine::{Receiver, Transmitter};
use crate::port::{NamedSpec, Port, PortControl, PortError, PortKind, PortQueue};
use crate::stats::{PortCells, PortStatistics};

/// A port that fails once more after so many restarts within [`RESTART_WINDOW`] is given up.
const RESTARTS: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// A port. Its queues are with the engines while it is joined to another.
pub(super) struct Station {
    /// Its number, which no other port ever had or will have.
    pub(super) id: usize,
    pub(super) name: String,
    pub(super) kind: PortKind,
    /// What the user wrote.
    pub(super) spec: Option<NamedSpec>,
    pub(super) control: Box<dyn PortControl>,
    /// Queue pairs.
    pub(super) queues: usize,
    /// Nothing will ever be received from it.
    pub(super) silent: bool,
    /// It is stopped for good: at the end, or because it failed and did not come back.
    pub(super) stopped: bool,
    pub(super) cells: Arc<PortCells>,
    /// What its device had counted when it was asked last.
    pub(super) device: Vec<(&'static str, u64)>,
    /// Halves of queue pairs that no engine has, by index.
    pub(super) receivers: BTreeMap<usize, Receiver>,
    pub(super) transmitters: BTreeMap<usize, Transmitter>,
    /// When it was started anew, as far as that counts for [`RESTARTS`].
    restarts: Vec<Instant>,
}

impl Station {
    pub(super) fn new(id: usize, port: Port, spec: Option<NamedSpec>) -> Self {
        let Port { name, kind, mut queues, control, .. } = port;
        let mut station = Self {
            id,
            kind,
            spec,
            control,
            queues: queues.len(),
            silent: queues.iter_mut().all(is_silent),
            stopped: false,
            cells: Arc::new(PortCells::new(id, name.clone(), queues.len())),
            device: Vec::new(),
            receivers: BTreeMap::new(),
            transmitters: BTreeMap::new(),
            restarts: Vec::new(),
            name,
        };
        station.put(queues);
        station
    }

    fn put(&mut self, queues: Vec<PortQueue>) {
        for (queue, PortQueue { rx, tx, wake }) in queues.into_iter().enumerate() {
            let id = QueueId { port: self.id, queue };
            self.receivers.insert(queue, Receiver { id, rx, wake });
            self.transmitters.insert(queue, Transmitter { id, tx, pool: None });
        }
    }

    /// Its queue pairs, of those that are here with both halves.
    fn take_queues(&mut self) -> Vec<PortQueue> {
        let mut transmitters = std::mem::take(&mut self.transmitters);
        let receivers = std::mem::take(&mut self.receivers);
        let pair = |(queue, Receiver { rx, wake, .. })| {
            transmitters.remove(&queue).map(|Transmitter { tx, .. }| PortQueue { rx, tx, wake })
        };
        receivers.into_iter().filter_map(pair).collect()
    }

    /// What has been counted.
    pub(super) fn statistics(&self) -> PortStatistics {
        PortStatistics {
            latency: self.control.generator().map(|report| report.latency),
            device: self.device.clone(),
            ..self.cells.read()
        }
    }

    /// Stops it for good. Once.
    pub(super) fn stop(&mut self) -> Result<(), PortError> {
        let queues = self.take_queues();
        if std::mem::replace(&mut self.stopped, true) {
            return Ok(());
        }
        let stopped = self.control.stop(queues);
        // The device counts until it has stopped.
        self.device = self.control.statistics();
        stopped
    }

    /// Starts it anew, with as many queues as before. All of them are here. It is stopped when that fails.
    pub(super) fn restart(&mut self, reason: PortError) -> Result<(), PortError> {
        let queues = self.take_queues();
        let renewed = self.renew(queues, reason);
        match renewed {
            Ok(queues) => {
                self.put(queues);
                Ok(())
            }
            Err(error) => {
                self.stopped = true;
                self.device = self.control.statistics();
                Err(error)
            }
        }
    }

    fn renew(&mut self, queues: Vec<PortQueue>, reason: PortError) -> Result<Vec<PortQueue>, PortError> {
        self.restarts.retain(|at| at.elapsed() < RESTART_WINDOW);
        if self.restarts.len() >= RESTARTS {
            let reason = format!("it failed again after {RESTARTS} restarts within a minute, and is given up");
            self.control.stop(queues)?;
            return Err(PortError::Device { port: self.name.clone(), reason });
        }
        // The other side of a socket comes and goes: that is no failure of the port.
        if self.kind != PortKind::VirtioUser {
            self.restarts.push(Instant::now());
        }
        let renewed = self.control.restart(queues, reason)?;
        if renewed.len() == self.queues {
            return Ok(renewed);
        }
        let reason = format!("came back with {} queue pairs instead of {}", renewed.len(), self.queues);
        self.control.stop(renewed)?;
        Err(PortError::Device { port: self.name.clone(), reason })
    }
}

/// Whether nothing will ever come from the queue: it may be slept on, and yet has nothing to wake the sleeper.
fn is_silent(queue: &mut PortQueue) -> bool {
    let silent = queue.wake.is_none() && queue.rx.arm();
    queue.rx.disarm();
    silent
}

/// The control sides of all ports that are not stopped.
pub(super) fn present(stations: &mut [Station]) -> Vec<&mut dyn PortControl> {
    let there = stations.iter_mut().filter(|station| !station.stopped);
    there.map(|station| &mut *station.control as &mut dyn PortControl).collect()
}
