//! Memory of a machine: a memfd, mapped here and handed to the back-end.
#![expect(unsafe_code, reason = "words of memory that others write to are atomics at addresses")]

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use anyhow::{Context, Result};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::MemfdFlags;

/// Where the VMM claims to have the machine's memory. For the guest it begins at 0.
pub const USER: u64 = 0x7000_0000_0000;

/// Bytes of a huge page.
const HUGE: u64 = 2 << 20;

/// Kind of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pages {
    /// 4 KiB.
    Small,
    /// 2 MiB, which have to be reserved.
    Huge,
}

/// Shared memory. Nobody may touch what was cut off, so it is only cut when nothing here works with it any more.
#[derive(Debug)]
pub struct Memory {
    file: File,
    map: MmapRaw,
}

impl Memory {
    /// New memory of zeroes.
    ///
    /// # Errors
    /// There is none; the error says what to do when huge pages are missing.
    pub fn new(size: u64, pages: Pages) -> Result<Self> {
        let mut flags = MemfdFlags::CLOEXEC;
        if pages == Pages::Huge {
            flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        }
        let file = File::from(rustix::fs::memfd_create("hostile", flags).context("cannot make memory")?);
        file.set_len(size)?;
        let map = MmapOptions::new().len(usize::try_from(size)?).map_raw(&file).with_context(|| match pages {
            Pages::Small => "cannot map memory".to_owned(),
            Pages::Huge => format!("no huge pages: write at least {} to /proc/sys/vm/nr_hugepages", size / HUGE),
        })?;
        Ok(Self { file, map })
    }

    /// The same memory, mapped once more.
    ///
    /// # Errors
    /// The system refuses.
    pub fn again(&self) -> Result<Self> {
        let map = MmapOptions::new().len(self.map.len()).map_raw(&self.file).context("cannot map memory once more")?;
        Ok(Self { file: self.file.try_clone()?, map })
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.map.len() as u64
    }

    /// The file, to be handed over.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Cuts the file to `size` bytes, under the feet of whoever uses it.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn cut(&self, size: u64) -> Result<()> {
        Ok(self.file.set_len(size)?)
    }

    /// Address of an aligned word of `N` bytes.
    fn at<const N: usize>(&self, offset: u64) -> *mut u8 {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let fits = offset.checked_add(N).is_some_and(|end| end <= self.map.len());
        assert!(fits && offset.is_multiple_of(N), "no word of {N} bytes lies at {offset:#x}");
        // SAFETY: the word lies in the mapping, as was just seen.
        unsafe { self.map.as_mut_ptr().add(offset) }
    }

    fn byte(&self, offset: u64) -> &AtomicU8 {
        // SAFETY: the byte lies in the mapping, which lives as long as the borrow, and is only accessed atomically.
        unsafe { AtomicU8::from_ptr(self.at::<1>(offset)) }
    }

    /// A word.
    #[must_use]
    pub fn word16(&self, offset: u64) -> &AtomicU16 {
        // SAFETY: as for bytes; it is aligned.
        unsafe { AtomicU16::from_ptr(self.at::<2>(offset).cast()) }
    }

    /// A word.
    #[must_use]
    pub fn word32(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: as for bytes; it is aligned.
        unsafe { AtomicU32::from_ptr(self.at::<4>(offset).cast()) }
    }

    /// A word.
    #[must_use]
    pub fn word64(&self, offset: u64) -> &AtomicU64 {
        // SAFETY: as for bytes; it is aligned.
        unsafe { AtomicU64::from_ptr(self.at::<8>(offset).cast()) }
    }

    /// Copies bytes in.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        for (place, byte) in (offset..).zip(bytes) {
            self.byte(place).store(*byte, Ordering::Relaxed);
        }
    }
}

/// Sees to at least `count` free huge pages of 2 MiB. Those that it reserves stay reserved, as somebody may use them by then.
///
/// # Errors
/// They cannot be had, and what to do.
pub fn huge_pages(count: u64) -> Result<()> {
    const FOLDER: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
    let read = |name: &str| -> Result<u64> {
        let path = format!("{FOLDER}/{name}");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("no {path}: the kernel has no huge pages of 2 MiB"))?;
        Ok(text.trim().parse()?)
    };
    let free = |read: &dyn Fn(&str) -> Result<u64>| {
        anyhow::Ok(read("free_hugepages")?.saturating_sub(read("resv_hugepages")?))
    };
    let has = free(&read)?;
    if has >= count {
        return Ok(());
    }
    let wanted = read("nr_hugepages")? + count - has;
    let advice = || format!("too few huge pages: run `sysctl vm.nr_hugepages={wanted}` as root");
    std::fs::write(format!("{FOLDER}/nr_hugepages"), wanted.to_string()).with_context(advice)?;
    anyhow::ensure!(free(&read)? >= count, advice());
    Ok(())
}
