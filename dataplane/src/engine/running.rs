//! Control's side of a running engine.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rtrb::{Consumer, Producer, PushError};

use super::command::{Answer, Command, Order};
use super::roster::Roster;
use super::worker::Ended;
use super::{DRAIN_LIMIT, EngineError, Finished, Lane, Sender, Signals};
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
    pub(super) lanes: usize,
    pub(super) senders: usize,
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

    /// Gives the engine more to do, and waits until it has begun with it. Its other lanes go on. Every lane's
    /// transmit queue must be among `senders` or with the engine already, and no queue may be with it twice.
    ///
    /// # Errors
    /// When the system cannot watch a queue's wake-up: the queues come back beside the error. When the engine does not answer or has ended: it keeps the
    /// queues, and [`Running::stop`] gives them back.
    pub fn add(&mut self, lanes: Vec<Lane>, senders: Vec<Sender>) -> Result<(), (EngineError, Finished)> {
        let mut roster = Roster::with_room(self.lanes + lanes.len(), self.senders + senders.len());
        let (more_lanes, more_senders) = (lanes.len(), senders.len());
        roster.absorb(&mut Roster { lanes, senders, ..Roster::default() });
        if let Err(error) = prepare(&self.signals, &mut roster, &mut self.tokens, self.scheduler) {
            let error = EngineError::System { engine: self.engine, action: "watch a queue", source: error.into() };
            forget(&self.signals, &roster);
            let mut finished = Finished::default();
            finished.take(roster);
            return Err((error, finished));
        }
        match self.ask(Order::Add(roster), ADD_LIMIT) {
            Ok(_) => {
                self.lanes += more_lanes;
                self.senders += more_senders;
                Ok(())
            }
            Err((error, order)) => {
                let mut finished = Finished::default();
                if let Some(Order::Add(roster)) = order.map(|order| *order) {
                    forget(&self.signals, &roster);
                    finished.take(roster);
                } else {
                    // It may get them yet.
                    self.lanes += more_lanes;
                    self.senders += more_senders;
                }
                Err((error, finished))
            }
        }
    }

    /// Takes back everything that receives from or sends to one of `ports`, and what feeds that. What these lanes have received is sent, and their
    /// transmit queues get time to finish, at most [`DRAIN_LIMIT`]. The other lanes go on.
    ///
    /// # Errors
    /// When the engine does not answer: [`Running::late`] gives the queues back some time. When it has ended: [`Running::stop`] does.
    pub fn remove(&mut self, ports: &[usize]) -> Result<Finished, EngineError> {
        let room = Roster::with_room(self.lanes, self.senders);
        let order = Order::Remove { ports: ports.to_vec(), room };
        let answer = self.ask(order, REMOVE_LIMIT + DRAIN_LIMIT).map_err(|(error, _)| error)?;
        let mut finished = Finished { unfinished: answer.unfinished, ..Finished::default() };
        finished.take(answer.roster);
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
        self.signals.watch.call();
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
            self.lanes -= answer.roster.lanes.len().min(self.lanes);
            self.senders -= answer.roster.senders.len().min(self.senders);
            forget(&self.signals, &answer.roster);
            if Some(answer.number) == number {
                return Some(answer);
            }
            self.late.take(answer.roster);
        }
        None
    }

    /// Asks the engine to drain and end. Does not wait.
    pub fn ask_to_stop(&self) {
        self.signals.stop.store(true, Ordering::Release);
        self.signals.watch.call();
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
                return Finished { panic: Some(said), unfinished: true, ..self.late };
            }
            // Answers that are underway must find room.
            self.collect(None);
            std::thread::sleep(LOOK);
        }
        self.collect(None);
        let Ended { mut finished, commands } = self.thread.join().unwrap_or_else(|_| Ended {
            finished: Finished {
                panic: Some("the engine thread died while it was cleaning up".to_owned()),
                ..Finished::default()
            },
            commands: None,
        });
        if let Some(mut commands) = commands {
            while let Ok(command) = commands.pop() {
                if let Order::Add(roster) = command.order {
                    finished.take(roster);
                }
            }
        }
        finished.receivers.append(&mut self.late.receivers);
        finished.transmitters.append(&mut self.late.transmitters);
        finished
    }
}

/// Gives lanes the tokens that they are known by, and watches their wake-ups.
pub(super) fn prepare(
    signals: &Signals,
    roster: &mut Roster,
    tokens: &mut u64,
    scheduler: Scheduler,
) -> Result<(), rustix::io::Errno> {
    if scheduler == Scheduler::Off {
        roster.senders.iter_mut().for_each(Sender::unslice);
    }
    for lane in &mut roster.lanes {
        lane.token = *tokens;
        *tokens += 1;
        if let Some(wake) = lane.wake() {
            signals.watch.add(wake, lane.token)?;
        }
    }
    Ok(())
}

/// Watches the wake-ups of these lanes no longer.
fn forget(signals: &Signals, roster: &Roster) {
    for wake in roster.lanes.iter().filter_map(Lane::wake) {
        signals.watch.remove(wake);
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("thread", &self.thread.thread().name())
            .field("lanes", &self.lanes)
            .field("senders", &self.senders)
            .finish_non_exhaustive()
    }
}
