//! Receive queues: a frame goes into the driver's buffers (section 7.1).

use super::checksum::frame_check;
use super::count::{Amount, Offloaded};
use super::descriptor::{Descriptor, ReceiveError, ReceiveStatus, WriteBack};
use super::fault::{Deed, Fault, Trick};
use super::offload;
use super::parse::Parsed;
use super::queue::{Page, Ring, Word};
use super::steering::{Accepted, CHECK_BYTES, SHORTEST, Steering};
use crate::card::{Bus, Dma, Hint};

/// Descriptors that the card holds ready for a queue. A frame of 64 KiB in buffers of 1 KiB takes them all.
const HELD: usize = 64;

/// What became of a frame at its queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It is in the driver's memory.
    Delivered,
    /// Too few descriptors; nothing changed.
    NoDescriptor,
    /// Descriptors have to travel first; nothing changed.
    Later,
    /// The queue never has room for it.
    Lost,
    /// The queue makes no sense, and hangs; why, when it is not on record yet.
    Wrong(&'static str),
}

/// What all receive queues share.
pub(super) struct Inlet<'poll> {
    pub(super) steering: &'poll Steering,
    pub(super) trick: &'poll mut Trick,
    pub(super) scratch: &'poll mut Vec<u8>,
    pub(super) bad_checksums: &'poll mut u64,
    pub(super) offloaded: &'poll mut Offloaded,
}

/// A receive queue that runs.
#[derive(Debug)]
pub(super) struct Receiver {
    page: Page,
    ring: Ring,
    /// SRRCTL: legacy descriptors, bytes of a buffer, frames are dropped when there is none.
    legacy: bool,
    room: usize,
    pub(super) drops: bool,
    /// RXDCTL: tags are taken out, longest frame.
    strips: bool,
    longest: usize,
    held: [Descriptor; HELD],
    /// Those of them that were used, and that there are.
    used: usize,
    filled: usize,
    buffers: Hint,
    /// Head as the driver sees it.
    shown: u32,
    pub(super) delivered: Amount,
    pub(super) dropped: u64,
}

impl Receiver {
    /// Reads a queue's registers when it is enabled.
    ///
    /// # Errors
    /// A sentence, when it cannot run.
    pub(super) fn new(bus: &mut Bus, queue: u8) -> Result<Self, &'static str> {
        let page = Page::receive(queue);
        let ring = Ring::new(bus, page)?;
        let split = page.get(bus, Word::Split);
        let room = split & 0x1f;
        if room == 0 || room > 16 {
            return Err("buffers of no size from 1 to 16 KiB (SRRCTL.BSIZEPACKET)");
        }
        let legacy = match split >> 25 & 7 {
            0 => true,
            1 => false,
            2 | 5 => {
                bus.violation(format!(
                    "receive queue {queue} splits headers (SRRCTL.DESCTYPE), which is not modelled: frames stay whole"
                ));
                false
            }
            _ => return Err("a reserved descriptor type (SRRCTL.DESCTYPE)"),
        };
        let mut receiver = Self {
            page,
            shown: ring.head,
            ring,
            legacy,
            room: room as usize * 1024,
            drops: split & 1 << 28 != 0,
            strips: false,
            longest: usize::MAX,
            held: [[0; 2]; HELD],
            used: 0,
            filled: 0,
            buffers: Hint::default(),
            delivered: Amount::default(),
            dropped: 0,
        };
        receiver.control(page.get(bus, Word::Control));
        Ok(receiver)
    }

    /// RXDCTL, which may change while the queue runs.
    pub(super) fn control(&mut self, control: u32) {
        self.strips = control & 1 << 30 != 0;
        self.longest = if control & 1 << 15 != 0 { (control & 0x3fff) as usize } else { usize::MAX };
    }

    /// Makes sure that `wanted` descriptors are held; `false` when the driver has not given as many.
    #[inline]
    fn hold(&mut self, bus: &mut Bus, wanted: usize) -> Result<bool, Outcome> {
        if self.filled - self.used >= wanted {
            return Ok(true);
        }
        if !self.ring.look(bus, self.page) {
            return Err(Outcome::Wrong("a tail beyond the ring (RDT)"));
        }
        let left = self.filled - self.used;
        if (self.ring.filled() as usize) < wanted {
            return Ok(false);
        }
        self.held.copy_within(self.used..self.filled, 0);
        (self.used, self.filled) = (0, left);
        let skip = u32::try_from(left).unwrap_or(0);
        let target = self.held.get_mut(left..).unwrap_or(&mut []);
        match self.ring.fetch(bus, skip, target) {
            Ok(count) => {
                self.filled += count;
                bus.commit();
                Ok(self.filled >= wanted)
            }
            Err(Dma::Pending) => Err(Outcome::Later),
            Err(Dma::Refused) => Err(Outcome::Wrong("")),
        }
    }

    /// Puts a frame into the driver's buffers.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        bus: &mut Bus,
        inlet: Inlet<'_>,
        frame: &[u8],
        parsed: &Parsed,
        accepted: Accepted,
    ) -> Outcome {
        let Inlet { steering, trick, scratch, bad_checksums, offloaded } = inlet;
        let (stored, tag) = self.stored(frame, parsed, steering.strips_check, scratch);
        let buffers = if stored.len() <= self.room { 1 } else { stored.len().div_ceil(self.room) };
        if buffers > HELD || buffers >= self.ring.size() as usize || stored.len() > self.longest {
            return Outcome::Lost;
        }
        match self.hold(bus, buffers) {
            Ok(true) => {}
            Ok(false) => return Outcome::NoDescriptor,
            Err(outcome) => return outcome,
        }
        let mut last = describe(steering, frame, parsed, accepted);
        if last.error.intersects(ReceiveError::IPE | ReceiveError::L4E) {
            *bad_checksums += 1;
        } else if last.status.contains(ReceiveStatus::L4CS) {
            offloaded.rx_checksums += 1;
        }
        if let Some(tag) = tag {
            last.tag = tag;
            offloaded.rx_tags += 1;
        }
        if self.legacy && steering.reports_hash {
            last.hash = 0;
        }
        let honest = trick.is_honest();
        let leaves = !honest && trick.leaves_buffers();
        for (index, part) in stored.chunks(self.room).enumerate() {
            let address = self.held.get(self.used).map_or(0, |descriptor| descriptor[0]);
            self.used += 1;
            if !leaves {
                // A write that was refused is on record; the card cannot know.
                let _refused = bus.write(&mut self.buffers, address, part);
            }
            let mut report = if index + 1 == buffers {
                last
            } else {
                WriteBack { status: ReceiveStatus::DD, error: ReceiveError::empty(), tag: 0, ..last }
            };
            report.length = u16::try_from(part.len()).unwrap_or(u16::MAX);
            let at = self.ring.head;
            self.ring.advance(1);
            let mut ahead = false;
            if !honest {
                match trick.receive(&mut report, u16::try_from(self.room).unwrap_or(u16::MAX)) {
                    Deed::Write => {}
                    Deed::Withhold => continue,
                    Deed::Ahead => ahead = true,
                }
            }
            let descriptor = if self.legacy { report.legacy(address) } else { report.advanced() };
            if ahead {
                let behind = self.ring.index(self.ring.filled());
                self.ring.write_status(bus, behind, descriptor[1]);
            } else {
                self.ring.write(bus, at, descriptor);
            }
        }
        self.delivered.add(stored.len());
        Outcome::Delivered
    }

    /// What is put into memory of a frame, and the tag that was taken out of it.
    #[inline]
    fn stored<'a>(
        &self,
        frame: &'a [u8],
        parsed: &Parsed,
        strips_check: bool,
        scratch: &'a mut Vec<u8>,
    ) -> (&'a [u8], Option<u16>) {
        let tag = parsed.tag.filter(|_| self.strips);
        if frame.len() >= SHORTEST && strips_check && tag.is_none() {
            return (frame, None);
        }
        scratch.clear();
        scratch.extend_from_slice(frame);
        // The sender's MAC would have padded it.
        scratch.resize(frame.len().max(SHORTEST), 0);
        let check = if strips_check { [0; CHECK_BYTES] } else { frame_check(scratch) };
        if let Some((_, at)) = tag {
            scratch.drain(at..at + 4);
        }
        if !strips_check {
            scratch.extend_from_slice(&check);
        }
        (scratch, tag.map(|(tag, _)| tag))
    }

    /// Shows the driver the head, and a poll ends.
    pub(super) fn show(&mut self, bus: &mut Bus, trick: &Trick) {
        let head = if trick.is(Fault::HeadWild) { self.ring.size() + 9 } else { self.ring.head };
        if head != self.shown {
            self.page.set(bus, Word::Head, head);
            self.shown = head;
        }
    }

    /// Whether the driver set the queue up anew.
    pub(super) fn is_stale(&self, bus: &Bus) -> bool {
        !self.ring.is_at(bus, self.page) || self.page.get(bus, Word::Head) != self.shown
    }
}

/// The last descriptor of a frame, but for its length and tag (section 7.1.6.2).
#[inline]
fn describe(steering: &Steering, frame: &[u8], parsed: &Parsed, accepted: Accepted) -> WriteBack {
    let (mut status, mut error) = offload::check(frame, parsed);
    status |= ReceiveStatus::DD | ReceiveStatus::EOP;
    status.set(ReceiveStatus::VP, parsed.tag.is_some());
    status.set(ReceiveStatus::VEXT, parsed.outer);
    status.set(ReceiveStatus::PIF, accepted.inexact);
    error.set(ReceiveError::RXE, accepted.bad);
    let (hash, hash_type) = if steering.reports_hash {
        (accepted.hashed.hash, accepted.hashed.kind)
    } else {
        let (fragment, more) = offload::fragment(frame, parsed, steering.sums_fragments);
        status |= more;
        (fragment, accepted.hashed.kind)
    };
    WriteBack { status, error, length: 0, tag: 0, hash_type, kind: parsed.kind.bits(), hash }
}
