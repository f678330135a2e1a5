//! What becomes of a frame from the wire: taken or not, and by which queue. The registers that decide are read once after they change.

use super::filter::{Filter, FilterControl, Passed};
use super::parse::{Parsed, TagTypes};
use super::registers::{self, Registers};
use super::rss::{Hashed, Rss};

/// Bytes of the frame check sequence, which every length on the wire includes.
pub(super) const CHECK_BYTES: usize = 4;
/// Bytes of the shortest frame, without it.
pub(super) const SHORTEST: usize = 60;
/// Bytes of the longest frame without jumbo frames, with check sequence and without tags.
const ORDINARY: usize = 1518;

/// Why a frame goes no further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rejected {
    /// Shorter than an Ethernet header.
    Undersize,
    /// Longer than MAXFRS allows.
    Oversize,
    /// Its length field says more than there is.
    BadLength,
    /// Not for this station.
    Filtered,
}

/// What is known of a frame that goes to a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Accepted {
    pub(super) hashed: Hashed,
    pub(super) queue: u8,
    pub(super) inexact: bool,
    /// The MAC found an error, and bad frames are stored (FCTRL.SBP).
    pub(super) bad: bool,
}

/// Multiple receive queues (MRQC.MRQE, section 8.2.3.7.12).
#[derive(Debug)]
enum Spread {
    None,
    Rss(Box<Rss>),
}

/// Everything that decides about frames from the wire.
#[derive(Debug)]
pub(super) struct Steering {
    filter: Filter,
    spread: Spread,
    types: TagTypes,
    /// Bytes of the longest frame, with check sequence and without tags.
    longest: usize,
    /// Frames with a wrong length field are errors (HLREG0.RXLNGTHERREN).
    length_errors: bool,
    /// The frame check sequence is not stored (HLREG0.RXCRCSTRP).
    pub(super) strips_check: bool,
    /// RXCSUM.PCSD: the hash stands in the descriptor, not the fragment checksum.
    pub(super) reports_hash: bool,
    /// RXCSUM.IPPCSE.
    pub(super) sums_fragments: bool,
    /// RQSMR: which statistics each queue counts in.
    pub(super) statistics: [u8; 128],
}

/// The four bits for each queue of a statistics map (RQSMR, TQSM).
pub(super) fn statistics_map(registers: &Registers, array: registers::Register) -> [u8; 128] {
    let mut map = [0; 128];
    for (index, queues) in (0..).zip(map.chunks_exact_mut(4)) {
        queues.copy_from_slice(&registers.get(array.at(index)).to_le_bytes());
    }
    map.map(|set| set & 15)
}

impl Steering {
    /// Reads the registers; the second is a sentence when they ask for something that is not modelled.
    pub(super) fn new(registers: &Registers) -> (Self, Option<&'static str>) {
        use drivers::bus::Width;
        let mac = registers.get(registers::HLREG0.offset);
        let (jumbo, strip) = (mac & 4 != 0, mac & 2 != 0);
        let longest = registers.get(registers::MAXFRS.offset) >> 16;
        let extended = registers.get(registers::CTRL_EXT.offset) & 1 << 26 != 0;
        let outer = u16::narrow(u64::from(registers.get(registers::EXVET.offset) >> 16));
        let checksum = registers.get(registers::RXCSUM.offset);
        let (spread, complaint) = match registers.get(registers::MRQC.offset) & 15 {
            0 => (Spread::None, None),
            1 => (Spread::Rss(Box::new(Rss::new(registers))), None),
            // Traffic classes with scaling: without priorities all frames are of class 0, whose queues come first.
            4 | 5 => (Spread::Rss(Box::new(Rss::new(registers))), None),
            2 | 3 => (Spread::None, None),
            _ => (
                Spread::None,
                Some("MRQC asks for virtual machine queues, which are not modelled: all frames go to queue 0"),
            ),
        };
        let steering = Self {
            filter: Filter::new(registers),
            spread,
            types: TagTypes {
                tag: u16::narrow(u64::from(registers.get(registers::VLNCTRL.offset))),
                outer: extended.then_some(outer),
            },
            longest: if jumbo { longest as usize } else { ORDINARY },
            length_errors: mac & 1 << 27 != 0,
            strips_check: strip,
            reports_hash: checksum & 1 << 13 != 0,
            sums_fragments: checksum & 1 << 12 != 0,
            statistics: statistics_map(registers, registers::RQSMR),
        };
        (steering, complaint)
    }

    /// Reads a frame's headers.
    #[inline]
    pub(super) fn parse(&self, frame: &[u8]) -> Parsed {
        Parsed::new(frame, self.types)
    }

    /// Decides about a frame with these headers.
    ///
    /// # Errors
    /// When it goes no further.
    #[inline]
    pub(super) fn judge(&self, frame: &[u8], parsed: &Parsed) -> Result<Accepted, Rejected> {
        let Some(target) = frame.first_chunk::<6>().filter(|_| frame.len() >= 14) else {
            return Err(Rejected::Undersize);
        };
        // Tags make a frame longer than MAXFRS says (section 8.2.3.22.13).
        let tags = 4 * (usize::from(parsed.outer) + usize::from(parsed.tag.is_some()));
        if frame.len().max(SHORTEST) + CHECK_BYTES > self.longest + tags {
            return Err(Rejected::Oversize);
        }
        let mut bad = false;
        if self.length_errors && parsed.ether_type <= 1500 {
            let there = frame.len().max(SHORTEST).saturating_sub(parsed.payload);
            bad = usize::from(parsed.ether_type) > there;
            if bad && !self.filter.control.contains(FilterControl::SBP) {
                return Err(Rejected::BadLength);
            }
        }
        let Some(passed) = self.filter.passes(*target).filter(|_| self.filter.passes_vlan(parsed)) else {
            return Err(Rejected::Filtered);
        };
        let hashed = match &self.spread {
            Spread::None => Hashed::default(),
            Spread::Rss(rss) => rss.hash(frame, parsed),
        };
        Ok(Accepted { hashed, queue: hashed.queue, inexact: passed == Passed::Inexactly, bad })
    }
}
