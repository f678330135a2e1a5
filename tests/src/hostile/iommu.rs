//! The IOMMU of a machine, as its VMM has it: what a back-end asks for translations over, and what it is told.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};

use super::channel::{HEADER, words64};
use super::memory::USER;

/// Bytes of one translation that is told when it is asked for.
pub const CHUNK: u64 = 64 << 10;
/// Kinds of messages: a question, a translation, and that one holds no more.
pub const MISS: u8 = 1;
/// See [`MISS`].
pub const UPDATE: u8 = 2;
/// See [`MISS`].
pub const INVALIDATE: u8 = 3;
/// Permission to read, and to write.
pub const READ: u8 = 1;
/// Permission to do both.
pub const READ_WRITE: u8 = 3;

/// Bytes of the body of a message about a translation.
const BODY: usize = 32;

/// An IOMMU. For the device, the machine's memory is both where it is for the guest and where it is for the VMM.
#[derive(Debug)]
pub struct Iommu {
    ours: UnixStream,
    theirs: UnixStream,
    /// What has come of the next question.
    half: Vec<u8>,
    /// Addresses that were asked for and not answered yet.
    asked: Vec<u64>,
    /// How many questions have come.
    pub questions: u64,
    /// Whether it answers, or lets questions lie.
    pub answers: bool,
    /// What it allows.
    pub permission: u8,
}

impl Iommu {
    /// One that allows everything.
    ///
    /// # Errors
    /// There is no pair of sockets.
    pub fn new() -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("cannot make a pair of sockets")?;
        ours.set_nonblocking(true)?;
        Ok(Self {
            ours,
            theirs,
            half: Vec::new(),
            asked: Vec::new(),
            questions: 0,
            answers: true,
            permission: READ_WRITE,
        })
    }

    /// The back-end's end of the connection.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.theirs.as_fd()
    }

    /// Says on that connection what nobody asked for, as much as goes in at once.
    pub fn babble(&mut self, bytes: &[u8]) {
        // It is full, or closed: both will do.
        while self.ours.write(bytes).is_ok_and(|count| count > 0) {}
    }

    /// What to tell the back-end now, about a memory of `size` bytes.
    pub fn replies(&mut self, size: u64) -> Vec<Vec<u8>> {
        self.listen();
        if !self.answers {
            return Vec::new();
        }
        let mut chunks: Vec<u64> = self.asked.drain(..).map(|iova| iova & !(CHUNK - 1)).collect();
        chunks.sort_unstable();
        chunks.dedup();
        let place = |iova: u64| if iova >= USER { iova - USER } else { iova };
        chunks.retain(|iova| place(*iova) < size);
        chunks.iter().map(|iova| translation([*iova, CHUNK, USER + place(*iova)], self.permission, UPDATE)).collect()
    }

    /// Takes in the questions that have come.
    fn listen(&mut self) {
        let mut bytes = [0; 4096];
        loop {
            match self.ours.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => self.half.extend(bytes.iter().take(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Nothing more for now, or never.
                Err(_) => break,
            }
        }
        let whole = self.half.len() / (HEADER + BODY) * (HEADER + BODY);
        let messages: Vec<u8> = self.half.drain(..whole).collect();
        for message in messages.chunks(HEADER + BODY) {
            let iova = message.get(HEADER..).and_then(|body| body.first_chunk::<8>());
            self.questions += 1;
            self.asked.extend(iova.map(|iova| u64::from_ne_bytes(*iova)));
        }
    }
}

/// The body of a message about a translation: I/O virtual address, bytes, and the VMM's address.
#[must_use]
pub fn translation(words: [u64; 3], permission: u8, kind: u8) -> Vec<u8> {
    let mut body = words64(&words);
    body.extend([permission, kind, 0, 0, 0, 0, 0, 0]);
    body
}
