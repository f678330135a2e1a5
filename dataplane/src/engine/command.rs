//! What control asks of a running engine, over a ring in each direction, and how the engine does it.
//!
//! A command brings all memory that it takes, and what is no longer needed goes back with the answer: the engine neither
//! allocates nor frees. One command is worked on at a time.

use rtrb::{Consumer, Producer};

use super::roster::Roster;
use super::source::Source;

/// Commands that may be underway.
pub(super) const COMMANDS: usize = 4;

/// A command with its number, which the answer repeats.
pub(super) struct Command {
    pub(super) number: u64,
    pub(super) order: Order,
}

/// What is to be done.
pub(super) enum Order {
    /// Take these over. There is room in the lists for what the engine has already.
    Add(Roster),
    /// Give back what has to do with these ports, in this roster.
    Remove {
        /// Numbers of the ports.
        ports: Vec<usize>,
        /// Empty, with room for everything.
        room: Roster,
    },
}

/// The order was carried out.
pub(super) struct Answer {
    pub(super) number: u64,
    /// What was removed; empty otherwise.
    pub(super) roster: Roster,
    /// Packets were still underway when time ran out.
    pub(super) unfinished: bool,
    /// To be freed by control.
    #[expect(dead_code, reason = "only carries memory back to where it may be freed")]
    pub(super) ports: Vec<usize>,
}

/// The engine's ends of the rings, and what it is about to do.
pub(super) struct Desk {
    commands: Consumer<Command>,
    answers: Producer<Answer>,
    leaving: Option<Leaving>,
    /// Cycles after which what leaves need not be drained any more.
    limit: u64,
}

/// A removal that waits for packets to be gone.
struct Leaving {
    number: u64,
    ports: Vec<usize>,
    room: Roster,
    since: u64,
}

impl Desk {
    pub(super) fn new(commands: Consumer<Command>, answers: Producer<Answer>) -> Self {
        Self { commands, answers, leaving: None, limit: u64::MAX }
    }

    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Control has said something.
    pub(super) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Something is being removed: the engine must not fall asleep.
    pub(super) fn is_busy(&self) -> bool {
        self.leaving.is_some()
    }

    /// Commands that nobody will carry out any more.
    pub(super) fn into_commands(self) -> Consumer<Command> {
        self.commands
    }

    /// Goes on with what was begun and looks for new commands.
    pub(super) fn work(&mut self, roster: &mut Roster, now: u64) {
        loop {
            if let Some(leaving) = &mut self.leaving {
                let Some(answer) = leaving.finish(roster, now, self.limit) else { return };
                self.leaving = None;
                self.answer(answer, roster);
            }
            if self.answers.is_full() {
                return;
            }
            let Ok(Command { number, order }) = self.commands.pop() else { return };
            match order {
                Order::Add(mut added) => {
                    if let Some(switching) = &mut added.switching {
                        switching.begin();
                    }
                    added.absorb(roster);
                    std::mem::swap(&mut added, roster);
                    self.answer(Answer { number, roster: added, unfinished: false, ports: Vec::new() }, roster);
                }
                Order::Remove { ports, room } => {
                    roster.leave(&ports);
                    self.leaving = Some(Leaving { number, ports, room, since: now });
                }
            }
        }
    }

    fn answer(&mut self, answer: Answer, roster: &mut Roster) {
        // There is always a place, which was looked for before the command was taken.
        if let Err(rtrb::PushError::Full(mut answer)) = self.answers.push(answer) {
            roster.absorb(&mut answer.roster);
        }
    }
}

impl Leaving {
    /// Takes what leaves out of `roster`, once that has nothing to do any more or has been given `limit` cycles.
    fn finish(&mut self, roster: &mut Roster, now: u64, limit: u64) -> Option<Answer> {
        let mut busy = roster.lanes.iter().any(|lane| lane.source.is_leaving() && !lane.waiting.is_empty());
        busy |= roster.outlets.iter().any(|outlet| outlet.is_leaving() && !outlet.is_empty());
        for sender in roster.senders.iter_mut().filter(|sender| sender.is_leaving()) {
            busy |= sender.is_underway() && sender.reclaim();
        }
        // What was switched is anywhere by now, also with other engines, and may lie in memory that goes with the port.
        for input in roster.inputs.iter_mut().filter(|input| input.source.is_leaving()) {
            busy |= input.source.is_underway();
        }
        if busy && now.wrapping_sub(self.since) < limit {
            return None;
        }
        roster.drop_waiting(true);
        roster.sources_mut().filter(|source| source.is_leaving()).for_each(Source::rest);
        roster.publish();
        let mut removed = std::mem::take(&mut self.room);
        roster.part(&mut removed);
        Some(Answer { number: self.number, roster: removed, unfinished: busy, ports: std::mem::take(&mut self.ports) })
    }
}
