//! Guest memory of kinds that not every machine has: what is missing has to be provided, and is no reason to leave a check out.
#![expect(unsafe_code, reason = "a system call without a wrapper")]

use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use dataplane::guest::{Access, GuestAddress, MapOptions, Memory, RegionSpec};
use lab::hostile::huge_pages;
use lab::suite::Suite;
use rustix::fs::MemfdFlags;

/// Bytes of a huge page.
const HUGE: u64 = 2 << 20;

pub(crate) fn checks(suite: &mut Suite) {
    suite.check("files::secret-memory-is-refused", secret_memory);
    suite.check("files::huge-pages-are-mapped-whole-and-contained", whole_huge_pages);
}

fn region(size: u64, offset: u64) -> RegionSpec {
    RegionSpec { guest: 0, user: 4 << 30, size, offset }
}

/// Memory that even the kernel keeps out of: its pages cannot be reached in ways that others can.
fn secret_memory() -> Result<()> {
    // SAFETY: the call takes flags and gives a descriptor.
    let result = unsafe { libc::syscall(libc::SYS_memfd_secret, 0) };
    let Some(descriptor) = i32::try_from(result).ok().filter(|descriptor| *descriptor >= 0) else {
        let error = std::io::Error::last_os_error();
        bail!(
            "no secret memory ({error}): run a kernel with CONFIG_SECRETMEM, and before Linux 6.5 with secretmem.enable=1"
        );
    };
    // SAFETY: a descriptor that was just made, and belongs to nobody else.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    file.set_len(4096)?;
    let Err(error) = Memory::empty().with(region(4096, 0), file.into(), &MapOptions::default()) else {
        bail!("secret memory was taken");
    };
    ensure!(error.to_string().contains("memfd, tmpfs and hugetlbfs"), "{error}");
    Ok(())
}

/// Whole pages are mapped, at offsets inside of them, and lost as others are.
fn whole_huge_pages() -> Result<()> {
    huge_pages(2)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let file = File::from(rustix::fs::memfd_create("huge", flags)?);
    file.set_len(2 * HUGE)?;
    // A region that begins in the middle of a huge page, as memory around a hole does.
    let memory = Memory::empty().with(region(HUGE, HUGE / 2), file.try_clone()?.into(), &MapOptions::default())?;
    let words = memory.words::<AtomicU64>(GuestAddress(0), 1, Access::Write)?;
    let last = memory.words::<AtomicU64>(GuestAddress(HUGE - 8), 1, Access::Write)?;
    let (first, last) = (words.first().context("no word")?, last.first().context("no word")?);
    first.store(7, Ordering::Relaxed);
    ensure!(!memory.is_lost(), "lost without a reason");
    file.set_len(0)?;
    ensure!((first.load(Ordering::Relaxed), last.load(Ordering::Relaxed)) == (0, 0), "something is left");
    ensure!(memory.is_lost(), "the loss was not noticed");
    Ok(())
}
