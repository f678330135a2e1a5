//! The switch, and the ports that it has.
//!
//! It is turned on once: then there is an engine on every core, each with a part of the switch, and a thread that decides
//! ([`vswitch`](crate::vswitch)). A port that the network configuration names is attached: its receive queues are divided between the engines, and each
//! engine has a transmit queue of it, or passes packets for it on to one that has.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bond::Bond;
use super::engines::bell;
use super::join::{burst_of, give_pools};
use super::{Forwarder, ForwarderError};
use crate::bell::Bell;
use crate::engine::plan::QueueId;
use crate::engine::{Input, Load, Outlet, Sender, Switching, peers};
use crate::network;
use crate::port::open::offloads::offer_everything;
use crate::switch::{PortSlot, SwitchCells, SwitchStatistics};
use crate::vswitch::{Attached, Handle, MOST_PORTS, Vswitch, VswitchError, VswitchOptions};

/// Buffers of an engine for packets that wait for a decision, and for copies.
const ENGINE_BUFFERS: usize = 4096;
/// Buffers for packets that the switch makes itself.
const OWN_BUFFERS: usize = 1024;

/// A switch that is on.
pub(super) struct Switch {
    /// Its thread; gone when the forwarder has stopped.
    pub(super) vswitch: Option<Vswitch>,
    /// What each engine counts.
    cells: Vec<Arc<SwitchCells>>,
    /// Places of the ports that it has, by number.
    slots: BTreeMap<usize, PortSlot>,
    /// What is in force.
    pub(super) network: network::Config,
}

impl Switch {
    /// What all engines have counted together.
    fn statistics(&self) -> SwitchStatistics {
        self.cells.iter().fold(SwitchStatistics::default(), |sum, cells| sum.plus(&cells.read()))
    }
}

impl Forwarder {
    /// A way to ask the switch, when it is on.
    #[must_use]
    pub fn vswitch(&self) -> Option<Handle> {
        self.switch.as_ref().and_then(|switch| switch.vswitch.as_ref()).map(Vswitch::handle)
    }

    /// The networks that there are.
    #[must_use]
    pub fn network(&self) -> network::Config {
        self.switch.as_ref().map(|switch| switch.network.clone()).unwrap_or_default()
    }

    /// What the switch has counted.
    pub(super) fn switch_statistics(&self) -> Option<SwitchStatistics> {
        self.switch.as_ref().map(Switch::statistics)
    }

    /// Whether the networks that there are name the port `name`.
    pub(super) fn names_port(&self, name: &str) -> bool {
        self.switch.as_ref().is_some_and(|switch| switch.network.names_port(name))
    }

    /// Turns the switch on, without any network. It stays on.
    ///
    /// # Errors
    /// When there is no memory, or an engine or the thread cannot be started. The switch is off then.
    pub(super) fn switch_on(&mut self) -> Result<(), ForwarderError> {
        if self.switch.is_some() {
            return Ok(());
        }
        let switched = self.start_switch();
        if switched.is_err() {
            // Those that have their part of it end with it. The queues go to new ones.
            self.stop_engines();
            let _ = self.engage_idle();
        }
        switched
    }

    fn start_switch(&mut self) -> Result<(), ForwarderError> {
        let engines = self.config.cores.len();
        let counts = std::iter::repeat_n(ENGINE_BUFFERS, engines).chain([OWN_BUFFERS]);
        let mut pools = self.opener.switch_pools(&counts.collect::<Vec<_>>())?;
        let own = pools.pop().ok_or(ForwarderError::Gone)?;
        let bells = (0..engines).map(|number| self.bell_of(number)).collect::<Result<Vec<_>, _>>()?;
        let options = VswitchOptions { engines, flows: self.config.flows, clock: self.clock };
        let (vswitch, pipelines) = Vswitch::start(options, bells.clone(), pools, own)?;
        let cells = pipelines.iter().map(|pipeline| Arc::clone(pipeline.cells())).collect();
        let parts = pipelines.into_iter().zip(peers(&bells)).zip(&bells).enumerate();
        for (number, ((pipeline, peers), bell)) in parts {
            let switching = Switching::new(pipeline, MOST_PORTS, Arc::clone(vswitch.bell()), peers);
            let load = Load { switching: Some(Box::new(switching)), ..Load::default() };
            match self.engines.iter_mut().find(|serving| serving.number == number) {
                Some(serving) => serving.running.add(load).map_err(|(error, _)| error)?,
                None => {
                    // There are as many cores as engines.
                    let core = self.free_cores().first().copied().unwrap_or_default();
                    self.start_engine(core, Arc::clone(bell), load)?;
                }
            }
        }
        let (slots, network) = Default::default();
        self.switch = Some(Switch { vswitch: Some(vswitch), cells, slots, network });
        Ok(())
    }

    /// The bell of the engine of that number, which may be one that is still to be started.
    fn bell_of(&self, number: usize) -> Result<Arc<Bell>, ForwarderError> {
        match self.engines.iter().find(|serving| serving.number == number) {
            Some(serving) => Ok(Arc::clone(serving.running.bell())),
            None => Ok(bell(number)?),
        }
    }

    /// Makes a port known to the switch, before its queues go to engines.
    pub(super) fn attach(&mut self, port: usize) -> Result<(), ForwarderError> {
        let handle = self.vswitch().ok_or(ForwarderError::Stopping)?;
        let station = self.stations.iter_mut().find(|station| station.id == port).ok_or(ForwarderError::Gone)?;
        let facts = Attached { number: port, mtu: station.control.mtu().unwrap_or(0), mac: station.mac };
        let slot = handle.attach(&station.name, facts).inspect_err(|error| {
            // It may have been attached too late for an answer, and nobody would take that back.
            if !matches!(error, VswitchError::Attached(_)) {
                let _ = handle.detach(&station.name);
            }
        })?;
        if let Some(switch) = &mut self.switch {
            switch.slots.insert(port, slot);
        }
        Ok(())
    }

    /// Has the switch forget a port, after the engines gave its queues back.
    pub(super) fn detach(&mut self, port: usize) {
        let Some(switch) = &mut self.switch else { return };
        let Some(station) = self.stations.iter().find(|station| station.id == port) else { return };
        if switch.slots.remove(&port).is_some()
            && let Some(vswitch) = &switch.vswitch
            && let Err(error) = vswitch.handle().detach(&station.name)
        {
            tracing::warn!("port `{}`: {error}", station.name);
        }
    }

    /// Gives the queues of a port that is attached, which are all at home, to the engines.
    pub(super) fn engage_switched(&mut self, port: usize) -> Result<(), ForwarderError> {
        let Some(slot) = self.switch.as_ref().and_then(|switch| switch.slots.get(&port)).copied() else {
            return Err(ForwarderError::Gone);
        };
        let engines = self.engines.len();
        let station = self.stations.iter_mut().find(|station| station.id == port).ok_or(ForwarderError::Gone)?;
        offer_everything(&mut *station.control)?;
        let queues = station.queues;
        // Packets come from anywhere, and may be anything.
        give_pools(&mut self.opener, station, queues.min(engines))?;
        // Engines with a transmit queue before those that pass packets on to them.
        for number in 0..engines {
            let load = self.switched_load(port, slot, number);
            self.give(number, Bond::Switched([port]), load)?;
        }
        Ok(())
    }

    /// What the engine of that number gets of a switched port.
    fn switched_load(&mut self, port: usize, slot: PortSlot, number: usize) -> Load {
        let mut load = Load::default();
        let (engines, burst) = (self.engines.len(), self.config.engine.burst);
        let Some(station) = self.stations.iter_mut().find(|station| station.id == port) else { return load };
        let queues = station.queues;
        if let Some(transmitter) = station.transmitters.remove(&number) {
            load.senders.push(Sender::new(transmitter, Arc::clone(&station.cells)));
            load.outlets.push(Outlet::to_queue(slot, QueueId { port, queue: number }));
        } else if queues > 0 {
            load.outlets.push(Outlet::to_engine(slot, port, number % queues));
        }
        let burst = burst_of(station, burst);
        for queue in (number..queues).step_by(engines.max(1)) {
            if let Some(receiver) = station.receivers.remove(&queue) {
                let input = Input::new(receiver, slot, burst, Arc::clone(&station.cells));
                load.inputs.push(input.spread(queues < engines));
            }
        }
        load
    }
}
