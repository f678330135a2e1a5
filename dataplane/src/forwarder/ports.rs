//! Ports that come and go while others' traffic goes on.

use super::restart::Restart;
use super::station::{Station, present};
use super::{Access, Bond, Forwarder, ForwarderError};
use crate::port::open::{Opening, Peer, SWITCH};
use crate::port::{NamedSpec, Port, PortError, PortKind};

/// A port that was added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Added {
    /// Its name.
    pub name: String,
    /// What the user should know about how it was opened and joined, a sentence each.
    pub notices: Vec<String>,
}

/// What there is to tell about a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: PortKind,
    /// How it was asked for; `None` for one that was opened elsewhere.
    pub spec: Option<NamedSpec>,
    /// The port that it is joined to.
    pub partner: Option<String>,
    /// The switch has it.
    pub switched: bool,
    /// The networks that it lies in; for the port to other hosts, that is `underlay`.
    pub networks: Vec<String>,
    /// It failed and did not come back.
    pub lost: bool,
    /// Queue pairs.
    pub queues: usize,
    /// One line of facts in the words of `ip -d link`.
    pub facts: String,
}

/// Whose packets a port that is to be opened will get.
#[derive(Clone, Default)]
pub(super) struct Others {
    /// What is known of them.
    pub(super) peer: Option<Peer>,
    /// Their names.
    pub(super) names: Vec<String>,
    /// All that are switched.
    pub(super) switched: bool,
}

/// A port that is to be opened.
struct Begun {
    name: String,
    others: Others,
}

/// A port that left, and has to be stopped.
struct Leaving {
    station: Station,
    restart: Option<Restart>,
}

/// Opens a port, and joins it to the port `partner` if there is to be one; one that a network names is switched. The traffic of all other ports goes on.
/// The forwarder is free for others while the port opens.
///
/// # Errors
/// When it cannot be opened, or `partner` is not there, joined already, or lost. Nothing has changed then.
pub fn add(access: &mut impl Access, spec: &NamedSpec, partner: Option<&str>) -> Result<Added, ForwarderError> {
    let others = access.with(|forwarder| forwarder.expect(partner))?;
    let mut added = add_alone(access, spec, others)?;
    let partner = partner.map(ToOwned::to_owned);
    match access.with(|forwarder| forwarder.bond_new(partner.as_deref(), &added.name)) {
        Ok(notices) => {
            added.notices.extend(notices);
            Ok(added)
        }
        Err(error) => {
            // What went wrong first is what counts, here and below.
            let _ = delete(access, &added.name);
            Err(error)
        }
    }
}

/// Opens a port that nothing is received from yet.
///
/// # Errors
/// As [`add`].
pub(super) fn add_alone(access: &mut impl Access, spec: &NamedSpec, others: Others) -> Result<Added, ForwarderError> {
    let begun = access.with(|forwarder| forwarder.begin(spec, others))?;
    let opened = open(access, spec, &begun);
    let name = begun.name.clone();
    let (port, late) = match opened {
        Ok(port) => access.with(|forwarder| forwarder.take_in(port, spec)),
        Err(error) => {
            access.with(|forwarder| forwarder.release(&name));
            return Err(error.into());
        }
    };
    if let Some(mut station) = late {
        let _ = station.stop();
        return Err(ForwarderError::Stopping);
    }
    Ok(Added { name, notices: port })
}

/// The port, started; everything that takes its time is done without the forwarder.
fn open(access: &mut impl Access, spec: &NamedSpec, begun: &Begun) -> Result<Port, PortError> {
    let mut opening = Opening::open(&spec.spec, begun.name.clone(), begun.others.peer)?;
    let (notice, clock) = access.with(|forwarder| {
        let notice = forwarder.opener.supply(&mut opening, &begun.others.names);
        notice.map(|notice| (notice, forwarder.opener.clock()))
    })?;
    let mut port = opening.start(clock)?;
    port.notices.splice(0..0, notice);
    Ok(port)
}

/// Parts the port `name` from its partner, stops it, and gives back all that it had. The traffic of all other ports goes on. The forwarder
/// is free for others while the port stops. Gives what went wrong with that, a sentence each; the port is gone all the same.
///
/// # Errors
/// When there is no such port, or its queues cannot be had at the moment.
pub fn delete(access: &mut impl Access, name: &str) -> Result<Vec<String>, ForwarderError> {
    let Leaving { mut station, restart } = access.with(|forwarder| forwarder.dismiss(name))?;
    let back = restart.map_or(Ok(()), |restart| station.come_back(restart.finish()));
    let stopped = back.and_then(|()| station.stop());
    let counted = station.statistics();
    // With it goes the last that holds its device and its memory.
    drop(station);
    access.with(|forwarder| {
        let [received, sent] = forwarder.gone;
        forwarder.gone = [received.plus(&counted.rx_total()), sent.plus(&counted.tx_total())];
        forwarder.release(name);
    });
    Ok(stopped.err().map(|error| error.to_string()).into_iter().collect())
}

impl Forwarder {
    /// Opens a port, and joins it to the port `partner` if there is to be one. The traffic of all other ports goes on.
    ///
    /// # Errors
    /// As [`add`].
    pub fn add(&mut self, spec: &NamedSpec, partner: Option<&str>) -> Result<Added, ForwarderError> {
        add(self, spec, partner)
    }

    /// Parts the port `name` from its partner, stops it, and gives back all that it had. The traffic of all other ports goes on.
    /// Gives what went wrong with that, a sentence each; the port is gone all the same.
    ///
    /// # Errors
    /// As [`delete`].
    pub fn delete(&mut self, name: &str) -> Result<Vec<String>, ForwarderError> {
        delete(self, name)
    }

    /// Whose packets a port will get that is to be joined to the port `partner`, which can be joined.
    fn expect(&self, partner: Option<&str>) -> Result<Others, ForwarderError> {
        match partner {
            Some(name) => {
                self.unbonded(name)?;
                Ok(self.others(name))
            }
            None => Ok(Others::default()),
        }
    }

    /// The packets of the port `name`, if it is open.
    pub(super) fn others(&self, name: &str) -> Others {
        let station = self.stations.iter().find(|station| station.name == name);
        let peer = station.map(|station| Peer::new(station.kind, Some(station.queues)));
        Others { peer, names: vec![name.to_owned()], switched: false }
    }

    /// Takes the name for a port that is to be opened.
    fn begin(&mut self, spec: &NamedSpec, mut others: Others) -> Result<Begun, ForwarderError> {
        if self.closed {
            return Err(ForwarderError::Stopping);
        }
        let names = self.opener.claim(std::slice::from_ref(spec))?;
        let name = names.into_iter().next().unwrap_or_default();
        if others.switched || self.names_port(&name) {
            others = Others { peer: Some(Peer::SWITCH), names: self.switched_names(), switched: true };
        }
        Ok(Begun { name, others })
    }

    /// The owners of packets that a switched port may get.
    fn switched_names(&self) -> Vec<String> {
        let is_switched = |station: &&Station| matches!(self.bond_of(station.id), Some(Bond::Switched(_)));
        let names = self.stations.iter().filter(is_switched).map(|station| station.name.clone());
        names.chain([SWITCH.to_owned()]).collect()
    }

    /// A port is open: it is one of the forwarder's, unless that has stopped meanwhile. Gives what the user should know about it.
    fn take_in(&mut self, mut port: Port, spec: &NamedSpec) -> (Vec<String>, Option<Station>) {
        self.opener.settle(&port.name);
        let notices = std::mem::take(&mut port.notices);
        if self.closed {
            return (notices, Some(Station::new(self.next, port, None)));
        }
        self.insert(port, Some(spec.clone()), false);
        (notices, None)
    }

    /// Joins a port that was just opened to the port `partner`, which others may have joined or deleted meanwhile, or switches it if a network names
    /// it.
    fn bond_new(&mut self, partner: Option<&str>, name: &str) -> Result<Vec<String>, ForwarderError> {
        let id = self.find(name)?;
        match partner {
            Some(_) if self.names_port(name) => Err(ForwarderError::Switched { name: name.to_owned() }),
            Some(partner) => {
                let partner = self.unbonded(partner).map_err(|error| match error {
                    ForwarderError::NoSuchPort { .. } => ForwarderError::Gone,
                    error => error,
                })?;
                self.connect(Bond::Pair([partner, id]))
            }
            None if self.names_port(name) => self.connect(Bond::Switched([id])),
            None => Ok(Vec::new()),
        }
    }

    /// Takes the port `name` out.
    fn dismiss(&mut self, name: &str) -> Result<Leaving, ForwarderError> {
        let id = self.find(name)?;
        if let Some(bond) = self.bond_of(id) {
            self.part(bond);
        }
        let away = self.restarts.iter().position(|restart| restart.id == id);
        let station = self
            .stations
            .extract_if(.., |station| station.id == id && (away.is_some() || station.stopped || station.is_home()));
        let Some(station) = station.last() else {
            return Err(ForwarderError::Held { name: name.to_owned() });
        };
        Ok(Leaving { station, restart: away.map(|place| self.restarts.remove(place)) })
    }

    /// Forgets a port that is closed or was never opened.
    fn release(&mut self, name: &str) {
        self.opener.release(name, &mut present(&mut self.stations));
    }

    /// Joins two ports that are joined to none. Gives what the user should know about it, a sentence each.
    ///
    /// # Errors
    /// When one of them is not there, joined or switched already, or lost, or when they cannot be joined. Nothing has changed then.
    pub fn join(&mut self, left: &str, right: &str) -> Result<Vec<String>, ForwarderError> {
        let (left_id, right_id) = (self.unbonded(left)?, self.unbonded(right)?);
        if left_id == right_id {
            return Err(ForwarderError::Itself { name: left.to_owned() });
        }
        self.connect(Bond::Pair([left_id, right_id]))
    }

    /// All ports, in the order in which they came.
    pub fn list(&mut self) -> Vec<Listing> {
        let network = self.network();
        let bonds: Vec<(Option<String>, bool)> = self
            .stations
            .iter()
            .map(|station| (self.partner_of(station.id), matches!(self.bond_of(station.id), Some(Bond::Switched(_)))))
            .collect();
        let listing = |(station, (partner, switched)): (&mut Station, (Option<String>, bool))| Listing {
            name: station.name.clone(),
            kind: station.kind,
            spec: station.spec.clone(),
            partner,
            switched,
            networks: network.networks_of(&station.name),
            lost: station.stopped,
            queues: station.queues,
            facts: station.control.describe(),
        };
        self.stations.iter_mut().zip(bonds).map(listing).collect()
    }

    pub(super) fn insert(&mut self, port: Port, spec: Option<NamedSpec>, of_file: bool) -> usize {
        let id = self.next;
        self.next += 1;
        let mut station = Station::new(id, port, spec);
        station.of_file = of_file;
        self.stations.push(station);
        id
    }

    pub(super) fn station(&self, id: usize) -> Option<&Station> {
        self.stations.iter().find(|station| station.id == id)
    }

    /// What the queues of a port are with engines for.
    pub(super) fn bond_of(&self, id: usize) -> Option<Bond> {
        self.bonds.iter().find(|bond| bond.contains(id)).copied()
    }

    pub(super) fn partner_of(&self, id: usize) -> Option<String> {
        let bond = self.bond_of(id)?;
        let partner = bond.ports().iter().find(|other| **other != id)?;
        self.station(*partner).map(|station| station.name.clone())
    }

    /// The number of the port `name`.
    pub(super) fn find(&self, name: &str) -> Result<usize, ForwarderError> {
        let found = self.stations.iter().find(|station| station.name == name);
        found.map(|station| station.id).ok_or_else(|| {
            let there: Vec<&str> = self.stations.iter().map(|station| station.name.as_str()).collect();
            let there = if there.is_empty() { "there are none".to_owned() } else { there.join(", ") };
            ForwarderError::NoSuchPort { name: name.to_owned(), there }
        })
    }

    /// The number of the port `name`, which can be joined.
    fn unbonded(&self, name: &str) -> Result<usize, ForwarderError> {
        let id = self.find(name)?;
        let name = name.to_owned();
        if self.names_port(&name) {
            return Err(ForwarderError::Switched { name });
        }
        if let Some(partner) = self.partner_of(id) {
            return Err(ForwarderError::Joined { name, partner });
        }
        self.can_be_bonded(id)?;
        Ok(id)
    }

    /// The port works, and all its queues are here.
    pub(super) fn can_be_bonded(&self, id: usize) -> Result<(), ForwarderError> {
        let Some(station) = self.station(id) else { return Err(ForwarderError::Gone) };
        let name = station.name.clone();
        match station {
            Station { stopped: true, .. } => Err(ForwarderError::Lost { name }),
            Station { away: true, .. } => Err(ForwarderError::Away { name }),
            station if !station.is_home() || self.is_owed(id) => Err(ForwarderError::Held { name }),
            _ => Ok(()),
        }
    }
}
