//! Joining two ports, or a port and the switch: their queues go to engines. Parting them: the queues come back.

use std::sync::Arc;

use drivers::nic::Offloads;

use super::bond::Bond;
use super::engines::bell;
use super::station::{Station, is_present, present};
use super::{Forwarder, ForwarderError};
use crate::engine::plan::{Group, groups};
use crate::engine::{EngineError, Lane, Load, Sender};
use crate::port::open::offloads::{Side, match_offloads};
use crate::port::open::{Opener, SWITCH};
use crate::port::{PortError, PortKind};

/// Most packets that are received from a virtual machine at once, so that the others get their turn.
const MACHINE_BURST: usize = 32;

impl Forwarder {
    /// Bonds ports that have no bond. Gives what the user should know about it. On failure nothing has changed, but
    /// for what the ports let each other reach.
    pub(super) fn connect(&mut self, bond: Bond) -> Result<Vec<String>, ForwarderError> {
        if let Bond::Switched([port]) = bond {
            self.attach(port)?;
        }
        let engaged = self.engage(bond);
        match (&engaged, bond) {
            (Ok(_), _) => self.bonds.push(bond),
            (Err(_), Bond::Switched([port])) => self.detach(port),
            (Err(_), Bond::Pair(_)) => {}
        }
        engaged
    }

    /// Gives the queues of a bond, which are all at home, to engines. On failure they come back, or do so later.
    pub(super) fn engage(&mut self, bond: Bond) -> Result<Vec<String>, ForwarderError> {
        let engaged = self.introduce(bond).and_then(|()| match bond {
            Bond::Pair(pair) => self.engage_pair(pair),
            Bond::Switched([port]) => self.engage_switched(port).map(|()| Vec::new()),
        });
        if engaged.is_err() {
            self.withdraw(bond);
            for station in self.stations.iter_mut().filter(|station| bond.contains(station.id)) {
                // Of queues that no engine has had.
                station.transmitters.values_mut().for_each(|transmitter| transmitter.pool = None);
            }
            self.opener.reclaim(&mut present(&mut self.stations));
        }
        engaged
    }

    /// Lets the ports of a bond reach the packets of all whose packets they may get, and those reach theirs.
    fn introduce(&mut self, bond: Bond) -> Result<(), ForwarderError> {
        let all: Vec<Bond> = match bond {
            Bond::Pair(_) => vec![bond],
            Bond::Switched(_) => {
                let switched = self.bonds.iter().filter(|other| matches!(other, Bond::Switched(_)));
                switched.copied().chain([bond]).collect()
            }
        };
        let belongs = |station: &Station| all.iter().any(|bond| bond.contains(station.id));
        let names = self.stations.iter().filter(|one| belongs(one)).map(|one| one.name.clone());
        let mut names: Vec<String> = names.collect();
        if matches!(bond, Bond::Switched(_)) {
            names.push(SWITCH.to_owned());
        }
        // Who is being started anew is introduced when it is back.
        let here = self.stations.iter_mut().filter(|one| belongs(one) && is_present(one));
        let mut here: Vec<_> = here.map(Station::present).collect();
        Ok(self.opener.introduce(&mut here, &names)?)
    }

    fn engage_pair(&mut self, pair: [usize; 2]) -> Result<Vec<String>, ForwarderError> {
        let [one, other] = both(&mut self.stations, pair)?;
        let notices = match_offloads(side(one), side(other))?;
        let groups = groups((one.id, one.queues), (other.id, other.queues));
        if needs_pool(one, other) {
            give_pools(&mut self.opener, other, groups.len())?;
        }
        if needs_pool(other, one) {
            give_pools(&mut self.opener, one, groups.len())?;
        }
        groups.into_iter().try_for_each(|group| self.place(Bond::Pair(pair), &group))?;
        Ok(notices)
    }

    /// Gives a group to the engine that has least to do, or to a new one on a core that has none.
    fn place(&mut self, bond: Bond, group: &Group) -> Result<(), EngineError> {
        let number = match self.free_cores().first() {
            Some(core) => self.start_engine(*core, bell(self.free_number())?, Load::default())?,
            // There is always a core.
            None => match self.engines.iter().min_by_key(|serving| serving.queues.len()) {
                Some(serving) => serving.number,
                None => return Ok(()),
            },
        };
        let load = self.take(group);
        self.give(number, bond, load)
    }

    /// The queues of a group, out of their stations.
    fn take(&mut self, group: &Group) -> Load {
        let mut load = Load::default();
        let burst = self.config.engine.burst;
        for way in &group.ways {
            if let Some(station) = self.stations.iter_mut().find(|station| station.id == way.to.port)
                && let Some(transmitter) = station.transmitters.remove(&way.to.queue)
            {
                load.senders.push(Sender::new(transmitter, Arc::clone(&station.cells)));
            }
            if let Some(station) = self.stations.iter_mut().find(|station| station.id == way.from.port)
                && let Some(receiver) = station.receivers.remove(&way.from.queue)
            {
                load.lanes.push(Lane::new(receiver, way.to, burst_of(station, burst), Arc::clone(&station.cells)));
            }
        }
        load
    }

    /// Takes a bond apart: the queues of its ports come back, and the switch forgets a port that it had.
    pub(super) fn part(&mut self, bond: Bond) {
        self.bonds.retain(|other| *other != bond);
        self.withdraw(bond);
        if let Bond::Switched([port]) = bond {
            self.detach(port);
        }
        self.opener.reclaim(&mut present(&mut self.stations));
    }
}

/// Most packets that are received from the port at once.
pub(super) fn burst_of(station: &Station, burst: usize) -> usize {
    match station.kind {
        PortKind::VhostUser => burst.min(MACHINE_BURST),
        _ => burst,
    }
}

/// Two ports, by number.
fn both(stations: &mut [Station], pair: [usize; 2]) -> Result<[&mut Station; 2], ForwarderError> {
    let place = |id| stations.iter().position(|station| station.id == id).unwrap_or(usize::MAX);
    let places = pair.map(place);
    stations.get_disjoint_mut(places).map_err(|_| ForwarderError::Gone)
}

fn side(station: &mut Station) -> Side<'_> {
    Side { name: &station.name, kind: station.kind, control: &mut *station.control }
}

/// Gives `count` transmit queues of `to` buffers for packets that have to be made anew before they can be sent there.
pub(super) fn give_pools(opener: &mut Opener, to: &mut Station, count: usize) -> Result<(), PortError> {
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
