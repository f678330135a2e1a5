//! Sleeping until there is work, without missing any.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;

use super::lane::Lane;
use super::roster::Roster;
use crate::port::Wake;

/// How long to sleep when a queue can only be polled.
const NAP: Duration = Duration::from_micros(20);
/// Naps are preceded by so many yields, which cost less latency.
const YIELDS: u32 = 200;
/// How long to sleep when transmit queues still have packets underway, which no interrupt announces.
const RECLAIM_PAUSE: Duration = Duration::from_millis(1);
/// Longest sleep, so that counters and the stop flag are looked at even when a wake-up fails.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// The token of control's own wake-up.
const CONTROL: u64 = u64::MAX;
/// Wake-ups that are told apart at a time; more come with the next sleep.
const EVENTS: usize = 16;

/// The wake-up descriptors of an engine's queues, watched together. Control adds and removes them while the engine runs.
pub(super) struct Watch {
    epoll: OwnedFd,
    control: OwnedFd,
}

impl Watch {
    /// Watches for control alone.
    pub(super) fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let control = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &control, epoll::EventData::new_u64(CONTROL), epoll::EventFlags::IN)?;
        Ok(Self { epoll, control })
    }

    /// Watches `wake` too, of the lane known by `token`.
    pub(super) fn add(&self, wake: &Wake, token: u64) -> Result<(), Errno> {
        match epoll::add(&self.epoll, wake.as_fd(), epoll::EventData::new_u64(token), epoll::EventFlags::IN) {
            // Two queues may share a descriptor.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Watches `wake` no longer.
    pub(super) fn remove(&self, wake: &Wake) {
        // What is not there need not go.
        let _ = epoll::delete(&self.epoll, wake.as_fd());
    }

    /// Wakes the engine.
    pub(super) fn call(&self) {
        // The counter cannot overflow: nobody writes to it often. A failure leaves the engine to notice by itself, within a second.
        let _ = rustix::io::write(&self.control, &1_u64.to_ne_bytes());
    }
}

/// How an engine without work waits for some.
#[derive(Debug)]
pub(super) struct Idle {
    rests: u32,
    reclaim_pause: Duration,
}

impl Idle {
    pub(super) fn new() -> Self {
        Self { rests: 0, reclaim_pause: RECLAIM_PAUSE }
    }

    /// There was work: the next rest is a short one again.
    pub(super) fn busy(&mut self) {
        *self = Self::new();
    }

    /// Sleeps until a lane has packets or control wants something. Returns at once when a lane found packets while it
    /// was being armed: arming looks once more after asking for the interrupt, so no packet falls in between.
    pub(super) fn rest(&mut self, watch: &Watch, roster: &mut Roster, waiting: bool) {
        self.rests = self.rests.saturating_add(1);
        if waiting {
            // Packets wait for room on a transmit queue, which no interrupt announces.
            std::thread::yield_now();
            return;
        }
        let mut underway = false;
        for sender in &mut roster.senders {
            underway |= sender.is_underway() && sender.reclaim();
        }
        match arm(&mut roster.lanes) {
            Armed::All => self.sleep(watch, &roster.lanes, underway),
            Armed::PacketsWait if self.rests < YIELDS => {}
            Armed::MustPoll if self.rests < YIELDS => std::thread::yield_now(),
            // A queue that claims packets time and again and gives none is treated as one without interrupt.
            Armed::PacketsWait | Armed::MustPoll => std::thread::sleep(NAP),
        }
        for lane in &mut roster.lanes {
            lane.disarm();
        }
    }

    fn sleep(&mut self, watch: &Watch, lanes: &[Lane], underway: bool) {
        let limit = if underway {
            // A device that never finishes must not cost a thousand wake-ups a second for ever.
            let pause = self.reclaim_pause;
            self.reclaim_pause = (pause * 2).min(LONGEST_SLEEP);
            pause
        } else {
            LONGEST_SLEEP
        };
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; EVENTS];
        let timeout =
            Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(1), tv_nsec: i64::from(limit.subsec_nanos()) };
        // Failures are spurious wake-ups: the caller polls and rests again.
        let Ok(count) = epoll::wait(&watch.epoll, &mut events[..], Some(&timeout)) else {
            std::thread::sleep(NAP);
            return;
        };
        for event in events.iter().take(count) {
            match event.data.u64() {
                CONTROL => {
                    let _ = rustix::io::read(&watch.control, &mut [0; 8]);
                }
                // A signal that comes later ends the next sleep at once, and is taken away then.
                token => lanes.iter().filter(|lane| lane.token == token).for_each(Lane::consume),
            }
        }
    }
}

enum Armed {
    /// Every lane will wake the engine, or never has packets.
    All,
    /// A lane has packets now.
    PacketsWait,
    /// A lane can only be polled.
    MustPoll,
}

fn arm(lanes: &mut [Lane]) -> Armed {
    for lane in lanes {
        if !lane.arm() {
            return if lane.wake().is_some() { Armed::PacketsWait } else { Armed::MustPoll };
        }
    }
    Armed::All
}
