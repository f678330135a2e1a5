//! The rungs of the ladder, and what stands between the two machines on each.

use std::fmt;

use anyhow::Context;
use dataplane::config::CoreList;
use dataplane::copy::DmaName;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::card::Card;
use super::{direct, helper, kernel};

/// What the last rung asks for.
pub(super) const NEEDS_DMA: &str = "dma mode needs --dma DEVICE, such as a PCI address; `mirach devices` lists DMA engines, and cpu stands for a thread";

/// How packets get from one machine to the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Mode {
    /// A monitor for each machine, two TAPs and a bridge of the kernel's
    Kernel,
    /// A monitor for each machine, and a process between them, over rings in shared memory
    Helper,
    /// One engine, which serves the rings of both machines itself
    Direct,
    /// The same, and a DMA engine for large copies
    Dma,
}

impl Mode {
    /// Its name in reports, as on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Helper => "helper",
            Self::Direct => "direct",
            Self::Dma => "dma",
        }
    }

    /// What Andromeda had in its place.
    pub(crate) const fn stage(self) -> &'static str {
        match self {
            Self::Kernel => "before 2.0",
            Self::Helper => "2.0",
            Self::Direct => "2.1",
            Self::Dma => "2.2",
        }
    }

    /// What stands between the machines.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Kernel => "vm - monitor - TAP - bridge - TAP - monitor - vm",
            Self::Helper => "vm - monitor - shared memory - process - shared memory - monitor - vm",
            Self::Direct => "vm - engine - vm",
            Self::Dma => "vm - engine and DMA engine - vm",
        }
    }

    /// Builds it; `dma` is the DMA engine for the mode that has one.
    ///
    /// # Errors
    /// What is missing, and what mends it.
    pub(super) fn open(self, cores: &Cores, dma: Option<&DmaName>) -> anyhow::Result<Bed> {
        match self {
            Self::Kernel => kernel::open(cores),
            Self::Helper => helper::open(cores),
            Self::Direct => direct::open(cores, None),
            Self::Dma => direct::open(cores, Some(dma.context(NEEDS_DMA)?)),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Two machines, and what stands between them.
pub(super) struct Bed {
    /// The machines' cards.
    pub(super) cards: [Card; 2],
    /// What stands between.
    pub(super) host: Box<dyn Host>,
}

/// What stands between two machines. Dropping it takes it down, too, and then nobody hears of what went wrong.
pub(super) trait Host: Send {
    /// A process beside this one that works on packets.
    fn process(&self) -> Option<u32> {
        None
    }

    /// Cycles so far that went into looking for packets where none were.
    fn idle_cycles(&self) -> u64 {
        0
    }

    /// Looks after it. Called a few times a second.
    ///
    /// # Errors
    /// It works no more.
    fn tend(&mut self) -> anyhow::Result<()>;

    /// Takes it down; its packets have arrived.
    ///
    /// # Errors
    /// What did not go as it should.
    fn stop(self: Box<Self>, cards: [Card; 2]) -> anyhow::Result<()>;
}

/// Who runs where.
#[derive(Clone, Debug)]
pub(super) struct Cores {
    /// Both machines.
    pub(super) machines: usize,
    /// Everything between them.
    host: Vec<usize>,
}

impl Cores {
    /// The first core for the machines, all others for what is between them. With one core they share it.
    ///
    /// # Errors
    /// The system does not say which there are.
    pub(super) fn available() -> anyhow::Result<Self> {
        let available = CoreList::available().context("cannot ask which cores there are")?;
        let machines = available.iter().next().context("no core to run on")?;
        let host = available.without_first().iter().collect();
        Ok(Self { machines, host })
    }

    /// Two cores, one of them for the machines.
    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self { machines: 0, host: vec![1] }
    }

    /// The core for thread `index` of those between the machines: one each while there are enough, and then in turns.
    pub(super) fn host(&self, index: usize) -> usize {
        self.host.get(index % self.host.len().max(1)).copied().unwrap_or(self.machines)
    }

    /// The machines have no core of their own.
    pub(super) fn are_one(&self) -> bool {
        self.host.is_empty() || self.host.contains(&self.machines)
    }

    /// `count` threads between the machines have a core each.
    pub(super) fn suffice_for(&self, count: usize) -> bool {
        self.host.len() >= count && !self.are_one()
    }

    /// All cores for what is between the machines, for people.
    pub(super) fn host_list(&self) -> String {
        CoreList::new(self.host.iter().copied()).map_or_else(|| self.machines.to_string(), |list| list.to_string())
    }
}

/// Binds the calling thread to a core. Where it may not run there, it runs elsewhere: slower, not wrong.
pub(super) fn pin(core: usize) {
    if core < CpuSet::MAX_CPU {
        let mut cores = CpuSet::new();
        cores.set(core);
        let _ = sched_setaffinity(None, &cores);
    }
}
