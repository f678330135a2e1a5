//! Bytes over a Unix stream socket, with file descriptors beside them, without ever waiting longer than asked to.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::Breach;
use super::wire::{Assembler, HEADER, MAX_CONFIG, MAX_FILES, Message};

/// Room for the descriptors of one message.
const CONTROL: usize = rustix::cmsg_space!(ScmRights(MAX_FILES));
/// How often a wait for the peer looks whether the port stops.
const GLANCE: Duration = Duration::from_millis(50);
/// Bytes that are read at a time: no message is longer.
const CHUNK: usize = HEADER + MAX_CONFIG + 32;

/// Waits until one of `descriptors` has something to say; `false` when `deadline` came first. Signals may end it early with `true`.
pub(super) fn wait(descriptors: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<bool, Errno> {
    // A timeout beyond what the kernel can express is as good as none.
    let limit = deadline
        .map(|deadline| deadline.saturating_duration_since(Instant::now()))
        .and_then(|left| Timespec::try_from(left).ok());
    match poll(descriptors, limit.as_ref()) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(true),
        Err(error) => Err(error),
    }
}

/// What reading a socket came to.
#[derive(Debug)]
pub(super) enum Read {
    /// A message is whole.
    Message(Message),
    /// Nothing more has come for now.
    Nothing,
    /// The peer has closed the connection between two messages.
    Closed,
}

/// Reads one message, as far as it has come.
pub(super) fn read(socket: BorrowedFd<'_>, assembler: &mut Assembler) -> Result<Read, Breach> {
    let mut chunk = [0; CHUNK];
    loop {
        let missing = assembler.missing();
        let Some(room) = chunk.get_mut(..missing) else {
            return Err(Breach::UnknownRequest(0));
        };
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = match recvmsg(socket, &mut [IoSliceMut::new(room)], &mut control, flags) {
            Ok(received) => received,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Ok(Read::Nothing),
            Err(Errno::CONNRESET) => return closed(assembler),
            Err(errno) => return Err(Breach::System { action: "receive a message", errno }),
        };
        let mut files: Vec<OwnedFd> = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = part {
                files.extend(descriptors);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Breach::TooManyFiles { request: assembler.request(), limit: MAX_FILES });
        }
        if received.bytes == 0 {
            return closed(assembler);
        }
        let bytes = chunk.get(..received.bytes).unwrap_or_default();
        if let Some(message) = assembler.take(bytes, files)? {
            return Ok(Read::Message(message));
        }
    }
}

fn closed(assembler: &Assembler) -> Result<Read, Breach> {
    if assembler.is_half() { Err(Breach::Truncated(assembler.request())) } else { Ok(Read::Closed) }
}

/// Sends `bytes` whole, with `file` beside the first of them. Gives up after `patience`, or soon after `is_stopping` says so.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    file: Option<BorrowedFd<'_>>,
    patience: Duration,
    is_stopping: impl Fn() -> bool,
) -> Result<(), Breach> {
    let deadline = Instant::now() + patience;
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = if rest.len() == bytes.len() { file } else { None };
        if !files.is_none_or(|_| control.push(SendAncillaryMessage::ScmRights(files.as_slice()))) {
            return Err(Breach::System { action: "send a reply", errno: Errno::NOBUFS });
        }
        match sendmsg(socket, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                if is_stopping() {
                    return Err(Breach::Stopping);
                }
                let pause = deadline.min(Instant::now() + GLANCE);
                let mut events = [PollFd::new(&socket, PollFlags::OUT)];
                wait(&mut events, Some(pause)).map_err(|errno| Breach::System { action: "wait for the VM", errno })?;
                if Instant::now() >= deadline {
                    return Err(Breach::NotReading);
                }
            }
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(Breach::Closed),
            Err(errno) => return Err(Breach::System { action: "send a reply", errno }),
        }
    }
    Ok(())
}

/// Sends `bytes` if all of them can go at once: for what may be lost.
pub(super) fn post(socket: impl AsFd, bytes: &[u8]) -> bool {
    let mut none = SendAncillaryBuffer::default();
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut none, flags) == Ok(bytes.len())
}
