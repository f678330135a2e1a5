//! The memory behind a window's shared pages: words that driver and chip both see.

#![expect(unsafe_code, reason = "words of shared memory become atomics")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::chip::WindowLayout;

/// Bytes of a page.
pub(super) const PAGE: u32 = 4096;

/// A window's words, in a memfd as long as the window. Pages that nobody touches take no memory.
#[derive(Debug)]
pub(super) struct Registers {
    map: MmapRaw,
    file: Arc<OwnedFd>,
    shared: Vec<Range<u32>>,
    /// One bit for each page that the driver reaches without a call.
    open: Vec<u64>,
    /// Registers elsewhere that it reaches without a call: offset and bytes.
    doorbells: Vec<(u32, u32)>,
}

impl Registers {
    pub(super) fn new(window: &WindowLayout) -> io::Result<Self> {
        let file = File::from(memfd_create("registers", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        file.set_len(window.bytes.into())?;
        // A client gets this file: it must not be able to take the pages away from us.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let map = MmapOptions::new().len(usize::try_from(window.bytes).unwrap_or(0)).map_raw(&file)?;
        let pages = usize::try_from(window.bytes.div_ceil(PAGE)).unwrap_or(0);
        let mut open = vec![0_u64; pages.div_ceil(64)];
        if !window.trapped {
            for page in window.shared.iter().flat_map(|range| range.start / PAGE..range.end.div_ceil(PAGE)) {
                if let Some(bits) = open.get_mut(page as usize / 64) {
                    *bits |= 1 << (page % 64);
                }
            }
        }
        let doorbells = if window.trapped { Vec::new() } else { window.doorbells.clone() };
        Ok(Self { map, file: Arc::new(OwnedFd::from(file)), shared: window.shared.clone(), open, doorbells })
    }

    /// The memory, for a client to map.
    pub(super) fn file(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.file)
    }

    /// The driver reaches the `bytes` bytes at `offset` without a call.
    #[inline]
    pub(super) fn is_open(&self, offset: u32, bytes: u32) -> bool {
        let page = offset / PAGE;
        self.open.get(page as usize / 64).is_some_and(|bits| bits >> (page % 64) & 1 != 0)
            || self.doorbells.contains(&(offset, bytes))
    }

    /// The word that has the byte at `offset`; `None` outside.
    #[inline]
    pub(super) fn word(&self, offset: u32) -> Option<&AtomicU32> {
        let at = offset as usize & !3;
        if at >= self.map.len() {
            return None;
        }
        // SAFETY: the map is whole pages long, so the word lies inside.
        let pointer = unsafe { self.map.as_mut_ptr().add(at) };
        // SAFETY: aligned to 4 bytes, mapped as long as `self`, and only ever touched as atomics, by the other side too.
        Some(unsafe { AtomicU32::from_ptr(pointer.cast()) })
    }

    /// Reads 1, 2, 4 or 8 bytes at an aligned offset.
    #[inline]
    pub(super) fn load(&self, offset: u32, bytes: u32) -> u64 {
        let word = |offset: u32| self.word(offset).map_or(u32::MAX, |word| word.load(Ordering::Acquire));
        match bytes {
            4 => word(offset).into(),
            8 => u64::from(word(offset)) | u64::from(word(offset.wrapping_add(4))) << 32,
            _ => u64::from(word(offset) >> (8 * (offset & 3))),
        }
    }

    /// Writes 1, 2, 4 or 8 bytes at an aligned offset.
    #[inline]
    pub(super) fn store(&self, offset: u32, bytes: u32, value: u64) {
        let (low, high) = (drivers::bus::Width::narrow(value), drivers::bus::Width::narrow(value >> 32));
        let put = |offset: u32, value: u32| {
            if let Some(word) = self.word(offset) {
                word.store(value, Ordering::Release);
            }
        };
        match bytes {
            4 => put(offset, low),
            8 => {
                put(offset, low);
                put(offset.wrapping_add(4), high);
            }
            _ => {
                let shift = 8 * (offset & 3);
                let mask = (if bytes == 1 { 0xff_u32 } else { 0xffff }) << shift;
                if let Some(word) = self.word(offset) {
                    let merged = |old: u32| Some(old & !mask | low << shift & mask);
                    let _always = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, merged);
                }
            }
        }
    }

    /// All words of the shared pages become `value`.
    pub(super) fn fill(&self, value: u32) {
        for word in self.shared.iter().cloned().flat_map(|range| range.step_by(4)).filter_map(|at| self.word(at)) {
            word.store(value, Ordering::Release);
        }
    }
}
