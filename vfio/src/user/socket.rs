//! Messages on a Unix stream socket, with file descriptors beside them.
//!
//! Nothing here waits without a deadline, but where it is asked to; then shutting the socket down ends the wait.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::wire::MAX_FILES;

/// Room for the descriptors of one message.
const CONTROL: usize = rustix::cmsg_space!(ScmRights(MAX_FILES));

/// Why bytes did not go over a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// The peer closed it.
    Closed,
    /// Time ran out.
    TimedOut,
    /// The peer has not even begun to take it in.
    Busy,
    /// More file descriptors came than a message may have.
    TooManyFiles,
    /// The system refused.
    System(Errno),
}

/// Waits until one of `descriptors` has something to say, `false` when `deadline` came first.
///
/// # Errors
/// When the system refuses.
pub fn wait(descriptors: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<bool, Broken> {
    loop {
        // A timeout beyond what the kernel can express is as good as none.
        let limit = deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
            .and_then(|left| Timespec::try_from(left).ok());
        match poll(descriptors, limit.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(Broken::System(error)),
        }
    }
}

/// Sends `parts` one after the other, with `files` beside the first byte. Begins by `begin`, or sends nothing and says [`Broken::Busy`]; ends
/// by `end`.
///
/// # Errors
/// After any but [`Broken::Busy`] the peer may have a part of it.
pub fn send(
    socket: BorrowedFd<'_>,
    parts: [&[u8]; 2],
    files: &[BorrowedFd<'_>],
    begin: Instant,
    end: Instant,
) -> Result<(), Broken> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut sent = 0;
    while sent < length {
        let [first, second] = parts;
        let left = [
            IoSlice::new(first.get(sent..).unwrap_or(&[])),
            IoSlice::new(second.get(sent.saturating_sub(first.len())..).unwrap_or(&[])),
        ];
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if sent == 0 && !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(Broken::TooManyFiles);
        }
        match sendmsg(socket, &left, &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(bytes) => sent += bytes,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let (deadline, late) = if sent == 0 { (begin, Broken::Busy) } else { (end, Broken::TimedOut) };
                if !wait(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(deadline))? {
                    return Err(late);
                }
            }
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(Broken::Closed),
            Err(error) => return Err(Broken::System(error)),
        }
    }
    Ok(())
}

/// Fills `bytes` by `deadline`, and adds descriptors that come beside them to `files`.
///
/// # Errors
/// What came by then is lost.
pub fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    files: &mut Vec<OwnedFd>,
    deadline: Instant,
) -> Result<(), Broken> {
    let mut received = 0;
    while received < bytes.len() {
        let Some(room) = bytes.get_mut(received..) else { break };
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        match recvmsg(socket, &mut [IoSliceMut::new(room)], &mut control, flags) {
            Ok(message) => {
                for part in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(descriptors) = part {
                        files.extend(descriptors);
                    }
                }
                if message.flags.contains(ReturnFlags::CTRUNC) || files.len() > MAX_FILES {
                    return Err(Broken::TooManyFiles);
                }
                if message.bytes == 0 {
                    return Err(Broken::Closed);
                }
                received += message.bytes;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                if !wait(&mut [PollFd::new(&socket.as_fd(), PollFlags::IN)], Some(deadline))? {
                    return Err(Broken::TimedOut);
                }
            }
            Err(Errno::CONNRESET) => return Err(Broken::Closed),
            Err(error) => return Err(Broken::System(error)),
        }
    }
    Ok(())
}
