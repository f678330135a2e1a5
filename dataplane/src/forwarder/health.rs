//! Looking after engines, devices and memory.

use std::time::{Duration, Instant};

use super::restart::Restart;
use super::station::{is_present, present};
use super::{Forwarder, ForwarderError};
use crate::engine::EngineError;
use crate::port::PortError;
use crate::vswitch::{Vswitch, VswitchError};

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
        /// These do not come back, and their partners fall silent with them; why. All others go on.
        lost: Vec<String>,
    },
    /// An engine or the switch failed, or a port did not come back, no pair of ports is left, and there is no switch. Only stopping is left; it tells why.
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
        if self.switch.as_ref().and_then(|switch| switch.vswitch.as_ref()).is_some_and(Vswitch::has_ended) {
            self.problems.push(VswitchError::Gone.into());
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
        let (mut restarted, mut lost, mut gone) = (Vec::new(), Vec::new(), Vec::new());
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
                    gone.push(id);
                    lost.push(if why == reason { why } else { format!("{reason}; starting it anew failed: {why}") });
                    self.problems.push(error.into());
                }
            }
        }
        if restarted.is_empty() && lost.is_empty() {
            return Health::Well;
        }
        for id in gone {
            self.bond_of(id).into_iter().for_each(|bond| self.part(bond));
        }
        self.broken |= !lost.is_empty() && self.is_useless();
        if self.broken {
            return Health::Broken;
        }
        Health::Changed { restarted, lost }.and(self.engage_idle())
    }

    /// Begins to start a port anew, for `reason`.
    fn begin_restart(&mut self, id: usize, reason: PortError) {
        if let Some(bond) = self.bond_of(id) {
            self.withdraw(bond);
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

    /// Gives the queues of bonds to engines that are not with any.
    pub(super) fn engage_idle(&mut self) -> Health {
        let mut lost = Vec::new();
        for bond in self.bonds.clone() {
            let ready = |id: usize| {
                let station = self.station(id);
                station.is_some_and(|station| is_present(station) && station.is_home()) && !self.is_owed(id)
            };
            if !bond.ports().iter().all(|id| ready(*id)) {
                continue;
            }
            match self.engage(bond) {
                Ok(_) => {}
                // Its queues come back, and it is tried again.
                Err(ForwarderError::Engine(EngineError::Silent { .. })) => {}
                Err(error) => {
                    self.part(bond);
                    lost.push(error.to_string());
                    self.problems.push(error);
                }
            }
        }
        self.broken |= !lost.is_empty() && self.is_useless();
        match (self.broken, lost.is_empty()) {
            (true, _) => Health::Broken,
            (false, true) => Health::Well,
            (false, false) => Health::Changed { restarted: Vec::new(), lost },
        }
    }

    /// Nothing is forwarded, and nothing ever will be: a switch may get ports yet.
    fn is_useless(&self) -> bool {
        self.bonds.is_empty() && self.switch.is_none()
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
