//! The layout of messages: a header of 16 bytes, and what commands put behind it.
//!
//! All numbers are in the byte order of the machine, which both ends share.

use rustix::io::Errno;

/// Bytes of a header.
pub(super) const HEADER: usize = 16;
/// Most bytes that one message may carry besides its fixed part, in either direction; what this side offers when a session begins.
pub(super) const MAX_TRANSFER: usize = 1 << 20;
/// Longest body of a message that is taken in: a full transfer behind its fixed part.
pub(super) const MAX_BODY: usize = MAX_TRANSFER + 4096;
/// Most file descriptors in one message. QEMU takes no server that offers more.
pub(super) const MAX_FILES: usize = 16;
/// Maps that a session may have at a time: what clients assume when nothing is said.
pub(super) const MAX_MAPS: usize = 65_535;
/// Smallest unit of a map.
pub(super) const PAGE: u64 = 4096;

const TYPE: u32 = 0xf;
const REPLY: u32 = 1;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

/// What a message asks for, or answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Command(pub(super) u16);

impl Command {
    pub(super) const VERSION: Self = Self(1);
    pub(super) const DMA_MAP: Self = Self(2);
    pub(super) const DMA_UNMAP: Self = Self(3);
    pub(super) const GET_INFO: Self = Self(4);
    pub(super) const GET_REGION_INFO: Self = Self(5);
    pub(super) const GET_REGION_IO_FDS: Self = Self(6);
    pub(super) const GET_IRQ_INFO: Self = Self(7);
    pub(super) const SET_IRQS: Self = Self(8);
    pub(super) const REGION_READ: Self = Self(9);
    pub(super) const REGION_WRITE: Self = Self(10);
    pub(super) const DMA_READ: Self = Self(11);
    pub(super) const DMA_WRITE: Self = Self(12);
    pub(super) const RESET: Self = Self(13);
    pub(super) const DIRTY_PAGES: Self = Self(14);
    pub(super) const REGION_WRITE_MULTI: Self = Self(15);
    pub(super) const FEATURE: Self = Self(16);
    pub(super) const MIGRATION_READ: Self = Self(17);
    pub(super) const MIGRATION_WRITE: Self = Self(18);

    /// The name in the protocol's text, for messages to people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::VERSION => "VERSION",
            Self::DMA_MAP => "DMA_MAP",
            Self::DMA_UNMAP => "DMA_UNMAP",
            Self::GET_INFO => "DEVICE_GET_INFO",
            Self::GET_REGION_INFO => "DEVICE_GET_REGION_INFO",
            Self::GET_REGION_IO_FDS => "DEVICE_GET_REGION_IO_FDS",
            Self::GET_IRQ_INFO => "DEVICE_GET_IRQ_INFO",
            Self::SET_IRQS => "DEVICE_SET_IRQS",
            Self::REGION_READ => "REGION_READ",
            Self::REGION_WRITE => "REGION_WRITE",
            Self::DMA_READ => "DMA_READ",
            Self::DMA_WRITE => "DMA_WRITE",
            Self::RESET => "DEVICE_RESET",
            Self::DIRTY_PAGES => "DIRTY_PAGES",
            Self::REGION_WRITE_MULTI => "REGION_WRITE_MULTI",
            Self::FEATURE => "DEVICE_FEATURE",
            Self::MIGRATION_READ => "MIG_DATA_READ",
            Self::MIGRATION_WRITE => "MIG_DATA_WRITE",
            _ => "a message of an unknown command",
        }
    }
}

/// Which way a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Asks for something.
    Request {
        /// The sender wants an answer.
        answered: bool,
    },
    /// Answers a request, with its error when it failed.
    Reply {
        /// The error, never zero.
        error: Option<Errno>,
    },
}

/// The fixed first part of every message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// Chosen by who asks, and echoed in the reply.
    pub(super) id: u16,
    pub(super) command: Command,
    pub(super) kind: Kind,
    /// Bytes behind the header.
    pub(super) body: usize,
}

impl Header {
    /// Reads a header, or says what is wrong with it.
    pub(super) fn decode(bytes: &[u8; HEADER]) -> Result<Self, String> {
        let mut fields = Fields::new(bytes);
        let (Some(id), Some(command), Some(size), Some(flags), Some(error)) =
            (fields.u16(), fields.u16(), fields.u32(), fields.u32(), fields.u32())
        else {
            return Err("the header is too short".into());
        };
        let body = usize::try_from(size).ok().and_then(|size| size.checked_sub(HEADER));
        let Some(body) = body.filter(|body| *body <= MAX_BODY) else {
            return Err(format!(
                "a message of {size} bytes was announced, {HEADER} to {} are allowed",
                MAX_BODY + HEADER
            ));
        };
        let kind = match flags & TYPE {
            0 => Kind::Request { answered: flags & NO_REPLY == 0 },
            REPLY if flags & ERROR != 0 => Kind::Reply { error: Some(errno(error)) },
            REPLY => Kind::Reply { error: None },
            other => return Err(format!("the message has type {other}, and is neither a command nor a reply")),
        };
        Ok(Self { id, command: Command(command), kind, body })
    }

    /// The header as it is sent.
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let (flags, error) = match self.kind {
            Kind::Request { answered: true } => (0, 0),
            Kind::Request { answered: false } => (NO_REPLY, 0),
            Kind::Reply { error: None } => (REPLY, 0),
            Kind::Reply { error: Some(error) } => (REPLY | ERROR, error.raw_os_error().unsigned_abs()),
        };
        // Bodies are at most MAX_BODY long.
        let size = u32::try_from(self.body + HEADER).unwrap_or(u32::MAX);
        let mut bytes = [0; HEADER];
        let all = self.id.to_ne_bytes().into_iter().chain(self.command.0.to_ne_bytes());
        let all = all.chain([size, flags, error].into_iter().flat_map(u32::to_ne_bytes));
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        bytes
    }
}

/// The error that a peer named; one that no system has becomes "input/output error".
fn errno(raw: u32) -> Errno {
    match i32::try_from(raw) {
        Ok(raw @ 1..4096) => Errno::from_raw_os_error(raw),
        _ => Errno::IO,
    }
}

/// Takes numbers from the front of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*first)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    /// What was not taken.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }
}

/// Puts a message's body together.
#[derive(Clone, Default, Debug)]
pub(super) struct Body(Vec<u8>);

impl Body {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        for kind in [
            Kind::Request { answered: true },
            Kind::Request { answered: false },
            Kind::Reply { error: None },
            Kind::Reply { error: Some(Errno::EXIST) },
        ] {
            let header = Header { id: 0x1234, command: Command::DMA_MAP, kind, body: 32 };
            assert_eq!(Header::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn the_layout_is_the_protocols() {
        let kind = Kind::Reply { error: Some(Errno::INVAL) };
        let header = Header { id: 0x0102, command: Command::REGION_WRITE, kind, body: 8 };
        assert_eq!(header.encode(), [2, 1, 10, 0, 24, 0, 0, 0, 0x21, 0, 0, 0, 22, 0, 0, 0]);
    }

    #[test]
    fn an_error_without_a_number_is_an_error_still() {
        let bytes = [0, 0, 13, 0, 16, 0, 0, 0, 0x21, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Header::decode(&bytes).unwrap().kind, Kind::Reply { error: Some(Errno::IO) });
    }
}
