//! The device file: configuration space, regions, interrupts, reset.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use drivers::bus::BusError;
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET, VFIO_IRQ_INFO_EVENTFD, VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX, VFIO_REGION_INFO_FLAG_CAPS, VFIO_REGION_INFO_FLAG_MMAP, VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE,
};

use super::{Interrupt, capabilities, ioctl};
use crate::bar::{Bar, Stretch};
use crate::configuration::{self, Configuration};

/// An open device file with what the kernel says about it.
#[derive(Debug)]
pub(crate) struct Device {
    name: String,
    file: Arc<File>,
    can_reset: bool,
    config_offset: u64,
    config_size: u64,
    vectors: u16,
    vectors_enabled: bool,
}

impl Device {
    pub(crate) fn new(name: String, file: Arc<File>) -> Result<Self, BusError> {
        let fail = |error: io::Error| system(&name, "cannot learn about the device", &error);
        let info = ioctl::device_info(file.as_fd()).map_err(fail)?;
        if info.flags & VFIO_DEVICE_FLAGS_PCI == 0 || info.num_regions <= VFIO_PCI_CONFIG_REGION_INDEX {
            return Err(BusError::Missing { device: name, missing: "VFIO offers it, but not as a PCI device".into() });
        }
        let config = ioctl::region_info(file.as_fd(), VFIO_PCI_CONFIG_REGION_INDEX).map_err(fail)?;
        let mut vectors = 0;
        if info.num_irqs > VFIO_PCI_MSIX_IRQ_INDEX {
            let irqs = ioctl::irq_info(file.as_fd(), VFIO_PCI_MSIX_IRQ_INDEX).map_err(fail)?;
            if irqs.flags & VFIO_IRQ_INFO_EVENTFD != 0 {
                // MSI-X has at most 2048 vectors.
                vectors = u16::try_from(irqs.count).unwrap_or(u16::MAX);
            }
        }
        Ok(Self {
            name,
            file,
            can_reset: info.flags & VFIO_DEVICE_FLAGS_RESET != 0,
            config_offset: config.offset,
            config_size: config.size,
            vectors,
            vectors_enabled: false,
        })
    }

    pub(crate) fn vectors(&self) -> u16 {
        self.vectors
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Maps the window of base address register `index`.
    pub(crate) fn bar(&self, index: u8) -> Result<Bar, BusError> {
        let fail = |error: io::Error| system(&self.name, &format!("cannot map BAR {index}"), &error);
        let missing = |text: String| BusError::Missing { device: self.name.clone(), missing: text };
        if index > 5 {
            return Err(missing(format!("there is no BAR {index}, a PCI function has BAR 0 to 5")));
        }
        let info = ioctl::region_info(self.descriptor(), index.into()).map_err(fail)?;
        if info.size == 0 || info.flags & (VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE) == 0 {
            return Err(missing(format!("it has no BAR {index} (or the BAR is the upper half of a 64-bit one)")));
        }
        let writable = VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
        let mut stretches = Vec::new();
        if info.flags & writable == writable {
            stretches.push(Stretch { offset: 0, length: info.size });
            // Without a list all of it can be mapped. Kernels before 4.16 leave the MSI-X table out by such a list.
            if info.flags & VFIO_REGION_INFO_FLAG_CAPS != 0 {
                let reply = ioctl::region_reply(self.descriptor(), index.into(), info.argsz).map_err(fail)?;
                // struct vfio_region_info: the list's offset is the fourth word.
                let first = reply.get(12..16).and_then(|raw| raw.try_into().ok()).map_or(0, u32::from_ne_bytes);
                if let Some(areas) = capabilities::sparse_areas(&reply, first) {
                    stretches = areas;
                }
            }
        }
        Bar::in_file(Arc::clone(&self.file), info.offset, info.size, &stretches).map_err(fail)
    }

    /// Enables vectors `0..count`, and no others.
    pub(crate) fn interrupts(&mut self, count: u16) -> Result<Vec<Interrupt>, BusError> {
        let missing = |vectors: i64| BusError::Missing {
            device: self.name.clone(),
            missing: format!("{count} interrupt vectors wanted, {vectors} there; use fewer queues, or poll"),
        };
        if count > self.vectors {
            return Err(missing(self.vectors.into()));
        }
        let fail = |error: io::Error| system(&self.name, "cannot enable interrupts", &error);
        let vectors: Vec<Interrupt> =
            (0..count).map(|_| Interrupt::new(&self.name)).collect::<io::Result<_>>().map_err(fail)?;
        if self.vectors_enabled {
            ioctl::set_irqs(self.descriptor(), VFIO_PCI_MSIX_IRQ_INDEX, &[]).map_err(fail)?;
        }
        let descriptors: Vec<BorrowedFd<'_>> = vectors.iter().map(AsFd::as_fd).collect();
        let mut enabled = false;
        if count > 0 {
            let had =
                ioctl::set_irqs(self.descriptor(), VFIO_PCI_MSIX_IRQ_INDEX, &descriptors).map_err(|error| match error
                    .raw_os_error()
                {
                    Some(libc::ENOSPC) => system(
                        &self.name,
                        "cannot enable interrupts",
                        &io::Error::other(format!(
                            "the kernel has no {count} interrupt vectors left; use fewer queues"
                        )),
                    ),
                    _ => fail(error),
                });
            match had {
                Ok(0) => enabled = true,
                Ok(had) => {
                    let error = missing(had.into());
                    self.vectors_enabled = false;
                    return Err(error);
                }
                Err(error) => {
                    self.vectors_enabled = false;
                    return Err(error);
                }
            }
        }
        self.vectors_enabled = enabled;
        Ok(vectors)
    }

    pub(crate) fn disable_interrupts(&mut self) -> Result<(), BusError> {
        if std::mem::take(&mut self.vectors_enabled) {
            ioctl::set_irqs(self.descriptor(), VFIO_PCI_MSIX_IRQ_INDEX, &[])
                .map_err(|error| system(&self.name, "cannot disable interrupts", &error))?;
        }
        Ok(())
    }

    /// Whether the kernel knows a way to reset this function alone.
    pub(crate) fn can_reset(&self) -> bool {
        self.can_reset
    }

    pub(crate) fn reset(&self) -> Result<(), BusError> {
        if !self.can_reset {
            return Err(BusError::Missing {
                device: self.name.clone(),
                missing: "the kernel has no way to reset this function alone (no FLR); its driver has to".into(),
            });
        }
        for _ in 0..100 {
            match ioctl::reset(self.descriptor()) {
                Ok(()) => return Ok(()),
                // Somebody else holds the device's lock for a moment, such as a scan of the bus.
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(self.access_failed("cannot reset the device", &error)),
            }
        }
        Err(system(
            &self.name,
            "cannot reset the device",
            &io::Error::other("the kernel keeps its lock for over a second"),
        ))
    }

    fn gone(&self, reason: &str) -> BusError {
        BusError::Gone { device: self.name.clone(), reason: reason.into() }
    }

    fn access_failed(&self, action: &str, error: &io::Error) -> BusError {
        match error.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => self.gone(&format!("{action}: {error}")),
            _ if error.kind() == io::ErrorKind::UnexpectedEof => {
                system(&self.name, action, &io::Error::other("the kernel returned fewer bytes than were asked for"))
            }
            _ => system(&self.name, action, error),
        }
    }
}

impl Configuration for Device {
    fn name(&self) -> &str {
        &self.name
    }

    fn read_word(&self, offset: u16) -> Result<u32, BusError> {
        let mut raw = [0; 4];
        let position = self.config_offset + configuration::position(&self.name, self.config_size, offset, raw.len())?;
        self.file
            .read_exact_at(&mut raw, position)
            .map_err(|error| self.access_failed(&format!("cannot read configuration space at {offset:#x}"), &error))?;
        Ok(u32::from_le_bytes(raw))
    }

    fn write(&self, offset: u16, bytes: &[u8]) -> Result<(), BusError> {
        let position = self.config_offset + configuration::position(&self.name, self.config_size, offset, bytes.len())?;
        self.file
            .write_all_at(bytes, position)
            .map_err(|error| self.access_failed(&format!("cannot write configuration space at {offset:#x}"), &error))
    }
}

/// A request that the operating system refused.
pub(crate) fn system(device: &str, action: &str, error: &io::Error) -> BusError {
    BusError::System { device: device.into(), action: action.into(), reason: error.to_string() }
}
