//! Messages to a back-end and its answers (vhost-user, "Message specification"). What belongs together has one deadline, however many messages it takes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, shutdown};
use vfio::user::socket::{Broken, receive, send};
use vhost::vhost_user::message::FrontendReq as Request;

/// How long a back-end may take over a handshake with all that follows it, or over a change while it runs.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a header: request, flags, length.
const HEADER: usize = 12;
/// Longest answer that is taken in: a configuration space.
const LONGEST: usize = 12 + 256;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;

/// What became of a message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The back-end closed the connection: it, and with it all that it had mapped, is gone.
    #[error("its back-end closed the vhost-user socket")]
    Closed,
    /// It did not answer, or not take the message in.
    #[error("its back-end does not answer {request:?} in time")]
    Silent {
        /// The message.
        request: Request,
    },
    /// It answered something that is no answer.
    #[error("its back-end breaks the vhost-user protocol: the answer to {request:?} {what}")]
    Breach {
        /// The message.
        request: Request,
        /// What is wrong with the answer.
        what: String,
    },
    /// It said no.
    #[error("its back-end refuses {request:?} (it answers {code})")]
    Refused {
        /// The message.
        request: Request,
        /// Its answer, anything but 0.
        code: u64,
    },
    /// The system refused.
    #[error("{request:?}: {error}")]
    System {
        /// The message.
        request: Request,
        /// What it said.
        error: rustix::io::Errno,
    },
}

/// One connection to a back-end.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
    /// The back-end answers messages that have no answer of their own (`REPLY_ACK`).
    pub(super) acknowledges: bool,
    /// By when everything that is under way has to be done.
    deadline: Instant,
    /// Why nothing more is said.
    failed: Option<Failure>,
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, acknowledges: false, deadline: Instant::now() + LIMIT, failed: None }
    }

    /// Something new begins, for all messages of which there is `limit`.
    pub(super) fn begin(&mut self, limit: Duration) {
        self.deadline = Instant::now() + limit;
    }

    /// The back-end has closed its end.
    pub(super) fn is_closed(&self) -> bool {
        self.failed == Some(Failure::Closed) || self.hangs_up(Duration::ZERO)
    }

    /// Waits until the back-end has closed its end; `false` when `limit` passed first.
    pub(super) fn hangs_up(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
            let mut events = [PollFd::new(&self.socket, PollFlags::RDHUP)];
            match poll(&mut events, left.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
                Ok(_) => {
                    let [event] = &events;
                    return event.revents().intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR);
                }
            }
        }
    }

    /// Why nothing can be said any more.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failed.clone().or_else(|| self.is_closed().then_some(Failure::Closed))
    }

    /// Sends a message that has no answer of its own, and makes sure that it was understood, where the back-end says so.
    pub(super) fn tell(&mut self, request: Request, body: &[u8], files: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        let flags = if self.acknowledges { NEED_REPLY } else { 0 };
        self.send(request, flags, body, files)?;
        if !self.acknowledges {
            return Ok(());
        }
        match self.number(request)? {
            0 => Ok(()),
            code => Err(Failure::Refused { request, code }),
        }
    }

    /// As [`Channel::tell`], and waits until it was done even where the back-end does not say so: it answers in order.
    pub(super) fn tell_surely(
        &mut self,
        request: Request,
        body: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<(), Failure> {
        self.tell(request, body, files)?;
        if !self.acknowledges {
            self.ask(Request::GET_FEATURES)?;
        }
        Ok(())
    }

    /// Asks for a number.
    pub(super) fn ask(&mut self, request: Request) -> Result<u64, Failure> {
        self.send(request, 0, &[], &[])?;
        self.number(request)
    }

    /// Asks with a body for an answer of at most some hundred bytes.
    pub(super) fn ask_for(&mut self, request: Request, body: &[u8]) -> Result<Vec<u8>, Failure> {
        self.send(request, 0, body, &[])?;
        self.answer(request)
    }

    fn number(&mut self, request: Request) -> Result<u64, Failure> {
        let answer = self.answer(request)?;
        let Ok(number) = <[u8; 8]>::try_from(answer.as_slice()) else {
            return Err(self.breach(request, format!("has {} bytes instead of 8", answer.len())));
        };
        Ok(u64::from_ne_bytes(number))
    }

    fn send(&mut self, request: Request, flags: u32, body: &[u8], files: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let header = [u32::from(request), VERSION | flags, length].map(u32::to_ne_bytes).concat();
        let sent = send(self.socket.as_fd(), [&header, body], files, self.deadline, self.deadline);
        sent.map_err(|broken| self.broke(request, broken))
    }

    fn answer(&mut self, request: Request) -> Result<Vec<u8>, Failure> {
        let deadline = self.deadline;
        let mut header = [0; HEADER];
        // None of the answers that are asked for carries a descriptor: what comes is closed.
        let mut files = Vec::new();
        let got = receive(self.socket.as_fd(), &mut header, &mut files, deadline);
        got.map_err(|broken| self.broke(request, broken))?;
        let (words, _) = header.as_chunks::<4>();
        let [number, flags, length] = <[[u8; 4]; 3]>::try_from(words).unwrap_or_default().map(u32::from_ne_bytes);
        if number != u32::from(request) {
            return Err(self.breach(request, format!("is one to message {number}")));
        }
        if flags & VERSION_MASK != VERSION || flags & REPLY == 0 {
            return Err(self.breach(request, format!("has the flags {flags:#x}")));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(self.breach(request, format!("claims {length} bytes")));
        }
        let mut body = vec![0; length];
        let got = receive(self.socket.as_fd(), &mut body, &mut files, deadline);
        got.map_err(|broken| self.broke(request, broken))?;
        Ok(body)
    }

    /// The back-end's answer cannot be: nothing more is believed.
    pub(super) fn breach(&mut self, request: Request, what: String) -> Failure {
        self.fail(Failure::Breach { request, what })
    }

    fn broke(&mut self, request: Request, broken: Broken) -> Failure {
        self.fail(match broken {
            Broken::Closed => Failure::Closed,
            Broken::TimedOut | Broken::Busy => Failure::Silent { request },
            Broken::TooManyFiles => Failure::Breach { request, what: "carries too many descriptors".into() },
            Broken::System(error) => Failure::System { request, error },
        })
    }

    /// Ends the conversation, for `failure`.
    pub(super) fn end(&mut self, failure: Failure) {
        self.fail(failure);
    }

    /// Ends the conversation. The socket stays open, so that the back-end is seen to close its end, by which it gives all memory back.
    fn fail(&mut self, failure: Failure) -> Failure {
        // A back-end that is closed already needs no hint.
        let _ = shutdown(&self.socket, Shutdown::Write);
        self.failed.get_or_insert(failure).clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn pair() -> (Channel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Channel::new(ours.into()), theirs)
    }

    fn answer(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap();
        [&[request, flags, length].map(u32::to_ne_bytes).concat(), body].concat()
    }

    #[test]
    fn questions_and_acknowledged_messages_have_the_protocols_layout() {
        let (mut channel, mut peer) = pair();
        peer.write_all(&answer(1, 5, &7_u64.to_ne_bytes())).unwrap();
        assert_eq!(channel.ask(Request::GET_FEATURES), Ok(7));
        channel.acknowledges = true;
        peer.write_all(&answer(8, 5, &0_u64.to_ne_bytes())).unwrap();
        assert_eq!(channel.tell(Request::SET_VRING_NUM, &[1; 8], &[]), Ok(()));
        peer.write_all(&answer(8, 5, &9_u64.to_ne_bytes())).unwrap();
        let refused = Failure::Refused { request: Request::SET_VRING_NUM, code: 9 };
        assert_eq!(channel.tell(Request::SET_VRING_NUM, &[], &[]), Err(refused));
        let mut sent = [0; 12 + 20 + 12];
        peer.read_exact(&mut sent).unwrap();
        assert_eq!(sent[..12], [1_u32, 1, 0].map(u32::to_ne_bytes).concat());
        assert_eq!(sent[12..24], [8_u32, 9, 8].map(u32::to_ne_bytes).concat());
        assert!(channel.failure().is_none(), "a refusal is no breach");
    }

    #[test]
    fn an_answer_that_is_none_ends_the_conversation() {
        let table = [
            (answer(2, 5, &[0; 8]), "is one to message 2"),
            (answer(1, 1, &[0; 8]), "has the flags 0x1"),
            (answer(1, 6, &[0; 8]), "has the flags 0x6"),
            (answer(1, 5, &[0; 4]), "has 4 bytes instead of 8"),
            ([1_u32, 5, u32::MAX].map(u32::to_ne_bytes).concat(), "claims 4294967295 bytes"),
        ];
        for (bytes, expected) in table {
            let (mut channel, mut peer) = pair();
            peer.write_all(&bytes).unwrap();
            let error = channel.ask(Request::GET_FEATURES).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(channel.ask(Request::GET_FEATURES), Err(error), "nothing more is said");
            let mut sent = Vec::new();
            peer.read_to_end(&mut sent).unwrap();
            assert_eq!(sent.len(), HEADER, "the peer hears that this is the end");
            assert!(!channel.is_closed());
            drop(peer);
            assert!(channel.hangs_up(LIMIT));
        }
    }

    #[test]
    fn a_back_end_that_hangs_up_is_closed_even_in_the_middle_of_an_answer() {
        let (mut channel, mut peer) = pair();
        peer.write_all(&answer(1, 5, &[0; 8])[..15]).unwrap();
        drop(peer);
        assert_eq!(channel.ask(Request::GET_FEATURES), Err(Failure::Closed));
        assert!(channel.is_closed());
    }
}
