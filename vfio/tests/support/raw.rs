//! Messages made by hand.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::LONG;

pub const VERSION: u16 = 1;
pub const DMA_MAP: u16 = 2;
pub const DMA_UNMAP: u16 = 3;
pub const GET_INFO: u16 = 4;
pub const GET_REGION_INFO: u16 = 5;
pub const GET_REGION_IO_FDS: u16 = 6;
pub const GET_IRQ_INFO: u16 = 7;
pub const SET_IRQS: u16 = 8;
pub const REGION_READ: u16 = 9;
pub const REGION_WRITE: u16 = 10;
pub const DMA_READ: u16 = 11;
pub const DMA_WRITE: u16 = 12;
pub const RESET: u16 = 13;
pub const REGION_WRITE_MULTI: u16 = 15;

pub const NO_REPLY: u32 = 0x10;
pub const REPLY: u32 = 1;
pub const ERROR: u32 = 0x20;

/// Puts numbers one after the other.
pub fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

pub fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

pub fn message(id: u16, command: u16, flags: u32, error: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(id.to_ne_bytes());
    bytes.extend(command.to_ne_bytes());
    bytes.extend(u32::try_from(16 + body.len()).unwrap().to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(error.to_ne_bytes());
    bytes.extend(body);
    bytes
}

pub fn version() -> Vec<u8> {
    let mut body = vec![0, 0, 1, 0];
    body.extend(b"{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":4096}}\0");
    body
}

/// A message that has come in.
#[derive(Debug)]
pub struct Incoming {
    pub id: u16,
    pub command: u16,
    pub flags: u32,
    pub error: u32,
    pub body: Vec<u8>,
}

/// One end of a connection.
pub struct Raw {
    pub stream: UnixStream,
    next: u16,
}

impl Raw {
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        Self { stream, next: 100 }
    }

    /// Connects and agrees on the version.
    pub fn connect(path: &Path) -> Self {
        let mut raw = Self::new(UnixStream::connect(path).unwrap());
        let reply = raw.ask(VERSION, &version());
        assert_eq!(reply.flags, REPLY);
        assert_eq!(reply.body[..4], [0, 0, 0, 0], "the version is 0.0");
        raw
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // The peer may have hung up already; what it does next shows it.
        let _ = self.stream.write_all(bytes);
    }

    pub fn send_with(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(files)));
        let sent = sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(sent, bytes.len());
    }

    /// The next message; `None` at the end of the stream.
    pub fn receive(&mut self) -> Option<Incoming> {
        let mut header = [0; 16];
        match self.stream.read(&mut header[..1]) {
            Ok(1) => {}
            Ok(_) => return None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("no message within a minute: {error}"),
        }
        self.stream.read_exact(&mut header[1..]).unwrap();
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        let mut body = vec![0; word(4) as usize - 16];
        self.stream.read_exact(&mut body).unwrap();
        Some(Incoming {
            id: u16::from_ne_bytes([header[0], header[1]]),
            command: u16::from_ne_bytes([header[2], header[3]]),
            flags: word(8),
            error: word(12),
            body,
        })
    }

    pub fn ask(&mut self, command: u16, body: &[u8]) -> Incoming {
        self.ask_with(command, body, &[])
    }

    pub fn ask_with(&mut self, command: u16, body: &[u8], files: &[BorrowedFd<'_>]) -> Incoming {
        self.next += 1;
        let bytes = message(self.next, command, 0, 0, body);
        if files.is_empty() {
            self.send(&bytes)
        } else {
            self.send_with(&bytes, files)
        }
        let reply = self.receive().expect("an answer, not the end");
        assert_eq!((reply.id, reply.command), (self.next, command));
        reply
    }

    /// The error that a request is answered with; 0 for none.
    pub fn refusal(&mut self, command: u16, body: &[u8], files: &[BorrowedFd<'_>]) -> u32 {
        let reply = self.ask_with(command, body, files);
        if reply.flags & ERROR != 0 {
            assert!(reply.body.is_empty(), "an error has no body");
            assert_ne!(reply.error, 0);
        }
        reply.error
    }
}

/// Plays a server that is honest until the client asks `odd`: then `answer` says what goes over the socket, `None` to hang up. Ends with
/// the client.
pub fn serve(mut raw: Raw, odd: impl Fn(&Incoming) -> bool, answer: impl Fn(&Incoming) -> Option<Vec<u8>>) {
    while let Some(request) = raw.receive() {
        if request.flags & NO_REPLY != 0 {
            continue;
        }
        if odd(&request) {
            match answer(&request) {
                Some(bytes) => raw.send(&bytes),
                None => return,
            }
            continue;
        }
        let body = match request.command {
            VERSION => version(),
            GET_INFO => words(&[16, 3, 9, 5]),
            GET_IRQ_INFO => words(&[16, 1, 2, 4]),
            GET_REGION_INFO => {
                let index = u32::from_ne_bytes(request.body[8..12].try_into().unwrap());
                let mut body = words(&[32, 3, index, 0]);
                body.extend(longs(&[4096, 0]));
                body
            }
            REGION_READ => {
                let count = u32::from_ne_bytes(request.body[12..16].try_into().unwrap()) as usize;
                let mut body = request.body.clone();
                body.extend(vec![0x11; count]);
                body
            }
            REGION_WRITE => request.body[..16].to_vec(),
            DMA_UNMAP => request.body.clone(),
            _ => Vec::new(),
        };
        raw.send(&message(request.id, request.command, REPLY, 0, &body));
    }
}
