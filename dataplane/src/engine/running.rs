//! Control's side of a running engine.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rtrb::{Consumer, Producer, PushError};

use super::command::{Answer, Command, Order};
use super::roster::{Counts, Roster};
use super::source::Source;
use super::worker::Ended;
use super::{DRAIN_LIMIT, EngineError, Finished, Load, Sender, Signals};
use crate::bell::Bell;
use crate::config::Scheduler;

/// How long an engine may take to begin with more work.
const ADD_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to give queues back, beside what it needs to drain them. It can be asked for them again.
const REMOVE_LIMIT: Duration = Duration::from_secs(1);
/// How long it may take to end, beside that.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How often control looks for an answer.
const LOOK: Duration = Duration::from_micros(100);

/// A running engine.
pub struct Running {
    pub(super) engine: usize,
    pub(super) thread: JoinHandle<Ended>,
    pub(super) signals: Arc<Signals>,
    pub(super) commands: Producer<Command>,
    pub(super) answers: Consumer<Answer>,
    pub(super) scheduler: Scheduler,
    /// What the engine has.
    pub(super) counts: Counts,
    /// Given out so far.
    pub(super) tokens: u64,
    pub(super) numbers: u64,
    /// Commands that it has not answered.
    pub(super) unanswered: usize,
    /// What came back after nobody waited for it any more.
    pub(super) late: Finished,
}

impl Running {
    /// Whether the engine left its loop without being asked: it panicked.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.signals.failed.load(Ordering::Acquire)
    }

    /// What wakes the engine after something was left for it on a ring.
    #[must_use]
    pub fn bell(&self) -> &Arc<Bell> {
        self.signals.watch.bell()
    }

    /// Gives the engine more to do, and waits until it has begun with it. What it has already goes on.
    ///
    /// # Errors
    /// When the system cannot watch a queue's wake-up: the queues come back beside the error. When the engine does not answer or has ended: it keeps the
    /// queues, and [`Running::stop`] gives them back.
    #[expect(clippy::result_large_err, reason = "all queues come back with the error, which comes once in a while")]
    pub fn add(&mut self, load: Load) -> Result<(), (EngineError, Finished)> {
        let mut roster = Roster::of(load, self.counts);
        let more = roster.counts();
        if let Err(error) = prepare(&self.signals, &mut roster, &mut self.tokens, self.scheduler) {
            let error = EngineError::System { engine: self.engine, action: "watch a queue", source: error.into() };
            forget(&self.signals, &roster);
            return Err((error, Finished::of(roster)));
        }
        match self.ask(Order::Add(roster), ADD_LIMIT) {
            Ok(_) => {
                self.counts = self.counts.plus(more);
                Ok(())
            }
            Err((error, order)) => {
                let mut finished = Finished::default();
                if let Some(Order::Add(roster)) = order.map(|order| *order) {
                    forget(&self.signals, &roster);
                    roster.give_back(&mut finished);
                } else {
                    // It may get them yet.
                    self.counts = self.counts.plus(more);
                }
                Err((error, finished))
            }
        }
    }

    /// Takes back everything that receives from or sends to one of `ports`, and what feeds that. What was received is sent, and
    /// transmit queues get time to finish, at most [`DRAIN_LIMIT`]. Everything else goes on.
    ///
    /// # Errors
    /// When the engine does not answer: [`Running::late`] gives the queues back some time. When it has ended: [`Running::stop`] does.
    pub fn remove(&mut self, ports: &[usize]) -> Result<Finished, EngineError> {
        let room = Roster::with_room(self.counts);
        let order = Order::Remove { ports: ports.to_vec(), room };
        let answer = self.ask(order, REMOVE_LIMIT + DRAIN_LIMIT).map_err(|(error, _)| error)?;
        let mut finished = Finished { unfinished: answer.unfinished, ..Finished::default() };
        answer.roster.give_back(&mut finished);
        Ok(finished)
    }

    /// What the engine gave back after nobody waited for it any more.
    pub fn late(&mut self) -> Finished {
        self.collect(None);
        std::mem::take(&mut self.late)
    }

    /// It has not carried out all that it was asked for.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.unanswered > 0
    }

    /// Has the engine do something and waits for its answer. What it did not even take comes back beside the error.
    fn ask(&mut self, order: Order, limit: Duration) -> Result<Answer, (EngineError, Option<Box<Order>>)> {
        let engine = self.engine;
        let number = self.numbers;
        self.numbers += 1;
        self.collect(None);
        if let Err(PushError::Full(Command { order, .. })) = self.commands.push(Command { number, order }) {
            return Err((EngineError::Silent { engine, limit }, Some(Box::new(order))));
        }
        self.unanswered += 1;
        self.bell().call();
        let deadline = Instant::now() + limit;
        loop {
            // Whether it has ended is asked before the last look for an answer.
            let ended = self.thread.is_finished();
            if let Some(answer) = self.collect(Some(number)) {
                return Ok(answer);
            }
            if ended {
                return Err((EngineError::Ended { engine }, None));
            }
            if Instant::now() >= deadline {
                return Err((EngineError::Silent { engine, limit }, None));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Looks for the answer to `number`. Answers that nobody waits for any more are kept.
    fn collect(&mut self, number: Option<u64>) -> Option<Answer> {
        while let Ok(answer) = self.answers.pop() {
            self.unanswered = self.unanswered.saturating_sub(1);
            self.counts = self.counts.less(answer.roster.counts());
            forget(&self.signals, &answer.roster);
            if Some(answer.number) == number {
                return Some(answer);
            }
            answer.roster.give_back(&mut self.late);
        }
        None
    }

    /// Asks the engine to drain and end. Does not wait.
    pub fn ask_to_stop(&self) {
        self.signals.stop.store(true, Ordering::Release);
        self.bell().call();
    }

    /// Lets the engine drain, waits for its end (as a rule a little over [`DRAIN_LIMIT`] at most) and takes its queues back. One that does not
    /// end keeps them: something holds it up for ever.
    #[must_use]
    pub fn stop(mut self) -> Finished {
        self.ask_to_stop();
        let deadline = Instant::now() + END_LIMIT + DRAIN_LIMIT;
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                let said = format!("it did not end within {} s", (END_LIMIT + DRAIN_LIMIT).as_secs());
                return Finished { panic: Some(said.into()), unfinished: true, ..self.late };
            }
            // Answers that are underway must find room.
            self.collect(None);
            std::thread::sleep(LOOK);
        }
        self.collect(None);
        let Ended { mut finished, commands } = self.thread.join().unwrap_or_else(|_| Ended {
            finished: Finished {
                panic: Some("the engine thread died while it was cleaning up".into()),
                ..Finished::default()
            },
            commands: None,
        });
        if let Some(mut commands) = commands {
            while let Ok(command) = commands.pop() {
                if let Order::Add(roster) = command.order {
                    roster.give_back(&mut finished);
                }
            }
        }
        finished.receivers.append(&mut self.late.receivers);
        finished.transmitters.append(&mut self.late.transmitters);
        finished
    }
}

/// Gives everything that receives the token that it is known by, and watches its wake-up.
pub(super) fn prepare(
    signals: &Signals,
    roster: &mut Roster,
    tokens: &mut u64,
    scheduler: Scheduler,
) -> Result<(), rustix::io::Errno> {
    if scheduler == Scheduler::Off {
        roster.senders.iter_mut().for_each(Sender::unslice);
    }
    for source in roster.sources_mut() {
        source.token = *tokens;
        *tokens += 1;
        if let Some(wake) = source.wake() {
            signals.watch.add(wake, source.token)?;
        }
    }
    Ok(())
}

/// Watches the wake-ups of these no longer.
fn forget(signals: &Signals, roster: &Roster) {
    for wake in roster.sources().filter_map(Source::wake) {
        signals.watch.remove(wake);
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("thread", &self.thread.thread().name())
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}
