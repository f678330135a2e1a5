//! Signals to and from the other side: eventfds, which may be in any state that the peer likes.
//!
//! [`Call`] interrupts the peer. Writing to its eventfd could block for ever: the peer may have filled the counter and cleared `O_NONBLOCK`, and
//! both can happen between any check and the write. So nothing is written: the kernel is asked for a read of no bytes from a file of ours, by
//! Linux' asynchronous I/O, with the eventfd to be signalled on completion (`io_submit(2)`, `IOCB_FLAG_RESFD`). The kernel signals an eventfd without
//! ever waiting; a counter that is full stays full, which wakes the peer just as well. It is one system call.
//!
//! [`Kick`] is what an engine waits for while its queue is armed. The peer's kick eventfd may be exchanged at any time, so the engine's end is
//! an epoll instance that stays. Nothing is read from the peer's eventfd: edges are reported, not the counter.

#![expect(unsafe_code, reason = "asynchronous I/O has no interface but system calls")]

use std::fmt;
use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::{EventfdFlags, epoll};

use crate::port::Wake;

/// A descriptor for signals cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NotifyError {
    /// It is something else.
    #[error(
        "the descriptor for signals is {what}, not an eventfd; the VMM is broken, or does not know ioeventfd and irqfd"
    )]
    NotEventfd {
        /// What `/proc/self/fd` says that it is.
        what: String,
    },
    /// No context for asynchronous I/O.
    #[error("cannot set up asynchronous I/O, with which guests are signalled: {source}{}", remedy(.source))]
    Context {
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => "; the system's limit is reached, raise it: sudo sysctl fs.aio-max-nr=1048576",
        Some(libc::ENOSYS | libc::EPERM) => {
            "; the kernel needs CONFIG_AIO, and a container's seccomp profile has to allow io_setup and io_submit"
        }
        _ => "",
    }
}

fn system(action: &'static str) -> impl Fn(rustix::io::Errno) -> NotifyError {
    move |source| NotifyError::System { action, source: source.into() }
}

/// Refuses what is not an eventfd.
fn check_eventfd(file: BorrowedFd<'_>) -> Result<(), NotifyError> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let what = std::fs::read_link(path)
        .map_err(|source| NotifyError::System { action: "see what a descriptor is", source })?;
    let what = what.to_string_lossy();
    if what == "anon_inode:[eventfd]" { Ok(()) } else { Err(NotifyError::NotEventfd { what: what.into_owned() }) }
}

/// Events that may wait to be taken out of the context's ring: each call takes out those of earlier ones.
const EVENTS: u32 = 32;

// linux/aio_abi.h
const PREAD: u16 = 0;
const RESFD: u32 = 1;

/// `struct iocb`.
#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    #[cfg(target_endian = "little")]
    key: u32,
    flags_of_write: u32,
    #[cfg(target_endian = "big")]
    key: u32,
    operation: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    result_file: u32,
}

/// `struct aio_ring`: the head of the page that the kernel maps for a context, whose address is the context's number.
#[repr(C)]
struct Ring {
    id: AtomicU32,
    events: AtomicU32,
    head: AtomicU32,
    tail: AtomicU32,
    magic: AtomicU32,
}

/// `AIO_RING_MAGIC`.
const MAGIC: u32 = 0xa10a_10a1;
const _: () = assert!(size_of::<Request>() == 64 && offset_of!(Request, flags) == 56 && offset_of!(Ring, tail) == 12);

/// A context for signals. The calls of one port share one; any thread may use it.
///
/// Invariant: `ring` is a live context of this process, mapped until it is destroyed.
pub(crate) struct Notifier {
    ring: NonNull<Ring>,
    /// A file to read nothing from.
    nothing: OwnedFd,
}

// SAFETY: the context belongs to the process; its ring is only used by atomics and the kernel.
unsafe impl Send for Notifier {}
// SAFETY: as above; the kernel lets several threads submit at once.
unsafe impl Sync for Notifier {}

impl Notifier {
    /// Sets up a context.
    ///
    /// # Errors
    /// When the system has none left or knows no asynchronous I/O. The text says what to do.
    pub(crate) fn new() -> Result<Arc<Self>, NotifyError> {
        let nothing = rustix::fs::memfd_create("mirach-nothing", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(system("make a file to read nothing from"))?;
        let mut context: usize = 0;
        // SAFETY: the kernel writes one word, the number of a new context.
        let result = unsafe { libc::syscall(libc::SYS_io_setup, EVENTS, &raw mut context) };
        if result < 0 {
            return Err(NotifyError::Context { source: io::Error::last_os_error() });
        }
        let ring = NonNull::new(std::ptr::with_exposed_provenance_mut(context));
        let ring = ring.ok_or_else(|| NotifyError::Context { source: io::ErrorKind::InvalidData.into() })?;
        let notifier = Self { ring, nothing };
        if notifier.ring().magic.load(Ordering::Relaxed) != MAGIC {
            return Err(NotifyError::Context { source: io::ErrorKind::Unsupported.into() });
        }
        Ok(Arc::new(notifier))
    }

    fn ring(&self) -> &Ring {
        // SAFETY: by the invariant; the kernel changes the words as if they were atomics.
        unsafe { self.ring.as_ref() }
    }

    /// Has the kernel signal `eventfd`. Never waits.
    fn signal(&self, eventfd: BorrowedFd<'_>) -> bool {
        let descriptor = |file: BorrowedFd<'_>| file.as_raw_fd().cast_unsigned();
        let mut request = Request {
            operation: PREAD,
            file: descriptor(self.nothing.as_fd()),
            flags: RESFD,
            result_file: descriptor(eventfd),
            ..Request::default()
        };
        let requests = [&raw mut request];
        self.make_room();
        // SAFETY: one request, which reads no bytes and so completes before the call returns; the kernel writes to its
        // `key` only, and keeps nothing.
        let result = unsafe { libc::syscall(libc::SYS_io_submit, self.ring.as_ptr(), 1_usize, requests.as_ptr()) };
        result == 1
    }

    /// Takes all events out of the ring: they say nothing that is not known. Threads may do so at once; when one puts back an older head,
    /// the next call mends it, and the kernel trusts neither.
    fn make_room(&self) {
        let ring = self.ring();
        ring.head.store(ring.tail.load(Ordering::Acquire), Ordering::Release);
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        // SAFETY: the context is this value's alone, and nothing is under way in it.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.ring.as_ptr()) };
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}

/// A peer's eventfd, to interrupt it with.
#[derive(Debug)]
pub(crate) struct Call {
    eventfd: OwnedFd,
    notifier: Arc<Notifier>,
}

impl Call {
    /// Takes the peer's eventfd.
    ///
    /// # Errors
    /// When it is something else.
    pub(crate) fn new(eventfd: OwnedFd, notifier: Arc<Notifier>) -> Result<Self, NotifyError> {
        check_eventfd(eventfd.as_fd())?;
        Ok(Self { eventfd, notifier })
    }

    /// Signals the peer. Never blocks, whatever the peer did to the eventfd. `false` when the kernel refused; the caller tries again
    /// at its next batch, because a lost interrupt stops a guest.
    #[must_use]
    pub(crate) fn signal(&self) -> bool {
        self.notifier.signal(self.eventfd.as_fd())
    }
}

/// What an engine waits for while a queue is armed: the kicks of whatever eventfd the peer gave last. This is control's end.
#[derive(Debug)]
pub(crate) struct Kick {
    epoll: Arc<OwnedFd>,
    /// An eventfd of ours, for control to wake the engine with.
    own: File,
    peer: Option<OwnedFd>,
}

impl Kick {
    /// One that no peer kicks yet.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub(crate) fn new() -> Result<Self, NotifyError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system("make an epoll instance"))?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let own = rustix::event::eventfd(0, flags).map_err(system("make an eventfd"))?;
        let kick = Self { epoll: Arc::new(epoll), own: own.into(), peer: None };
        kick.watch(kick.own.as_fd())?;
        Ok(kick)
    }

    /// The engine's end, for [`PortQueue::wake`](crate::port::PortQueue).
    pub(crate) fn wake(&self) -> Wake {
        Wake::edges(Arc::clone(&self.epoll))
    }

    /// Takes the peer's eventfd in place of the one before; or none.
    ///
    /// # Errors
    /// When it is something else; the one before is gone then, too.
    pub(crate) fn set(&mut self, eventfd: Option<OwnedFd>) -> Result<(), NotifyError> {
        if let Some(before) = self.peer.take() {
            // The peer may keep the file open, so closing ours does not end it.
            epoll::delete(&self.epoll, &before).map_err(system("let go of a kick eventfd"))?;
        }
        let Some(eventfd) = eventfd else { return Ok(()) };
        check_eventfd(eventfd.as_fd())?;
        self.watch(eventfd.as_fd())?;
        self.peer = Some(eventfd);
        Ok(())
    }

    /// Wakes the engine, as a kick would.
    pub(crate) fn nudge(&self) {
        // It never blocks, and a full counter is an edge as well.
        let _ = rustix::io::write(&self.own, &1_u64.to_ne_bytes());
    }

    fn watch(&self, eventfd: BorrowedFd<'_>) -> Result<(), NotifyError> {
        let events = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.epoll, eventfd, epoll::EventData::new_u64(0), events).map_err(system("watch a kick eventfd"))
    }
}

#[cfg(test)]
mod tests;
