//! Sleeping until there is work, without missing any.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::roster::Roster;
use super::source::Source;
use crate::bell::Bell;
use crate::port::Wake;

/// How long to sleep when a queue can only be polled.
const NAP: Duration = Duration::from_micros(20);
/// Naps are preceded by so many yields, which cost less latency.
const YIELDS: u32 = 200;
/// How long to sleep when transmit queues still have packets underway, which no interrupt announces.
const RECLAIM_PAUSE: Duration = Duration::from_millis(1);
/// Longest sleep, so that counters and the stop flag are looked at even when a wake-up fails.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// The token of the bell.
const BELL: u64 = u64::MAX;
/// Wake-ups that are told apart at a time; more come with the next sleep.
const EVENTS: usize = 16;

/// The wake-up descriptors of an engine's queues and its bell, watched together. Control adds and removes queues while the engine runs.
pub(super) struct Watch {
    epoll: OwnedFd,
    bell: Arc<Bell>,
}

impl Watch {
    /// Watches the bell alone.
    pub(super) fn new(bell: Arc<Bell>) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, bell.as_fd(), epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        Ok(Self { epoll, bell })
    }

    pub(super) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// Watches `wake` too, of the source known by `token`.
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

    /// Sleeps until packets come or the bell is called. Returns at once when there is something to do: each source that is armed looks once more after
    /// asking for its interrupt, and `called` tells what callers may have left, so nothing falls in between.
    pub(super) fn rest(&mut self, watch: &Watch, roster: &mut Roster, waiting: bool, called: impl FnOnce() -> bool) {
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
        match arm(roster.sources_mut()) {
            Armed::All => {
                if let Some(switching) = &mut roster.switching {
                    switching.sleep();
                }
                watch.bell.lie_down();
                let copier_called = roster.copier.as_ref().is_some_and(|copier| copier.is_called());
                if !called()
                    && !copier_called
                    && !roster.switching.as_ref().is_some_and(|switching| switching.is_called())
                {
                    self.sleep(watch, roster, underway);
                }
                watch.bell.get_up();
                if let Some(switching) = &mut roster.switching {
                    switching.wake();
                }
            }
            Armed::PacketsWait if self.rests < YIELDS => {}
            Armed::MustPoll if self.rests < YIELDS => std::thread::yield_now(),
            // A queue that claims packets time and again and gives none is treated as one without interrupt.
            Armed::PacketsWait | Armed::MustPoll => std::thread::sleep(NAP),
        }
        roster.sources_mut().for_each(Source::disarm);
    }

    fn sleep(&mut self, watch: &Watch, roster: &Roster, underway: bool) {
        let limit = if underway {
            // A device that never finishes must not cost a thousand wake-ups a second for ever.
            let pause = self.reclaim_pause;
            self.reclaim_pause = (pause * 2).min(LONGEST_SLEEP);
            pause
        } else {
            LONGEST_SLEEP
        };
        let limit = roster.switching.as_ref().and_then(|one| one.longest_sleep()).map_or(limit, |most| limit.min(most));
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
            // A signal that comes later ends the next sleep at once, and is taken away then. The bell's is taken away in any case.
            let token = event.data.u64();
            roster.sources().filter(|source| source.token == token).for_each(Source::consume);
        }
    }
}

enum Armed {
    /// Every source will wake the engine, or never has packets.
    All,
    /// A source has packets now.
    PacketsWait,
    /// A source can only be polled.
    MustPoll,
}

fn arm<'a>(sources: impl Iterator<Item = &'a mut Source>) -> Armed {
    for source in sources {
        if !source.arm() {
            return if source.wake().is_some() { Armed::PacketsWait } else { Armed::MustPoll };
        }
    }
    Armed::All
}
