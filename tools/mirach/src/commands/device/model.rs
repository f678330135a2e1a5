//! What `mirach device` has to know of a kind of card.

use std::path::PathBuf;
use std::sync::Arc;

use models::card::{Chip, Control, Served};
use models::wire::TrafficCounters;

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
