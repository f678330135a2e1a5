//! A connection on which both ends ask and answer.
//!
//! One thread reads: it calls [`Channel::next`] again and again, executes the requests that come, and hands replies back with
//! [`Channel::deliver`]. Any thread sends. Whatever breaks the stream ends the channel for good, and everybody who waits on it is woken.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use super::UserError;
use super::socket::{self, Broken};
use super::wire::{Command, HEADER, Header, Kind};

/// A message that has come in whole.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) body: Vec<u8>,
    /// Closed with the message, where nobody takes them.
    pub(super) files: Vec<OwnedFd>,
}

/// Why a request has no good answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum RequestError {
    /// The peer says that it failed.
    Refused(Errno),
    /// No answer by the deadline. The channel goes on, and an answer that comes late is dropped.
    TimedOut,
    /// The channel has ended.
    Ended(UserError),
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Channel {
    path: PathBuf,
    socket: OwnedFd,
    /// How long the peer may take to finish a message that it has begun, or to take one in.
    patience: Duration,
    /// Held while a message goes out, so that they do not mix.
    sending: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default, Debug)]
struct State {
    next: u16,
    waiting: HashMap<u16, Waiter>,
    ended: Option<UserError>,
}

#[derive(Debug)]
struct Waiter {
    command: Command,
    reply: Option<Message>,
}

impl Channel {
    pub(super) fn new(path: &Path, socket: OwnedFd, patience: Duration) -> Self {
        Self {
            path: path.into(),
            socket,
            patience,
            sending: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the channel, unless it has ended: the first reason stays.
    pub(super) fn end(&self, reason: UserError) {
        self.state().ended.get_or_insert(reason);
        // It fails only when the peer was first.
        let _ = shutdown(&self.socket, Shutdown::Both);
        self.changed.notify_all();
    }

    /// Why it ended, once it has.
    pub(super) fn ended(&self) -> Option<UserError> {
        self.state().ended.clone()
    }

    pub(super) fn closed(&self) -> UserError {
        UserError::Closed { path: self.path.clone() }
    }

    pub(super) fn protocol(&self, command: &'static str, reason: impl Into<String>) -> UserError {
        UserError::Protocol { path: self.path.clone(), command, reason: reason.into() }
    }

    fn broken(&self, command: &'static str, broken: Broken) -> UserError {
        let path = self.path.clone();
        match broken {
            Broken::Closed => UserError::Closed { path },
            Broken::TimedOut | Broken::Busy => UserError::TimedOut { path, command },
            Broken::TooManyFiles => self.protocol(command, "too many file descriptors in one message"),
            Broken::System(error) => {
                UserError::System { path, action: "send or receive a message", reason: error.to_string() }
            }
        }
    }

    /// Sends a message whole; `false` when the peer did not begin to take it in by `begin`.
    fn send(&self, header: Header, body: &[u8], files: &[BorrowedFd<'_>], begin: Instant) -> Result<bool, UserError> {
        let _turn = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = self.ended() {
            return Err(reason);
        }
        let end = begin.max(Instant::now() + self.patience);
        match socket::send(self.socket.as_fd(), [&header.encode(), body], files, begin, end) {
            Ok(()) => Ok(true),
            Err(Broken::Busy) => Ok(false),
            Err(broken) => {
                let reason = self.broken(header.command.name(), broken);
                self.end(reason.clone());
                Err(reason)
            }
        }
    }

    /// Asks the peer, and waits for its answer.
    pub(super) fn request(
        &self,
        command: Command,
        body: &[u8],
        files: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<Message, RequestError> {
        let id = self.register(command)?;
        let header = Header { id, command, kind: Kind::Request { answered: true }, body: body.len() };
        let sent = self.send(header, body, files, deadline);
        let mut state = self.state();
        if !matches!(sent, Ok(true)) {
            state.waiting.remove(&id);
            return Err(sent.map_or_else(RequestError::Ended, |_| RequestError::TimedOut));
        }
        loop {
            if let Some(reply) = state.waiting.get_mut(&id).and_then(|waiter| waiter.reply.take()) {
                state.waiting.remove(&id);
                return match reply.header.kind {
                    Kind::Reply { error: Some(error) } => Err(RequestError::Refused(error)),
                    _ => Ok(reply),
                };
            }
            if let Some(reason) = state.ended.clone() {
                state.waiting.remove(&id);
                return Err(RequestError::Ended(reason));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.waiting.remove(&id);
                return Err(RequestError::TimedOut);
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes a number for a request.
    fn register(&self, command: Command) -> Result<u16, RequestError> {
        let mut state = self.state();
        if let Some(reason) = state.ended.clone() {
            return Err(RequestError::Ended(reason));
        }
        // Each waiting thread has one number, and there are not that many threads.
        while state.waiting.contains_key(&state.next) {
            state.next = state.next.wrapping_add(1);
        }
        let id = state.next;
        state.next = id.wrapping_add(1);
        state.waiting.insert(id, Waiter { command, reply: None });
        Ok(id)
    }

    /// Tells the peer something and wants no answer.
    pub(super) fn post(&self, command: Command, body: &[u8]) -> Result<(), UserError> {
        let header = Header { id: 0, command, kind: Kind::Request { answered: false }, body: body.len() };
        self.send_or_end(header, body, &[])
    }

    /// Answers `request`, unless it wants no answer.
    pub(super) fn reply(
        &self,
        request: Header,
        answer: Result<&[u8], Errno>,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<(), UserError> {
        if request.kind == (Kind::Request { answered: false }) {
            return Ok(());
        }
        let (kind, body) = match answer {
            Ok(body) => (Kind::Reply { error: None }, body),
            Err(error) => (Kind::Reply { error: Some(error) }, &[][..]),
        };
        self.send_or_end(Header { kind, body: body.len(), ..request }, body, file.as_slice())
    }

    fn send_or_end(&self, header: Header, body: &[u8], files: &[BorrowedFd<'_>]) -> Result<(), UserError> {
        if self.send(header, body, files, Instant::now() + self.patience)? {
            return Ok(());
        }
        let reason = UserError::TimedOut { path: self.path.clone(), command: header.command.name() };
        self.end(reason.clone());
        Err(reason)
    }

    /// The next message, for the one thread that reads. `None` once `stop` is readable. An error is not yet the channel's end: the reader
    /// calls [`Channel::end`] with it.
    pub(super) fn next(&self, stop: Option<BorrowedFd<'_>>) -> Result<Option<Message>, UserError> {
        self.next_until(stop, None)
    }

    /// The first message, for which a peer has no reason to take its time.
    pub(super) fn first(&self, stop: Option<BorrowedFd<'_>>) -> Result<Option<Message>, UserError> {
        self.next_until(stop, Some(Instant::now() + self.patience))
    }

    fn next_until(
        &self,
        stop: Option<BorrowedFd<'_>>,
        deadline: Option<Instant>,
    ) -> Result<Option<Message>, UserError> {
        let idle = "waiting for a message";
        let mut events = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.socket, PollFlags::empty())];
        if let (Some(stop), [_, event]) = (stop.as_ref(), &mut events) {
            *event = PollFd::new(stop, PollFlags::IN);
        }
        if !socket::wait(&mut events, deadline).map_err(|broken| self.broken(idle, broken))? {
            return Err(self.broken(idle, Broken::TimedOut));
        }
        if stop.is_some() && events.get(1).is_some_and(|event| !event.revents().is_empty()) {
            return Ok(None);
        }
        self.receive().map(Some)
    }

    /// Takes in a message that has begun to come.
    fn receive(&self) -> Result<Message, UserError> {
        let deadline = Instant::now() + self.patience;
        let mut files = Vec::new();
        let mut header = [0; HEADER];
        let (first, rest) = header.split_at_mut(1);
        let socket = self.socket.as_fd();
        socket::receive(socket, first, &mut files, deadline)
            .map_err(|broken| self.broken("the header of a message", broken))?;
        let inside = |command: &'static str| {
            move |broken| match broken {
                Broken::Closed => self.protocol(command, "the connection ends in the middle of it"),
                broken => self.broken(command, broken),
            }
        };
        socket::receive(socket, rest, &mut files, deadline).map_err(inside("the header of a message"))?;
        let header = Header::decode(&header).map_err(|reason| self.protocol("the header of a message", reason))?;
        let mut body = vec![0; header.body];
        socket::receive(socket, &mut body, &mut files, deadline).map_err(inside(header.command.name()))?;
        Ok(Message { header, body, files })
    }

    /// Gives a reply to who waits for it.
    ///
    /// # Errors
    /// When it answers another command than was asked.
    pub(super) fn deliver(&self, reply: Message) -> Result<(), UserError> {
        let mut state = self.state();
        // Nobody waits when it comes too late.
        if let Some(waiter) = state.waiting.get_mut(&reply.header.id) {
            if waiter.command != reply.header.command {
                let asked = waiter.command.name();
                return Err(self.protocol(reply.header.command.name(), format!("the reply answers {asked}")));
            }
            waiter.reply = Some(reply);
            self.changed.notify_all();
        }
        Ok(())
    }
}
