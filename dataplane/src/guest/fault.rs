//! Faults in guest memory are contained to the guest that caused them.
//!
//! Whoever owns a memory file can cut it off at any time, and the next access to what is gone raises SIGBUS. A handler for the process
//! looks whether the address lies in a registered mapping. If so it marks the mapping as lost, puts anonymous zeroes in place of *all* of it,
//! wakes the session, and returns: the access is done again and reads zeroes. So every kind of access is covered (rings, payload, logs) and none
//! of them pays for it. Any other SIGBUS goes to the handler that was there before, and ends the process unless that one knows better.
//!
//! The handler only uses what may be used in one (`signal-safety(7)`): atomics, and the system calls `mmap`, `write` and `sigaction`. It finds
//! mappings in a table of fixed size whose entries carry a version, odd while the entry is in use. An entry that changes
//! while it is read is not the one that is looked for: the thread that faulted holds its mapping.

#![expect(unsafe_code, reason = "a signal handler that replaces mappings")]

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

use hugemem::{Foreign, Iova};

use super::error::GuestError;

/// Mappings that can be watched at once.
const MOST: usize = 4096;

/// Faults contained so far.
static FAULTS: AtomicU64 = AtomicU64::new(0);
/// Mappings registered now that are lost.
static LOST: AtomicU32 = AtomicU32::new(0);
/// Entries that were ever in use, from the first on.
static HIGHEST: AtomicUsize = AtomicUsize::new(0);
static ENTRIES: [Entry; MOST] = [const { Entry::new() }; MOST];
/// What handled the signal before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Faults in guest memory that were contained since the process started.
///
/// Whoever reads guest memory compares this before and after: while it stays, no byte turned to zero meanwhile. When it grew,
/// [`Memory::is_lost`](super::Memory::is_lost) and [`is_lost`] tell whose did. One load.
#[inline(always)]
#[must_use]
pub fn faults() -> u64 {
    FAULTS.load(Ordering::Acquire)
}

/// Mappings that are lost now: none in normal life, fewer again when they are given up. One load.
#[inline(always)]
#[must_use]
pub fn lost() -> u32 {
    LOST.load(Ordering::Acquire)
}

/// Whether the memory of `piece` is lost. Searches; ask only when [`lost`] says that any is.
#[must_use]
pub fn is_lost(piece: &Foreign) -> bool {
    find(piece.address().addr().get()).is_some_and(|(entry, _)| entry.lost.load(Ordering::Acquire))
}

/// Where the byte at `address` lies for the device of that number, when its mapping was made reachable for that: the place of the mapping in the
/// table, and the address. Looks at place `hint` first. Whoever asks sees to it that the mapping is there.
#[inline]
pub(super) fn reached(address: usize, device: u32, hint: usize) -> Option<(usize, Iova)> {
    let here = |entry: &Entry| {
        let words = entry.read()?;
        let offset = address.wrapping_sub(words.start);
        (offset < words.len).then_some(offset as u64)
    };
    let hinted = ENTRIES.get(hint).and_then(here).map(|offset| (hint, offset));
    let (place, offset) = hinted.or_else(|| {
        let used = ENTRIES.iter().take(HIGHEST.load(Ordering::Relaxed)).enumerate();
        used.filter_map(|(place, entry)| Some((place, here(entry)?))).next()
    })?;
    let entry = ENTRIES.get(place)?;
    let reached = entry.device.load(Ordering::Acquire) == device && device != 0;
    reached.then(|| (place, Iova::new(entry.iova.load(Ordering::Relaxed).wrapping_add(offset))))
}

/// The entry of the mapping that has `address`, and its words.
fn find(address: usize) -> Option<(&'static Entry, Words)> {
    ENTRIES.iter().find_map(|entry| {
        let words = entry.read()?;
        (address.wrapping_sub(words.start) < words.len).then_some((entry, words))
    })
}

/// What an entry says of its mapping.
struct Words {
    start: usize,
    len: usize,
    /// Eventfd to write to, or -1.
    wake: c_int,
}

/// A mapping as the handler knows it.
struct Entry {
    /// Somebody has it, or is about to.
    taken: AtomicBool,
    /// Odd while the other words are true.
    version: AtomicU64,
    start: AtomicUsize,
    len: AtomicUsize,
    /// Eventfd to write to, or -1.
    wake: AtomicI32,
    lost: AtomicBool,
    /// The device that reaches the mapping by itself, or 0, and where that has its first byte.
    device: AtomicU32,
    iova: AtomicU64,
}

impl Entry {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            version: AtomicU64::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            wake: AtomicI32::new(-1),
            lost: AtomicBool::new(false),
            device: AtomicU32::new(0),
            iova: AtomicU64::new(0),
        }
    }

    /// Its words, if it is in use.
    fn read(&self) -> Option<Words> {
        let version = self.version.load(Ordering::Acquire);
        let words = Words {
            start: self.start.load(Ordering::Relaxed),
            len: self.len.load(Ordering::Relaxed),
            wake: self.wake.load(Ordering::Relaxed),
        };
        // The words were read before the version is read again.
        fence(Ordering::Acquire);
        (version % 2 == 1 && self.version.load(Ordering::Relaxed) == version).then_some(words)
    }
}

/// Keeps a range of addresses registered; ends with its drop, which comes before unmapping.
#[derive(Debug)]
pub(super) struct Registration {
    index: usize,
    /// Open for as long as the handler may write to it.
    _wake: Option<Arc<OwnedFd>>,
}

impl Registration {
    /// Registers the mapping of `len` bytes at `base`, and sets the handler up if this is the first.
    ///
    /// # Safety
    /// The range is one mapping that belongs to the caller and is not unmapped before the registration ends, and whoever uses it bears
    /// with its becoming zeroes.
    pub(super) unsafe fn new(base: NonNull<u8>, len: usize, wake: Option<Arc<OwnedFd>>) -> Result<Self, GuestError> {
        install().map_err(|source| GuestError::System { action: "set up the handler of SIGBUS", source })?;
        let take = |entry: &Entry| !entry.taken.load(Ordering::Relaxed) && !entry.taken.swap(true, Ordering::Acquire);
        let found = ENTRIES.iter().enumerate().find(|(_, entry)| take(entry));
        let (index, entry) = found.ok_or(GuestError::TooManyMappings { most: MOST })?;
        entry.start.store(base.as_ptr().addr(), Ordering::Relaxed);
        entry.len.store(len, Ordering::Relaxed);
        entry.wake.store(wake.as_ref().map_or(-1, |wake| wake.as_raw_fd()), Ordering::Relaxed);
        entry.lost.store(false, Ordering::Relaxed);
        entry.device.store(0, Ordering::Relaxed);
        HIGHEST.fetch_max(index + 1, Ordering::Relaxed);
        entry.version.fetch_add(1, Ordering::Release);
        Ok(Self { index, _wake: wake })
    }

    /// The device of that number reaches the mapping by itself, at `iova`. To be said before anybody else knows the mapping.
    pub(super) fn set_reached(&self, device: u32, iova: Iova) {
        let Some(entry) = ENTRIES.get(self.index) else { return };
        entry.iova.store(iova.raw(), Ordering::Relaxed);
        entry.device.store(device, Ordering::Release);
    }

    /// A fault hit the mapping.
    #[inline]
    pub(super) fn is_lost(&self) -> bool {
        ENTRIES.get(self.index).is_some_and(|entry| entry.lost.load(Ordering::Acquire))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(entry) = ENTRIES.get(self.index) else { return };
        entry.version.fetch_add(1, Ordering::Relaxed);
        if entry.lost.swap(false, Ordering::Relaxed) {
            LOST.fetch_sub(1, Ordering::Relaxed);
        }
        // Whoever sees a word of the next user also sees that this version is over.
        fence(Ordering::Release);
        entry.taken.store(false, Ordering::Release);
    }
}

/// Sets the handler up, once.
fn install() -> io::Result<()> {
    static DONE: OnceLock<Result<(), i32>> = OnceLock::new();
    DONE.get_or_init(|| set_handler().map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL)))
        .map_err(io::Error::from_raw_os_error)
}

fn set_handler() -> io::Result<()> {
    // What was there is noted first: the handler may be needed as soon as it is set.
    let before = action(None)?;
    let _ = BEFORE.set(before);
    let mut new = before;
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = handle;
    new.sa_sigaction = handler as usize;
    new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the set is a local that is as large as the function expects.
    unsafe { libc::sigemptyset(&raw mut new.sa_mask) };
    action(Some(&new)).map(drop)
}

/// Sets what SIGBUS does, if asked to; gives what it did before.
fn action(new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut before = std::mem::MaybeUninit::zeroed();
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `new` is null or an action whose handler is a function of this module or came from this very call.
    let result = unsafe { libc::sigaction(libc::SIGBUS, new, before.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded and filled it in; zeroes would do as well.
    Ok(unsafe { before.assume_init() })
}

extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a pointer to what happened.
    let what = unsafe { &*info };
    // What was interrupted may be about to look at its error number.
    // SAFETY: every thread has one.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the place is valid, and no other thread's.
    let saved = unsafe { errno.read() };
    // A code above zero says that the kernel raised it: then there is an address.
    // SAFETY: as just said.
    let contained = what.si_code > 0 && contain(unsafe { what.si_addr() }.addr());
    if !contained {
        pass_on(signal, info, context, what.si_code > 0);
    }
    // SAFETY: as above.
    unsafe { errno.write(saved) };
}

/// Replaces the mapping that has `address` by zeroes. `false` when there is none, or the kernel refuses.
fn contain(address: usize) -> bool {
    let Some((entry, Words { start, len, wake })) = find(address) else { return false };
    // Before the zeroes can be seen by anyone.
    if !entry.lost.swap(true, Ordering::SeqCst) {
        LOST.fetch_add(1, Ordering::SeqCst);
    }
    FAULTS.fetch_add(1, Ordering::SeqCst);
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let start: *mut c_void = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: the range is one mapping whose owner agreed to this, and which the thread that faulted keeps from being unmapped.
    let zeroes = unsafe { libc::mmap(start, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if wake >= 0 {
        let one = 1_u64;
        // SAFETY: eight bytes of a local. A failure means that the session is awake already.
        unsafe { libc::write(wake, (&raw const one).cast(), size_of::<u64>()) };
    }
    zeroes != libc::MAP_FAILED
}

/// Lets the handler that was there before have the signal. Without one, the signal ends the process as it always does.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void, from_kernel: bool) {
    let handler = BEFORE.get().map_or(libc::SIG_DFL, |before| before.sa_sigaction);
    if handler == libc::SIG_IGN && !from_kernel {
        return;
    }
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // The access that faulted is done again on return, and nobody handles it then.
        // SAFETY: the default action needs no handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        if !from_kernel {
            // SAFETY: raising a signal has no preconditions; it arrives when this handler returns.
            unsafe { libc::raise(signal) };
        }
        return;
    }
    let takes_info = BEFORE.get().is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0);
    if takes_info {
        // SAFETY: with SA_SIGINFO the word is a function of this type.
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = unsafe { std::mem::transmute(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: without SA_SIGINFO, and as it is no special value, the word is a function of this type.
        let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
        handler(signal);
    }
}
