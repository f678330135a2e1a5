//! What a loaded engine must not do: call the kernel or allocate memory.
//!
//! The engine thread puts itself under observation when it first polls the probe's queue. System calls: a seccomp filter reports every one
//! of its system calls to this test, which notes it and lets it pass. Allocations: the allocator counts those of observed
//! threads. The same observation covers the engine's end, where both do happen; so a blind observer would be noticed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dataplane::config::{EngineConfig, Poll};
use dataplane::forwarder::Forwarder;
use dataplane::port::Port;
use drivers::nic::{Counters, RxQueue};
use hugemem::Batch;

use support::{cores, generator, null};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static OBSERVED: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, counting for observed threads.
struct Counting;

#[expect(unsafe_code, reason = "an allocator is unsafe by its nature; this one only counts")]
// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn count() {
    if OBSERVED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A receive queue that puts the thread which polls it first under observation.
struct Probe {
    inner: Box<dyn RxQueue>,
    /// Where to leave the observer's descriptor. Handing it over must need no system call, for there is no observer yet.
    listener: Arc<AtomicI32>,
    started: bool,
}

impl RxQueue for Probe {
    fn receive(&mut self, batch: &mut Batch) -> usize {
        if !self.started {
            self.started = true;
            OBSERVED.set(true);
            self.listener.store(observe_system_calls().into_raw_fd(), Ordering::Release);
        }
        self.inner.receive(batch)
    }

    fn arm(&mut self) -> bool {
        self.inner.arm()
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

/// Reports all further system calls of this thread on the returned descriptor, where each waits for leave (seccomp_unotify(2)).
#[expect(unsafe_code, reason = "seccomp is only reachable by system call")]
fn observe_system_calls() -> OwnedFd {
    let mut notify = libc::sock_filter {
        code: u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap(),
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_USER_NOTIF,
    };
    let program = libc::sock_fprog { len: 1, filter: &raw mut notify };
    // SAFETY: takes numbers only.
    let privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(privileges, 0);
    // SAFETY: `program` and its filter live during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    assert!(result >= 0, "seccomp: {}", std::io::Error::last_os_error());
    // SAFETY: the call has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(result).unwrap()) }
}

const NOTIFY_RECEIVE: libc::c_ulong = 0xc050_2100;
const NOTIFY_SEND: libc::c_ulong = 0xc018_2101;

/// Waits for the next system call, lets it pass and gives its number; `None` when the thread has ended or `end` is set.
#[expect(unsafe_code, reason = "seccomp is only reachable by system call")]
fn next_call(listener: &OwnedFd, end: &AtomicBool) -> Option<i64> {
    loop {
        let mut ready = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
        let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let waiting = rustix::event::poll(&mut ready, Some(&pause)).unwrap();
        let events = ready[0].revents();
        if waiting == 0 {
            if end.load(Ordering::Acquire) {
                return None;
            }
            continue;
        }
        if !events.contains(rustix::event::PollFlags::IN) {
            return None;
        }
        // struct seccomp_notif: id u64, pid u32, flags u32, then seccomp_data with the call's number first.
        let mut notification = [0_u64; 10];
        // SAFETY: the buffer has the size that is part of the request's number, and is zero as demanded.
        let received = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIFY_RECEIVE, notification.as_mut_ptr()) };
        if received < 0 {
            continue;
        }
        // struct seccomp_notif_resp: id u64, val i64, error i32, flags u32 (1: let the call continue).
        let mut answer = [notification[0], 0, 1 << 32];
        // SAFETY: the buffer has the size that is part of the request's number.
        unsafe { libc::ioctl(listener.as_raw_fd(), NOTIFY_SEND, answer.as_mut_ptr()) };
        return Some(i64::from(u32::try_from(notification[2] & 0xffff_ffff).unwrap()));
    }
}

fn probed(mut port: Port, listener: &Arc<AtomicI32>) -> Port {
    let mut queue = port.queues.remove(0);
    queue.rx = Box::new(Probe { inner: queue.rx, listener: Arc::clone(listener), started: false });
    port.queues.insert(0, queue);
    port
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
#[expect(unsafe_code, reason = "a descriptor changes hands as a number")]
fn a_loaded_engine_neither_calls_the_kernel_nor_allocates() {
    for poll in [Poll::Always, Poll::Adaptive] {
        let slot = Arc::new(AtomicI32::new(-1));
        let ports = vec![
            probed(generator("left", "gen=max,flows=16"), &slot),
            generator("right", "gen=max,size=64-1514"),
            generator("third", "gen=max"),
            null("fourth"),
        ];
        let config = EngineConfig { burst: 64, poll, hold: Duration::from_secs(60), ..EngineConfig::default() };
        // One core, so that the one engine serves all ports.
        let core = dataplane::config::CoreList::new(cores().iter().last()).unwrap();
        let forwarder = Forwarder::start(config, &core, ports).unwrap();
        wait_for("the first poll", || slot.load(Ordering::Acquire) >= 0);
        // SAFETY: the probe has given the descriptor up.
        let listener = unsafe { OwnedFd::from_raw_fd(slot.load(Ordering::Acquire)) };
        let (calls, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let observer = {
            let (calls, end) = (Arc::clone(&calls), Arc::clone(&end));
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                while let Some(call) = next_call(&listener, &end) {
                    seen.push(call);
                    calls.fetch_add(1, Ordering::Release);
                }
                seen
            })
        };
        let sent = || forwarder.statistics().sent().counters.packets;
        wait_for("the start", || sent() >= 10_000);
        let observed = || (calls.load(Ordering::Acquire), ALLOCATIONS.load(Ordering::Relaxed));
        let (before, packets) = (observed(), sent());
        wait_for("a million packets", || sent() >= packets + 1_000_000);
        let after = observed();
        assert_eq!(before, after, "system calls and allocations during a million packets, {poll}");

        let stopped = forwarder.stop();
        end.store(true, Ordering::Release);
        let seen = observer.join().unwrap();
        assert!(stopped.problems.is_empty());
        assert!(seen.contains(&libc::SYS_exit), "the end of the thread was seen: {seen:?}");
        assert!(ALLOCATIONS.load(Ordering::Relaxed) > after.1, "the allocations of the end were seen");
    }
}
