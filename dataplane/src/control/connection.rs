//! One client of the control socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use serde_json::Value;

use super::caller::{Access, Caller};
use super::job::{Job, Office};
use super::rpc::{self, Next, RpcError, code};

/// Longest message, in bytes.
pub(super) const LONGEST: usize = 1 << 20;
/// How long a client may leave an answer lying.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes read at once.
const PIECE: usize = 16 << 10;

/// Bytes that are still read, and thrown away, from a client that was refused. Hanging up with bytes unread would take the
/// answer from it.
const LEFTOVER: usize = 4 << 20;

/// What is expected of a client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Requests.
    Open,
    /// Nothing that makes sense; so many bytes more are borne.
    Refused { left: usize },
    /// Nothing.
    Ending,
}

/// A client. Its socket does not block.
pub(super) struct Connection {
    socket: OwnedFd,
    caller: Arc<Caller>,
    /// What was received and is not carried out.
    input: Vec<u8>,
    /// There may be a whole message in `input`.
    fresh: bool,
    /// The message that is being carried out. Meanwhile nothing is read.
    job: Option<Job>,
    /// The answer that the client has not taken yet.
    output: Vec<u8>,
    written: usize,
    state: State,
    /// When something last moved.
    moved: Instant,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, caller: Caller) -> Self {
        Self {
            socket,
            caller: Arc::new(caller),
            input: Vec::new(),
            fresh: false,
            job: None,
            output: Vec::new(),
            written: 0,
            state: State::Open,
            moved: Instant::now(),
        }
    }

    fn owes(&self) -> bool {
        self.written < self.output.len()
    }

    /// What to wait for. While it does not take its answer, nothing is read from it.
    pub(super) fn interest(&self) -> PollFlags {
        match (self.owes(), self.fresh) {
            (true, _) => PollFlags::OUT,
            (false, true) => PollFlags::empty(),
            (false, false) => PollFlags::IN,
        }
    }

    /// There is something to do for it without waiting, but for a thread.
    pub(super) fn is_ready(&self) -> bool {
        self.fresh && self.is_idle()
    }

    /// Nothing is being carried out, and nothing owed.
    fn is_idle(&self) -> bool {
        !self.owes() && !self.is_busy()
    }

    /// When a subscription of it is to be looked after. Not before it took what it was sent.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.is_idle() && self.state == State::Open { self.caller.due() } else { None }
    }

    /// A message of it is being carried out.
    pub(super) fn is_busy(&self) -> bool {
        self.job.is_some()
    }

    /// When it is given up, if nothing moves.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waiting = self.owes() || matches!(self.state, State::Refused { .. });
        waiting.then(|| self.moved + PATIENCE)
    }

    /// It may do everything.
    pub(super) fn may_write(&self) -> bool {
        self.caller.may(Access::Write)
    }

    /// When something last moved.
    pub(super) fn moved(&self) -> Instant {
        self.moved
    }

    /// Does what can be done without waiting, and begins to carry out one message at most. `false` when the connection has ended.
    pub(super) fn advance(&mut self, events: PollFlags, office: &Office) -> bool {
        if let Some(job) = &self.job {
            let Some(answer) = job.outcome() else { return true };
            self.job = None;
            self.say(answer);
        }
        if self.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
        if self.owes() && !self.write() {
            return false;
        }
        if self.owes() {
            return true;
        }
        let arrived = events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        // Nothing more is read before what is there was carried out.
        if arrived && !self.fresh && self.state != State::Ending && !self.read() {
            return false;
        }
        if !office.is_full() {
            let due = if self.state == State::Open { self.caller.next_due(Instant::now()) } else { None };
            match due {
                // Without a thread for it, it is looked after the next time.
                Some(due) => self.job = office.begin_look(due).ok(),
                None if self.fresh => self.carry_out(office),
                None => {}
            }
        }
        if self.owes() && !self.write() {
            return false;
        }
        self.owes() || self.fresh || self.is_busy() || self.state != State::Ending
    }

    /// `false` when the peer is gone.
    fn read(&mut self) -> bool {
        let mut piece = [0; PIECE];
        match recv(&self.socket, &mut piece[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => self.state = State::Ending,
            Ok((count, _)) => {
                if let State::Refused { left } = &mut self.state {
                    *left = left.saturating_sub(count);
                    return *left > 0;
                }
                let piece = piece.get(..count).unwrap_or_default();
                // An object or array ends so: without it, there is no more of a whole message than before.
                let first = self.input.iter().chain(piece).find(|byte| !byte.is_ascii_whitespace());
                let may_begin = matches!(first, None | Some(b'{' | b'['));
                self.fresh |= !may_begin || piece.iter().any(|byte| matches!(byte, b'}' | b']'));
                self.input.extend_from_slice(piece);
                self.fresh |= self.input.len() > LONGEST;
                self.moved = Instant::now();
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return false,
        }
        true
    }

    /// `false` when the peer is gone.
    fn write(&mut self) -> bool {
        let rest = self.output.get(self.written..).unwrap_or_default();
        match send(&self.socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => {
                self.written += count;
                self.moved = Instant::now();
                if !self.owes() {
                    self.output = Vec::new();
                    self.written = 0;
                    if matches!(self.state, State::Refused { .. }) {
                        // The peer sees the end behind the answer.
                        let _ = shutdown(&self.socket, Shutdown::Write);
                    }
                }
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    fn carry_out(&mut self, office: &Office) {
        match rpc::next(&self.input) {
            Next::Message(message, taken) => {
                self.input.drain(..taken);
                match office.begin(&self.caller, message) {
                    Ok(job) => self.job = Some(job),
                    Err(error) => self.say(Some(rpc::failure(Value::Null, &error))),
                }
            }
            Next::Incomplete if self.input.len() > LONGEST => {
                let reason = format!("a message is at most {} KiB long", LONGEST >> 10);
                self.refuse(&RpcError::new(code::INVALID_REQUEST, reason));
            }
            Next::Incomplete => self.fresh = false,
            // Where the next message begins is anybody's guess.
            Next::Broken(error) => self.refuse(&error),
        }
    }

    fn refuse(&mut self, error: &RpcError) {
        self.say(Some(rpc::failure(Value::Null, error)));
        self.input = Vec::new();
        self.fresh = false;
        if self.state == State::Open {
            self.state = State::Refused { left: LEFTOVER };
        }
    }

    fn say(&mut self, answer: Option<Value>) {
        if let Some(answer) = answer {
            self.output = answer.to_string().into_bytes();
            self.output.push(b'\n');
            self.written = 0;
            // It has as long to take the answer, however long that took.
            self.moved = Instant::now();
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
