//! From the bonds and networks that there are to others, all or nothing.

use super::bond::Bond;
use super::{Forwarder, ForwarderError};
use crate::network::{self, Brain};

/// What was changed.
#[derive(Default)]
pub(super) struct Rewired {
    /// A line for each network, port, rule and so on.
    pub(super) lines: Vec<String>,
    /// What the user should know about it, a sentence each.
    pub(super) notices: Vec<String>,
}

impl Forwarder {
    /// What a network configuration would change, a line each.
    ///
    /// # Errors
    /// What does not fit in it.
    pub(super) fn plan_network(&self, network: &network::Config) -> Result<Vec<String>, ForwarderError> {
        match self.vswitch() {
            Some(handle) => Ok(handle.plan(network.clone())?),
            None => {
                let change = Brain::new().plan(network.clone()).map_err(crate::vswitch::VswitchError::from)?;
                Ok(change.lines().to_vec())
            }
        }
    }

    /// Makes `target` all bonds that there are, and `network` all networks. Turns the switch on when it is needed.
    ///
    /// # Errors
    /// When anything of it cannot be. Then all bonds and networks are as before; ports that had to be parted on the way have paused for a moment.
    pub(super) fn rewire(&mut self, target: &[Bond], network: &network::Config) -> Result<Rewired, ForwarderError> {
        if self.closed {
            return Err(ForwarderError::Stopping);
        }
        self.plan_network(network)?;
        if !network.is_empty() {
            self.switch_on()?;
        }
        let (bonds, before) = (self.bonds.clone(), self.network());
        let rewired = self.try_rewire(target, network);
        if rewired.is_err() {
            self.restore(&bonds, before);
        }
        rewired
    }

    fn try_rewire(&mut self, target: &[Bond], network: &network::Config) -> Result<Rewired, ForwarderError> {
        let mut rewired = Rewired::default();
        for bond in self.bonds.clone().into_iter().filter(|bond| !target.contains(bond)) {
            self.part(bond);
            for port in bond.ports() {
                match self.can_be_bonded(*port) {
                    // It comes back without a bond, which is what is wanted.
                    Ok(()) | Err(ForwarderError::Away { .. } | ForwarderError::Lost { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        rewired.lines = self.set_network(network)?;
        for bond in target.iter().filter(|bond| !self.bonds.contains(bond)).copied().collect::<Vec<_>>() {
            bond.ports().iter().try_for_each(|port| self.can_be_bonded(*port))?;
            rewired.notices.extend(self.connect(bond)?);
        }
        Ok(rewired)
    }

    fn set_network(&mut self, network: &network::Config) -> Result<Vec<String>, ForwarderError> {
        let (Some(handle), Some(switch)) = (self.vswitch(), &mut self.switch) else { return Ok(Vec::new()) };
        let lines = handle.apply(network.clone())?;
        switch.network = network.clone();
        Ok(lines)
    }

    /// Goes back to bonds and networks that there were. What does not work at once is tried again by [`Forwarder::tend`].
    fn restore(&mut self, bonds: &[Bond], network: network::Config) {
        for bond in self.bonds.clone().into_iter().filter(|bond| !bonds.contains(bond)) {
            self.part(bond);
        }
        if let Err(error) = self.set_network(&network) {
            tracing::error!("the networks could not be set back: {error}");
            self.problems.push(error);
        }
        for bond in bonds.iter().filter(|bond| !self.bonds.contains(bond)).copied().collect::<Vec<_>>() {
            if let Bond::Switched([port]) = bond
                && let Err(error) = self.attach(port)
            {
                tracing::error!("a port could not be given back to the switch: {error}");
                self.problems.push(error);
                continue;
            }
            self.bonds.push(bond);
        }
        let _ = self.engage_idle();
    }
}
