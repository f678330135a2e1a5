//! From buffers that the card filled to frames, with what the card found out about them (82599 datasheet, section
//! 7.1.6.2). Everything that it says is checked against what it was given.

use hugemem::{Checksum, Metadata, Packet};

use super::descriptor::{ReceiveInfo, ReceiveStatus};
use super::options::ReceiveSetup;
use super::ring::Returned;
use crate::nic::{Counters, DropReason, Offloads};

/// Shortest frame: an Ethernet header.
pub(super) const SHORTEST: u16 = 14;

/// A frame of which buffers are still to come.
enum Partial {
    /// What has come.
    Kept(Packet),
    /// It is dropped already, and what comes of it goes the same way.
    Dropped,
}

/// Puts frames together.
pub(super) struct Frames {
    setup: ReceiveSetup,
    /// Bytes that the card may write to one buffer.
    buffer: u16,
    /// Most buffers that a frame of the longest kind takes.
    most_buffers: usize,
    partial: Option<Partial>,
    /// Buffers since the last end of a frame that took several.
    unended: u16,
    pub(super) counters: Counters,
}

impl Frames {
    /// For buffers of `buffer` bytes.
    pub(super) fn new(buffer: u16) -> Self {
        let setup = ReceiveSetup::default();
        Self { setup, buffer, most_buffers: 1, partial: None, unended: 0, counters: Counters::default() }
    }

    /// Starts anew.
    pub(super) fn reset(&mut self, setup: ReceiveSetup) {
        self.setup = setup;
        // One more, because a last buffer may hold nothing but the frame check sequence, which is cut off.
        self.most_buffers = setup.longest.div_ceil(usize::from(self.buffer).max(1)) + 1;
        self.partial = None;
        self.unended = 0;
    }

    /// Buffers of the frame that has begun, the dropped ones included.
    pub(super) fn unended(&self) -> u16 {
        self.unended
    }

    /// Takes the next buffer; gives the frame that it completes.
    #[inline(always)]
    pub(super) fn accept(&mut self, buffer: Returned, status: ReceiveStatus, info: ReceiveInfo) -> Option<Packet> {
        let length = status.length();
        let fits = (SHORTEST..=self.buffer).contains(&length);
        if self.partial.is_some() || !fits || !status.is_good_end() {
            return self.piece(buffer, status, info);
        }
        // Before the packet is touched, so that its metadata is written once.
        let metadata = self.metadata(status, info);
        let Some(mut frame) = buffer.received(length) else {
            return self.lose(DropReason::BadLength);
        };
        *frame.metadata_mut() = metadata;
        frame.prefetch();
        Some(frame)
    }

    /// What the card says about a whole frame. It says so with the last buffer.
    #[inline(always)]
    fn metadata(&self, status: ReceiveStatus, info: ReceiveInfo) -> Metadata {
        let offloads = self.setup.offloads;
        let verified = status.is_verified() && offloads.contains(Offloads::RX_CHECKSUM);
        Metadata {
            checksum: if verified { Checksum::Verified } else { Checksum::Unknown },
            segmentation: None,
            hash: info.hash().filter(|_| offloads.contains(Offloads::RSS)),
            vlan: status.vlan().filter(|_| offloads.contains(Offloads::VLAN_STRIP)),
            inner: None,
        }
    }

    /// One buffer of a frame of several, or of a damaged one. A frame whose end never comes is dropped as soon as it is
    /// longer than a frame can be.
    #[inline(never)]
    fn piece(&mut self, buffer: Returned, status: ReceiveStatus, info: ReceiveInfo) -> Option<Packet> {
        let end = status.is_end();
        // Only a last buffer can be empty, see `reset`.
        let length = status.length();
        let fits = length <= self.buffer && (end || length > 0);
        let piece = if fits {
            buffer.received(length)
        } else {
            drop(buffer.sent());
            None
        };
        let kept = match (self.partial.take(), piece) {
            (Some(Partial::Dropped), _) => None,
            (None, Some(piece)) => Some(piece),
            (Some(Partial::Kept(frame)), Some(piece)) => self.join(frame, piece),
            (_, None) => self.lose(DropReason::BadLength),
        };
        self.unended = if end { 0 } else { self.unended.saturating_add(1) };
        if !end {
            self.partial = Some(kept.map_or(Partial::Dropped, Partial::Kept));
            return None;
        }
        let mut frame = kept?;
        if status.is_damaged() {
            return self.lose(DropReason::Damaged);
        }
        if frame.len() < usize::from(SHORTEST) {
            return self.lose(DropReason::BadLength);
        }
        *frame.metadata_mut() = self.metadata(status, info);
        Some(frame)
    }

    fn join(&mut self, mut frame: Packet, piece: Packet) -> Option<Packet> {
        if piece.is_empty() {
            return Some(frame);
        }
        let too_long = frame.len() + piece.len() > self.setup.longest || frame.segment_count() >= self.most_buffers;
        if too_long || frame.append(piece).is_err() {
            return self.lose(DropReason::BadLength);
        }
        Some(frame)
    }

    /// Gives up the frame that has begun, if one has: its buffers are needed so that anything can be received at all.
    pub(super) fn give_up(&mut self) {
        if let Some(Partial::Kept(_)) = self.partial {
            self.partial = Some(Partial::Dropped);
            self.counters.drop_packets(DropReason::NoBuffer, 1);
        }
    }

    /// Counts a frame that is dropped.
    #[cold]
    fn lose(&mut self, reason: DropReason) -> Option<Packet> {
        self.counters.drop_packets(reason, 1);
        None
    }
}
