//! How `mirach run` is told to use the two devices of a site.

use anyhow::{Result, bail};

use crate::forwarder::{self, User};
use crate::pair::Pair;
use crate::site::{Booted, DEVICES};
use crate::traffic;

/// VFIO's interfaces to user space, by the name that they have in a port's specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// Groups and containers.
    Type1,
    /// Character devices and I/O address spaces.
    Iommufd,
}

impl Interface {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Type1 => "type1",
            Self::Iommufd => "iommufd",
        }
    }
}

/// One point of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The kernel's interface.
    pub interface: Interface,
    /// The layout of the rings, for devices that offer several.
    pub rings: Option<&'static str>,
    /// Queue pairs.
    pub queues: u32,
}

impl Case {
    /// Its name, as part of the names of checks.
    #[must_use]
    pub fn name(self) -> String {
        let rings = self.rings.map_or_else(String::new, |rings| format!("{rings}-rings::"));
        format!("{}::{rings}{}-queue-pairs", self.interface.name(), self.queues)
    }

    /// The arguments of `mirach run`.
    ///
    /// One engine on the second processor: the first one is left to the guest's kernel.
    #[must_use]
    pub fn arguments(self) -> String {
        format!("{} --memory 32M --poll adaptive", self.ports())
    }

    /// Those arguments without the memory and the way of polling.
    #[must_use]
    pub fn ports(self) -> String {
        let rings = self.rings.map_or_else(String::new, |rings| format!(",ring={rings}"));
        let options = format!("queues={}{rings},vfio={}", self.queues, self.interface.name());
        let [left, right] = DEVICES.map(|device| format!("--port {device},{options}"));
        format!("{left} {right} --cores 1 --json")
    }

    /// Starts mirach and waits until it passes packets between the namespaces.
    ///
    /// # Errors
    ///
    /// It does not start, or nothing passes.
    pub fn start(self, site: &mut Booted) -> Result<()> {
        forwarder::start(&mut site.guest, User::Root, &self.arguments())?;
        traffic::wait_for_path(&site.pair.left, Pair::RIGHT)
    }

    /// Fails unless both ports of the running mirach are what was asked for.
    ///
    /// # Errors
    ///
    /// They are not.
    pub fn took_effect(self, site: &mut Booted) -> Result<()> {
        let interface = self.interface.name();
        let last =
            self.rings.map_or_else(|| format!("vfio {interface}"), |rings| format!("ring {rings} vfio {interface}"));
        ports_say(site, &format!("numrxqueues {0} numtxqueues {0}", self.queues))?;
        ports_say(site, &last)
    }
}

/// Both ports have these words, one after the other, among their facts.
///
/// # Errors
///
/// They have not, or mirach does not run.
pub fn ports_say(site: &mut Booted, words: &str) -> Result<()> {
    forwarder::must_run(&mut site.guest)?;
    let facts = forwarder::facts(&mut site.guest)?;
    let wanted = format!(" {words} ");
    if facts.len() != DEVICES.len() || !facts.iter().all(|facts| format!(" {facts} ").contains(&wanted)) {
        bail!("not both ports say `{words}`: {facts:#?}");
    }
    Ok(())
}
