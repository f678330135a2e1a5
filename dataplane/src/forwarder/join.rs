//! Joining two ports: their queues go to engines. Parting them: the queues come back.

use std::sync::Arc;

use drivers::nic::Offloads;

use super::station::{Station, present};
use super::{Forwarder, ForwarderError};
use crate::engine::plan::{Group, Way, groups};
use crate::engine::{Engine, EngineError, Finished, Lane, Running, Sender};
use crate::port::PortKind;
use crate::port::open::offloads::{Side, match_offloads};

/// Most packets that are received from a virtual machine at once, so that the others get their turn.
const MACHINE_BURST: usize = 32;

/// A running engine and what it serves.
pub(super) struct Serving {
    pub(super) running: Running,
    pub(super) number: usize,
    pub(super) core: usize,
    pub(super) ways: Vec<Way>,
}

impl Forwarder {
    /// Joins two ports, by number, that are joined to none. Gives what the user should know about it. On failure nothing has changed.
    pub(super) fn connect(&mut self, left: usize, right: usize) -> Result<Vec<String>, ForwarderError> {
        let (Some(first), Some(second)) = (self.position(left), self.position(right)) else {
            return Ok(Vec::new());
        };
        let Ok([one, other]) = self.stations.get_disjoint_mut([first, second]) else {
            return Ok(Vec::new());
        };
        let notices = match_offloads(side(one), side(other))?;
        let groups = groups((left, one.queues), (right, other.queues));
        let wanting: Vec<(usize, PortKind)> = [(&*one, &*other), (&*other, &*one)]
            .into_iter()
            .filter(|(from, to)| needs_pool(from, to))
            .map(|(_, to)| (to.id, to.kind))
            .collect();
        let name = format!("{} and {}", one.name, other.name);
        for (port, kind) in wanting {
            // Machines are copied to by the processor. Cards have to reach the memory.
            let pools = if kind == PortKind::VhostUser {
                self.opener.private_pools(&name, groups.len())?
            } else {
                self.opener.pools(&name, groups.len(), &mut present(&mut self.stations))?
            };
            let station = self.stations.iter_mut().find(|station| station.id == port);
            let transmitters = station.into_iter().flat_map(|station| station.transmitters.values_mut());
            transmitters.zip(pools).for_each(|(transmitter, pool)| transmitter.pool = Some(pool));
        }
        self.pairs.push([left, right]);
        for group in groups {
            if let Err(error) = self.place(group) {
                self.part(left);
                return Err(error.into());
            }
        }
        Ok(notices)
    }

    /// Gives a group to the engine that has least to do, or to a new one on a core that has none.
    fn place(&mut self, group: Group) -> Result<(), EngineError> {
        let (lanes, senders) = self.take(&group);
        let free = self.cores.iter().find(|core| self.engines.iter().all(|serving| serving.core != *core));
        let placed = match free {
            Some(core) => {
                let number = (0..).find(|number| self.engines.iter().all(|serving| serving.number != *number));
                let number = number.unwrap_or_default();
                let engine = Engine { number, core, config: self.config, lanes, senders, clock: self.clock };
                engine.start().map(|running| {
                    self.engines.push(Serving { running, number, core, ways: group.ways });
                })
            }
            None => match self.engines.iter_mut().min_by_key(|serving| serving.ways.len()) {
                Some(serving) => {
                    let placed = serving.running.add(lanes, senders);
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

    /// The queues of a group, out of their stations.
    fn take(&mut self, group: &Group) -> (Vec<Lane>, Vec<Sender>) {
        let (mut lanes, mut senders) = (Vec::new(), Vec::new());
        for way in &group.ways {
            if let Some(station) = self.stations.iter_mut().find(|station| station.id == way.to.port)
                && let Some(transmitter) = station.transmitters.remove(&way.to.queue)
            {
                senders.push(Sender::new(transmitter, Arc::clone(&station.cells)));
            }
            if let Some(station) = self.stations.iter_mut().find(|station| station.id == way.from.port)
                && let Some(receiver) = station.receivers.remove(&way.from.queue)
            {
                let is_machine = matches!(station.kind, PortKind::VhostUser);
                let burst = if is_machine { self.config.burst.min(MACHINE_BURST) } else { self.config.burst };
                lanes.push(Lane::new(receiver, way.to, burst, Arc::clone(&station.cells)));
            }
        }
        (lanes, senders)
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

    /// Parts the port number `port` from its partner, if it has one: what was received is sent, and the queues of both come back. The engines
    /// go on with the others'. An engine that is left with nothing ends.
    pub(super) fn part(&mut self, port: usize) {
        let Some(place) = self.pairs.iter().position(|pair| pair.contains(&port)) else {
            return;
        };
        let pair = self.pairs.remove(place);
        let mut problems = Vec::new();
        for serving in std::mem::take(&mut self.engines) {
            let Serving { mut running, number, core, mut ways } = serving;
            let before = ways.len();
            ways.retain(|way| !pair.contains(&way.from.port));
            if ways.len() < before {
                match running.remove(&pair) {
                    Ok(finished) => self.put_back(finished),
                    Err(error) => problems.push(error.into()),
                }
            }
            if ways.is_empty() && before > 0 && problems.is_empty() {
                let finished = running.stop();
                problems.extend(self.panicked(number, &[], finished.panic.as_deref()));
                self.put_back(finished);
            } else {
                self.engines.push(Serving { running, number, core, ways });
            }
        }
        self.broken |= !problems.is_empty();
        self.problems.append(&mut problems);
        let mut cards = present(&mut self.stations);
        self.opener.reclaim(&mut cards);
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

fn side(station: &mut Station) -> Side<'_> {
    Side { name: &station.name, kind: station.kind, control: &mut *station.control }
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
