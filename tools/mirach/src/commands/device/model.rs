//! What `mirach device` has to know of a kind of card.

use std::path::PathBuf;
use std::sync::Arc;

use models::card::{self, Chip, Control, Options, Served};
use models::plan::{Lie, Planned};
use models::wire::{Null, TrafficCounters};
use vfio::user::server::Server;

/// A card that is served.
pub(super) struct Card<C> {
    pub(super) socket: PathBuf,
    pub(super) served: Served<C>,
    pub(super) control: Control<C>,
    /// What its wire counts, when that makes frames.
    pub(super) traffic: Option<Arc<TrafficCounters>>,
}

/// What is known of a card and no other kind has.
pub(super) struct Facts {
    /// What `state` is of.
    pub(super) what: &'static str,
    pub(super) state: String,
    pub(super) counters: Vec<(&'static str, u64)>,
}

/// A kind of card.
pub(super) trait Model: Chip + Sized {
    /// The words on stdin.
    const HELP: &'static str;

    /// Does what one of them says.
    fn obey(control: &Control<Self>, verb: &str, object: &str) -> Result<(), String>;

    /// What is known of a card at this moment.
    fn facts(card: &Card<Self>) -> Facts;
}

/// Serves a copy engine at each socket.
pub(super) fn engines<C: Chip>(sockets: &[PathBuf], make: impl Fn() -> C) -> anyhow::Result<Vec<Card<C>>> {
    // All sockets first: what is most likely to fail costs nothing yet.
    let servers = sockets.iter().map(Server::bind).collect::<Result<Vec<_>, _>>()?;
    let mut cards = Vec::with_capacity(servers.len());
    for (server, socket) in servers.into_iter().zip(sockets) {
        let name = socket.file_name().map_or_else(|| "engine".into(), |name| name.to_string_lossy().into_owned());
        let served = card::serve(server, Options::named(name), make(), Null)?;
        cards.push(Card { socket: socket.clone(), control: served.control(), served, traffic: None });
    }
    Ok(cards)
}

/// The faults of a word such as `copy-wrong@3,halt`, or `none`.
pub(super) fn faults<F: Lie>(plans: &str) -> Result<Vec<Planned<F>>, String> {
    if plans == "none" {
        return Ok(Vec::new());
    }
    plans.split(',').map(|plan| plan.parse::<Planned<F>>().map_err(|error| error.to_string())).collect()
}
