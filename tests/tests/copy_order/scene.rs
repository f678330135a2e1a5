//! A forwarder, a device, and machines.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dataplane::config::{Config, CoreList, EngineConfig};
use dataplane::copy::{CopyState, Copying, Threshold};
use dataplane::forwarder::Forwarder;
use dataplane::port::{MemoryOptions, NamedSpec, RingChoice};
use drivers::bus::BusError;
use hugemem::PageChoice;
use lab::leftovers;
use lab::vm::{Plan, Vm};
use models::card::{self, Options, Running};
use models::ioat::{self as chip, Planned};
use models::wire::Null;
use tempfile::TempDir;

/// Frames of so many bytes and more are left to the device.
pub(crate) const THRESHOLD: u32 = 512;
/// Largest payload of a frame.
pub(crate) const MTU: u16 = 9000;
/// How long what others do may take: this machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

type Engine = Running<chip::Ioat, Null>;

/// The device, which can be pulled out and is there again at the next look.
#[derive(Default)]
pub(crate) struct Bay {
    engine: Mutex<Option<Engine>>,
    /// What those before had on record.
    refused: Mutex<Vec<String>>,
}

impl Bay {
    fn engine(&self) -> MutexGuard<'_, Option<Engine>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plugs a new engine in.
    fn connect(&self) -> Result<card::Function<chip::Ioat>, BusError> {
        self.note();
        let system = |error: std::io::Error| BusError::System {
            device: "dma".into(),
            action: "start a thread".into(),
            reason: error.to_string(),
        };
        let (function, device) = card::new(Options::named("dma"), chip::Ioat::new(chip::Config::default()), Null)?;
        *self.engine() = Some(device.run().map_err(system)?);
        Ok(function)
    }

    /// Notes what the engine has on record, before it goes.
    fn note(&self) {
        if let Some(engine) = &*self.engine() {
            let control = engine.control();
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.extend(control.faults().iter().map(|fault| format!("{fault:?}")));
            refused.extend(control.violations());
        }
    }

    /// Has it misbehave in these ways from now on.
    pub(crate) fn set(&self, faults: &[Planned]) {
        if let Some(engine) = &*self.engine() {
            engine.control().with(|chip, _| chip.set_faults(faults));
        }
    }

    /// Pulls it out.
    pub(crate) fn pull(&self) {
        if let Some(engine) = &*self.engine() {
            engine.control().remove();
        }
    }

    /// Copies that the engine of now did.
    pub(crate) fn copies(&self) -> u64 {
        self.engine().as_ref().map_or(0, |engine| engine.control().with(|chip, _| chip.counts().descriptors))
    }

    /// Regions that it reaches.
    pub(crate) fn mapped(&self) -> usize {
        self.engine().as_ref().map_or(0, |engine| engine.control().mapped())
    }

    /// Nothing that it did was refused.
    pub(crate) fn must_be_clean(&self) -> Result<()> {
        self.note();
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(refused.is_empty(), "the device did what it may not: {refused:?}");
        Ok(())
    }
}

/// The forwarder with its device, and pairs of ports for machines.
pub(crate) struct Scene {
    pub(crate) bay: Arc<Bay>,
    pub(crate) copying: Arc<Copying>,
    pub(crate) forwarder: Forwarder,
    folder: TempDir,
}

impl Scene {
    /// With so many pairs of ports, which are joined. Those of the last are the ones that listen, for `hostile` machines.
    pub(crate) fn set(pairs: usize, hostile: bool) -> Result<Self> {
        let bay = Arc::new(Bay::default());
        let plugged = Arc::clone(&bay);
        let copying = Copying::over("dma".into(), 1, Threshold::Bytes(THRESHOLD), move || plugged.connect())?;
        Self::over(pairs, hostile, bay, copying)
    }

    /// As [`Scene::set`], with a device that is in no bay.
    pub(crate) fn over(pairs: usize, hostile: bool, bay: Arc<Bay>, copying: Arc<Copying>) -> Result<Self> {
        let folder = leftovers::folder("copy-order")?;
        let ports: Vec<NamedSpec> = (0..2 * pairs)
            .map(|number| {
                let listens = hostile && number + 2 >= 2 * pairs;
                let role = if listens { "off" } else { "on" };
                let socket = folder.path().join(number.to_string());
                format!("vhost-user={},client={role},mtu={MTU},name=vm{number}", socket.display()).parse()
            })
            .collect::<Result<_, _>>()?;
        let memory = MemoryOptions { page: PageChoice::Size4K, ..MemoryOptions::default() };
        let cores = CoreList::new(CoreList::available()?.iter().take(1)).context("there is no core")?;
        let config = Config::joined(EngineConfig::default(), &cores, &ports, &memory);
        let (forwarder, _) = Forwarder::run_with(&config, Some(Arc::clone(&copying)))?;
        Ok(Self { bay, copying, forwarder, folder })
    }

    pub(crate) fn socket(&self, number: usize) -> PathBuf {
        self.folder.path().join(number.to_string())
    }

    /// Attaches the machine of a port.
    pub(crate) fn attach(&self, number: usize, ring: RingChoice) -> Result<Vm> {
        let plan = Plan { socket: self.socket(number), listens: true, ring, pairs: 1, mtu: Some(MTU) };
        Vm::attach(&format!("vm{number}"), &plan)
    }

    pub(crate) fn pair(&self, ring: RingChoice) -> Result<[Vm; 2]> {
        Ok([self.attach(0, ring)?, self.attach(1, ring)?])
    }

    /// A number that the device side of a port counted.
    pub(crate) fn counted(&mut self, port: &str, name: &str) -> Result<u64> {
        let _ = self.forwarder.tend();
        let statistics = self.forwarder.statistics_of(port)?;
        let found = statistics.device.iter().find(|(counter, _)| *counter == name);
        Ok(found.with_context(|| format!("port {port} does not count {name}"))?.1)
    }

    /// A number of the device's owner.
    pub(crate) fn owner(&self, name: &str) -> u64 {
        self.copying.statistics().iter().find(|(counter, _)| *counter == name).map_or(0, |(_, value)| *value)
    }

    /// Waits until the device works.
    pub(crate) fn until_it_works(&self) -> Result<()> {
        wait("the device to work again", || self.copying.state() == CopyState::Working && self.bay.mapped() > 0)
    }

    /// Ends it all; nothing may be left.
    pub(crate) fn end(self) -> Result<()> {
        let Self { bay, copying, forwarder, folder: _folder } = self;
        let stopped = forwarder.stop();
        ensure!(stopped.problems.is_empty(), "{:?}", stopped.problems);
        ensure!(Arc::strong_count(&copying) == 1, "somebody still has the device");
        drop(copying);
        ensure!(bay.mapped() == 0, "{} regions are still mapped", bay.mapped());
        bay.must_be_clean()
    }
}

/// Waits for something that others do.
pub(crate) fn wait(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !done() {
        ensure!(started.elapsed() < PATIENCE, "waited {} s in vain for {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
