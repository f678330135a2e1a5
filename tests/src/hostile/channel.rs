//! The VMM's end of a vhost-user socket, byte by byte.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// Numbers of requests, from the vhost-user specification.
pub mod request {
    #![expect(missing_docs, reason = "they are named as in the specification")]
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const SET_BACKEND_REQ_FD: u32 = 21;
    pub const IOTLB_MSG: u32 = 22;
    pub const GET_CONFIG: u32 = 24;
    pub const GET_INFLIGHT_FD: u32 = 31;
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
}

/// Flags of a request.
pub const PLAIN: u32 = 1;
/// Flags of a request that wants to hear whether it worked.
pub const NEED_REPLY: u32 = 1 | 8;
/// Bytes of a header.
pub const HEADER: usize = 12;
/// No answer ever takes so long: a ring that stops waits at most a few seconds for its frames.
const PATIENCE: Duration = Duration::from_secs(60);

/// Numbers as they are in messages.
#[must_use]
pub fn words32(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Numbers as they are in messages.
#[must_use]
pub fn words64(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The header of a request, which claims a body of `size` bytes.
#[must_use]
pub fn header(request: u32, flags: u32, size: u32) -> Vec<u8> {
    words32(&[request, flags, size])
}

/// A connection to a back-end.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
}

impl Channel {
    /// Connects to the back-end that listens on `path`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(path: &Path) -> Result<Self> {
        let socket = UnixStream::connect(path).with_context(|| format!("cannot connect to {}", path.display()))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket })
    }

    /// Sends bytes as they are, with descriptors. `false` when the back-end has closed the connection.
    ///
    /// # Errors
    /// There are more than 64 descriptors.
    pub fn bytes(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        ensure!(
            files.is_empty() || control.push(SendAncillaryMessage::ScmRights(files)),
            "too many descriptors for a message"
        );
        let sent = rustix::net::sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
        Ok(sent == Ok(bytes.len()))
    }

    /// Sends a request. `false` when the back-end has closed the connection.
    ///
    /// # Errors
    /// There are more than 64 descriptors.
    pub fn send(&self, request: u32, flags: u32, body: &[u8], files: &[BorrowedFd<'_>]) -> Result<bool> {
        let mut bytes = header(request, flags, u32::try_from(body.len())?);
        bytes.extend(body);
        self.bytes(&bytes, files)
    }

    /// The body of the next answer; `None` when the back-end closes the connection instead. Descriptors beside it are lost.
    ///
    /// # Errors
    /// No answer comes, or half of one.
    pub fn receive(&self) -> Result<Option<Vec<u8>>> {
        let mut head = [0; HEADER];
        match (&self.socket).read(&mut head) {
            Ok(0) => return Ok(None),
            Ok(HEADER) => {}
            Ok(bytes) => bail!("an answer of {bytes} bytes"),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error).context("no answer came"),
        }
        let size = head.last_chunk::<4>().map_or(0, |size| u32::from_ne_bytes(*size));
        ensure!(size <= 4096, "an answer that claims {size} bytes");
        let mut body = vec![0; usize::try_from(size)?];
        (&self.socket).read_exact(&mut body).context("half an answer came")?;
        Ok(Some(body))
    }

    /// Asks for something that has a reply of its own; `None` when the back-end closes the connection instead.
    ///
    /// # Errors
    /// As for [`receive`](Self::receive).
    pub fn ask(&self, request: u32, body: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.send(request, PLAIN, body, &[])? { self.receive() } else { Ok(None) }
    }

    /// Says something and hears whether it was taken: `None` when the back-end closes the connection instead.
    ///
    /// # Errors
    /// As for [`receive`](Self::receive).
    pub fn tell(&self, request: u32, body: &[u8], files: &[BorrowedFd<'_>]) -> Result<Option<bool>> {
        if !self.send(request, NEED_REPLY, body, files)? {
            return Ok(None);
        }
        Ok(self.receive()?.map(|body| body.iter().all(|byte| *byte == 0)))
    }

    /// Says something that the back-end has to take.
    ///
    /// # Errors
    /// It does not.
    pub fn must(&self, request: u32, body: &[u8], files: &[BorrowedFd<'_>]) -> Result<()> {
        match self.tell(request, body, files)? {
            Some(true) => Ok(()),
            Some(false) => bail!("request {request} was refused"),
            None => bail!("request {request} ended the session"),
        }
    }

    /// Waits until the back-end closes the connection; answers that still come are read.
    ///
    /// # Errors
    /// It does not.
    pub fn closed(&self) -> Result<()> {
        let mut scratch = [0; 4096];
        loop {
            match (&self.socket).read(&mut scratch) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error).context("the session was not ended"),
            }
        }
    }

    /// Writes the same bytes until for a while no more go in.
    ///
    /// # Errors
    /// The socket cannot be made not to block.
    pub fn flood(&self, bytes: &[u8]) -> Result<()> {
        self.socket.set_nonblocking(true)?;
        let mut idle = 0;
        while idle < 20 {
            match (&self.socket).write(bytes) {
                Ok(_) => idle = 0,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    idle += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => break,
            }
        }
        Ok(self.socket.set_nonblocking(false)?)
    }
}
