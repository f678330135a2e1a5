//! A guest between two namespaces, booted when the first check asks for it.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::cache::Kernel;
use crate::guest::{Guest, Machine, Nic};
use crate::pair::Pair;

/// The PCI addresses of a site's devices in its guest: left and right.
pub const DEVICES: [&str; 2] = ["0000:00:03.0", "0000:00:04.0"];

/// The kernel's names for the devices while its own driver has them: left and right.
pub const INTERFACES: [&str; 2] = ["eth0", "eth1"];

/// The modules of a site's guest; the last two are for the host's own tests of the lab and for tap ports.
const MODULES: [&str; 5] = ["vfio_iommu_type1", "vfio-pci", "virtio_net", "bridge", "tun"];

/// How a site's guest is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The kernel that it boots.
    pub kernel: Kernel,
    /// Whether its devices offer packed rings.
    pub packed: bool,
    /// How many queue pairs they have.
    pub queue_pairs: usize,
    /// Its memory.
    pub memory_mib: u32,
    /// Parameters for its kernel, beside those that every guest has.
    pub parameters: &'static str,
}

impl Plan {
    /// A guest with this kernel whose devices offer packed rings and two queue pairs.
    #[must_use]
    pub fn new(kernel: Kernel) -> Self {
        Self { kernel, packed: true, queue_pairs: 2, memory_mib: 768, parameters: "" }
    }
}

/// A guest with two devices, and the namespaces behind them.
pub struct Site {
    plan: Plan,
    booted: Option<Result<Booted, String>>,
}

/// What a site is made of once its guest is up.
pub struct Booted {
    /// The guest; dropped before the namespaces.
    pub guest: Guest,
    /// The namespaces.
    pub pair: Pair,
}

impl Site {
    /// A site whose guest is not booted yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self { plan, booted: None }
    }

    /// The running site.
    ///
    /// # Errors
    ///
    /// It cannot be made; the next calls have the same answer at once.
    pub fn up(&mut self) -> Result<&mut Booted> {
        let plan = self.plan;
        let booted = self.booted.get_or_insert_with(|| boot(plan).map_err(|error| format!("{error:#}")));
        booted.as_mut().map_err(|error| anyhow!("{error}"))
    }
}

fn boot(plan: Plan) -> Result<Booted> {
    let (pair, [left, right]) = Pair::new(plan.queue_pairs)?;
    let guest = Guest::boot(Machine {
        kernel: plan.kernel,
        modules: &MODULES,
        programs: &["mirach", "stray-dma", "exercise"],
        memory_mib: plan.memory_mib,
        parameters: plan.parameters,
        nics: vec![
            Nic { queues: left, slot: 3, packed: plan.packed },
            Nic { queues: right, slot: 4, packed: plan.packed },
        ],
    })?;
    Ok(Booted { guest, pair })
}

impl Booted {
    /// The name of the kernel driver that has a device; empty when none has.
    ///
    /// # Errors
    ///
    /// The guest did not answer.
    pub fn driver(&mut self, device: &str) -> Result<String> {
        let link = self.guest.run(&format!("readlink /sys/bus/pci/devices/{device}/driver"), SHORT)?;
        Ok(link.output.trim().rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// Fails when the guest's kernel has seen DMA outside of what was mapped.
    ///
    /// # Errors
    ///
    /// It has, or the guest did not answer.
    pub fn no_iommu_fault(&mut self) -> Result<()> {
        let faults = self.guest.iommu_faults()?;
        if !faults.is_empty() {
            bail!("the guest's IOMMU reported faults:\n{}", faults.join("\n"));
        }
        Ok(())
    }

    /// The number of a device's IOMMU group.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn iommu_group(&mut self, device: &str) -> Result<u32> {
        let link = self.guest.must(&format!("readlink /sys/bus/pci/devices/{device}/iommu_group"))?;
        link.trim().rsplit('/').next().unwrap_or_default().parse().with_context(|| format!("{device} is in no group"))
    }
}

const SHORT: Duration = Duration::from_secs(60);
