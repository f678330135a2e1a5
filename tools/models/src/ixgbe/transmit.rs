//! Transmit queues: frames go from the driver's memory to the wire (section 7.2).

use std::collections::VecDeque;

use super::count::{Amount, Good, Offloaded};
use super::descriptor::{self, Command, Context, DataOffload, Descriptor, LegacyOffload, Piece, Transmit};
use super::fault::{Fault, Trick};
use super::queue::{FETCH, Page, Ring, Word};
use super::registers::{self, Registers};
use super::segmentation::{Checksums, FlagMasks, insert_legacy};
use super::steering::{CHECK_BYTES, SHORTEST, statistics_map};
use crate::card::{Bus, Dma, Hint};
use crate::wire::Wire;

/// Bytes of the shortest frame that a driver may hand over (section 7.2.3.2.2).
const SHORTEST_GIVEN: usize = 17;
/// Bytes of the longest frame that is not segmented (section 7.2.1).
const LONGEST_GIVEN: usize = 15_872;
/// Frames that are looped back and wait for the driver to receive them.
const LOOPED: usize = 64;

/// The registers that all transmit queues share.
#[derive(Debug)]
pub(super) struct Settings {
    /// HLREG0.TXPADEN.
    pads: bool,
    /// VLNCTRL.VET, and DMATXCTL.VT while double tags are used (DMATXCTL.GDV).
    tag: u16,
    outer: Option<u16>,
    masks: FlagMasks,
    /// DMATXCTL.TE.
    pub(super) enabled: bool,
    /// HLREG0.LPBK.
    pub(super) loops: bool,
    /// TQSM: which statistics each queue counts in.
    pub(super) statistics: [u8; 128],
}

impl Settings {
    /// Reads the registers.
    pub(super) fn new(registers: &Registers) -> Self {
        let low = |value: u32| drivers::bus::Width::narrow(u64::from(value));
        let mac = registers.get(registers::HLREG0.offset);
        let dma = registers.get(registers::DMATXCTL.offset);
        let flags = registers.get(registers::DTXTCPFLGL.offset);
        Self {
            pads: mac & 1 << 10 != 0,
            tag: low(registers.get(registers::VLNCTRL.offset)),
            outer: (dma & 1 << 3 != 0).then_some(low(dma >> 16)),
            masks: FlagMasks {
                first: low(flags & 0xfff),
                middle: low(flags >> 16 & 0xfff),
                last: low(registers.get(registers::DTXTCPFLGH.offset) & 0xfff),
            },
            enabled: dma & 1 != 0,
            loops: mac & 1 << 15 != 0,
            statistics: statistics_map(registers, registers::TQSM),
        }
    }
}

/// Where frames go.
pub(super) struct Outlet<'poll> {
    pub(super) wire: &'poll mut dyn Wire,
    pub(super) looped: Option<&'poll mut VecDeque<Vec<u8>>>,
    pub(super) sent: &'poll mut Good,
    pub(super) offloaded: &'poll mut Offloaded,
}

impl Outlet<'_> {
    /// Sends a frame; `false` when there is no room for it now.
    fn send(&mut self, frame: &[u8]) -> bool {
        let taken = match &mut self.looped {
            None => self.wire.transmit(frame),
            Some(looped) if looped.len() < LOOPED => {
                looped.push_back(frame.to_vec());
                true
            }
            Some(_) => false,
        };
        if taken {
            self.sent.add(frame);
        }
        taken
    }
}

/// Memory to put frames together in.
#[derive(Default, Debug)]
pub(super) struct Workshop {
    whole: Vec<u8>,
    segment: Vec<u8>,
    tagged: Vec<u8>,
}

/// What a frame's descriptors ask for.
#[derive(Clone, Copy, Default, Debug)]
struct Order {
    /// Descriptors, and bytes in their buffers.
    count: usize,
    bytes: usize,
    command: Command,
    legacy: Option<LegacyOffload>,
    data: DataOffload,
}

/// How far a queue's work got.
enum Progress {
    Done,
    /// The rest of it, the wire or memory is not there yet.
    Later,
}

/// A transmit queue that runs.
#[derive(Debug)]
pub(super) struct Sender {
    page: Page,
    ring: Ring,
    contexts: [Context; 2],
    /// Where the head is written back to, instead of descriptors.
    report: Option<u64>,
    buffers: Hint,
    reports: Hint,
    /// Segments of the frame at the head that are on the wire already.
    segments: usize,
    /// Head as the driver sees it.
    shown: u32,
    /// The tail up to which descriptors were reported done too early.
    early: Option<u32>,
    pub(super) sent: Amount,
}

impl Sender {
    /// Reads a queue's registers when it is enabled.
    ///
    /// # Errors
    /// A sentence, when it cannot run.
    pub(super) fn new(bus: &Bus, queue: u8) -> Result<Self, &'static str> {
        let page = Page::transmit(queue);
        let ring = Ring::new(bus, page)?;
        let low = page.get(bus, Word::ReportLow);
        let address = u64::from(page.get(bus, Word::ReportHigh)) << 32 | u64::from(low & !3);
        Ok(Self {
            page,
            shown: ring.head,
            ring,
            contexts: [Context::default(); 2],
            report: (low & 1 != 0).then_some(address),
            buffers: Hint::default(),
            reports: Hint::default(),
            segments: 0,
            early: None,
            sent: Amount::default(),
        })
    }

    /// Whether the driver set the queue up anew.
    pub(super) fn is_stale(&self, bus: &Bus) -> bool {
        !self.ring.is_at(bus, self.page) || self.page.get(bus, Word::Head) != self.shown
    }

    /// Sends up to `budget` frames; returns how many, and whether the driver wanted to hear of any.
    ///
    /// # Errors
    /// A sentence when descriptors make no sense, or an empty one when why is on record: the queue hangs.
    pub(super) fn run(
        &mut self,
        bus: &mut Bus,
        settings: &Settings,
        trick: &mut Trick,
        outlet: &mut Outlet<'_>,
        workshop: &mut Workshop,
        budget: usize,
    ) -> Result<(usize, bool), &'static str> {
        let (mut sent, mut reported) = (0, false);
        let mut window = [[0; 2]; FETCH];
        'fetches: while sent < budget {
            if !self.ring.look(bus, self.page) {
                return Err("a tail beyond the ring (TDT)");
            }
            if self.ring.filled() == 0 || trick.is(Fault::TransmitHang) {
                break;
            }
            let count = match self.ring.fetch(bus, 0, &mut window) {
                Ok(count) => count,
                Err(Dma::Pending) => break,
                // On record as a DMA fault; the chip gets no answer and hangs.
                Err(Dma::Refused) => return Err(""),
            };
            let mut descriptors = window.get(..count).unwrap_or(&[]);
            if trick.is(Fault::TransmitDoneEarly) && self.early != Some(self.ring.tail) {
                reported |= self.report_early(bus, descriptors);
                break;
            }
            while sent < budget && !descriptors.is_empty() {
                if let Some(Transmit::Context(slot, context)) =
                    descriptors.first().map(|first| descriptor::parse(*first))
                {
                    if let Some(target) = self.contexts.get_mut(slot) {
                        *target = context;
                    }
                    reported |= self.finish(bus, descriptors.get(..1).unwrap_or(&[]), trick);
                    descriptors = descriptors.get(1..).unwrap_or(&[]);
                    continue;
                }
                let Some(order) = read_order(descriptors)? else {
                    if descriptors.len() == FETCH {
                        return Err("a frame of more than 64 descriptors");
                    }
                    if descriptors.len() == count { break 'fetches } else { continue 'fetches }
                };
                let own = descriptors.get(..order.count).unwrap_or(&[]);
                match self.send(bus, settings, own, &order, outlet, workshop)? {
                    Progress::Done => {}
                    Progress::Later => break 'fetches,
                }
                self.sent.add(order.bytes);
                trick.count(1);
                reported |= self.finish(bus, own, trick);
                descriptors = descriptors.get(order.count..).unwrap_or(&[]);
                sent += 1;
                bus.commit();
            }
        }
        if let Some(address) = self.report.filter(|_| reported) {
            let head = trick.head(self.ring.head, self.ring.size());
            let _refused = bus.write(&mut self.reports, address, &head.to_le_bytes());
        }
        if self.ring.head != self.shown {
            self.shown = self.ring.head;
            self.page.set(bus, Word::Head, self.shown);
        }
        Ok((sent, reported))
    }

    /// Takes descriptors off the ring, and reports those that ask for it.
    #[inline]
    fn finish(&mut self, bus: &mut Bus, descriptors: &[Descriptor], trick: &mut Trick) -> bool {
        let mut reported = false;
        for descriptor in descriptors {
            if asks_for_report(descriptor) && (trick.is_honest() || !trick.withholds_report()) {
                reported = true;
                if self.report.is_none() {
                    let index = self.ring.head;
                    self.ring.write(bus, index, descriptor::transmitted(*descriptor));
                }
            }
            self.ring.advance(1);
        }
        reported
    }

    /// Reports descriptors done that were not looked at.
    fn report_early(&mut self, bus: &mut Bus, descriptors: &[Descriptor]) -> bool {
        const DONE: u64 = 1 << 32;
        self.early = Some(self.ring.tail);
        let mut reported = false;
        for (index, [first, second]) in (0..).zip(descriptors) {
            if asks_for_report(&[*first, *second]) {
                reported = true;
                let index = self.ring.index(index);
                self.ring.write(bus, index, [*first, second | DONE]);
            }
        }
        reported
    }

    fn send(
        &mut self,
        bus: &mut Bus,
        settings: &Settings,
        descriptors: &[Descriptor],
        order: &Order,
        outlet: &mut Outlet<'_>,
        workshop: &mut Workshop,
    ) -> Result<Progress, &'static str> {
        let segmented = order.legacy.is_none() && order.command.contains(Command::TSE);
        let context = self.contexts.get(order.data.context).copied().unwrap_or_default();
        let checksums = Checksums { network: order.data.network_checksum, transport: order.data.transport_checksum };
        if order.legacy.is_none() {
            check(order, segmented, &context, checksums)?;
        }
        if order.bytes < SHORTEST_GIVEN {
            return Err("a frame of less than 17 bytes");
        }
        if !segmented && order.bytes > LONGEST_GIVEN {
            return Err("a frame of more than 15.5 KiB without segmentation");
        }
        if workshop.whole.len() < order.bytes {
            workshop.whole.resize(order.bytes, 0);
        }
        let Workshop { whole, segment, tagged } = workshop;
        let whole = whole.get_mut(..order.bytes).unwrap_or(&mut []);
        match self.gather(bus, descriptors, whole) {
            Ok(()) => {}
            Err(Dma::Pending) => return Ok(Progress::Later),
            Err(Dma::Refused) => return Err(""),
        }
        let tag = order.command.contains(Command::VLE).then(|| order.legacy.map_or(context.tag, |legacy| legacy.tag));
        let mut put = |frame: &mut [u8]| -> bool {
            if frame.len() >= SHORTEST && tag.is_none() {
                return outlet.send(frame);
            }
            tagged.clear();
            insert_tag(settings, frame, tag, tagged);
            if settings.pads && tagged.len() < SHORTEST {
                tagged.resize(SHORTEST, 0);
            }
            outlet.send(tagged)
        };
        if segmented {
            let count = context.segments(whole.len().saturating_sub(context.headers()));
            while self.segments < count {
                context
                    .segment(whole, self.segments, settings.masks, segment)
                    .ok_or("headers that do not fit the context")?;
                if !put(segment) {
                    return Ok(Progress::Later);
                }
                self.segments += 1;
            }
            self.segments = 0;
            outlet.offloaded.tx_segmentations += 1;
            outlet.offloaded.tx_tags += u64::from(tag.is_some());
            return Ok(Progress::Done);
        }
        if let Some(legacy) = order.legacy {
            if order.command.contains(Command::IC) {
                insert_legacy(whole, usize::from(legacy.checksum_start), usize::from(legacy.checksum_offset));
            }
        } else if checksums != Checksums::default() {
            context.insert(whole, checksums).ok_or("checksums that do not fit the frame")?;
        }
        // Without IFCS the driver brings the check sequence along; the wire here has none.
        let check = if order.command.contains(Command::IFCS) { 0 } else { CHECK_BYTES };
        let bare = whole.len() - check;
        if !put(whole.get_mut(..bare).unwrap_or(&mut [])) {
            return Ok(Progress::Later);
        }
        let legacy = order.legacy.is_some() && order.command.contains(Command::IC);
        outlet.offloaded.tx_checksums += u64::from(legacy || checksums != Checksums::default());
        outlet.offloaded.tx_tags += u64::from(tag.is_some());
        Ok(Progress::Done)
    }

    /// Reads a frame's buffers. When some have to travel, all of them set out at once.
    fn gather(&mut self, bus: &mut Bus, descriptors: &[Descriptor], target: &mut [u8]) -> Result<(), Dma> {
        let mut result = Ok(());
        let mut rest = target;
        for descriptor in descriptors {
            let length = usize::from(length_of(descriptor));
            let (part, behind) = rest.split_at_mut_checked(length).unwrap_or((&mut [], &mut []));
            rest = behind;
            match bus.read(&mut self.buffers, descriptor[0], part) {
                Ok(()) => {}
                Err(Dma::Pending) => result = Err(Dma::Pending),
                Err(Dma::Refused) => return Err(Dma::Refused),
            }
        }
        result
    }
}

/// DCMD.RS, at the same place in both formats.
#[inline]
fn asks_for_report(descriptor: &Descriptor) -> bool {
    descriptor[1] & 1 << 27 != 0
}

/// Bytes of a buffer, at the same place in both formats.
#[inline]
fn length_of(descriptor: &Descriptor) -> u16 {
    drivers::bus::Width::narrow(descriptor[1])
}

/// Reads the descriptors of one frame; `None` when its end is not there yet.
///
/// # Errors
/// A sentence, when they make no frame.
#[inline]
fn read_order(descriptors: &[Descriptor]) -> Result<Option<Order>, &'static str> {
    let mut order = Order::default();
    for (index, descriptor) in descriptors.iter().enumerate() {
        let first = index == 0;
        let piece = match descriptor::parse(*descriptor) {
            Transmit::Data(piece, offload) => {
                if first {
                    order.data = offload;
                    order.command = piece.command;
                } else if order.legacy.is_some() {
                    return Err("a frame of legacy and advanced descriptors");
                }
                piece
            }
            Transmit::Legacy(piece, offload) => {
                if !first && order.legacy.is_none() {
                    return Err("a frame of legacy and advanced descriptors");
                }
                take_legacy(&mut order, piece, offload);
                piece
            }
            Transmit::Context(..) => return Err("a context descriptor inside a frame"),
            Transmit::Unknown(_) => return Err("a descriptor of a reserved type (DTYP)"),
        };
        order.count += 1;
        order.bytes += usize::from(piece.length);
        if piece.command.contains(Command::EOP) {
            return Ok(Some(order));
        }
    }
    Ok(None)
}

/// Of several legacy descriptors each may carry what the frame asks for.
fn take_legacy(order: &mut Order, piece: Piece, offload: LegacyOffload) {
    let mut legacy = order.legacy.unwrap_or_default();
    if piece.command.contains(Command::IC) {
        legacy.checksum_start = offload.checksum_start;
        legacy.checksum_offset = offload.checksum_offset;
    }
    if piece.command.contains(Command::VLE) {
        legacy.tag = offload.tag;
    }
    order.legacy = Some(legacy);
    order.command |= piece.command;
}

/// What the fields of a frame's first data descriptor have to fulfil (section 7.2.3.2.4).
fn check(order: &Order, segmented: bool, context: &Context, checksums: Checksums) -> Result<(), &'static str> {
    if order.data.security {
        return Err("IPsec or LinkSec, which are not modelled");
    }
    let promised = order.data.payload_length as usize;
    if !segmented {
        return if promised == order.bytes { Ok(()) } else { Err("a PAYLEN that is not the length of the frame") };
    }
    if !order.command.contains(Command::IFCS) {
        return Err("segmentation without IFCS");
    }
    if let Some(refusal) = context.refusal(checksums) {
        return Err(refusal);
    }
    if promised + context.headers() == order.bytes {
        Ok(())
    } else {
        Err("a PAYLEN that is not the length behind the headers")
    }
}

/// Copies a frame, with a VLAN tag behind its addresses, or behind its outer tag (section 7.4).
fn insert_tag(settings: &Settings, frame: &[u8], tag: Option<u16>, target: &mut Vec<u8>) {
    let outer = |outer: u16| frame.get(12..14) == Some(&outer.to_be_bytes());
    let at = if settings.outer.is_some_and(outer) { 16 } else { 12 };
    let (head, rest) = frame.split_at_checked(at).unwrap_or((frame, &[]));
    target.extend_from_slice(head);
    if let Some(tag) = tag {
        target.extend_from_slice(&settings.tag.to_be_bytes());
        target.extend_from_slice(&tag.to_be_bytes());
    }
    target.extend_from_slice(rest);
}
