//! What the server says about its device.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use drivers::bus::BusError;
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET, VFIO_IRQ_INFO_EVENTFD, VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX, VFIO_REGION_INFO_FLAG_CAPS, VFIO_REGION_INFO_FLAG_MMAP, VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE,
};

use super::connection::{ByMessage, Connection};
use crate::bar::{Bar, Stretch};
use crate::kernel::capabilities;
use crate::user::shared::is_lasting;
use crate::user::wire::{Body, Command, Fields, MAX_BODY, PAGE};

/// Room for a region's description with some 250 areas; more is asked for where it takes more.
const ROOM: u32 = 4096;
/// Bytes of a region's description without its areas.
const REGION_INFO: usize = 32;
const INFO: u32 = 16;
/// Most areas of a window that are mapped. Each takes mappings, of which a process has a limited number.
const AREAS: usize = 64;
/// A window is mapped up to here: offsets of registers have 32 bits.
const REACH: u64 = 1 << 32;

/// A region as the server describes it.
struct RegionInfo {
    flags: u32,
    size: u64,
    /// Where it begins in the file.
    offset: u64,
    /// What can be mapped.
    areas: Vec<Stretch>,
    file: Option<OwnedFd>,
}

impl RegionInfo {
    fn is_there(&self) -> bool {
        self.size > 0 && self.flags & (VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE) != 0
    }
}

/// What is asked once.
#[derive(Debug)]
pub(super) struct Information {
    pub(super) can_reset: bool,
    /// MSI-X vectors.
    pub(super) vectors: u16,
    pub(super) config_size: u64,
}

impl Connection {
    pub(super) fn information(&self) -> Result<Information, BusError> {
        let command = Command::GET_INFO;
        let answer = self.ask(command, &Body::new().u32(INFO).u32(0).u32(0).u32(0).done(), &[])?;
        let mut fields = Fields::new(&answer.body);
        let (Some(_), Some(flags), Some(regions), Some(interrupts)) =
            (fields.u32(), fields.u32(), fields.u32(), fields.u32())
        else {
            return Err(self.broke(command, "the reply is too short"));
        };
        if flags & VFIO_DEVICE_FLAGS_PCI == 0 || regions <= VFIO_PCI_CONFIG_REGION_INDEX {
            return Err(self.missing("the server offers it, but not as a PCI device"));
        }
        Ok(Information {
            can_reset: flags & VFIO_DEVICE_FLAGS_RESET != 0,
            vectors: if interrupts > VFIO_PCI_MSIX_IRQ_INDEX { self.vectors()? } else { 0 },
            config_size: self.region_info(VFIO_PCI_CONFIG_REGION_INDEX)?.size,
        })
    }

    fn vectors(&self) -> Result<u16, BusError> {
        let command = Command::GET_IRQ_INFO;
        let question = Body::new().u32(INFO).u32(0).u32(VFIO_PCI_MSIX_IRQ_INDEX).u32(0).done();
        let answer = self.ask(command, &question, &[])?;
        let mut fields = Fields::new(&answer.body);
        let (Some(_), Some(flags), Some(_), Some(count)) = (fields.u32(), fields.u32(), fields.u32(), fields.u32())
        else {
            return Err(self.broke(command, "the reply is too short"));
        };
        // MSI-X has at most 2048 vectors.
        let count = u16::try_from(count.min(2048)).unwrap_or(u16::MAX);
        Ok(if flags & VFIO_IRQ_INFO_EVENTFD == 0 { 0 } else { count })
    }

    fn missing(&self, missing: impl Into<String>) -> BusError {
        BusError::Missing { device: self.name.clone(), missing: missing.into() }
    }

    fn region_info(&self, index: u32) -> Result<RegionInfo, BusError> {
        let command = Command::GET_REGION_INFO;
        let ask = |room: u32| {
            let question = Body::new().u32(room).u32(0).u32(index).u32(0).u64(0).u64(0).done();
            let answer = self.ask(command, &question, &[])?;
            let mut fields = Fields::new(&answer.body);
            let (Some(needed), Some(flags), Some(_), Some(list), Some(size), Some(offset)) =
                (fields.u32(), fields.u32(), fields.u32(), fields.u32(), fields.u64(), fields.u64())
            else {
                return Err(self.broke(command, format!("the reply has less than {REGION_INFO} bytes")));
            };
            Ok((needed, flags, list, size, offset, answer))
        };
        let mut reply = ask(ROOM)?;
        if reply.0 > ROOM {
            if reply.0 as usize > MAX_BODY {
                return Err(self.broke(command, format!("a description of {} bytes", reply.0)));
            }
            reply = ask(reply.0)?;
        }
        let (_, flags, list, size, offset, mut answer) = reply;
        let mut areas = Vec::new();
        let writable = VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
        if flags & writable == writable {
            areas.push(Stretch { offset: 0, length: size });
            if flags & VFIO_REGION_INFO_FLAG_CAPS != 0
                && let Some(sparse) = capabilities::sparse_areas(&answer.body, list)
            {
                areas = sparse;
            }
        }
        Ok(RegionInfo { flags, size, offset, areas, file: answer.files.pop() })
    }

    /// The register window of base address register `index`.
    pub(super) fn window(self: &Arc<Self>, index: u8) -> Result<Bar, BusError> {
        if index > 5 {
            return Err(self.missing(format!("there is no BAR {index}, a PCI function has BAR 0 to 5")));
        }
        let info = self.region_info(index.into())?;
        if !info.is_there() {
            return Err(self.missing(format!("it has no BAR {index} (or the BAR is the upper half of a 64-bit one)")));
        }
        let rest = ByMessage { connection: Arc::clone(self), region: index.into() };
        // What cannot be mapped safely works as well by message, only slower.
        let end = info.areas.iter().map(|area| area.offset.saturating_add(area.length)).max().unwrap_or(0);
        let fits = end <= REACH && info.areas.len() <= AREAS;
        let end = end.checked_next_multiple_of(PAGE).and_then(|end| end.checked_add(info.offset)).unwrap_or(u64::MAX);
        let file = info.file.as_ref().filter(|file| fits && is_lasting(file.as_fd(), end));
        if file.is_none() && !info.areas.is_empty() {
            tracing::warn!(
                device = self.name,
                index,
                "registers are reached by message, which is slow: the server shares them in a file that is no sealed memfd, in more than {AREAS} \
                 areas, or beyond 4 GiB"
            );
        }
        let areas = if file.is_some() { info.areas.as_slice() } else { &[] };
        if !areas.is_empty() {
            self.shares_pages.store(true, Ordering::Relaxed);
        }
        Bar::new(file.map(|file| (file.as_fd(), info.offset)), info.size, areas, Box::new(rest)).map_err(|error| {
            BusError::System {
                device: self.name.clone(),
                action: format!("cannot map BAR {index}"),
                reason: error.to_string(),
            }
        })
    }
}
