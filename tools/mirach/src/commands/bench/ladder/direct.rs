//! Direct mode: one engine of the forwarder serves the virtio rings of both machines, as `mirach run` does for any virtual machine. With a DMA engine
//! beside it, that is dma mode.

use anyhow::{Context, anyhow};
use dataplane::config::{Config, CoreList, EngineConfig, Poll};
use dataplane::copy::DmaName;
use dataplane::forwarder::{Forwarder, Health};
use dataplane::port::virtio_user::Device;
use dataplane::port::{MemoryOptions, PortControl, PortQueue, VirtioUserSpec};
use drivers::nic::Offloads;
use hugemem::{IovaSpace, MemoryRequest};

use super::card::{Card, MachineMemory};
use super::modes::{Bed, Cores, Host};
use crate::machines::Folder;

/// Bytes of memory for the rings of a machine.
const RINGS: usize = 4 << 20;

/// Builds it.
pub(super) fn open(cores: &Cores, dma: Option<&DmaName>) -> anyhow::Result<Bed> {
    let folder = Folder::new()?;
    let engine = EngineConfig { poll: Poll::Adaptive, ..EngineConfig::default() };
    let core = CoreList::new([cores.host(0)]).context("no core to run on")?;
    let config = Config::joined(engine, &core, &folder.ports(2)?, &MemoryOptions::default());
    let (forwarder, _) = Forwarder::run(&Config { dma: dma.cloned(), ..config })?;
    let (mut cards, mut controls) = (Vec::new(), Vec::new());
    for index in 0..2 {
        let (card, control) = attach(&folder, index).with_context(|| format!("virtual machine {index}"))?;
        cards.push(card);
        controls.push(control);
    }
    let cards = <[Card; 2]>::try_from(cards).map_err(|_| anyhow!("there are two machines"))?;
    Ok(Bed { cards, host: Box::new(Direct { controls, forwarder, _folder: folder }) })
}

/// Attaches a machine.
fn attach(folder: &Folder, index: u16) -> anyhow::Result<(Card, Box<dyn PortControl>)> {
    let spec = VirtioUserSpec::new(folder.socket(index));
    let mut device = Device::open(&format!("vm{index}"), &spec, Offloads::all())?;
    let mut space = IovaSpace::unlimited();
    space.intersect(&device.iova_ranges());
    let MachineMemory { region, sources, receiving } = MachineMemory::new(&mut space)?;
    let rings = MemoryRequest { bytes: RINGS, ..MemoryRequest::default() }.allocate(&mut space)?.region;
    device.map(&region)?;
    let port = device.start(&rings, vec![receiving])?;
    let PortQueue { rx, tx, .. } = port.queues.into_iter().next().context("its card has no queues")?;
    Ok((Card { rx, tx, sources }, port.control))
}

/// A forwarder with one engine.
struct Direct {
    /// The machines' own.
    controls: Vec<Box<dyn PortControl>>,
    forwarder: Forwarder,
    _folder: Folder,
}

impl Host for Direct {
    fn idle_cycles(&self) -> u64 {
        let statistics = self.forwarder.statistics();
        statistics.ports.iter().flat_map(|port| &port.rx).map(|queue| queue.empty_cycles).sum()
    }

    fn tend(&mut self) -> anyhow::Result<()> {
        self.controls.iter_mut().try_for_each(|control| control.check())?;
        anyhow::ensure!(self.forwarder.check() != Health::Broken, "the engine does not work any more");
        Ok(())
    }

    fn stop(mut self: Box<Self>, cards: [Card; 2]) -> anyhow::Result<()> {
        for (control, Card { rx, tx, .. }) in self.controls.iter_mut().zip(cards) {
            control.stop(vec![PortQueue { rx, tx, wake: None, desk: None }])?;
        }
        match self.forwarder.stop().problems.into_iter().next() {
            Some(problem) => Err(problem.into()),
            None => Ok(()),
        }
    }
}
