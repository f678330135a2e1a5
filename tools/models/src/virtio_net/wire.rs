//! The other end of the card: where frames come from and go to.

use super::header::{NetHeader, complete_checksum};
use super::specification::header as flags;
use crate::memory::{Access, Memory};
use crate::wire::{self, Traffic};

/// A frame on its way to the driver.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'wire> {
    /// What the driver is told about it. Must fit what was negotiated: otherwise the frame is dropped and counted.
    pub header: NetHeader,
    /// The queue pair to use; `None` lets the device steer.
    pub pair: Option<u16>,
    /// The frame, from the destination address on, without frame check sequence.
    pub bytes: &'wire [u8],
}

/// Part of a frame in the driver's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) writable: bool,
}

/// A frame that the driver transmits, still in the driver's memory. All of it is known to be mapped.
#[derive(Clone, Copy)]
pub struct Outgoing<'device> {
    /// The queue pair that it was transmitted on.
    pub pair: u16,
    /// What the driver says about it.
    pub header: NetHeader,
    pub(super) memory: &'device Memory,
    pub(super) elements: &'device [Element],
    /// Bytes in front of the frame.
    pub(super) skip: usize,
    pub(super) len: usize,
}

impl std::fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("pair", &self.pair)
            .field("header", &self.header)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Outgoing<'_> {
    /// Bytes of the frame.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// A frame with no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies the frame from `offset` into `target`; returns how many bytes there were.
    #[inline]
    pub fn copy_to(&self, offset: usize, target: &mut [u8]) -> usize {
        let mut skip = self.skip + offset;
        let mut done = 0;
        for element in self.elements {
            let len = element.len as usize;
            if skip >= len {
                skip -= len;
                continue;
            }
            let part = (len - skip).min(target.len() - done);
            if part == 0 {
                break;
            }
            let Some(span) = self.memory.span(element.address, len, Access::Read) else { break };
            if !span.read(skip, &mut target[done..done + part]) {
                break;
            }
            done += part;
            skip = 0;
        }
        done
    }

    /// The whole frame.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        let done = self.copy_to(0, &mut bytes);
        bytes.truncate(done);
        bytes
    }
}

/// What a card is plugged into.
pub trait Wire: Send {
    /// The next frame for the driver, which stays until [`Wire::advance`].
    fn peek(&mut self) -> Option<Incoming<'_>>;
    /// The frame shown last was delivered or dropped.
    fn advance(&mut self);
    /// Takes a frame that the driver transmits. `false` leaves it in the driver's ring for later.
    fn transmit(&mut self, frame: &Outgoing<'_>) -> bool;
    /// A batch begins: time for what is done once in a while, such as reading a clock.
    fn begin(&mut self) {}
}

/// A frame with what is said about it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frame {
    /// Offload header.
    pub header: NetHeader,
    /// Queue pair that it came from or is to go to.
    pub pair: Option<u16>,
    /// From the destination address on.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// A frame with nothing to say about it.
    #[must_use]
    pub fn plain(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), ..Self::default() }
    }
}

/// Two queues of frames with what is said about them, for tests.
pub type QueueWire = wire::Queues<Frame>;
/// What the driver transmits comes back to it.
pub type Loopback = wire::Loopback<Frame>;
/// One end of a cable between two cards, which keeps large frames large.
pub type CableEnd = wire::CableEnd<Frame>;

/// A cable: its two ends.
#[must_use]
pub fn cable() -> (CableEnd, CableEnd) {
    wire::cable_of()
}

impl Frame {
    fn shown(&self) -> Incoming<'_> {
        Incoming { header: self.header, pair: self.pair, bytes: &self.bytes }
    }

    /// What arrives at the other end of a wire: a frame that leaves a card has a whole checksum, unless it is still to be
    /// cut into segments.
    fn on_the_wire(outgoing: &Outgoing<'_>) -> Self {
        let mut frame = Self { header: outgoing.header, pair: None, bytes: outgoing.to_vec() };
        if frame.header.gso_type == flags::GSO_NONE && frame.header.flags & flags::NEEDS_CSUM != 0 {
            complete_checksum(&mut frame.bytes, frame.header.checksum_start, frame.header.checksum_offset);
            frame.header = NetHeader::default();
        }
        frame
    }
}

impl Wire for QueueWire {
    fn peek(&mut self) -> Option<Incoming<'_>> {
        self.incoming.front().map(Frame::shown)
    }

    fn advance(&mut self) {
        self.incoming.pop_front();
    }

    fn transmit(&mut self, frame: &Outgoing<'_>) -> bool {
        self.send(|| Frame { header: frame.header, pair: Some(frame.pair), bytes: frame.to_vec() })
    }
}

impl Wire for Loopback {
    fn peek(&mut self) -> Option<Incoming<'_>> {
        self.0.front().map(Frame::shown)
    }

    fn advance(&mut self) {
        self.0.pop_front();
    }

    fn transmit(&mut self, frame: &Outgoing<'_>) -> bool {
        self.send(|| Frame::on_the_wire(frame))
    }
}

impl Wire for CableEnd {
    fn peek(&mut self) -> Option<Incoming<'_>> {
        self.first().map(Frame::shown)
    }

    fn advance(&mut self) {
        self.pop();
    }

    fn transmit(&mut self, frame: &Outgoing<'_>) -> bool {
        self.send(|| Frame::on_the_wire(frame))
    }
}

/// Plain frames, of which the sink looks at the first bytes only: no copy of the rest.
impl Wire for Traffic {
    #[inline]
    fn peek(&mut self) -> Option<Incoming<'_>> {
        let bytes = wire::Wire::peek(self)?;
        Some(Incoming { header: NetHeader::default(), pair: None, bytes })
    }

    #[inline]
    fn advance(&mut self) {
        wire::Wire::advance(self);
    }

    #[inline]
    fn transmit(&mut self, frame: &Outgoing<'_>) -> bool {
        let mut head = [0; Traffic::HEAD];
        let whole = frame.copy_to(0, &mut head) == head.len();
        self.see(whole.then_some(&head), frame.len());
        true
    }

    fn begin(&mut self) {
        wire::Wire::begin(self);
    }
}
