//! Windows of device registers: the only place that touches them.
//!
//! A [`Bar`] is a handle to one base address register of a device. Most of it is mapped into this process; what the
//! bus does not let us map (sparse areas, I/O port windows) takes the long way: `pread` and `pwrite` on the device's file, or
//! a message to the process that plays the device. Every access is checked against the window first: an access outside, or one that is not aligned
//! to its width, reads all ones and stores nothing, as on the wire.
//!
//! # Life
//!
//! Handles are cheap clones of one `Arc` and may outlive the device. A live mapping keeps the kernel from giving the device
//! to anybody else, so the owner *revokes* the window when it lets the device go: each mapped page is replaced, at the
//! same address and in one step, by a private page of all ones. Handles that are left then see what a removed device
//! would show, and the kernel is free of them.
//!
//! # Order
//!
//! Linux maps BARs uncached, and what a process shares that plays a device is ordinary memory. On x86-64 a store to uncached memory is not carried out before earlier stores to
//! ordinary memory, nor is a store to ordinary memory (Intel SDM volume 3, "Memory Ordering"), so [`publish`](drivers::bus::Bar::publish) needs to hold back only
//! the compiler: a release fence, which is no instruction there. `MOVDIR64B` is a *direct store*, ordered like
//! write-combining memory and so not at all against earlier stores; that is why
//! [`store_block`](drivers::bus::Bar::store_block) puts an `SFENCE` in front of it. The 8-store fallback gets the fence too, so
//! that both promise the same.
//!
//! # Portals
//!
//! `ENQCMD` stores 64 bytes and tells whether the device took them. It sends the PASID that the kernel gave this process, and the kernel kills a process
//! that has none and executes it. VFIO never gives one, so a window over VFIO answers [`can_enqueue`](drivers::bus::Bar::can_enqueue) with `false`. A
//! [`Bar::of_portal`] is a page of the `idxd` driver's, which gives the process a PASID when its file is opened.

#![expect(unsafe_code, reason = "device registers are reached by volatile access to mapped memory")]

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, PoisonError, RwLock};

use drivers::bus::Width;
use memmap2::{MmapOptions, MmapRaw};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the order of DMA writes and register stores is worked out for x86-64 only (see vfio/src/bar.rs)");

const PAGE: u64 = 4096;

/// The register window of one base address register. Cloning gives another handle to the same window.
#[derive(Clone, Debug)]
pub struct Bar {
    window: Arc<Window>,
}

/// A stretch of the window that can be mapped: offset from its start and length, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stretch {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Reaches the part of a window that is not mapped.
pub(crate) trait Rest: Send + Sync + fmt::Debug {
    /// Reads at an offset from the window's start.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Writes at an offset from the window's start.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

/// The window in the kernel's file.
#[derive(Debug)]
struct InFile {
    file: Arc<File>,
    /// Where the window begins in the file.
    start: u64,
}

impl Rest for InFile {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, self.start + offset)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.start + offset)
    }
}

#[derive(Debug)]
struct Window {
    size: u64,
    /// Mapped stretches, disjoint.
    areas: Vec<Area>,
    /// The way to what is not mapped; gone once the window is revoked.
    rest: RwLock<Option<Box<dyn Rest>>>,
    /// The processor has MOVDIR64B.
    direct_store: bool,
    /// The processor has ENQCMD, and this process has a PASID for what is behind the window.
    enqueue: bool,
}

#[derive(Debug)]
struct Area {
    offset: u64,
    length: u64,
    mapping: MmapRaw,
}

/// Where an access goes.
enum Place {
    Mapped(*mut u8),
    Rest(u64),
    Outside,
}

impl Bar {
    /// Maps the `stretches` of the window of `size` bytes that begins at `file_offset` in the kernel's `file`.
    pub(crate) fn in_file(file: Arc<File>, file_offset: u64, size: u64, stretches: &[Stretch]) -> io::Result<Self> {
        let rest = InFile { file: Arc::clone(&file), start: file_offset };
        Self::new(Some((file.as_fd(), file_offset)), size, stretches, Box::new(rest))
    }

    /// Maps the `stretches` of a window of `size` bytes; `file` is where they are, and where the window begins there.
    pub(crate) fn new(
        file: Option<(BorrowedFd<'_>, u64)>,
        size: u64,
        stretches: &[Stretch],
        rest: Box<dyn Rest>,
    ) -> io::Result<Self> {
        let mut areas = Vec::with_capacity(stretches.len());
        for stretch in stretches {
            let end = stretch.offset.checked_add(stretch.length).filter(|end| *end <= size);
            if end.is_none() || !stretch.offset.is_multiple_of(PAGE) || stretch.length == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "the bus reports a mappable area of {:#x} bytes at {:#x} in a window of {size:#x} bytes",
                        stretch.length, stretch.offset
                    ),
                ));
            }
            let too_long = || io::Error::from(io::ErrorKind::OutOfMemory);
            // A window smaller than a page still occupies a page of its own when the kernel lets us map it.
            let length = stretch.length.checked_next_multiple_of(PAGE).ok_or_else(too_long)?;
            let length = usize::try_from(length).map_err(|_| too_long())?;
            let (file, start) = file.ok_or(io::ErrorKind::InvalidData)?;
            let offset = start.checked_add(stretch.offset).ok_or_else(too_long)?;
            let mapping = MmapOptions::new().offset(offset).len(length).map_raw(&file)?;
            areas.push(Area { offset: stretch.offset, length: stretch.length, mapping });
        }
        let window =
            Window { size, areas, rest: RwLock::new(Some(rest)), direct_store: has_direct_store(), enqueue: false };
        Ok(Self { window: Arc::new(window) })
    }

    /// Maps the portal of a work queue: the one page that the `idxd` driver gives for an open file of it (`/dev/dsa/wq0.0`).
    ///
    /// # Errors
    /// When the kernel refuses. It does when the process lacks CAP_SYS_RAWIO, on devices with the weakness of INTEL-SA-01084.
    pub fn of_portal(file: File) -> io::Result<Self> {
        let mapping = MmapOptions::new().len(4096).map_raw(&file)?;
        let areas = vec![Area { offset: 0, length: PAGE, mapping }];
        // The file stays open for as long as the page is mapped: closing it would take the PASID away.
        let rest = InFile { file: Arc::new(file), start: 0 };
        let (direct_store, enqueue) = (has_direct_store(), has_enqueue());
        let window = Window { size: PAGE, areas, rest: RwLock::new(Some(Box::new(rest))), direct_store, enqueue };
        Ok(Self { window: Arc::new(window) })
    }

    /// Whether the processor stores 64 bytes at once, which the portal of a real device wants.
    #[must_use]
    pub fn stores_blocks_whole(&self) -> bool {
        self.window.direct_store
    }

    /// Parts every handle from the device. See the module's text.
    pub(crate) fn revoke(self) -> io::Result<()> {
        let window = match Arc::try_unwrap(self.window) {
            // Nobody else has a handle: dropping the window unmaps it.
            Ok(_) => return Ok(()),
            Err(shared) => shared,
        };
        Self { window }.cut()
    }

    /// Parts every handle from the device where it stands, however many there are.
    pub(crate) fn cut(&self) -> io::Result<()> {
        *self.window.rest.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.window.areas.iter().try_for_each(Area::replace_by_ones)
    }

    fn place(&self, offset: u32, bytes: u32) -> Place {
        let (offset, bytes) = (u64::from(offset), u64::from(bytes));
        if !offset.is_multiple_of(bytes) || offset + bytes > self.window.size {
            return Place::Outside;
        }
        for area in &self.window.areas {
            if let Some(inside) = offset.checked_sub(area.offset)
                && inside + bytes <= area.length
                && let Ok(inside) = usize::try_from(inside)
            {
                return Place::Mapped(area.mapping.as_mut_ptr().wrapping_add(inside));
            }
        }
        Place::Rest(offset)
    }

    fn rest_load(&self, offset: u64, bytes: u32) -> u64 {
        let mut raw = [0_u8; 8];
        let rest = self.window.rest.read().unwrap_or_else(PoisonError::into_inner);
        let read = rest.as_ref().zip(raw.get_mut(..bytes as usize)).map(|(rest, part)| rest.read(offset, part));
        match read {
            Some(Ok(())) => u64::from_le_bytes(raw),
            _ => u64::MAX,
        }
    }

    fn rest_store(&self, offset: u64, bytes: &[u8]) {
        let rest = self.window.rest.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(rest) = rest.as_ref()
            && let Err(error) = rest.write(offset, bytes)
        {
            // A store that nobody takes is lost on the wire too; the driver notices by what the device then does.
            tracing::debug!(offset, %error, "a register store was lost");
        }
    }
}

impl drivers::bus::Bar for Bar {
    fn size(&self) -> u64 {
        self.window.size
    }

    fn load<W: Width>(&self, offset: u32) -> W {
        let value = match self.place(offset, W::BYTES) {
            Place::Mapped(pointer) => match W::BYTES {
                // SAFETY: `place` checked bounds and alignment inside a mapping that lives as long as `self`.
                1 => u64::from(unsafe { pointer.read_volatile() }),
                // SAFETY: as above, two bytes.
                2 => u64::from(unsafe { pointer.cast::<u16>().read_volatile() }),
                // SAFETY: as above, four bytes.
                4 => u64::from(unsafe { pointer.cast::<u32>().read_volatile() }),
                // SAFETY: as above, eight bytes: `Width` is sealed and has no other.
                _ => unsafe { pointer.cast::<u64>().read_volatile() },
            },
            Place::Rest(offset) => self.rest_load(offset, W::BYTES),
            Place::Outside => u64::MAX,
        };
        W::narrow(value)
    }

    fn store<W: Width>(&self, offset: u32, value: W) {
        let value = value.widen();
        match self.place(offset, W::BYTES) {
            Place::Mapped(pointer) => match W::BYTES {
                // SAFETY: `place` checked bounds and alignment inside a mapping that lives as long as `self`.
                1 => unsafe { pointer.write_volatile(u8::narrow(value)) },
                // SAFETY: as above, two bytes.
                2 => unsafe { pointer.cast::<u16>().write_volatile(u16::narrow(value)) },
                // SAFETY: as above, four bytes.
                4 => unsafe { pointer.cast::<u32>().write_volatile(u32::narrow(value)) },
                // SAFETY: as above, eight bytes.
                _ => unsafe { pointer.cast::<u64>().write_volatile(value) },
            },
            Place::Rest(offset) => {
                if let Some(bytes) = value.to_le_bytes().get(..W::BYTES as usize) {
                    self.rest_store(offset, bytes);
                }
            }
            Place::Outside => {}
        }
    }

    fn store_block(&self, offset: u32, block: &[u64; 8]) {
        match self.place(offset, 64) {
            Place::Mapped(pointer) if self.window.direct_store => {
                // SAFETY: the processor has the instruction; `place` checked 64 aligned bytes inside a live mapping.
                unsafe { direct_store(pointer, block) };
            }
            Place::Mapped(pointer) => {
                store_fence();
                for (index, word) in block.iter().enumerate() {
                    // SAFETY: `place` checked 64 aligned bytes inside a live mapping; `index` is below 8.
                    unsafe { pointer.cast::<u64>().wrapping_add(index).write_volatile(*word) };
                }
            }
            Place::Rest(offset) => {
                let mut bytes = [0; 64];
                for (part, word) in bytes.chunks_exact_mut(8).zip(block) {
                    part.copy_from_slice(&word.to_le_bytes());
                }
                // One message to whoever plays the device; the kernel makes several accesses of it.
                self.rest_store(offset, &bytes);
            }
            Place::Outside => {}
        }
    }

    fn can_enqueue(&self) -> bool {
        self.window.enqueue
    }

    fn enqueue_block(&self, offset: u32, block: &[u64; 8]) -> bool {
        match self.place(offset, 64) {
            Place::Mapped(pointer) if self.window.enqueue => {
                // SAFETY: the processor has the instruction and the process a PASID; `place` checked 64 aligned bytes inside a live mapping.
                unsafe { enqueue(pointer, block) }
            }
            _ => false,
        }
    }

    fn publish<W: Width>(&self, offset: u32, value: W) {
        fence(Ordering::Release);
        self.store(offset, value);
    }
}

impl Area {
    /// Puts private pages of all ones in the place of the device's.
    fn replace_by_ones(&self) -> io::Result<()> {
        // The longest chunk keeps the number of mappings small for large windows; the shortest keeps memory small.
        let page = usize::try_from(PAGE).unwrap_or(usize::MAX);
        let chunk = (self.mapping.len() / 256).next_multiple_of(page).max(page).min(self.mapping.len());
        let ones = rustix::fs::memfd_create("mirach-revoked", rustix::fs::MemfdFlags::CLOEXEC)?;
        let ones = File::from(ones);
        ones.write_all_at(&vec![0xff; chunk], 0)?;
        for start in (0..self.mapping.len()).step_by(chunk) {
            let length = chunk.min(self.mapping.len() - start);
            let address = self.mapping.as_mut_ptr().wrapping_add(start);
            // SAFETY: the range lies inside our own mapping, whose bytes nobody refers to but by volatile access.
            unsafe {
                rustix::mm::mmap(
                    address.cast(),
                    length,
                    rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                    rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::FIXED,
                    &ones,
                    0,
                )?
            };
        }
        Ok(())
    }
}

/// Whether the processor has MOVDIR64B: CPUID leaf 7, ECX bit 28.
fn has_direct_store() -> bool {
    std::arch::x86_64::__cpuid(0).eax >= 7 && std::arch::x86_64::__cpuid_count(7, 0).ecx & 1 << 28 != 0
}

/// Whether the processor has ENQCMD: CPUID leaf 7, ECX bit 29.
fn has_enqueue() -> bool {
    std::arch::x86_64::__cpuid(0).eax >= 7 && std::arch::x86_64::__cpuid_count(7, 0).ecx & 1 << 29 != 0
}

fn store_fence() {
    // SAFETY: SFENCE is part of x86-64 and only orders stores.
    unsafe { std::arch::asm!("sfence", options(nostack, preserves_flags)) };
}

/// Stores 64 bytes at once, after all earlier stores.
///
/// # Safety
/// The processor has MOVDIR64B, and `to` is valid for writing 64 bytes and aligned to 64.
unsafe fn direct_store(to: *mut u8, block: &[u64; 8]) {
    // SAFETY: the caller promises a valid target and the instruction; `block` is 64 readable bytes.
    unsafe {
        std::arch::asm!(
            "sfence",
            "movdir64b {to}, [{from}]",
            to = in(reg) to,
            from = in(reg) block.as_ptr(),
            options(nostack, preserves_flags),
        );
    }
}

/// Offers 64 bytes, after all earlier stores. Whether they were taken.
///
/// # Safety
/// The processor has ENQCMD, the process has a PASID, and `to` is valid for writing 64 bytes and aligned to 64.
unsafe fn enqueue(to: *mut u8, block: &[u64; 8]) -> bool {
    let full: u8;
    // SAFETY: the caller promises a valid target, the instruction and a PASID; `block` is 64 readable bytes.
    unsafe {
        std::arch::asm!(
            "sfence",
            // The zero flag says that the device did not take it.
            "enqcmd {to}, [{from}]",
            "setz {full}",
            to = in(reg) to,
            from = in(reg) block.as_ptr(),
            full = out(reg_byte) full,
            options(nostack),
        );
    }
    full == 0
}

#[cfg(test)]
#[path = "bar_tests.rs"]
mod tests;
