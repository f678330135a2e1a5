//! Ports that come and go while others' traffic goes on.

use super::station::{Station, present};
use super::{Forwarder, ForwarderError};
use crate::port::open::Peer;
use crate::port::{NamedSpec, Port, PortKind};

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

impl Forwarder {
    /// Opens a port, and joins it to the port `partner` if there is to be one. The traffic of all other ports goes on.
    ///
    /// # Errors
    /// When it cannot be opened, or `partner` is not there, joined already, or lost. Nothing has changed then.
    pub fn add(&mut self, spec: &NamedSpec, partner: Option<&str>) -> Result<Added, ForwarderError> {
        let partner = match partner {
            Some(name) => Some(self.unjoined(name)?),
            None => None,
        };
        let peer = partner.and_then(|id| self.station(id));
        let peer = peer.map(|station| Peer { kind: station.kind, queues: Some(station.queues) });
        let port = self.opener.add(spec, peer, &mut present(&mut self.stations))?;
        let mut added = Added { name: port.name.clone(), notices: port.notices.clone() };
        let id = self.insert(port, Some(spec.clone()));
        if let Some(partner) = partner {
            match self.connect(partner, id) {
                Ok(notices) => added.notices.extend(notices),
                Err(error) => {
                    // What went wrong first is what counts.
                    let _ = self.delete(&added.name);
                    return Err(error);
                }
            }
        }
        Ok(added)
    }

    /// Parts the port `name` from its partner, stops it, and gives back all that it had. The traffic of all other ports goes on.
    /// Gives what went wrong with that, a sentence each; the port is gone all the same.
    ///
    /// # Errors
    /// When there is no such port.
    pub fn delete(&mut self, name: &str) -> Result<Vec<String>, ForwarderError> {
        let id = self.find(name)?;
        self.part(id);
        let Some(place) = self.position(id) else {
            return Ok(Vec::new());
        };
        let mut station = self.stations.remove(place);
        let stopped = station.stop();
        // With it goes the last that holds its device and its memory.
        drop(station);
        self.opener.release(name, &mut present(&mut self.stations));
        Ok(stopped.err().map(|error| error.to_string()).into_iter().collect())
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

    pub(super) fn position(&self, id: usize) -> Option<usize> {
        self.stations.iter().position(|station| station.id == id)
    }

    pub(super) fn station(&self, id: usize) -> Option<&Station> {
        self.stations.iter().find(|station| station.id == id)
    }

    fn partner_of(&self, id: usize) -> Option<String> {
        let pair = self.pairs.iter().find(|pair| pair.contains(&id))?;
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
        let name = || name.to_owned();
        if let Some(partner) = self.partner_of(id) {
            return Err(ForwarderError::Joined { name: name(), partner });
        }
        if self.station(id).is_some_and(|station| station.stopped) {
            return Err(ForwarderError::Lost { name: name() });
        }
        Ok(id)
    }
}
