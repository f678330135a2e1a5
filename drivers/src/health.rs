//! How queues, which run on other threads, tell the device's handle that the device broke a ring or sits on packets.
//! For all drivers.

use alloc::boxed::Box;
use alloc::string::String;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

/// How a device broke the ring. What it says about this ring is not believed any more until it has been reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It named an identifier that the ring does not have.
    NoSuchIdentifier,
    /// It named a buffer that it does not hold.
    NotOutstanding,
    /// Its used index moved by more than it holds.
    IndexJump,
    /// A frame spans more buffers than the ring has, or none.
    BufferCount,
}

impl Fault {
    /// All kinds.
    pub(crate) const ALL: [Self; 4] =
        [Self::NoSuchIdentifier, Self::NotOutstanding, Self::IndexJump, Self::BufferCount];

    /// What the device did on a queue.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::NoSuchIdentifier => "it named a descriptor beyond the ring",
            Self::NotOutstanding => "it returned a buffer that it does not hold",
            Self::IndexJump => "its used index jumped past what it was given",
            Self::BufferCount => "it claims that a frame spans an impossible number of buffers",
        }
    }
}

/// How long a device may hold packets to send and give none back.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What one queue knows about its device's progress. Each lies on cache lines of its own, for their queues run
/// on several cores.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell(AtomicU64);

impl Cell {
    fn read(&self) -> Progress {
        let [a, b, c, d, e, f, g, h] = self.0.load(Ordering::Relaxed).to_le_bytes();
        Progress { returned: u32::from_le_bytes([e, f, g, h]), fruitless: u32::from_le_bytes([a, b, c, d]) }
    }
}

/// What the queues of a device have to say since the last start. One for each device, so it also tells whose a queue is.
#[derive(Debug)]
pub(crate) struct Health {
    /// The first fault: 0 for none, else the kind plus one above the queue's index.
    fault: AtomicU32,
    /// [`Progress`] of each queue.
    progress: Box<[Cell]>,
}

impl Health {
    /// That of a device with `pairs` queue pairs.
    pub(crate) fn new(pairs: u16) -> Self {
        Self { fault: AtomicU32::new(0), progress: (0..2 * usize::from(pairs)).map(|_| Cell::default()).collect() }
    }

    /// Reports a fault of a queue. Only the first is kept.
    pub(crate) fn report(&self, queue: u16, fault: Fault) {
        let kind = (1_u32..).zip(Fault::ALL).find(|(_, kind)| *kind == fault).map_or(1, |(number, _)| number);
        let word = kind << 16 | u32::from(queue);
        // Only the first counts; that another came first is no failure.
        let _ = self.fault.compare_exchange(0, word, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Publishes how far a queue's device has come.
    #[inline]
    pub(crate) fn publish(&self, queue: u16, progress: Progress) {
        if let Some(Cell(word)) = self.progress.get(usize::from(queue)) {
            word.store(u64::from(progress.returned) << 32 | u64::from(progress.fruitless), Ordering::Relaxed);
        }
    }

    /// What each transmit queue published last, by pair.
    pub(crate) fn progress(&self) -> impl Iterator<Item = Progress> {
        self.progress.iter().skip(1).step_by(2).map(Cell::read)
    }

    /// What each receive queue published last, by pair.
    pub(crate) fn receive_progress(&self) -> impl Iterator<Item = Progress> {
        self.progress.iter().step_by(2).map(Cell::read)
    }

    /// Forgets.
    pub(crate) fn clear(&self) {
        self.fault.store(0, Ordering::Relaxed);
        self.progress.iter().for_each(|Cell(word)| word.store(0, Ordering::Relaxed));
    }

    /// A sentence about the fault, when there is one.
    pub(crate) fn fault(&self) -> Option<String> {
        let word = self.fault.load(Ordering::Relaxed);
        let (_, fault) = (1_u32..).zip(Fault::ALL).find(|(number, _)| *number == word >> 16)?;
        let queue = word & 0xffff;
        let direction = if queue.is_multiple_of(2) { "receive" } else { "transmit" };
        Some(alloc::format!("on {direction} queue {}, {}; stop and start the port", queue / 2, fault.reason()))
    }
}

/// The first transmit queue that hangs, given what the queues published by `now`, by pair.
pub(crate) fn first_hung(
    watches: &mut [Watch],
    progress: impl Iterator<Item = Progress>,
    now: Duration,
) -> Option<u16> {
    let asked = watches.iter_mut().zip(progress).zip(0_u16..);
    let hangs = |((watch, progress), pair): ((&mut Watch, _), u16)| watch.hangs(progress, now).then_some(pair);
    // Every watch is to be asked, so that none measures from an old question.
    asked.filter_map(hangs).fold(None, |first, pair| first.or(Some(pair)))
}

/// A sentence about a transmit queue that hangs.
pub(crate) fn hung(pair: u16) -> String {
    alloc::format!(
        "transmit queue {pair} hangs: it holds packets and has given none back for {} s; stop and start the port",
        PATIENCE.as_secs(),
    )
}

/// How far the device has come with a queue. Both counters wrap.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Progress {
    /// Packets, or buffers, that it returned.
    returned: u32,
    /// How often the queue looked for them while the device held some, and found none.
    fruitless: u32,
}

impl Progress {
    /// The queue looked while the device held some, and found `returned`.
    #[inline]
    pub(crate) fn looked(&mut self, returned: u16) {
        self.returned = self.returned.wrapping_add(u32::from(returned));
        self.fruitless = self.fruitless.wrapping_add(u32::from(returned == 0));
    }
}

/// Watches one queue from the device's handle.
///
/// Only looks count: packets that nobody asked for, because the port was idle or its engine busy elsewhere, say nothing
/// about the device. It hangs when two looks that are at least [`PATIENCE`] apart, and all between them, found nothing.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Watch {
    seen: Progress,
    /// When it was last asked.
    asked: Duration,
    /// When it was first asked after a fruitless look that no packet has followed.
    since: Option<Duration>,
    hangs: bool,
}

impl Watch {
    /// Whether the device has returned anything since the last question.
    pub(crate) fn moves(&self, progress: Progress) -> bool {
        progress.returned != self.seen.returned
    }

    /// Patience starts anew.
    pub(crate) fn forget(&mut self) {
        self.since = None;
        self.hangs = false;
    }

    /// Whether the device hangs, given what the queue published by `now`.
    pub(crate) fn hangs(&mut self, progress: Progress, now: Duration) -> bool {
        let seen = core::mem::replace(&mut self.seen, progress);
        let asked = core::mem::replace(&mut self.asked, now);
        if progress.returned != seen.returned {
            self.forget();
        } else if progress.fruitless != seen.fruitless {
            // The look that is new came after the last question.
            let since = *self.since.get_or_insert(now);
            self.hangs |= asked.saturating_sub(since) >= PATIENCE;
        }
        self.hangs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_is_kept_until_it_is_cleared() {
        let health = Health::new(2);
        assert_eq!(health.fault(), None);
        health.report(3, Fault::IndexJump);
        health.report(0, Fault::NotOutstanding);
        assert!(health.fault().is_some_and(|text| text.contains("jumped") && text.contains("transmit queue 1")));
        health.clear();
        assert_eq!(health.fault(), None);
    }

    #[test]
    fn progress_reads_back_by_pair_and_is_cleared() {
        let health = Health::new(2);
        let mut progress = Progress { returned: u32::MAX, fruitless: 7 };
        progress.looked(3);
        progress.looked(0);
        health.publish(3, progress);
        health.publish(5, progress);
        let expected = Progress { returned: 2, fruitless: 8 };
        assert!(health.progress().eq([Progress::default(), expected]));
        assert!(health.receive_progress().eq([Progress::default(); 2]));
        health.publish(0, progress);
        assert!(health.receive_progress().eq([expected, Progress::default()]));
        health.clear();
        assert!(health.progress().chain(health.receive_progress()).all(|progress| progress == Progress::default()));
    }

    /// Asks each `step` milliseconds, after what `queue` did; gives when a hang was seen first.
    fn first_alarm(step: u64, times: u64, mut queue: impl FnMut(u64, &mut Progress)) -> Option<u64> {
        let (mut watch, mut progress) = (Watch::default(), Progress::default());
        (0..times).map(|time| time * step).find(|now| {
            queue(*now, &mut progress);
            watch.hangs(progress, Duration::from_millis(*now))
        })
    }

    #[test]
    fn a_device_that_returns_nothing_for_all_the_looks_hangs() {
        let alarm = first_alarm(1000, 100, |_, progress| progress.looked(0));
        assert_eq!(alarm, Some(6000), "after five seconds between two looks, seen by the next question");
        // Questions that come fast or seldom do not make it sooner.
        assert_eq!(first_alarm(1, 10_000, |_, progress| progress.looked(0)), Some(5001));
        assert_eq!(first_alarm(60_000, 100, |_, progress| progress.looked(0)), Some(120_000));
    }

    #[test]
    fn a_slow_device_and_an_idle_queue_do_not_hang() {
        let slow = |now: u64, progress: &mut Progress| progress.looked(u16::from(now.is_multiple_of(4000)));
        assert_eq!(first_alarm(100, 10_000, slow), None);
        let idle = |now: u64, progress: &mut Progress| {
            if now < 3000 {
                progress.looked(0);
            }
        };
        assert_eq!(first_alarm(100, 10_000, idle), None, "nobody looks any more");
        let busy_elsewhere = |now: u64, progress: &mut Progress| match now % 60_000 {
            0 => progress.looked(0),
            1000 => progress.looked(9),
            _ => {}
        };
        assert_eq!(first_alarm(1000, 1000, busy_elsewhere), None, "finished packets that were looked for late");
    }

    #[test]
    fn a_hang_is_reported_until_a_packet_comes_back() {
        let (mut watch, mut progress) = (Watch::default(), Progress::default());
        let mut ask = |second, progress| watch.hangs(progress, Duration::from_secs(second));
        for second in 0..7 {
            progress.looked(0);
            assert_eq!(ask(second, progress), second >= 6);
        }
        assert!(ask(7, progress), "also when nobody looks any more");
        progress.looked(1);
        assert!(!ask(8, progress));
    }
}
