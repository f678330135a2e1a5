//! Looking after engines, devices and memory.

use std::time::{Duration, Instant};

use super::restart::Restart;
use super::station::{is_present, present};
use super::{Forwarder, ForwarderError};
use crate::engine::EngineError;
use crate::port::PortError;

/// How long a forwarder that stops waits for ports that are being started anew.
const LEAVE: Duration = Duration::from_secs(1);
/// How often it looks for them.
const LOOK: Duration = Duration::from_millis(1);

/// What [`Forwarder::check`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Health {
    /// All is well.
    Well,
    /// Ports had failed.
    Changed {
        /// These work again; why they had failed.
        restarted: Vec<String>,
        /// These do not come back, and their partners fall silent with them; why. The other pairs go on.
        lost: Vec<String>,
    },
    /// An engine failed, or a port did not come back and no pair of ports is left. Only stopping is left; it tells why.
    Broken,
}

impl Health {
    /// Both together.
    fn and(self, later: Self) -> Self {
        match (self, later) {
            (Self::Broken, _) | (_, Self::Broken) => Self::Broken,
            (Self::Well, health) | (health, Self::Well) => health,
            (Self::Changed { mut restarted, mut lost }, Self::Changed { restarted: more, lost: others }) => {
                restarted.extend(more);
                lost.extend(others);
                Self::Changed { restarted, lost }
            }
        }
    }
}

impl Forwarder {
    /// Looks after engines, devices and memory; to be called about once a second. A port that fails is stopped and started anew, which
    /// pauses it and its partner for a moment; one that does not come back is given up. Waits for that.
    pub fn check(&mut self) -> Health {
        let mut health = self.tend();
        while !self.restarts.is_empty() && health != Health::Broken {
            std::thread::sleep(LOOK);
            health = health.and(self.collect());
        }
        health
    }

    /// As [`Forwarder::check`], and waits for no port: what becomes of those that are being started anew is for [`Forwarder::collect`].
    pub fn tend(&mut self) -> Health {
        if self.broken || self.engines.iter().any(|serving| serving.running.has_failed()) {
            self.broken = true;
            return Health::Broken;
        }
        self.recover_queues();
        let mut sick = Vec::new();
        for station in self.stations.iter_mut().filter(|station| is_present(station)) {
            match station.control.check() {
                Ok(()) => station.device = station.control.statistics(),
                Err(error) => sick.push((station.id, error)),
            }
        }
        self.opener.reclaim(&mut present(&mut self.stations));
        for (id, error) in sick {
            self.begin_restart(id, error);
        }
        let engaged = self.engage_idle();
        engaged.and(self.collect())
    }

    /// What became of the ports that were started anew, as far as it is known. Quick; to be called often.
    pub fn collect(&mut self) -> Health {
        let (mut restarted, mut lost) = (Vec::new(), Vec::new());
        for restart in self.restarts.extract_if(.., |restart| restart.is_done()).collect::<Vec<_>>() {
            let Restart { id, ref reason, .. } = restart;
            let reason = reason.clone();
            let renewed = restart.finish();
            let Some(station) = self.stations.iter_mut().find(|station| station.id == id) else { continue };
            match station.come_back(renewed) {
                Ok(()) => restarted.push(reason),
                Err(error) => {
                    let why = error.to_string();
                    // At once: to let go of a device that does not answer can take the kernel minutes.
                    tracing::error!("port `{}` is lost: {why}", station.name);
                    self.opener.lose(&station.name);
                    self.pairs.retain(|pair| !pair.contains(&id));
                    lost.push(if why == reason { why } else { format!("{reason}; starting it anew failed: {why}") });
                    self.problems.push(error.into());
                }
            }
        }
        if restarted.is_empty() && lost.is_empty() {
            return Health::Well;
        }
        self.broken |= !lost.is_empty() && self.pairs.is_empty();
        if self.broken {
            return Health::Broken;
        }
        Health::Changed { restarted, lost }.and(self.engage_idle())
    }

    /// Begins to start a port anew, for `reason`.
    fn begin_restart(&mut self, id: usize, reason: PortError) {
        if let Some(pair) = self.pair_of(id) {
            self.withdraw(pair);
        }
        let Some(station) = self.stations.iter_mut().find(|station| station.id == id) else { return };
        if !station.is_home() {
            // It is still sick at the next look.
            tracing::warn!("{reason}; it is started anew as soon as its engine has given its queues back");
            return;
        }
        let restart = station.leave(reason);
        self.restarts.push(restart);
    }

    /// Takes back what engines gave back after nobody waited for it any more.
    fn recover_queues(&mut self) {
        for place in 0..self.engines.len() {
            let Some(serving) = self.engines.get_mut(place) else { break };
            let late = serving.running.late();
            let back: Vec<_> = late.receivers.iter().map(|receiver| receiver.id).collect();
            serving.ways.retain(|way| !back.contains(&way.from));
            let ways = &serving.ways;
            serving.owed.retain(|pair| ways.iter().any(|way| pair.contains(&way.from.port)));
            let again = if serving.running.is_behind() { Vec::new() } else { serving.owed.clone() };
            self.put_back(late);
            for pair in again {
                self.withdraw(pair);
            }
        }
        self.end_idle_engines();
    }

    /// Gives the queues of pairs to engines that are not with any.
    fn engage_idle(&mut self) -> Health {
        let mut lost = Vec::new();
        for pair in self.pairs.clone() {
            let ready = |id: usize| self.station(id).is_some_and(|station| is_present(station) && station.is_home());
            if !pair.into_iter().all(ready) {
                continue;
            }
            match self.engage(pair) {
                Ok(_) => {}
                // Its queues come back, and it is tried again.
                Err(ForwarderError::Engine(EngineError::Silent { .. })) => {}
                Err(error) => {
                    self.pairs.retain(|other| *other != pair);
                    lost.push(error.to_string());
                    self.problems.push(error);
                }
            }
        }
        self.broken |= !lost.is_empty() && self.pairs.is_empty();
        match (self.broken, lost.is_empty()) {
            (true, _) => Health::Broken,
            (false, true) => Health::Well,
            (false, false) => Health::Changed { restarted: Vec::new(), lost },
        }
    }

    /// Takes back the ports that are being started anew, as far as they are there soon. The others end by themselves.
    pub(super) fn abandon_restarts(&mut self) {
        let deadline = Instant::now() + LEAVE;
        for restart in std::mem::take(&mut self.restarts) {
            while !restart.is_done() && Instant::now() < deadline {
                std::thread::sleep(LOOK);
            }
            let Some(station) = self.stations.iter_mut().find(|station| station.id == restart.id) else { continue };
            if !restart.is_done() {
                tracing::warn!("port `{}` was still being started anew, and is left to itself", station.name);
                station.stopped = true;
            } else if let Err(error) = station.come_back(restart.finish()) {
                self.problems.push(error.into());
            }
        }
    }
}
