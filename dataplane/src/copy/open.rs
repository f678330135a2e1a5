//! Opening a copy engine by its name.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use drivers::bus::{BusError, PciFunction, PciId};
use drivers::dsa::{self, Dsa};
use drivers::ioat::{self, Ioat};
use hugemem::{IovaSpace, MemoryRequest, PageChoice, Region};
use vfio::{Interface, Sysfs, SystemClock, user};

use super::CopyError;
use super::cpu::Cpu;
use super::device::Described;
use super::idxd::{self, Idxd};
use super::name::{DmaName, Threshold};
use super::owner::{Copying, Opened};

/// Copies that may be underway on a channel.
const DEPTH: u16 = 512;
/// How long a channel may have work and get none of it done.
const PATIENCE: Duration = Duration::from_millis(50);

impl Copying {
    /// Opens and starts the copy engine `name` for up to `engines` engines. Ports that say nothing get the threshold `default`.
    ///
    /// # Errors
    /// When there is none, it is of no kind that has a driver, or does not start.
    pub fn open(name: &DmaName, engines: usize, default: Threshold) -> Result<Arc<Self>, CopyError> {
        let wanted = u8::try_from(engines).unwrap_or(u8::MAX);
        let place = name.clone();
        let title = format!("copy engine {name}");
        match place {
            DmaName::Address(address) => {
                Self::over(title, wanted, default, move || vfio::Function::open(address, Interface::Auto))
            }
            DmaName::Socket(path) => Self::over(title, wanted, default, move || {
                let options =
                    user::Options { name: Some(format!("vfio-user={}", path.display())), ..user::Options::default() };
                user::Function::connect(&path, options)
            }),
            DmaName::WorkQueue(path) => Self::start(title, default, Box::new(move || work_queue(&path, wanted))),
            DmaName::Cpu => Self::start(
                title,
                default,
                Box::new(move || {
                    let about = format!("CPU, {wanted} threads");
                    let device = Described { device: Cpu::new(wanted.into()), about };
                    Ok(Opened { device: Box::new(device), space: IovaSpace::unlimited() })
                }),
            ),
        }
    }

    /// As [`Copying::open`], over functions that `connect` finds: one at the start, and one each time that the device was lost.
    ///
    /// # Errors
    /// As [`Copying::open`].
    pub fn over<F: PciFunction>(
        name: String,
        engines: u8,
        default: Threshold,
        mut connect: impl FnMut() -> Result<F, BusError> + Send + 'static,
    ) -> Result<Arc<Self>, CopyError> {
        let open = move || {
            let function = connect().map_err(|error| CopyError::Device(error.into()))?;
            drive(function, engines)
        };
        Self::start(name, default, Box::new(open))
    }
}

/// Opens a work queue of the kernel's.
fn work_queue(path: &Path, engines: u8) -> Result<Opened, CopyError> {
    let mut space = IovaSpace::unlimited();
    let config = idxd::Config { channels: engines, depth: DEPTH, patience: PATIENCE, ..idxd::Config::default() };
    let request = MemoryRequest { bytes: config.ring_memory(), page: PageChoice::Auto, node: None };
    let rings = request.allocate(&mut space)?.region;
    let clock = Arc::new(SystemClock::new());
    let device = Idxd::open(&Sysfs::default(), path, clock, &rings, &config)?;
    let about = device.summary().to_string();
    Ok(Opened { device: Box::new(Described { device, about }), space })
}

/// Finds the driver for a device.
fn drive<F: PciFunction>(function: F, engines: u8) -> Result<Opened, CopyError> {
    let ranges = function.iova_ranges().map_err(|error| CopyError::Device(error.into()))?;
    let mut space = IovaSpace::new(&ranges);
    let clock = Arc::new(SystemClock::new());
    let id @ PciId { vendor, device, .. } = function.id();
    let channels = engines.max(1);
    let mut memory = |bytes| -> Result<Region, CopyError> {
        Ok(MemoryRequest { bytes, page: PageChoice::Auto, node: None }.allocate(&mut space)?.region)
    };
    if ioat::matches(id) {
        let config = ioat::Config { channels, depth: DEPTH, patience: PATIENCE, ..ioat::Config::default() };
        let device = Ioat::open(function, clock, &memory(config.ring_memory())?, config)?;
        let about = device.summary().to_string();
        return Ok(Opened { device: Box::new(Described { device, about }), space });
    }
    if dsa::matches(id) {
        let config = dsa::Config { channels, depth: DEPTH, patience: PATIENCE, ..dsa::Config::default() };
        let device = Dsa::open(function, clock, &memory(config.ring_memory())?, config)?;
        let about = device.summary().to_string();
        return Ok(Opened { device: Box::new(Described { device, about }), space });
    }
    Err(CopyError::NoDriver {
        name: function.name().to_owned(),
        reason: format!(
            "it is {vendor:04x}:{device:04x}, and there are drivers for Intel I/OAT (8086:0b00, 2021, 6f20 and kin) and DSA (8086:0b25, \
             11fb) only"
        ),
    })
}
