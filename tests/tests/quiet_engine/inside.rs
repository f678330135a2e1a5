//! The forwarder in this process, as the program has it.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};
use dataplane::config::{ControlSocket, CoreList, Desired, Poll, Settings};
use dataplane::forwarder::{Forwarder, apply};
use lab::leftovers;
use lab::tenants::{Crowd, Station, mac};
use tempfile::TempDir;

use crate::scene::PORTS;

/// A running forwarder.
pub(crate) struct Inside {
    forwarder: Arc<Mutex<Forwarder>>,
    folder: TempDir,
}

impl Inside {
    pub(crate) fn start(toml: &str) -> Result<Self> {
        let folder = leftovers::folder("quiet")?;
        let desired = Self::desired(&folder, toml)?;
        let flags = Settings {
            poll: Some(Poll::Always),
            no_huge: Some(true),
            control: Some(ControlSocket::None),
            ..Settings::default()
        };
        let config = desired.under(flags).check(&CoreList::available()?)?;
        let (forwarder, _) = Forwarder::run(&config)?;
        Ok(Self { forwarder: Arc::new(Mutex::new(forwarder)), folder })
    }

    fn desired(folder: &TempDir, toml: &str) -> Result<Desired> {
        Ok(Desired::from_toml(&PORTS.file(folder.path(), toml), &folder.path().join("mirach.toml"))?)
    }

    pub(crate) fn attach(&self) -> Result<Crowd> {
        let at = |(number, name): (u8, &&str)| Station::at(&self.folder.path().join(name), name, mac(number));
        Ok(Crowd::new((0..).zip(PORTS.machines).map(at).collect::<Result<_>>()?))
    }

    /// Changes the networks, and asks for everything.
    pub(crate) fn change(&self, toml: &str) -> Result<()> {
        let desired = Self::desired(&self.folder, toml)?;
        apply(&mut Arc::clone(&self.forwarder), &desired)?;
        let switch = {
            let mut forwarder = self.forwarder.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = (forwarder.statistics(), forwarder.list(), forwarder.check());
            forwarder.vswitch()
        };
        switch.context("there is no switch")?.statistics()?;
        Ok(())
    }

    pub(crate) fn end(self) -> Result<()> {
        let forwarder = Arc::into_inner(self.forwarder).context("somebody has the forwarder")?;
        let forwarder = forwarder.into_inner().map_err(|_| anyhow!("somebody who had the forwarder panicked"))?;
        let stopped = forwarder.stop();
        ensure!(stopped.problems.is_empty(), "{:?}", stopped.problems);
        Ok(())
    }
}
