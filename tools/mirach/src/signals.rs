//! SIGINT, SIGTERM and SIGHUP, taken by the control thread when it has time for them.
#![expect(unsafe_code, reason = "signal masks are only reachable through libc")]

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// Those that end a command.
const ENDING: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    /// To end: SIGINT or SIGTERM.
    End,
    /// To read the configuration again: SIGHUP.
    Reload,
}

/// Whether SIGINT or SIGTERM waits to be taken. Never so while they are not blocked.
pub(crate) fn are_pending() -> bool {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is good for one signal set.
    if unsafe { libc::sigpending(set.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: `sigpending` has initialised it.
    let set = unsafe { set.assume_init() };
    ENDING.into_iter().any(|signal| {
        // SAFETY: the set is initialised and the signal number valid.
        let is_member = unsafe { libc::sigismember(&raw const set, signal) };
        is_member == 1
    })
}

/// Signals that are blocked for this thread, and for all threads that it starts from now on.
pub(crate) struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// Blocks SIGINT and SIGTERM. To be called before any thread is started.
    pub(crate) fn block() -> io::Result<Self> {
        Self::block_these(&ENDING)
    }

    /// Blocks SIGINT, SIGTERM and SIGHUP. To be called before any thread is started, but for those that do this themselves.
    pub(crate) fn block_with_reload() -> io::Result<Self> {
        Self::block_these(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP])
    }

    fn block_these(signals: &[libc::c_int]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the pointer is good for one signal set, which the call fills in.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: `sigemptyset` has initialised it.
        let mut set = unsafe { set.assume_init() };
        for signal in signals {
            // SAFETY: the set is initialised and the signal number valid.
            unsafe { libc::sigaddset(&raw mut set, *signal) };
        }
        // SAFETY: the set is initialised; the old mask is not asked for.
        let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if result == 0 { Ok(Self { set }) } else { Err(io::Error::from_raw_os_error(result)) }
    }

    /// Waits until a signal arrives or `time` has passed.
    pub(crate) fn wait(&self, time: Duration) -> Option<Signal> {
        let timeout = libc::timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        // SAFETY: set and timeout are initialised; no information about the signal is asked for.
        let signal = unsafe { libc::sigtimedwait(&raw const self.set, std::ptr::null_mut(), &raw const timeout) };
        match signal {
            libc::SIGHUP => Some(Signal::Reload),
            signal => (signal > 0).then_some(Signal::End),
        }
    }

    /// Takes those that are pending, then lets the signals through again, so that a second one ends the process even if
    /// stopping hangs.
    pub(crate) fn release(self) {
        while self.wait(Duration::ZERO).is_some() {}
        // SAFETY: the set is initialised; the old mask is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const self.set, std::ptr::null_mut()) };
    }
}
