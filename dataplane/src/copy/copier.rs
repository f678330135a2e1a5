//! An engine's end of a channel of the device.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use drivers::copy_engine::{CopyDone, CopyEngine, CopyJob, CopyOutcome, EngineState};
use rtrb::{Consumer, Producer};

use super::desk::{Answer, CopyDesk};
use super::owner::Shared;

/// Copies that one channel can have underway.
const FLIGHTS: usize = 1024;
/// Copies that are begun in one round.
const BURST: usize = 64;
/// Copies that one queue gets before the next one has its turn.
const SHARE: usize = 8;
/// Copies that any channel has room for, before it has said how many.
const FIRST_ROOM: usize = 16;
/// Where a token says whose copy it is.
const SEAT: u32 = 32;

/// How a channel is after a turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status {
    /// Copies that can be begun.
    pub(super) room: usize,
    pub(super) state: EngineState,
}

/// A channel of any device. One call through the table a round.
pub(super) trait Channel: Send {
    /// Begins with `jobs`, and appends to `done` what came back. What was not taken stays in `jobs`.
    fn turn(&mut self, jobs: &mut Vec<CopyJob>, done: &mut Vec<CopyDone>) -> Status;

    /// Itself, for the device that made it.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

impl<C: CopyEngine + 'static> Channel for C {
    fn turn(&mut self, jobs: &mut Vec<CopyJob>, done: &mut Vec<CopyDone>) -> Status {
        if !jobs.is_empty() {
            jobs.retain(|job| self.push(*job).is_err());
            self.submit();
        }
        self.complete(done);
        Status { room: self.room(), state: self.state() }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// What control sends to a copier.
#[derive(Default)]
pub(super) struct Fresh {
    /// Copies that came back when the device was stopped.
    pub(super) done: Vec<CopyDone>,
    /// The device is gone for good: nothing is underway any more.
    pub(super) gone: bool,
    /// Another channel.
    pub(super) channel: Option<Box<dyn Channel>>,
}

/// A copy that is underway.
struct Flight {
    desk: Arc<CopyDesk>,
    job: u32,
}

/// What carries copies from the desks of an engine's queues to a channel of the device, and the answers back. With its engine, or with control while that has
/// none.
///
/// A channel that fails goes to control, which stops the device. Only then is it known that nothing of what was underway is still written to; so the
/// answers come from there. Meanwhile nothing is taken, and desks are closed.
pub struct Copier {
    seat: u32,
    channel: Option<Box<dyn Channel>>,
    room: usize,
    /// By number in a token.
    flights: Box<[Option<Flight>]>,
    /// Numbers that are free.
    free: Vec<u32>,
    jobs: Vec<CopyJob>,
    done: Vec<CopyDone>,
    /// Whose turn it is.
    next: usize,
    channels: Producer<Box<dyn Channel>>,
    fresh: Consumer<Fresh>,
    shared: Arc<Shared>,
}

#[expect(clippy::cast_possible_truncation, reason = "there are few flights, and tokens are taken apart")]
impl Copier {
    pub(super) fn new(
        seat: u32,
        channel: Box<dyn Channel>,
        channels: Producer<Box<dyn Channel>>,
        fresh: Consumer<Fresh>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            seat,
            channel: Some(channel),
            room: FIRST_ROOM,
            flights: (0..FLIGHTS).map(|_| None).collect(),
            free: (0..FLIGHTS as u32).rev().collect(),
            jobs: Vec::with_capacity(BURST),
            done: Vec::with_capacity(FLIGHTS),
            next: 0,
            channels,
            fresh,
            shared,
        }
    }

    /// The seat that a token is of.
    pub(super) fn seat_of(token: u64) -> u32 {
        (token >> SEAT) as u32
    }

    pub(super) fn seat(&self) -> u32 {
        self.seat
    }

    /// Control has something for it.
    pub(crate) fn is_called(&self) -> bool {
        !self.fresh.is_empty() || (self.shared.is_recalled() && self.channel.is_some())
    }

    /// Copies that are underway.
    #[inline]
    #[must_use]
    pub fn underway(&self) -> usize {
        FLIGHTS - self.free.len()
    }

    /// Takes copies from desks, in turn, and answers those that are done. `desk` gives the desk of a queue, of which there are `count`.
    /// Whether anything was answered.
    #[inline]
    pub(crate) fn round<'d>(&mut self, count: usize, desk: impl Fn(usize) -> Option<&'d Arc<CopyDesk>>) -> bool {
        let mut answered = self.is_called() && self.attend();
        let open = self.channel.is_some();
        let mut waiting = false;
        for desk in (0..count).filter_map(&desk) {
            desk.set_open(open);
            if desk.has_jobs() {
                if open {
                    waiting = true;
                } else {
                    desk.refuse();
                }
            }
        }
        if waiting {
            self.take(count, desk);
        }
        if !self.jobs.is_empty() || self.underway() > 0 {
            answered |= self.turn();
        }
        answered
    }

    /// As an engine's round, for whoever calls queues by itself. Whether copies were answered, which the queues learn when they reclaim.
    pub fn serve(&mut self, desks: &[Arc<CopyDesk>]) -> bool {
        self.round(desks.len(), |place| desks.get(place))
    }

    /// Takes copies in turn, as many as there is room for.
    fn take<'d>(&mut self, count: usize, desk: impl Fn(usize) -> Option<&'d Arc<CopyDesk>>) {
        let mut room = self.room.min(BURST).min(self.free.len());
        let mut empty = 0;
        while room > 0 && empty < count {
            let place = self.next % count;
            self.next = (place + 1) % count;
            empty += 1;
            let Some(desk) = desk(place) else { continue };
            for _ in 0..SHARE.min(room) {
                let Some(number) = self.free.last().copied() else { break };
                let token = u64::from(self.seat) << SEAT | u64::from(number);
                let Some((job, copy)) = desk.take(token) else { break };
                let Some(copy) = copy else {
                    desk.tell(job, Answer::Failed);
                    continue;
                };
                self.free.pop();
                if let Some(place) = self.flights.get_mut(number as usize) {
                    *place = Some(Flight { desk: Arc::clone(desk), job });
                }
                self.jobs.push(copy);
                room -= 1;
                empty = 0;
            }
        }
    }

    /// Begins what was taken and answers what is done.
    fn turn(&mut self) -> bool {
        let Some(channel) = &mut self.channel else { return false };
        let Status { room, state } = channel.turn(&mut self.jobs, &mut self.done);
        self.room = room;
        let mut answered = !self.done.is_empty();
        while let Some(CopyDone { token, outcome }) = self.done.pop() {
            self.answer(token, outcome);
        }
        while let Some(job) = self.jobs.pop() {
            // The channel did not take it: the CPU does.
            self.end(job.token(), Answer::Failed);
            answered = true;
        }
        if state == EngineState::Broken {
            self.hand_in();
            self.shared.alarm();
        }
        answered
    }

    fn answer(&mut self, token: u64, outcome: CopyOutcome) {
        let answer = match outcome {
            CopyOutcome::Copied => Answer::Copied,
            CopyOutcome::Failed(_) => Answer::Failed,
        };
        self.end(token, answer);
    }

    fn end(&mut self, token: u64, answer: Answer) {
        let number = token as u32;
        let flight = self.flights.get_mut(number as usize).and_then(Option::take);
        if let Some(Flight { desk, job }) = flight.filter(|_| Self::seat_of(token) == self.seat) {
            desk.tell(job, answer);
            self.free.push(number);
        }
    }

    /// Gives the channel to control.
    fn hand_in(&mut self) {
        if let Some(channel) = self.channel.take()
            && let Err(rtrb::PushError::Full(channel)) = self.channels.push(channel)
        {
            // There is room for one, and there is no other.
            self.channel = Some(channel);
        }
    }

    /// Does what control says. Whether it brought answers.
    #[cold]
    fn attend(&mut self) -> bool {
        let before = self.underway();
        while let Ok(fresh) = self.fresh.pop() {
            self.renew(fresh);
        }
        if self.shared.is_recalled() && self.channel.is_some() {
            self.hand_in();
            self.shared.wake();
        }
        self.underway() < before
    }

    /// Takes answers, and another channel if there is one.
    pub(super) fn renew(&mut self, fresh: Fresh) {
        for CopyDone { token, outcome } in fresh.done {
            self.answer(token, outcome);
        }
        if fresh.gone {
            for number in 0..FLIGHTS as u32 {
                self.end(u64::from(self.seat) << SEAT | u64::from(number), Answer::Failed);
            }
        }
        if let Some(channel) = fresh.channel {
            self.channel = Some(channel);
            self.room = FIRST_ROOM;
        }
    }

    /// Its channel, for control, which has the copier.
    pub(super) fn take_channel(&mut self) -> Option<Box<dyn Channel>> {
        self.channel.take()
    }
}

impl fmt::Debug for Copier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copier")
            .field("seat", &self.seat)
            .field("works", &self.channel.is_some())
            .field("underway", &self.underway())
            .finish_non_exhaustive()
    }
}
