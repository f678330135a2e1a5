//! Reading the configuration again while it runs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use dataplane::config::{Desired, Settings};
use dataplane::forwarder::{Applied, Forwarder, apply};

use super::announce::changed;
use crate::output;

/// A file, and the flags that lie over it.
pub(super) struct Reload {
    pub(super) path: PathBuf,
    pub(super) flags: Settings,
    pub(super) json: bool,
    /// Ports may take long to open, and nobody waits for that.
    pub(super) underway: Option<JoinHandle<Option<Applied>>>,
    /// The file may have changed since it was read, and is to be read once more after that.
    pub(super) again: bool,
}

impl Reload {
    /// Begins to make the forwarder what the file says now.
    pub(super) fn begin(&mut self, forwarder: &Arc<Mutex<Forwarder>>) {
        let path = self.path.clone();
        if self.underway.is_some() {
            self.again = true;
            return;
        }
        let (mut forwarder, flags) = (Arc::clone(forwarder), self.flags.clone());
        let work = move || {
            let desired = Desired::read(&path).map(|desired| desired.under(flags));
            let applied = desired.map_err(|error| error.to_string());
            let applied =
                applied.and_then(|desired| apply(&mut forwarder, &desired).map_err(|error| error.to_string()));
            // A reason of a file names it; anything else has to be told where it comes from.
            applied.inspect_err(|error| tracing::error!("SIGHUP: nothing was changed: {error}")).ok()
        };
        match std::thread::Builder::new().name("reload".to_owned()).spawn(work) {
            Ok(thread) => self.underway = Some(thread),
            Err(error) => tracing::error!("{}: cannot be applied: {error}", self.path.display()),
        }
    }

    /// Says what came of it, once that is known.
    pub(super) fn collect(&mut self, forwarder: &Arc<Mutex<Forwarder>>) -> std::io::Result<()> {
        let Some(thread) = self.underway.take_if(|thread| thread.is_finished()) else { return Ok(()) };
        if std::mem::take(&mut self.again) {
            self.begin(forwarder);
        }
        let Ok(Some(applied)) = thread.join() else { return Ok(()) };
        for line in &applied.lines {
            tracing::info!("{}: {line}", self.path.display());
        }
        for notice in &applied.notices {
            tracing::warn!("{notice}");
        }
        if output::is_ready() { changed(&self.path, &applied, self.json) } else { Ok(()) }
    }
}
