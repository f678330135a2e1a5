//! A guest with software copy engines, booted when the first check asks for it.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use lab::cache::Kernel;
use lab::card::Card;
use lab::guest::{Guest, Machine, Nic, NicKind};

/// A kind of engine.
pub(crate) struct Engine {
    /// What `mirach device` calls it, and so does `mirach devices`.
    pub(crate) kind: &'static str,
    /// The kernel's driver for it.
    pub(crate) kernel_driver: &'static str,
    /// Where it sits in the guest.
    pub(crate) address: &'static str,
    slot: u8,
    /// Further arguments of `mirach device` in a guest with the stock kernel, and in the other one.
    arguments: [&'static [&'static str]; 2],
}

/// The engines of each guest.
pub(crate) const ENGINES: [Engine; 1] = [Engine {
    kind: "ioat",
    kernel_driver: "ioatdma",
    address: "0000:00:03.0",
    slot: 3,
    // The newest version and the oldest one.
    arguments: [&["--device", "0b00", "--longest", "15"], &["--device", "6f23", "--longest", "12"]],
}];

/// For what takes no time.
const SHORT: Duration = Duration::from_secs(60);

/// The guest and its engines, once it is up.
pub(crate) struct Site {
    kernel: Kernel,
    booted: Option<Result<Booted, String>>,
}

/// The guest, dropped before the engines, and the processes that play these.
pub(crate) struct Booted {
    pub(crate) guest: Guest,
    pub(crate) engines: Vec<Card>,
}

impl Site {
    pub(crate) fn new(kernel: Kernel) -> Self {
        Self { kernel, booted: None }
    }

    pub(crate) fn up(&mut self) -> Result<&mut Booted> {
        let booted = self.booted.get_or_insert_with(|| boot(self.kernel).map_err(|error| format!("{error:#}")));
        booted.as_mut().map_err(|error| anyhow!("{error}"))
    }

    /// The kernel driver that an engine has when nobody asked for another.
    pub(crate) fn kernel_driver(&self, engine: &Engine) -> &'static str {
        if self.kernel == Kernel::Stock { engine.kernel_driver } else { "" }
    }
}

fn boot(kernel: Kernel) -> Result<Booted> {
    let (mut engines, mut nics) = (Vec::new(), Vec::new());
    for Engine { kind, slot, arguments: [stock, small], .. } in &ENGINES {
        let engine = Card::copy_engine(kind, if kernel == Kernel::Stock { stock } else { small })?;
        let sockets = engine.sockets().iter().cloned();
        nics.extend(sockets.map(|socket| Nic { slot: *slot, kind: NicKind::VfioUser(socket) }));
        engines.push(engine);
    }
    let guest = Guest::boot(Machine {
        number: 0,
        kernel,
        modules: &["vfio_iommu_type1", "vfio-pci", "ioatdma"],
        programs: &["mirach", "copy-conformance"],
        tools: &[],
        processors: 2,
        memory_mib: 768,
        parameters: "",
        controller: false,
        reboots: false,
        nics,
    })?;
    Ok(Booted { guest, engines })
}

impl Booted {
    /// The name of the kernel driver that a device has; empty when none has it.
    pub(crate) fn driver(&mut self, address: &str) -> Result<String> {
        let link = self.guest.run(&format!("readlink /sys/bus/pci/devices/{address}/driver"), SHORT)?;
        Ok(link.output.trim().rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// Neither the guest's IOMMU nor a model has any DMA outside of what was mapped on record.
    pub(crate) fn nothing_on_record(&mut self) -> Result<()> {
        let faults = self.guest.iommu_faults()?;
        if !faults.is_empty() {
            bail!("the guest's IOMMU reported faults:\n{}", faults.join("\n"));
        }
        self.engines.iter_mut().try_for_each(Card::recorded_nothing)
    }
}
