//! One range of a memory file, mapped and watched for faults.

#![expect(unsafe_code, reason = "files become memory")]

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hugemem::{Backing, Region};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::error::GuestError;
use super::fault::Registration;
use super::file::Extent;
use super::reach::{Attachment, Reach};

/// Bytes of which pages are got with one system call.
const POPULATED_AT_ONCE: usize = 64 << 20;
/// How long getting pages may take.
const POPULATING: Duration = Duration::from_secs(10);

/// Most bytes that are mapped for all VMs together: half of a process's addresses on common machines, so that the other half is left for
/// everything else.
const MOST_BYTES: u64 = 1 << 46;
/// Bytes that are mapped.
static MAPPED: AtomicU64 = AtomicU64::new(0);

/// How memory is mapped.
#[derive(Clone, Debug, Default)]
pub struct MapOptions {
    /// Get all pages now instead of at first use. Takes up to ten seconds, on the calling thread; pages that the VM has not
    /// used yet are then accounted to this process.
    pub prefault: bool,
    /// An eventfd of ours that is written to when the memory is taken away, so that its session wakes up.
    pub wake: Option<Arc<OwnedFd>>,
    /// A device that is to reach the regions of the memory by itself. Where it cannot, the memory is used without it.
    pub reach: Option<Arc<dyn Reach>>,
}

/// A range of a memory file, mapped for reading and writing. Unmapped when dropped.
///
/// Invariant: the range is mapped and registered for fault containment for as long as this exists.
pub(super) struct Mapping {
    /// A device that reaches it. Goes first.
    attachment: Option<Attachment>,
    /// Goes before the range does.
    registration: Registration,
    range: Arc<Range>,
}

impl Mapping {
    /// Maps `extent` of `file`, which was checked.
    pub(super) fn new(file: impl AsFd, extent: Extent, options: &MapOptions) -> Result<Self, GuestError> {
        let range = Arc::new(Range::map(file, extent)?);
        // SAFETY: the range was just mapped; it goes after its registration, and is only used by copies and atomics.
        let registration = unsafe { Registration::new(range.base, range.len, options.wake.clone()) }?;
        let mapping = Self { attachment: None, registration, range };
        if options.prefault {
            mapping.populate()?;
        }
        Ok(mapping)
    }

    /// Lets `reach` reach the mapping by itself; `file` is what is mapped, from `start` on.
    pub(super) fn attach(&mut self, reach: &Arc<dyn Reach>, file: OwnedFd, start: u64) -> Result<(), String> {
        let (base, len) = (self.base(), self.len());
        let shown = Box::new(Shown { file, start, range: Arc::clone(&self.range) });
        let window = |iova| {
            // SAFETY: the range is mapped for as long as the backing has it, in whole pages; whoever uses it bears with all that a guest does to
            // it, and so with what a device does.
            unsafe { Region::window(base, len, iova, rustix::param::page_size(), shown) }
        };
        let window = reach.attach(len, Box::new(window))?;
        self.registration.set_reached(reach.id(), window.iova());
        self.attachment = Some(Attachment { reach: Arc::clone(reach), window });
        Ok(())
    }

    /// A device reaches it by itself.
    pub(super) fn is_reached(&self) -> bool {
        self.attachment.is_some()
    }

    /// Its first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.range.base
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        self.range.len
    }

    /// The file was cut off under it, and it is zeroes that nobody shares.
    pub(super) fn is_lost(&self) -> bool {
        self.registration.is_lost()
    }

    /// Gets all its pages, or as many as time allows; the others come at first use.
    fn populate(&self) -> Result<(), GuestError> {
        let start = Instant::now();
        for offset in (0..self.len()).step_by(POPULATED_AT_ONCE) {
            if start.elapsed() > POPULATING {
                tracing::warn!(
                    "guest memory: {} of {} MiB are prefaulted after {} s; the rest comes as it is used",
                    offset >> 20,
                    self.len() >> 20,
                    POPULATING.as_secs()
                );
                break;
            }
            self.populate_piece(offset, POPULATED_AT_ONCE.min(self.len() - offset))?;
        }
        Ok(())
    }

    /// Gets the pages of the `len` bytes from `offset` on, which lie in the mapping.
    fn populate_piece(&self, offset: usize, len: usize) -> Result<(), GuestError> {
        // SAFETY: `offset` is inside the mapping.
        let base = unsafe { self.base().add(offset) };
        // SAFETY: the range lies in this mapping, and populating changes no byte.
        let done = unsafe { rustix::mm::madvise(base.as_ptr().cast(), len, Advice::LinuxPopulateWrite) };
        match done {
            // Kernels before 5.14.
            Err(rustix::io::Errno::INVAL) => self.touch(offset, len),
            Err(source) => return Err(GuestError::System { action: "prefault the file", source: source.into() }),
            Ok(()) => {}
        }
        Ok(())
    }

    /// Gets the pages of the `len` bytes from `offset` on, which lie in the mapping, by writing what is there.
    fn touch(&self, offset: usize, len: usize) {
        for page in (offset..offset + len).step_by(rustix::param::page_size()) {
            // SAFETY: `page` is inside the mapping.
            let byte = unsafe { self.base().add(page) };
            // SAFETY: mapped and writable by the invariant; what the guest does with it meanwhile is atomic to us.
            unsafe { AtomicU8::from_ptr(byte.as_ptr()) }.fetch_or(0, Ordering::Relaxed);
        }
    }
}

/// Addresses that a file is mapped at. Unmapped when dropped.
struct Range {
    base: NonNull<u8>,
    len: usize,
    /// Goes after the range did.
    _share: Share,
}

/// What keeps a window of a mapping, and says which file that is.
struct Shown {
    file: OwnedFd,
    start: u64,
    range: Arc<Range>,
}

impl Backing for Shown {
    fn file(&self) -> Option<(BorrowedFd<'_>, u64)> {
        debug_assert!(self.range.len > 0, "a mapping is never empty");
        Some((self.file.as_fd(), self.start))
    }
}

/// So many of the bytes that may be mapped.
struct Share(u64);

impl Share {
    fn take(len: usize) -> Result<Self, GuestError> {
        let len = len as u64;
        let more = |mapped: u64| mapped.checked_add(len).filter(|sum| *sum <= MOST_BYTES);
        let taken = MAPPED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(|_| Self(len)).map_err(|_| GuestError::Exhausted { most: MOST_BYTES })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        MAPPED.fetch_sub(self.0, Ordering::Relaxed);
    }
}

// SAFETY: a mapping is not bound to a thread, and nothing is reached through it but by atomics and copies.
unsafe impl Send for Range {}
// SAFETY: as above.
unsafe impl Sync for Range {}

impl Range {
    fn map(file: impl AsFd, extent: Extent) -> Result<Self, GuestError> {
        let refused = |source: rustix::io::Errno| GuestError::System { action: "map the file", source: source.into() };
        let share = Share::take(extent.len)?;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a fresh mapping at an address of the kernel's choice takes nobody's memory.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), extent.len, protection, flags, file, extent.start) };
        let base =
            NonNull::new(base.map_err(refused)?.cast::<u8>()).ok_or_else(|| refused(rustix::io::Errno::INVAL))?;
        // The handler of faults gets at the range by its number.
        base.as_ptr().expose_provenance();
        Ok(Self { base, len: extent.len, _share: share })
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // SAFETY: the range is a mapping of ours that nobody uses any more.
        let result = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok(), "the range was mapped");
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("base", &self.base())
            .field("len", &self.len())
            .field("lost", &self.is_lost())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_vms_together_leave_addresses_to_the_process() {
        let most = usize::try_from(MOST_BYTES).unwrap_or(usize::MAX);
        assert!(matches!(Share::take(most + 1), Err(GuestError::Exhausted { .. })));
        assert!(matches!(Share::take(usize::MAX), Err(GuestError::Exhausted { .. })));
        assert!(Share::take(1 << 20).is_ok());
    }
}
