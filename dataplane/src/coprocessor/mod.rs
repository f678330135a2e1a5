//! Coprocessors: a thread for each virtual machine that wants more done to its packets than an engine has time for.
//!
//! Engines hand it copies of packets, over a ring each ([`crate::switch::CoprocessorEnd`]), and go on. The thread asks its rules about each of them, lets those
//! that the machine sends go at the machine's rate, and gives them back; they are looked up again then, so that they never follow a decision that does not hold any more.
//! The thread may lock, allocate and sleep: what it does costs its machine time and nobody else. One that is stuck fills its own rings and its own
//! buffers, and its machine's packets are dropped under a name of their own.

mod rules;
mod shaper;

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use crate::bell::Bell;
use crate::network::rules::RuleSet;
use crate::switch::{CoprocessorEnd, Handed};
pub use shaper::Shape;
use shaper::Shaper;

/// Packets of an engine before the next one has its turn.
const BURST: usize = 32;
/// Longest sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How often its processor time is looked at while it works.
const LOOK: Duration = Duration::from_millis(50);

/// What is done to a machine's packets.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Work {
    /// How fast what it sends may leave.
    pub shape: Option<Shape>,
    /// Rules for each packet that it sends, and for each that it gets.
    pub rules: Option<Arc<[RuleSet; 2]>>,
}

/// What a coprocessor has done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Done {
    /// Packets that it gave back.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that its rules do not allow.
    pub denied: u64,
    /// Packets for which the queue had no room.
    pub overflowed: u64,
    /// Packets that wait for their time now.
    pub waiting: u64,
    /// Processor time that it used, in nanoseconds.
    pub cpu_nanoseconds: u64,
}

#[derive(Default)]
struct Cells {
    packets: AtomicU64,
    bytes: AtomicU64,
    denied: AtomicU64,
    overflowed: AtomicU64,
    waiting: AtomicU64,
    cpu: AtomicU64,
}

struct Shared {
    bell: Arc<Bell>,
    stop: AtomicBool,
    /// What is to be done from now on, if it is something else.
    next: Mutex<Option<Work>>,
    cells: Cells,
}

/// An engine's packets, and how to wake it.
#[derive(Debug)]
pub struct Side {
    /// The ends of its rings.
    pub end: CoprocessorEnd,
    /// Its bell.
    pub bell: Arc<Bell>,
}

/// A coprocessor. Its thread ends when this is dropped; nobody waits for that.
pub struct Coprocessor {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Coprocessor {
    /// Starts the thread of the machine that is called `name`. `bell` is what engines call when they handed something over.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(name: &str, bell: Arc<Bell>, sides: Vec<Side>, work: Work) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            bell,
            stop: AtomicBool::new(false),
            next: Mutex::new(Some(work)),
            cells: Cells::default(),
        });
        let own = Arc::clone(&shared);
        let name = format!("copro-{name}");
        let thread = thread::Builder::new().name(name).spawn(move || run(&own, sides))?;
        Ok(Self { shared, thread })
    }

    /// Does this from now on.
    pub fn set(&self, work: Work) {
        *self.shared.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
        self.shared.bell.call();
    }

    /// The thread has ended, which it does only by a fault.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// What it has done so far.
    #[must_use]
    pub fn done(&self) -> Done {
        let Cells { packets, bytes, denied, overflowed, waiting, cpu } = &self.shared.cells;
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Done {
            packets: read(packets),
            bytes: read(bytes),
            denied: read(denied),
            overflowed: read(overflowed),
            waiting: read(waiting),
            cpu_nanoseconds: read(cpu),
        }
    }
}

impl Drop for Coprocessor {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.bell.call();
    }
}

impl fmt::Debug for Coprocessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coprocessor").field("done", &self.done()).finish_non_exhaustive()
    }
}

/// The thread's own state.
struct Desk<'a> {
    cells: &'a Cells,
    sides: Vec<Side>,
    /// Which engines got something since they were called last.
    owed: Vec<bool>,
    rules: Option<Arc<[RuleSet; 2]>>,
    shaper: Shaper,
}

fn run(shared: &Shared, sides: Vec<Side>) {
    let start = Instant::now();
    let owed = vec![false; sides.len()];
    let mut desk = Desk { cells: &shared.cells, sides, owed, rules: None, shaper: Shaper::new(None) };
    let mut look = start;
    while !shared.stop.load(Ordering::Acquire) {
        if let Some(Work { shape, rules }) = shared.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
            desk.rules = rules;
            desk.shaper.set(shape);
        }
        let now = nanoseconds(start);
        let moved = desk.take(now) | desk.release(now);
        desk.call();
        if moved && look.elapsed() < LOOK {
            continue;
        }
        look = Instant::now();
        account(&shared.cells);
        if !moved {
            shared.bell.lie_down();
            let called = shared.stop.load(Ordering::Acquire)
                || desk.sides.iter().any(|side| !side.end.packets.is_empty())
                || shared.next.lock().unwrap_or_else(PoisonError::into_inner).is_some();
            if !called {
                sleep(&shared.bell, desk.shaper.wait(nanoseconds(start)));
            }
            shared.bell.get_up();
        }
    }
}

impl Desk<'_> {
    /// Takes packets of each engine in turn. Whether there were any.
    fn take(&mut self, now: u64) -> bool {
        let mut any = false;
        for number in 0..self.sides.len() {
            for _ in 0..BURST {
                let Some(handed) = self.sides.get_mut(number).and_then(|side| side.end.packets.pop().ok()) else {
                    break;
                };
                any = true;
                self.work(number, handed, now);
            }
        }
        any
    }

    fn work(&mut self, number: usize, handed: Handed, now: u64) {
        if let Some(rules) = &self.rules
            && !rules::allow(rules, &handed)
        {
            count(&self.cells.denied, 1);
        } else if handed.is_incoming() {
            self.give_back(number, handed);
        } else {
            // What may go by now makes room.
            self.release(now);
            if self.shaper.push(number, handed).is_err() {
                count(&self.cells.overflowed, 1);
            }
        }
    }

    /// Gives back what has waited long enough. Whether there was any.
    fn release(&mut self, now: u64) -> bool {
        let mut any = false;
        while let Some((number, handed)) = self.shaper.pop(now) {
            any = true;
            self.give_back(number, handed);
        }
        self.cells.waiting.store(self.shaper.len() as u64, Ordering::Relaxed);
        any
    }

    fn give_back(&mut self, number: usize, handed: Handed) {
        let len = handed.packet.len() as u64;
        let Some(side) = self.sides.get_mut(number) else { return };
        // Never full: it has room for as many packets as there are buffers.
        if side.end.back.push(handed).is_ok() {
            count(&self.cells.packets, 1);
            count(&self.cells.bytes, len);
            if let Some(owed) = self.owed.get_mut(number) {
                *owed = true;
            }
        }
    }

    /// Wakes engines that got something.
    fn call(&mut self) {
        for (side, owed) in self.sides.iter().zip(&mut self.owed) {
            if std::mem::take(owed) {
                side.bell.call();
            }
        }
    }
}

fn count(cell: &AtomicU64, more: u64) {
    cell.store(cell.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Notes the processor time that this thread has used.
fn account(cells: &Cells) {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    cells.cpu.store(part(used.tv_sec) * 1_000_000_000 + part(used.tv_nsec), Ordering::Relaxed);
}

/// Sleeps till the bell is called, or for so long.
fn sleep(bell: &Bell, wait: Option<u64>) {
    let wait = wait.map_or(LONGEST_SLEEP, Duration::from_nanos).min(LONGEST_SLEEP);
    let limit =
        Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(1), tv_nsec: i64::from(wait.subsec_nanos()) };
    // A failure is a spurious wake-up.
    let _ = poll(&mut [PollFd::new(&bell.as_fd(), PollFlags::IN)], Some(&limit));
}

#[cfg(test)]
mod tests;
