//! Sleeping until there is work, without missing any.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::lane::{Lane, Sender};

/// How long to sleep when a queue can only be polled.
const NAP: Duration = Duration::from_micros(20);
/// Naps are preceded by so many yields, which cost less latency.
const YIELDS: u32 = 200;
/// How long to sleep when transmit queues still have packets underway, which no interrupt announces.
const RECLAIM_PAUSE: Duration = Duration::from_millis(1);
/// Longest sleep, so that counters and the stop flag are looked at even when a wake-up fails.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The wake-up descriptors of an engine's queues, watched together.
pub(super) struct Idle {
    epoll: OwnedFd,
    rests: u32,
    reclaim_pause: Duration,
}

impl Idle {
    /// Watches `control` and all lanes that can wake.
    pub(super) fn new(control: &OwnedFd, lanes: &[Lane]) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let watch =
            |file: BorrowedFd<'_>| epoll::add(&epoll, file, epoll::EventData::new_u64(0), epoll::EventFlags::IN);
        watch(control.as_fd())?;
        for wake in lanes.iter().filter_map(Lane::wake) {
            match watch(wake.as_fd()) {
                // Two queues may share a descriptor.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { epoll, rests: 0, reclaim_pause: RECLAIM_PAUSE })
    }

    /// There was work: the next rest is a short one again.
    pub(super) fn busy(&mut self) {
        self.rests = 0;
        self.reclaim_pause = RECLAIM_PAUSE;
    }

    /// Sleeps until a lane has packets or control wants something. Returns at once when a lane found packets while it
    /// was being armed: arming looks once more after asking for the interrupt, so no packet falls in between.
    pub(super) fn rest(&mut self, lanes: &mut [Lane], senders: &mut [Sender], waiting: bool) {
        self.rests = self.rests.saturating_add(1);
        if waiting {
            // Packets wait for room on a transmit queue, which no interrupt announces.
            std::thread::yield_now();
            return;
        }
        let mut underway = false;
        for sender in senders {
            underway |= sender.is_underway() && sender.reclaim();
        }
        match arm(lanes) {
            Armed::All => self.sleep(underway),
            Armed::PacketsWait if self.rests < YIELDS => {}
            Armed::MustPoll if self.rests < YIELDS => std::thread::yield_now(),
            // A queue that claims packets time and again and gives none is treated as one without interrupt.
            Armed::PacketsWait | Armed::MustPoll => std::thread::sleep(NAP),
        }
        for lane in lanes {
            lane.disarm();
        }
    }

    fn sleep(&mut self, underway: bool) {
        let limit = if underway {
            // A device that never finishes must not cost a thousand wake-ups a second for ever.
            let pause = self.reclaim_pause;
            self.reclaim_pause = (pause * 2).min(LONGEST_SLEEP);
            pause
        } else {
            LONGEST_SLEEP
        };
        let mut event = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        let timeout =
            Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(1), tv_nsec: i64::from(limit.subsec_nanos()) };
        // Failures are spurious wake-ups: the caller polls and rests again.
        if epoll::wait(&self.epoll, &mut event, Some(&timeout)).is_err() {
            std::thread::sleep(NAP);
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
