//! Messages as bytes: header, what each request looks like, reading and writing fields.
//!
//! Numbers are in the byte order of the machine, as both ends share it. The names of requests and features are those of the `vhost` crate, which
//! takes them from the vhost-user specification.

use std::os::fd::OwnedFd;

use vhost::vhost_user::message::FrontendReq;

use super::Breach;

/// Bytes of a header: request, flags, size of the body.
pub(super) const HEADER: usize = 12;
/// Most descriptors that a message may carry: one for each region of a memory table.
pub(super) const MAX_FILES: usize = MAX_TABLE;
/// Most regions of a memory table that comes in one message.
pub(super) const MAX_TABLE: usize = 8;
/// Bytes of a memory region in a message.
pub(super) const REGION: usize = 32;
/// Bytes of the device's configuration that a message may read or write.
pub(super) const MAX_CONFIG: usize = 256;
/// Bytes in front of the configuration in such a message.
pub(super) const CONFIG_HEADER: usize = 12;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// A header that was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) request: FrontendReq,
    /// The peer wants to hear whether it worked, also where the request has no reply of its own.
    pub(super) need_reply: bool,
    /// Bytes of the body.
    pub(super) body: usize,
}

impl Header {
    /// Reads a header of a request, and checks the size that it claims before anybody makes room for it.
    pub(super) fn decode(bytes: &[u8; HEADER]) -> Result<Self, Breach> {
        let mut fields = Fields::new(bytes);
        let (number, flags, size) = (fields.u32(), fields.u32(), fields.u32());
        if flags & VERSION_MASK != VERSION {
            return Err(Breach::Version(flags & VERSION_MASK));
        }
        if flags & !(VERSION_MASK | NEED_REPLY) != 0 {
            return Err(Breach::Flags(flags));
        }
        let request = FrontendReq::try_from(number).map_err(|_| Breach::UnknownRequest(number))?;
        let body = usize::try_from(size).unwrap_or(usize::MAX);
        if !body_fits(request, body) {
            return Err(Breach::Size { request, size });
        }
        Ok(Self { request, need_reply: flags & NEED_REPLY != 0, body })
    }
}

/// Whether a body of so many bytes makes sense. The longest is that of a configuration space.
fn body_fits(request: FrontendReq, size: usize) -> bool {
    use FrontendReq as R;
    match request {
        R::GET_FEATURES
        | R::SET_OWNER
        | R::RESET_OWNER
        | R::GET_PROTOCOL_FEATURES
        | R::GET_QUEUE_NUM
        | R::RESET_DEVICE
        | R::GET_MAX_MEM_SLOTS
        | R::SET_BACKEND_REQ_FD
        | R::POSTCOPY_ADVISE
        | R::POSTCOPY_LISTEN
        | R::POSTCOPY_END
        | R::CHECK_DEVICE_STATE
        | R::GPU_SET_SOCKET
        | R::GET_SHMEM_CONFIG => size == 0,
        R::SET_FEATURES
        | R::SET_PROTOCOL_FEATURES
        | R::SET_VRING_KICK
        | R::SET_VRING_CALL
        | R::SET_VRING_ERR
        | R::SEND_RARP
        | R::NET_SET_MTU
        | R::SET_STATUS => size == 8,
        // Old peers send a number with it.
        R::GET_STATUS | R::SET_LOG_FD => size == 0 || size == 8,
        R::SET_VRING_NUM
        | R::SET_VRING_BASE
        | R::GET_VRING_BASE
        | R::SET_VRING_ENABLE
        | R::SET_VRING_ENDIAN
        | R::VRING_KICK
        | R::SET_DEVICE_STATE_FD
        | R::CLOSE_CRYPTO_SESSION => size == 8,
        R::SET_VRING_ADDR => size == 40,
        // Without shared memory for the log it is an address alone.
        R::SET_LOG_BASE => size == 16 || size == 8,
        R::SET_MEM_TABLE => size >= 8 && (size - 8).is_multiple_of(REGION) && (size - 8) / REGION <= MAX_TABLE,
        R::ADD_MEM_REG | R::REM_MEM_REG => size == 8 + REGION,
        // The C structure ends in padding, which some peers leave out.
        R::GET_INFLIGHT_FD | R::SET_INFLIGHT_FD => size == 20 || size == 24,
        R::IOTLB_MSG => size == 32,
        R::GET_CONFIG | R::SET_CONFIG => (CONFIG_HEADER..=CONFIG_HEADER + MAX_CONFIG).contains(&size),
        R::GET_SHARED_OBJECT => size == 16,
        R::CREATE_CRYPTO_SESSION => size <= MAX_CONFIG,
    }
}

/// Most descriptors that may come with a request.
pub(super) fn files_allowed(request: FrontendReq) -> usize {
    use FrontendReq as R;
    match request {
        R::SET_MEM_TABLE => MAX_TABLE,
        R::SET_LOG_BASE
        | R::SET_LOG_FD
        | R::SET_VRING_KICK
        | R::SET_VRING_CALL
        | R::SET_VRING_ERR
        | R::SET_BACKEND_REQ_FD
        | R::SET_INFLIGHT_FD
        | R::ADD_MEM_REG
        // Some peers send the descriptor of what they take away, too.
        | R::REM_MEM_REG => 1,
        _ => 0,
    }
}

/// A request that came in whole.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) body: Vec<u8>,
    /// Closed with the message, where nobody takes them.
    pub(super) files: Vec<OwnedFd>,
}

impl Message {
    pub(super) fn fields(&self) -> Fields<'_> {
        Fields::new(&self.body)
    }

    /// The one descriptor that must be there.
    pub(super) fn file(&mut self) -> Result<OwnedFd, Breach> {
        self.files.pop().ok_or(Breach::NoFile(self.header.request))
    }
}

/// What a request is answered with.
#[derive(Default, Debug)]
pub(super) struct Reply {
    pub(super) body: Vec<u8>,
    pub(super) file: Option<OwnedFd>,
}

impl Reply {
    pub(super) fn number(value: u64) -> Self {
        Self { body: value.to_ne_bytes().to_vec(), file: None }
    }
}

/// The bytes of a reply to a request.
pub(super) fn encode_reply(request: u32, body: &[u8]) -> Vec<u8> {
    encode(request, VERSION | REPLY, body)
}

/// The bytes of a request of our own.
pub(super) fn encode_request(request: u32, body: &[u8]) -> Vec<u8> {
    encode(request, VERSION, body)
}

fn encode(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    for word in [request, flags, size] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(body);
    bytes
}

/// Reads fields one after the other. Past the end there are zeroes: sizes are checked before.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((first, rest)) = self.0.split_first_chunk::<N>() else {
            self.0 = &[];
            return [0; N];
        };
        self.0 = rest;
        *first
    }

    pub(super) fn u8(&mut self) -> u8 {
        u8::from_ne_bytes(self.take())
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_ne_bytes(self.take())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Puts messages together out of the pieces in which a stream brings them.
#[derive(Default, Debug)]
pub(super) struct Assembler {
    header: Option<Header>,
    bytes: Vec<u8>,
    files: Vec<OwnedFd>,
}

impl Assembler {
    /// How many bytes are still missing of what can be told of the message by now: never reads into the next one, whose
    /// descriptors would come along.
    pub(super) fn missing(&self) -> usize {
        self.header.map_or(HEADER, |header| header.body) - self.bytes.len()
    }

    /// A message has begun and has not ended.
    pub(super) fn is_half(&self) -> bool {
        self.header.is_some() || !self.bytes.is_empty()
    }

    /// What the message that has begun asks for, where that can be told.
    pub(super) fn request(&self) -> Option<FrontendReq> {
        self.header.map(|header| header.request)
    }

    /// Takes bytes in, at most as many as are [missing](Self::missing), with the descriptors that came beside them.
    pub(super) fn take(&mut self, bytes: &[u8], files: Vec<OwnedFd>) -> Result<Option<Message>, Breach> {
        self.files.extend(files);
        if self.files.len() > MAX_FILES {
            return Err(Breach::TooManyFiles { request: self.request(), limit: MAX_FILES });
        }
        self.bytes.extend_from_slice(bytes);
        if self.header.is_none() {
            let Some(header) = self.bytes.first_chunk::<HEADER>() else { return Ok(None) };
            self.header = Some(Header::decode(header)?);
            self.bytes.clear();
        }
        let Some(header) = self.header.filter(|header| header.body == self.bytes.len()) else { return Ok(None) };
        let limit = files_allowed(header.request);
        if self.files.len() > limit {
            return Err(Breach::TooManyFiles { request: Some(header.request), limit });
        }
        self.header = None;
        Ok(Some(Message { header, body: std::mem::take(&mut self.bytes), files: std::mem::take(&mut self.files) }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn header(request: u32, flags: u32, size: u32) -> Vec<u8> {
        [request, flags, size].iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn decode(request: u32, flags: u32, size: u32) -> Result<Header, Breach> {
        Header::decode(header(request, flags, size).first_chunk().unwrap())
    }

    #[test]
    fn headers_are_checked_before_their_size_is_believed() {
        assert_eq!(decode(2, 9, 8).unwrap(), Header { request: FrontendReq::SET_FEATURES, need_reply: true, body: 8 });
        assert!(matches!(decode(2, 0, 8), Err(Breach::Version(0))));
        assert!(matches!(decode(2, 2, 8), Err(Breach::Version(2))));
        assert!(matches!(decode(2, 5, 8), Err(Breach::Flags(5))), "a reply to nothing");
        assert!(matches!(decode(2, 0x11, 8), Err(Breach::Flags(0x11))));
        assert!(matches!(decode(0, 1, 0), Err(Breach::UnknownRequest(0))));
        assert!(matches!(decode(1000, 1, 0), Err(Breach::UnknownRequest(1000))));
        // No request at all may claim so much.
        for request in (1..100).filter(|number| FrontendReq::try_from(*number).is_ok()) {
            for size in [300, 4096, u32::MAX] {
                assert!(matches!(decode(request, 1, size), Err(Breach::Size { .. })), "{request} {size}");
            }
        }
        assert!(decode(5, 1, 8 + 8 * 32).is_ok());
        assert!(decode(5, 1, 8 + 9 * 32).is_err());
        assert!(decode(5, 1, 7).is_err());
    }

    #[test]
    fn messages_come_together_out_of_any_pieces() {
        let mut stream = header(1, 1, 0);
        stream.extend(header(2, 1, 8));
        stream.extend(7u64.to_ne_bytes());
        for step in 1..=stream.len() {
            let (mut assembler, mut rest, mut seen) = (Assembler::default(), stream.as_slice(), Vec::new());
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(step.min(rest.len()).min(assembler.missing()));
                rest = more;
                if let Some(message) = assembler.take(piece, Vec::new()).unwrap() {
                    seen.push((message.header.request, message.fields().u64()));
                }
            }
            assert_eq!(seen, [(FrontendReq::GET_FEATURES, 0), (FrontendReq::SET_FEATURES, 7)], "in steps of {step}");
            assert!(!assembler.is_half());
        }
    }
}
