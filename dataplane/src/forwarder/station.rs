//! A port in a forwarder.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drivers::nic::MacAddress;

use super::restart::{Away, Renewed, Restart};
use crate::engine::plan::QueueId;
use crate::engine::{Receiver, Transmitter};
use crate::port::open::Present;
use crate::port::{NamedSpec, Port, PortControl, PortError, PortKind, PortQueue};
use crate::stats::{PortCells, PortStatistics};

/// A port that fails once more after so many restarts within [`RESTART_WINDOW`] is given up.
const RESTARTS: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// A port. Its queues are with the engines while it is joined to another, or switched.
pub(super) struct Station {
    /// Its number, which no other port ever had or will have.
    pub(super) id: usize,
    pub(super) name: String,
    pub(super) kind: PortKind,
    /// What the user wrote.
    pub(super) spec: Option<NamedSpec>,
    pub(super) control: Box<dyn PortControl>,
    /// Its own Ethernet address. That of a tap is the kernel's.
    pub(super) mac: Option<MacAddress>,
    /// It stands in a file, and goes when it does not any more.
    pub(super) of_file: bool,
    /// Queue pairs.
    pub(super) queues: usize,
    /// Nothing will ever be received from it.
    pub(super) silent: bool,
    /// Its control side and its queues are on another thread, where it is being started anew.
    pub(super) away: bool,
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
        let Port { name, kind, mac, mut queues, control, .. } = port;
        let mut station = Self {
            id,
            kind,
            spec,
            control,
            mac: mac.filter(|_| kind != PortKind::Tap),
            of_file: false,
            queues: queues.len(),
            silent: queues.iter_mut().all(is_silent),
            away: false,
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

    /// Its control side, with its name.
    pub(super) fn present(&mut self) -> Present<'_> {
        Present { name: &self.name, control: &mut *self.control }
    }

    fn put(&mut self, queues: Vec<PortQueue>) {
        for (queue, PortQueue { rx, tx, wake, desk }) in queues.into_iter().enumerate() {
            let id = QueueId { port: self.id, queue };
            self.receivers.insert(queue, Receiver { id, rx, wake });
            self.transmitters.insert(queue, Transmitter { id, tx, pool: None, desk });
        }
    }

    /// Its queue pairs, of those that are here with both halves.
    fn take_queues(&mut self) -> Vec<PortQueue> {
        let mut transmitters = std::mem::take(&mut self.transmitters);
        let receivers = std::mem::take(&mut self.receivers);
        let pair = |(queue, Receiver { rx, wake, .. })| {
            transmitters.remove(&queue).map(|Transmitter { tx, desk, .. }| PortQueue { rx, tx, wake, desk })
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

    /// All its queues are here.
    pub(super) fn is_home(&self) -> bool {
        self.receivers.len() == self.queues && self.transmitters.len() == self.queues
    }

    /// Begins to start it anew. All its queues are here. One that failed too often is given up.
    pub(super) fn leave(&mut self, reason: PortError) -> Restart {
        let queues = self.take_queues();
        self.away = true;
        let away = Box::new(Away { offloads: self.control.offloads() });
        let control = std::mem::replace(&mut self.control, away);
        self.restarts.retain(|at| at.elapsed() < RESTART_WINDOW);
        let given_up = (self.restarts.len() >= RESTARTS).then(|| {
            let reason = format!("it failed again after {RESTARTS} restarts within a minute, and is given up");
            PortError::Device { port: self.name.clone(), reason }
        });
        // The other side of a socket comes and goes: that is no failure of the port.
        if self.kind != PortKind::VirtioUser {
            self.restarts.push(Instant::now());
        }
        Restart::begin(self.id, &self.name, control, queues, reason, given_up)
    }

    /// It was started anew, or was not: then it is stopped for good.
    pub(super) fn come_back(&mut self, renewed: Renewed) -> Result<(), PortError> {
        let Renewed { control, queues } = renewed;
        self.away = false;
        if let Some(control) = control {
            self.control = control;
        }
        match queues {
            Ok(queues) if queues.len() == self.queues => {
                self.put(queues);
                Ok(())
            }
            Ok(queues) => {
                let reason = format!("came back with {} queue pairs instead of {}", queues.len(), self.queues);
                let _ = self.control.stop(queues);
                Err(PortError::Device { port: self.name.clone(), reason })
            }
            Err(error) => Err(error),
        }
        .inspect_err(|_| {
            self.stopped = true;
            self.device = self.control.statistics();
        })
    }
}

/// Whether nothing will ever come from the queue: it may be slept on, and yet has nothing to wake the sleeper.
fn is_silent(queue: &mut PortQueue) -> bool {
    let silent = queue.wake.is_none() && queue.rx.arm();
    queue.rx.disarm();
    silent
}

/// Its control side is there and works.
pub(super) fn is_present(station: &Station) -> bool {
    !station.stopped && !station.away
}

/// The control sides of all ports that are neither stopped nor being started anew.
pub(super) fn present(stations: &mut [Station]) -> Vec<Present<'_>> {
    stations.iter_mut().filter(|station| is_present(station)).map(Station::present).collect()
}
