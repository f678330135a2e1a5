//! Ports that come and go while others' traffic goes on.

use super::restart::Restart;
use super::station::{Station, present};
use super::{Access, Forwarder, ForwarderError};
use crate::port::open::{Opening, Peer};
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
    /// It failed and did not come back.
    pub lost: bool,
    /// Queue pairs.
    pub queues: usize,
    /// One line of facts in the words of `ip -d link`.
    pub facts: String,
}

/// A port that is to be opened.
struct Begun {
    name: String,
    /// The number and the name of the port that it is to be joined to.
    partner: Option<(usize, String)>,
    peer: Option<Peer>,
}

/// A port that left, and has to be stopped.
struct Leaving {
    station: Station,
    restart: Option<Restart>,
}

/// Opens a port, and joins it to the port `partner` if there is to be one. The traffic of all other ports goes on. The forwarder
/// is free for others while the port opens.
///
/// # Errors
/// When it cannot be opened, or `partner` is not there, joined already, or lost. Nothing has changed then.
pub fn add(access: &mut impl Access, spec: &NamedSpec, partner: Option<&str>) -> Result<Added, ForwarderError> {
    let begun = access.with(|forwarder| forwarder.begin(spec, partner))?;
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
        // What went wrong first is what counts, here and below.
        let _ = station.stop();
        return Err(ForwarderError::Stopping);
    }
    let mut added = Added { name, notices: port };
    if let Some((partner, _)) = begun.partner {
        match access.with(|forwarder| forwarder.join_new(partner, &added.name)) {
            Ok(notices) => added.notices.extend(notices),
            Err(error) => {
                let _ = delete(access, &added.name);
                return Err(error);
            }
        }
    }
    Ok(added)
}

/// The port, started; everything that takes its time is done without the forwarder.
fn open(access: &mut impl Access, spec: &NamedSpec, begun: &Begun) -> Result<Port, PortError> {
    let mut opening = Opening::open(&spec.spec, begun.name.clone(), begun.peer)?;
    let partner = begun.partner.as_ref().map(|(_, name)| name.as_str());
    let (notice, clock) = access.with(|forwarder| {
        let notice = forwarder.opener.supply(&mut opening, partner);
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
    // With it goes the last that holds its device and its memory.
    drop(station);
    access.with(|forwarder| forwarder.release(name));
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

    /// Takes the name for a port that is to be opened.
    fn begin(&mut self, spec: &NamedSpec, partner: Option<&str>) -> Result<Begun, ForwarderError> {
        if self.closed {
            return Err(ForwarderError::Stopping);
        }
        let partner = match partner {
            Some(name) => Some((self.unjoined(name)?, name.to_owned())),
            None => None,
        };
        let peer = partner.as_ref().and_then(|(id, _)| self.station(*id));
        let peer = peer.map(|station| Peer { kind: station.kind, queues: Some(station.queues) });
        let names = self.opener.claim(std::slice::from_ref(spec))?;
        let name = names.into_iter().next().unwrap_or_default();
        Ok(Begun { name, partner, peer })
    }

    /// A port is open: it is one of the forwarder's, unless that has stopped meanwhile. Gives what the user should know about it.
    fn take_in(&mut self, mut port: Port, spec: &NamedSpec) -> (Vec<String>, Option<Station>) {
        self.opener.settle(&port.name);
        let notices = std::mem::take(&mut port.notices);
        if self.closed {
            return (notices, Some(Station::new(self.next, port, None)));
        }
        self.insert(port, Some(spec.clone()));
        (notices, None)
    }

    /// Joins a port that was just opened to the port number `partner`, which others may have joined or deleted meanwhile.
    fn join_new(&mut self, partner: usize, name: &str) -> Result<Vec<String>, ForwarderError> {
        let id = self.find(name)?;
        self.can_be_joined(partner)?;
        self.connect(partner, id)
    }

    /// Takes the port `name` out.
    fn dismiss(&mut self, name: &str) -> Result<Leaving, ForwarderError> {
        let id = self.find(name)?;
        self.part(id);
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
    /// When one of them is not there, joined already, or lost, or when they cannot be joined. Nothing has changed then.
    pub fn join(&mut self, left: &str, right: &str) -> Result<Vec<String>, ForwarderError> {
        let (left_id, right_id) = (self.unjoined(left)?, self.unjoined(right)?);
        if left_id == right_id {
            return Err(ForwarderError::Itself { name: left.to_owned() });
        }
        self.connect(left_id, right_id)
    }

    /// All ports, in the order in which they came.
    pub fn list(&mut self) -> Vec<Listing> {
        let partners: Vec<Option<String>> = self.stations.iter().map(|station| self.partner_of(station.id)).collect();
        let listing = |(station, partner): (&mut Station, Option<String>)| Listing {
            name: station.name.clone(),
            kind: station.kind,
            spec: station.spec.clone(),
            partner,
            lost: station.stopped,
            queues: station.queues,
            facts: station.control.describe(),
        };
        self.stations.iter_mut().zip(partners).map(listing).collect()
    }

    pub(super) fn insert(&mut self, port: Port, spec: Option<NamedSpec>) -> usize {
        let id = self.next;
        self.next += 1;
        self.stations.push(Station::new(id, port, spec));
        id
    }

    pub(super) fn station(&self, id: usize) -> Option<&Station> {
        self.stations.iter().find(|station| station.id == id)
    }

    /// The pair that a port belongs to.
    pub(super) fn pair_of(&self, id: usize) -> Option<[usize; 2]> {
        self.pairs.iter().find(|pair| pair.contains(&id)).copied()
    }

    fn partner_of(&self, id: usize) -> Option<String> {
        let pair = self.pair_of(id)?;
        let partner = pair.iter().find(|other| **other != id)?;
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
    fn unjoined(&self, name: &str) -> Result<usize, ForwarderError> {
        let id = self.find(name)?;
        self.can_be_joined(id)?;
        Ok(id)
    }

    fn can_be_joined(&self, id: usize) -> Result<(), ForwarderError> {
        let Some(station) = self.station(id) else {
            return Err(ForwarderError::Gone);
        };
        let name = station.name.clone();
        if let Some(partner) = self.partner_of(id) {
            return Err(ForwarderError::Joined { name, partner });
        }
        match station {
            Station { stopped: true, .. } => Err(ForwarderError::Lost { name }),
            Station { away: true, .. } => Err(ForwarderError::Away { name }),
            station if !station.is_home() => Err(ForwarderError::Held { name }),
            _ => Ok(()),
        }
    }
}
