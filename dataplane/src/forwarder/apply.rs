//! From the state that runs to the state that a file describes, with the least change, all or nothing.
//!
//! First it is found out what has to change ([`plan`]); then ports that are new are opened, which others do not notice; then ports are parted, networks
//! changed and ports joined in one go; last, ports that are gone from the file are closed. Whatever fails before, all is as it was.
//!
//! Ports that were added one by one ([`add`](super::add)) stand in no file and stay.

use super::ports::{Others, add_alone};
use super::rewire::Rewired;
use super::{Access, Bond, Forwarder, ForwarderError, Station, delete};
use crate::config::{Config, ConfigError, Desired};
use crate::network;
use crate::network::config::Problem;
use crate::port::NamedSpec;
use crate::port::open::Peer;
use crate::vswitch::VswitchError;

/// The running state was not changed. The text says why, with file and line where something in a file is to blame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// What is wanted cannot be, or not while mirach runs.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something failed on the way.
    #[error(transparent)]
    Forwarder(#[from] ForwarderError),
    /// An edit did not want it, or others came between.
    #[error("{0}")]
    Refused(String),
}

/// What was changed, or would be.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Applied {
    /// A line for each thing: `+ network blue` has come, `- port tap0` has gone, `~ ...` is another now. None when nothing has changed.
    pub lines: Vec<String>,
    /// What the user should know about it, a sentence each.
    pub notices: Vec<String>,
}

/// A bond by names, as some of its ports are still to be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Wanted {
    Pair([String; 2]),
    Switched(String),
}

/// What has to be done.
struct Plan {
    config: Config,
    /// Ports that are new, by their places in the configuration, with the name that they have to get.
    opens: Vec<(usize, NamedSpec)>,
    /// Ports that go, by name.
    closes: Vec<String>,
    /// All bonds that there are to be.
    wanted: Vec<Wanted>,
    /// What is closed, joined and parted.
    lines: Vec<String>,
}

impl Plan {
    /// What is opened.
    fn opened(&self) -> Vec<String> {
        let names = self
            .opens
            .iter()
            .filter_map(|(place, _)| Some((self.config.names.get(*place)?, self.config.ports.get(*place)?)));
        names.map(|(name, spec)| format!("+ port {name} ({spec})")).collect()
    }
}

/// What [`apply`] would change.
///
/// # Errors
/// When it is known already that it cannot be.
pub fn plan(access: &mut impl Access, desired: &Desired) -> Result<Applied, ApplyError> {
    let lines = access.with(|forwarder| {
        let plan = forwarder.plan(desired)?;
        let networks = forwarder.plan_network(&plan.config.network).map_err(|error| located(desired, error))?;
        let lines = [plan.opened(), plan.lines, networks].concat();
        Ok::<_, ApplyError>(lines)
    })?;
    Ok(Applied { lines, notices: Vec::new() })
}

/// Makes the forwarder what is desired. The forwarder is free for others while ports open and close.
///
/// # Errors
/// When anything of it cannot be. Then everything is as before; ports that had to be parted on the way have paused for a moment.
pub fn apply(access: &mut impl Access, desired: &Desired) -> Result<Applied, ApplyError> {
    let plan = access.with(|forwarder| forwarder.plan(desired))?;
    let mut applied = Applied { lines: plan.opened(), notices: Vec::new() };
    let mut opened = Vec::new();
    let done = open_new(access, desired, &plan, &mut opened).and_then(|notices| {
        applied.notices.extend(notices);
        access.with(|forwarder| forwarder.carry_out(desired))
    });
    let (closes, Applied { lines, notices }) = match done {
        Ok(done) => done,
        Err(error) => {
            for name in opened {
                // What went wrong first is what counts.
                let _ = delete(access, &name);
            }
            return Err(error);
        }
    };
    applied.lines.extend(lines);
    applied.notices.extend(notices);
    for name in &closes {
        match delete(access, name) {
            Ok(notices) => applied.notices.extend(notices),
            Err(ForwarderError::NoSuchPort { .. }) => {}
            // It forwards nothing any more, and can be deleted later.
            Err(error) => applied.notices.push(error.to_string()),
        }
    }
    Ok(applied)
}

/// Edits the networks that there are, and attaches the ports that they name then, and detaches those that they do not name any more.
///
/// # Errors
/// What `edit` says, and as [`apply`].
pub fn change(
    access: &mut impl Access,
    edit: impl FnOnce(&mut network::Config) -> Result<(), String>,
) -> Result<Applied, ApplyError> {
    access.with(|forwarder| {
        let mut network = forwarder.network();
        edit(&mut network).map_err(ApplyError::Refused)?;
        let (_, applied) = forwarder.carry_out(&Desired::from_network(network))?;
        Ok(applied)
    })
}

/// Opens the ports that are new. Those that are open are in `opened`, also when one fails.
fn open_new(
    access: &mut impl Access,
    desired: &Desired,
    plan: &Plan,
    opened: &mut Vec<String>,
) -> Result<Vec<String>, ApplyError> {
    let mut notices = Vec::new();
    for (place, spec) in &plan.opens {
        let name = plan.config.names.get(*place).cloned().unwrap_or_default();
        let partner = plan.config.pairs.iter().find(|pair| pair.contains(place)).map(|[one, two]| one ^ two ^ place);
        let others = match partner {
            Some(partner) => {
                let partner_name = plan.config.names.get(partner).cloned().unwrap_or_default();
                let others = access.with(|forwarder| forwarder.others(&partner_name));
                // It may be one that is opened next.
                let peer = others.peer.or_else(|| plan.config.ports.get(partner).map(|named| Peer::of(&named.spec)));
                Others { peer, ..others }
            }
            None => Others { switched: plan.config.network.names_port(&name), ..Others::default() },
        };
        let added = add_alone(access, spec, others).map_err(|error| match error {
            error @ ForwarderError::Stopping => ApplyError::Forwarder(error),
            error => desired.locate(Problem::of_one("ports", *place, error.to_string())).into(),
        })?;
        opened.push(added.name);
        notices.extend(added.notices);
    }
    Ok(notices)
}

/// The error with the line that is to blame for it, if one is.
fn located(desired: &Desired, error: ForwarderError) -> ApplyError {
    match error {
        ForwarderError::Switch(VswitchError::Config(problem)) => desired.locate(problem).into(),
        error => error.into(),
    }
}

impl Forwarder {
    /// Finds out what has to change, and refuses what cannot.
    fn plan(&self, desired: &Desired) -> Result<Plan, ApplyError> {
        if self.closed {
            return Err(ForwarderError::Stopping.into());
        }
        let config = desired.check_against(&self.config)?;
        let refuse = |problem| ApplyError::from(desired.locate(problem));
        let mut opens = Vec::new();
        let mut lines = Vec::new();
        for (place, (spec, name)) in config.ports.iter().zip(&config.names).enumerate() {
            match self.stations.iter().find(|station| station.name == *name) {
                None => {
                    let own_name = name.parse().ok();
                    opens.push((place, NamedSpec { name: own_name.or_else(|| spec.name.clone()), ..spec.clone() }));
                }
                Some(station) => {
                    check_same(station, spec).map_err(|reason| refuse(Problem::of_one("ports", place, reason)))?;
                }
            }
        }
        let goes = |station: &&Station| station.of_file && !desired.ports_stay && !config.names.contains(&station.name);
        let closes: Vec<String> = self.stations.iter().filter(goes).map(|station| station.name.clone()).collect();
        lines.extend(closes.iter().map(|name| format!("- port {name}")));
        let wanted = self.wanted(&config, &closes, &mut lines).map_err(refuse)?;
        Ok(Plan { config, opens, closes, wanted, lines })
    }

    /// The bonds that there are to be: those of the file, and of the others those that it has nothing against.
    fn wanted(&self, config: &Config, closes: &[String], lines: &mut Vec<String>) -> Result<Vec<Wanted>, Problem> {
        let name_at = |place: usize| config.names.get(place).cloned().unwrap_or_default();
        let mut pairs: Vec<[String; 2]> = config.pairs.iter().map(|pair| pair.map(name_at)).collect();
        let present: Vec<[String; 2]> = self.joins().into_iter().map(|join| join.ports).collect();
        let same = |one: &[String; 2], two: &[String; 2]| one.iter().all(|name| two.contains(name));
        lines.extend(
            pairs
                .iter()
                .filter(|pair| !present.iter().any(|other| same(pair, other)))
                .map(|[one, two]| format!("+ join {one} <-> {two}")),
        );
        for pair in &present {
            let [one, two] = pair;
            // As they stand in the file, so that the same pair the other way round is no other.
            if let Some(wanted) = pairs.iter_mut().find(|wanted| same(wanted, pair)) {
                wanted.clone_from(pair);
                continue;
            }
            let is_of_file = |name: &String| config.names.contains(name) || closes.contains(name);
            let is_claimed = |name: &String| config.names.contains(name) || config.network.names_port(name);
            let goes = pair.iter().any(|name| closes.contains(name)) || pair.iter().all(is_of_file);
            if !goes && !pair.iter().any(is_claimed) {
                pairs.push(pair.clone());
            } else if goes {
                lines.push(format!("- join {one} <-> {two}"));
            } else {
                let (name, other) = if is_claimed(one) { (one, two) } else { (two, one) };
                let reason = format!(
                    "port `{name}` is joined to `{other}`, of which this says nothing; part them first (mirach port del {other})"
                );
                return Err(self.place_of(config, name, reason));
            }
        }
        let open = self.stations.iter().filter(|station| !station.stopped).map(|station| &station.name);
        let mut switched: Vec<&String> =
            config.names.iter().chain(open).filter(|name| !closes.contains(name)).collect();
        switched.sort_unstable();
        switched.dedup();
        let switched = switched.into_iter().filter(|name| config.network.names_port(name));
        let switched = switched.map(|name| Wanted::Switched(name.clone()));
        Ok(pairs.into_iter().map(Wanted::Pair).chain(switched).collect())
    }

    /// Where a configuration says something about the port `name`.
    fn place_of(&self, config: &Config, name: &str, reason: String) -> Problem {
        let ports = &config.network.ports;
        if let Some(place) = ports.iter().position(|port| port.name == name) {
            return Problem::of_one("port", place, reason);
        }
        match config.names.iter().position(|other| other == name) {
            Some(place) => Problem::of_one("ports", place, reason),
            None => Problem::of_all("underlay", reason),
        }
    }

    /// Changes bonds and networks. Ports that are new are open. What has to change is found out anew, as others may have added and joined ports while
    /// those opened. Gives the ports that are to be closed, too.
    fn carry_out(&mut self, desired: &Desired) -> Result<(Vec<String>, Applied), ApplyError> {
        let Plan { config, opens, closes, wanted, mut lines } = self.plan(desired)?;
        if let Some(name) = opens.first().and_then(|(place, _)| config.names.get(*place)) {
            return Err(ApplyError::Refused(format!("port `{name}` was deleted meanwhile; apply again")));
        }
        let mut target = Vec::with_capacity(wanted.len());
        for wanted in &wanted {
            target.push(match wanted {
                Wanted::Pair([one, two]) => Bond::Pair([self.find(one)?, self.find(two)?]),
                Wanted::Switched(name) => Bond::Switched([self.find(name)?]),
            });
        }
        let rewired = self.rewire(&target, &config.network).map_err(|error| located(desired, error))?;
        for station in self.stations.iter_mut().filter(|_| config.ports_of_file) {
            station.of_file |= config.names.contains(&station.name);
        }
        let Rewired { lines: networks, notices } = rewired;
        lines.extend(networks);
        Ok((closes, Applied { lines, notices }))
    }
}

/// Whether a port that there is can be the one that is wanted.
fn check_same(station: &Station, wanted: &NamedSpec) -> Result<(), String> {
    let name = &station.name;
    match &station.spec {
        _ if station.stopped => Err(format!(
            "port `{name}` has failed and did not come back; delete it first (mirach port del {name}), so that it is opened anew"
        )),
        Some(spec) if spec.spec == wanted.spec => Ok(()),
        Some(spec) => Err(format!(
            "port `{name}` is open as `{spec}`, and a port cannot change; take it out of the file first, or give the new one another \
             name with name="
        )),
        None => Err(format!("there is a port `{name}` already; give this one another name with name=")),
    }
}
