//! Joining two ports: their queues go to engines. Parting them: the queues come back.

use std::sync::Arc;

use drivers::nic::Offloads;

use super::station::{Station, present};
use super::{Forwarder, ForwarderError};
use crate::bell::Bell;
use crate::engine::plan::{Group, Way, groups};
use crate::engine::{Engine, EngineError, Finished, Lane, Load, Running, Sender};
use crate::port::open::Opener;
use crate::port::open::offloads::{Side, match_offloads};
use crate::port::{PortError, PortKind};

/// Most packets that are received from a virtual machine at once, so that the others get their turn.
const MACHINE_BURST: usize = 32;

/// A running engine and what it serves.
pub(super) struct Serving {
    pub(super) running: Running,
    pub(super) number: usize,
    pub(super) core: usize,
    pub(super) ways: Vec<Way>,
    /// Pairs whose queues it was asked for in vain.
    pub(super) owed: Vec<[usize; 2]>,
}

impl Forwarder {
    /// Joins two ports, by number, that are joined to none. Gives what the user should know about it. On failure nothing has changed, but
    /// for what the ports let each other reach.
    pub(super) fn connect(&mut self, left: usize, right: usize) -> Result<Vec<String>, ForwarderError> {
        let [one, other] = both(&mut self.stations, [left, right])?;
        self.opener.introduce(&mut [one.present(), other.present()])?;
        let notices = self.engage([left, right])?;
        self.pairs.push([left, right]);
        Ok(notices)
    }

    /// Gives the queues of two ports, which are all at home, to engines. On failure they come back, or do so later.
    pub(super) fn engage(&mut self, pair: [usize; 2]) -> Result<Vec<String>, ForwarderError> {
        let engaged = self.give_pools(pair).and_then(|(notices, groups)| {
            groups.into_iter().try_for_each(|group| self.place(group))?;
            Ok(notices)
        });
        if engaged.is_err() {
            self.withdraw(pair);
            for station in both(&mut self.stations, pair).into_iter().flatten() {
                // Of queues that no engine has had.
                station.transmitters.values_mut().for_each(|transmitter| transmitter.pool = None);
            }
            self.opener.reclaim(&mut present(&mut self.stations));
        }
        engaged
    }

    /// Gives the transmit queues of two ports the buffers that they need for what the other one receives.
    fn give_pools(&mut self, pair: [usize; 2]) -> Result<(Vec<String>, Vec<Group>), ForwarderError> {
        let [one, other] = both(&mut self.stations, pair)?;
        let notices = match_offloads(side(one), side(other))?;
        let groups = groups((one.id, one.queues), (other.id, other.queues));
        give_pools(&mut self.opener, one, other, groups.len())?;
        give_pools(&mut self.opener, other, one, groups.len())?;
        Ok((notices, groups))
    }

    /// Gives a group to the engine that has least to do, or to a new one on a core that has none.
    fn place(&mut self, group: Group) -> Result<(), EngineError> {
        let free = self.cores.iter().find(|core| self.engines.iter().all(|serving| serving.core != *core));
        let placed = match free {
            Some(core) => {
                let number = (0..).find(|number| self.engines.iter().all(|serving| serving.number != *number));
                let number = number.unwrap_or_default();
                let action = "prepare to sleep";
                let bell = Bell::new().map_err(|source| EngineError::System { engine: number, action, source })?;
                let load = take(&mut self.stations, self.config.burst, &group);
                let (config, clock, bell) = (self.config, self.clock, Arc::new(bell));
                let engine = Engine { number, core, config, load, clock, bell };
                engine.start().map(|running| {
                    self.engines.push(Serving { running, number, core, ways: group.ways, owed: Vec::new() });
                })
            }
            None => match self.engines.iter_mut().min_by_key(|serving| serving.ways.len()) {
                Some(serving) => {
                    let load = take(&mut self.stations, self.config.burst, &group);
                    let placed = serving.running.add(load);
                    // What did not come back is with the engine, even if it does not answer, and has to be asked for.
                    if placed.as_ref().err().is_none_or(|(_, finished)| finished.receivers.is_empty()) {
                        serving.ways.extend(group.ways);
                    }
                    placed
                }
                // There is always a core.
                None => Ok(()),
            },
        };
        placed.map_err(|(error, finished)| {
            self.put_back(finished);
            error
        })
    }

    /// Puts queues into their stations.
    pub(super) fn put_back(&mut self, finished: Finished) {
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

    /// Parts the port number `port` from its partner, if it has one.
    pub(super) fn part(&mut self, port: usize) {
        let Some(pair) = self.pair_of(port) else { return };
        self.pairs.retain(|other| *other != pair);
        self.withdraw(pair);
        self.opener.reclaim(&mut present(&mut self.stations));
    }

    /// Takes the queues of a pair back: what was received is sent. The engines go on with the others'. An engine that is left with nothing
    /// ends. One that does not answer gives the queues back later: see [`Forwarder::tend`].
    pub(super) fn withdraw(&mut self, pair: [usize; 2]) {
        for place in 0..self.engines.len() {
            let Some(serving) = self.engines.get_mut(place) else { break };
            let is_of_pair = |way: &Way| pair.contains(&way.from.port);
            if !serving.ways.iter().any(is_of_pair) {
                continue;
            }
            match serving.running.remove(&pair) {
                Ok(finished) => {
                    serving.ways.retain(|way| !is_of_pair(way));
                    serving.owed.retain(|other| *other != pair);
                    self.put_back(finished);
                }
                Err(error @ EngineError::Silent { .. }) => {
                    if !serving.owed.contains(&pair) {
                        tracing::warn!("{error}; its queues are asked for again");
                        serving.owed.push(pair);
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

    /// Ends engines that have nothing to do any more.
    pub(super) fn end_idle_engines(&mut self) {
        if self.broken {
            return;
        }
        for Serving { running, number, .. } in
            self.engines.extract_if(.., |one| one.ways.is_empty()).collect::<Vec<_>>()
        {
            let finished = running.stop();
            if let Some(error) = self.panicked(number, &[], finished.panic.as_deref()) {
                self.problems.push(error);
                self.broken = true;
            }
            self.put_back(finished);
        }
    }

    /// Stops all engines at once and waits for them: all queues come back.
    pub(super) fn stop_engines(&mut self) {
        let engines = std::mem::take(&mut self.engines);
        for serving in &engines {
            serving.running.ask_to_stop();
        }
        for Serving { running, number, ways, .. } in engines {
            let finished = running.stop();
            if let Some(error) = self.panicked(number, &ways, finished.panic.as_deref()) {
                self.problems.push(error);
                self.broken = true;
            }
            self.unfinished |= finished.unfinished;
            self.put_back(finished);
        }
    }

    fn panicked(&self, engine: usize, ways: &[Way], said: Option<&str>) -> Option<ForwarderError> {
        let mut ports: Vec<usize> = ways.iter().map(|way| way.from.port).collect();
        ports.sort_unstable();
        ports.dedup();
        let names: Vec<&str> = self
            .stations
            .iter()
            .filter(|station| ports.contains(&station.id))
            .map(|station| station.name.as_str())
            .collect();
        said.map(|said| ForwarderError::Panicked { engine, ports: names.join(" and "), said: said.to_owned() })
    }
}

/// Two ports, by number.
fn both(stations: &mut [Station], pair: [usize; 2]) -> Result<[&mut Station; 2], ForwarderError> {
    let place = |id| stations.iter().position(|station| station.id == id).unwrap_or(usize::MAX);
    let places = pair.map(place);
    stations.get_disjoint_mut(places).map_err(|_| ForwarderError::Gone)
}

/// The queues of a group, out of their stations, to be worked on in bursts of up to `burst`.
fn take(stations: &mut [Station], burst: usize, group: &Group) -> Load {
    let mut load = Load::default();
    for way in &group.ways {
        if let Some(station) = stations.iter_mut().find(|station| station.id == way.to.port)
            && let Some(transmitter) = station.transmitters.remove(&way.to.queue)
        {
            load.senders.push(Sender::new(transmitter, Arc::clone(&station.cells)));
        }
        if let Some(station) = stations.iter_mut().find(|station| station.id == way.from.port)
            && let Some(receiver) = station.receivers.remove(&way.from.queue)
        {
            let is_machine = matches!(station.kind, PortKind::VhostUser);
            let burst = if is_machine { burst.min(MACHINE_BURST) } else { burst };
            load.lanes.push(Lane::new(receiver, way.to, burst, Arc::clone(&station.cells)));
        }
    }
    load
}

fn side(station: &mut Station) -> Side<'_> {
    Side { name: &station.name, kind: station.kind, control: &mut *station.control }
}

/// Gives the transmit queues of `to` the buffers that they need for packets of `from`.
fn give_pools(opener: &mut Opener, from: &Station, to: &mut Station, count: usize) -> Result<(), PortError> {
    if !needs_pool(from, to) {
        return Ok(());
    }
    // Machines are copied to by the processor. Cards have to reach the memory.
    let pools = match to.kind {
        PortKind::VhostUser => opener.private_pools(&to.name, count)?,
        _ => opener.pools(&mut to.present(), count)?,
    };
    to.transmitters.values_mut().zip(pools).for_each(|(transmitter, pool)| transmitter.pool = Some(pool));
    Ok(())
}

/// Whether packets of `from` may have to be made anew for `to`: those in foreign memory whole, large ones in segments, for a queue
/// that takes neither.
fn needs_pool(from: &Station, to: &Station) -> bool {
    let (Some(receiver), Some(transmitter)) = (from.receivers.values().next(), to.transmitters.values().next()) else {
        return false;
    };
    if matches!(from.kind, PortKind::Generator | PortKind::Null | PortKind::Pcap) {
        // Their frames are plain ones.
        return false;
    }
    let large = Offloads::TSO4 | Offloads::TSO6 | Offloads::TSO_ECN | Offloads::USO;
    (receiver.rx.gives_foreign() && !transmitter.tx.takes_foreign())
        || (receiver.rx.gives_large() && !transmitter.tx.offloads().contains(large))
        // What a virtual machine takes changes with its driver.
        || to.kind == PortKind::VhostUser
}
