//! The stock drivers of Linux and DPDK on software copy engines, in QEMU guests with an Intel IOMMU.
//!
//! Debian's own kernel and its module `ioatdma`, which know nothing of this project, judge the model: the driver tests each engine when it finds
//! it, and the kernel's `dmatest` copies with it and compares every byte. One engine is an Ice Lake's with four channels, the other one a
//! Skylake's with one, which the driver treats as an older version. In a second guest the engines are DPDK's, which has a test of its own.
//!
//! In a third guest there are two Data Streaming Accelerators, which the module `idxd` has, and `accel-config` sets up.

mod copies;
mod dpdk;
mod faults;
mod idxd;
mod probe;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use lab::cache::Kernel;
use lab::card::Card;
use lab::guest::{Guest, Machine, Nic, NicKind};
use lab::suite::Suite;

/// For what takes no time.
const SHORT: Duration = Duration::from_secs(60);

/// The PCI addresses of the engines in the guest, and their slots.
const DEVICES: [&str; 2] = ["0000:00:03.0", "0000:00:04.0"];
const SLOTS: [u8; 2] = [3, 4];

/// The channels that the kernel makes of them.
const CHANNELS: [&str; 5] = ["dma0chan0", "dma0chan1", "dma0chan2", "dma0chan3", "dma1chan0"];

/// Who has the engines in a guest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Driver {
    /// The kernel.
    Linux,
    /// A program, through VFIO.
    Dpdk,
    /// The kernel, which has accelerators (DSA) instead.
    Idxd,
}

/// A guest with two engines, booted when the first check asks for it.
struct Site {
    driver: Driver,
    booted: Option<Result<Booted, String>>,
}

/// The guest, dropped before the engines, and the processes that play these.
struct Booted {
    guest: Guest,
    engines: [Card; 2],
}

impl Site {
    fn new(driver: Driver) -> Self {
        Self { driver, booted: None }
    }

    fn up(&mut self) -> Result<&mut Booted> {
        let booted = self.booted.get_or_insert_with(|| boot(self.driver).map_err(|error| format!("{error:#}")));
        booted.as_mut().map_err(|error| anyhow!("{error}"))
    }
}

fn boot(driver: Driver) -> Result<Booted> {
    let engines = match driver {
        Driver::Linux => [
            Card::copy_engine("ioat", &["--device", "0b00", "--channels", "4"])?,
            Card::copy_engine("ioat", &["--device", "2021", "--longest", "16"])?,
        ],
        Driver::Dpdk => [
            Card::copy_engine("ioat", &["--device", "0b00", "--fault", dpdk::SLOW])?,
            Card::copy_engine("ioat", &["--device", "6f27", "--fault", dpdk::SLOW])?,
        ],
        Driver::Idxd => [
            Card::copy_engine("dsa", &["--device", "0b25"])?,
            Card::copy_engine("dsa", &["--device", "11fb", "--longest", "21", "--interrupt-handles"])?,
        ],
    };
    let sockets = engines.iter().flat_map(|engine| engine.sockets()).cloned();
    let guest = Guest::boot(Machine {
        number: 0,
        kernel: Kernel::Stock,
        modules: match driver {
            Driver::Linux => &["ioatdma", "dmatest"],
            Driver::Dpdk => &["vfio_iommu_type1", "vfio-pci"],
            Driver::Idxd => &idxd::MODULES,
        },
        programs: &[],
        tools: match driver {
            Driver::Linux => &[],
            Driver::Dpdk => &["dpdk-test"],
            Driver::Idxd => &["accel-config"],
        },
        processors: 2,
        memory_mib: 768,
        // A driver that resets a channel again and again says so each time.
        parameters: "log_buf_len=4M",
        controller: false,
        reboots: false,
        nics: SLOTS
            .into_iter()
            .zip(sockets)
            .map(|(slot, socket)| Nic { slot, kind: NicKind::VfioUser(socket) })
            .collect(),
    })?;
    Ok(Booted { guest, engines })
}

fn main() -> ExitCode {
    lab::leftovers::remove();
    if let Err(error) = lab::process::end_with_parent() {
        eprintln!("{error:#}: interrupted, this run would go on without its parent");
    }
    let mut suite = Suite::from_arguments();
    let mut site = Site::new(Driver::Linux);
    probe::all(&mut suite, &mut site);
    copies::all(&mut suite, &mut site);
    probe::reload(&mut suite, &mut site);
    probe::stays_clean(&mut suite, &mut site);
    faults::all(&mut suite, &mut site);
    drop(site);
    dpdk::all(&mut suite, &mut Site::new(Driver::Dpdk));
    idxd::all(&mut suite, &mut Site::new(Driver::Idxd));
    suite.finish()
}

impl Booted {
    /// The lines of the kernel's log from the `since`th on.
    fn log(&mut self, since: usize) -> Result<Vec<String>> {
        Ok(self.guest.must("dmesg")?.lines().skip(since).map(str::to_owned).collect())
    }

    /// How many lines the log has.
    fn mark(&mut self) -> Result<usize> {
        Ok(self.log(0)?.len())
    }

    /// Takes the driver away, and the test that holds its channels.
    fn unload(&mut self) -> Result<()> {
        self.guest.must("rmmod dmatest ioatdma").map(drop)
    }

    /// Loads them again.
    fn load(&mut self) -> Result<()> {
        self.guest.must("insmod /modules/ioatdma.ko && insmod /modules/dmatest.ko").map(drop)
    }

    /// The name of the kernel driver that has a device; empty when none has.
    fn driver(&mut self, device: &str) -> Result<String> {
        let link = self.guest.run(&format!("readlink /sys/bus/pci/devices/{device}/driver"), SHORT)?;
        Ok(link.output.trim().rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// What the engines counted under this name.
    fn counters(&mut self, name: &str) -> Result<Vec<u64>> {
        let mut counters = Vec::new();
        for engine in &mut self.engines {
            counters.extend(engine.counter(name)?);
        }
        Ok(counters)
    }

    fn no_iommu_fault(&mut self) -> Result<()> {
        let faults = self.guest.iommu_faults()?;
        if !faults.is_empty() {
            bail!("the guest's IOMMU reported faults:\n{}", faults.join("\n"));
        }
        Ok(())
    }

    fn engines_recorded_nothing(&mut self) -> Result<()> {
        self.engines.iter_mut().try_for_each(Card::recorded_nothing)
    }
}

/// The lines in which the kernel finds fault with an engine, with the IOMMU, or with itself.
fn complaints(log: &[String]) -> Vec<&str> {
    let words =
        ["fail", "error", "timed out", "timeout", "halted", "reset channel", "warning", "call trace", "bug:", "unable"];
    let of_interest = |line: &&str| {
        let line = line.to_lowercase();
        // It says goodbye as an error.
        let goodbye = line.contains("removing dma and dca services");
        // What the other one says in a guest without address spaces of processes, of a device without performance counters.
        let lacks = line.contains("unable to turn on user sva feature") || line.contains("no pmu support");
        let subject =
            ["ioatdma", "idxd", "dmar: [", "dmatest", "call trace", "bug:"].iter().any(|word| line.contains(word));
        // What dmatest sums up, and what the kernel says of a module that Debian has not signed.
        let summary = line.contains(" 0 failures") || line.contains("module verification failed");
        subject && !goodbye && !lacks && !summary && words.iter().any(|word| line.contains(word))
    };
    log.iter().map(String::as_str).filter(of_interest).collect()
}
