//! Wakes a thread that may sleep, for next to nothing while it does not.
//!
//! The sleeper says that it lies down, looks for work once more, and sleeps until the [`Bell`] is readable. The caller leaves its work where the
//! sleeper will find it, and looks whether the sleeper lies. Both store before they load, each with a full fence in between, so that at least one sees
//! the other: work is never left to a sleeper.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes one thread that may sleep: an eventfd, and a flag that says whether it does.
#[derive(Debug)]
pub struct Bell {
    /// Readable when the sleeper was called.
    event: OwnedFd,
    /// The sleeper sleeps, or is about to, and was not called yet.
    lies: AtomicBool,
}

impl Bell {
    /// A bell whose sleeper is awake.
    ///
    /// # Errors
    /// When the system has no eventfd left.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, lies: AtomicBool::new(false) })
    }

    /// Wakes the sleeper if it sleeps. To be called after work was left for it. Costs a fence and a load while it is awake, and one system call
    /// for each of its sleeps.
    pub fn call(&self) {
        fence(Ordering::SeqCst);
        if self.lies.load(Ordering::Relaxed) && self.lies.swap(false, Ordering::Relaxed) {
            // The counter cannot overflow: it is written to once a sleep. A failure leaves the sleeper to wake by its own limit.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// The sleeper is about to sleep. To be called before it looks for work for the last time.
    pub fn lie_down(&self) {
        self.lies.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The sleeper is awake, whether it was called or not. Takes the signal away. One that is underway at this moment ends the next sleep early, which
    /// does no harm.
    pub fn get_up(&self) {
        self.lies.store(false, Ordering::Relaxed);
        // Whatever the flag says: it may be the signal of a caller who took the flag away before an earlier sleep.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    /// Sleeps for at most so many seconds. Whether it was woken.
    fn sleep(bell: &Bell, seconds: i64) -> bool {
        let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
        poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&limit)).unwrap() == 1
    }

    #[test]
    fn only_a_sleeper_is_signalled_and_only_once() {
        let bell = Bell::new().unwrap();
        bell.call();
        assert!(!sleep(&bell, 0), "nobody lies");
        bell.lie_down();
        assert!(!sleep(&bell, 0));
        bell.call();
        bell.call();
        assert!(sleep(&bell, 0));
        bell.get_up();
        assert!(!sleep(&bell, 0), "the signal is gone");
        bell.call();
        assert!(!sleep(&bell, 0), "it is up");
    }

    #[test]
    fn a_late_signal_ends_one_sleep_and_no_more() {
        let bell = Bell::new().unwrap();
        bell.lie_down();
        // Its caller found an earlier sleeper, and wrote only now.
        rustix::io::write(&bell.event, &1_u64.to_ne_bytes()).unwrap();
        assert!(sleep(&bell, 0));
        bell.get_up();
        bell.lie_down();
        assert!(!sleep(&bell, 0));
    }

    #[test]
    fn no_call_is_missed() {
        let bell = Arc::new(Bell::new().unwrap());
        let (left, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let sleeper = {
            let (bell, left, done) = (Arc::clone(&bell), Arc::clone(&left), Arc::clone(&done));
            std::thread::spawn(move || {
                for number in 1..=20_000 {
                    while left.load(Ordering::Relaxed) < number {
                        bell.lie_down();
                        let woken = left.load(Ordering::Relaxed) >= number || sleep(&bell, 10);
                        bell.get_up();
                        if !woken {
                            return false;
                        }
                    }
                    done.store(number, Ordering::Relaxed);
                }
                true
            })
        };
        for number in 1..=20_000 {
            left.store(number, Ordering::Relaxed);
            bell.call();
            while done.load(Ordering::Relaxed) < number && !sleeper.is_finished() {
                std::thread::yield_now();
            }
        }
        assert!(sleeper.join().unwrap(), "a sleeper that was called slept on");
    }
}
