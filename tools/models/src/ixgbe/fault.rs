//! Ways in which the card can lie, each with a name, and when it does.

use super::descriptor::{ReceiveError, ReceiveStatus, WriteBack};
use crate::Random;
pub use crate::fault::{Chaos, UnknownFault};

crate::fault::named_faults! {
    /// Receive descriptors are never marked done.
    DoneNever = "done-never",
    /// A receive descriptor is marked done and its buffer was not filled.
    DoneEarly = "done-early",
    /// A receive descriptor is marked done that the driver has not given to the card.
    DoneAhead = "done-ahead",
    /// The length of a received frame exceeds its buffer.
    LengthBeyondBuffer = "length-beyond-buffer",
    /// The length of a received frame is zero.
    LengthZero = "length-zero",
    /// The last buffer of a frame is not marked as such.
    EndOfPacketNever = "end-of-packet-never",
    /// All bits of a receive descriptor are set, reserved ones too.
    DescriptorGarbage = "descriptor-garbage",
    /// The MAC's error bit is set on good frames.
    ReceiveErrors = "receive-errors",
    /// Hash type and packet type are reserved numbers.
    TypesReserved = "types-reserved",
    /// Frames arrive at queues other than the redirection table says, running or not.
    QueueWrong = "queue-wrong",
    /// The head of receive rings is beyond their end.
    HeadWild = "head-wild",
    /// Transmit queues stand still.
    TransmitHang = "transmit-hang",
    /// Frames are sent and never reported done.
    TransmitDoneNever = "transmit-done-never",
    /// Frames are reported done before they are read.
    TransmitDoneEarly = "transmit-done-early",
    /// The head that is written back is beyond the ring.
    HeadWritebackWild = "head-writeback-wild",
    /// The link goes down and up again and again.
    LinkFlap = "link-flap",
    /// The link never comes up.
    LinkNeverUp = "link-never-up",
    /// The card is pulled out under traffic: all ones from every register.
    Removed = "removed",
    /// The card does not answer from the start.
    Absent = "absent",
    /// A reset never ends.
    ResetNeverDone = "reset-never-done",
    /// The EEPROM is never read after a reset.
    EepromNeverReady = "eeprom-never-ready",
    /// The EEPROM's checksum is wrong.
    EepromChecksumBad = "eeprom-checksum-bad",
    /// The DMA unit is never initialised (RDRXCTL.DMAIDONE).
    DmaNeverReady = "dma-never-ready",
    /// Requests are still outstanding however long the driver waits (STATUS).
    MasterDisableStuck = "master-disable-stuck",
    /// A queue never becomes enabled.
    QueueEnableNever = "queue-enable-never",
    /// The card resets itself under traffic: all registers are back to their first values.
    ResetSpontaneous = "reset-spontaneous",
    /// Under traffic, all memory is gone for the card.
    DmaRefused = "dma-refused",
    /// Under traffic, the card also reads at 0xdeadd000, where nothing is mapped.
    DmaStray = "dma-stray",
    /// Interrupts do not arrive.
    InterruptsLost = "interrupts-lost",
    /// Interrupts arrive all the time.
    InterruptsStorm = "interrupts-storm",
    /// Statistics jump to their largest values.
    StatisticsJump = "statistics-jump",
    /// The EEPROM has a group address.
    MacInvalid = "mac-invalid",
    /// Firmware never gives the semaphore back.
    SemaphoreStuck = "semaphore-stuck",
}

impl Fault {
    /// Strikes under traffic, after some honest frames, so that the driver is up.
    #[must_use]
    pub const fn needs_traffic(self) -> bool {
        matches!(
            self,
            Self::DoneNever
                | Self::DoneEarly
                | Self::DoneAhead
                | Self::LengthBeyondBuffer
                | Self::LengthZero
                | Self::EndOfPacketNever
                | Self::DescriptorGarbage
                | Self::ReceiveErrors
                | Self::TypesReserved
                | Self::QueueWrong
                | Self::HeadWild
                | Self::TransmitHang
                | Self::TransmitDoneNever
                | Self::TransmitDoneEarly
                | Self::HeadWritebackWild
                | Self::Removed
                | Self::ResetSpontaneous
                | Self::DmaRefused
                | Self::DmaStray
        )
    }
}

/// Honest frames, unless asked otherwise, before a fault that needs traffic strikes.
const HONEST: u64 = 5;

/// The liar's state. An honest card has one too, and asks it nothing but [`Trick::is_honest`].
#[derive(Debug)]
pub(super) struct Trick {
    fault: Option<Fault>,
    chaos: Option<Chaos>,
    random: Random,
    /// Honest frames before a fault strikes; `None` is as the fault has it.
    after: Option<u64>,
    frames: u64,
    struck: bool,
}

/// What is to be done with a receive descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Deed {
    /// Write it back as it is now.
    Write,
    /// Do not write it back.
    Withhold,
    /// Write it back at a place that the driver has not given away.
    Ahead,
}

impl Trick {
    /// A card that lies in one way, or in none.
    pub(super) fn new(fault: Option<Fault>) -> Self {
        Self { fault, chaos: None, random: Random::new(1), after: None, frames: 0, struck: false }
    }

    /// Lies in this way from now on, or in none; what was done so far counts as honest.
    pub(super) fn set(&mut self, fault: Option<Fault>) {
        *self = Self::new(fault);
    }

    /// As [`Trick::set`], after so many more honest frames.
    pub(super) fn set_after(&mut self, fault: Option<Fault>, frames: u64) {
        *self = Self { after: Some(frames), ..Self::new(fault) };
    }

    /// Answers at random from now on, or no longer.
    pub(super) fn set_chaos(&mut self, chaos: Option<Chaos>) {
        *self = Self { chaos, random: Random::new(chaos.map_or(1, |chaos| chaos.seed)), ..Self::new(None) };
    }

    /// A reset of the card: it starts honest again.
    pub(super) fn reset(&mut self) {
        self.frames = 0;
        self.struck = false;
    }

    /// Always tells the truth.
    #[inline]
    pub(super) fn is_honest(&self) -> bool {
        self.fault.is_none() && self.chaos.is_none()
    }

    /// Lies in this way now.
    #[inline]
    pub(super) fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault) && self.has_begun(fault)
    }

    fn has_begun(&self, fault: Fault) -> bool {
        let honest = if fault.needs_traffic() { HONEST } else { 0 };
        self.frames >= self.after.unwrap_or(honest)
    }

    /// The first time that it is asked whether it lies in this way, and does.
    pub(super) fn once(&mut self, fault: Fault) -> bool {
        let now = self.is(fault) && !self.struck;
        self.struck |= now;
        now
    }

    /// Frames went through the card.
    #[inline]
    pub(super) fn count(&mut self, frames: u64) {
        self.frames = self.frames.saturating_add(frames);
    }

    /// What a register reads as instead of the truth, now and then, while the card answers at random.
    pub(super) fn register_at_random(&mut self) -> Option<u32> {
        let chaos = self.chaos?;
        if !self.random.chance(chaos.registers) {
            return None;
        }
        // Small numbers, single bits and all ones get further than noise.
        Some(match self.random.below(4) {
            0 => low(self.random.below(4)),
            1 => u32::MAX,
            2 => low(1 << self.random.below(32)),
            _ => low(self.random.bits()),
        })
    }

    fn at_random(&mut self) -> bool {
        self.chaos.is_some_and(|chaos| self.random.chance(chaos.rings))
    }

    /// The buffers of a received frame are to stay as they are.
    pub(super) fn leaves_buffers(&mut self) -> bool {
        self.is(Fault::DoneEarly) || (self.chaos.is_some() && self.at_random())
    }

    /// Spoils what is written back about a buffer of `room` bytes.
    pub(super) fn receive(&mut self, descriptor: &mut WriteBack, room: u16) -> Deed {
        if self.at_random() {
            let bits = self.random.bits();
            *descriptor = WriteBack {
                status: ReceiveStatus::from_bits_retain(low(bits & 0xf_ffff)),
                error: ReceiveError::from_bits_retain(low(bits >> 20 & 0xfff)),
                length: drivers::bus::Width::narrow(if self.random.chance(128) {
                    bits >> 32
                } else {
                    self.random.below(4096)
                }),
                tag: drivers::bus::Width::narrow(bits >> 48),
                ..*descriptor
            };
            return [Deed::Write, Deed::Write, Deed::Withhold, Deed::Ahead]
                [usize::try_from(bits >> 60 & 3).unwrap_or(0)];
        }
        let Some(fault) = self.fault.filter(|fault| self.has_begun(*fault)) else { return Deed::Write };
        match fault {
            Fault::DoneNever => return Deed::Withhold,
            Fault::DoneAhead => return Deed::Ahead,
            Fault::LengthBeyondBuffer => descriptor.length = room.saturating_add(1),
            Fault::LengthZero => descriptor.length = 0,
            Fault::EndOfPacketNever => descriptor.status.remove(ReceiveStatus::EOP),
            Fault::DescriptorGarbage => {
                *descriptor = WriteBack {
                    status: ReceiveStatus::from_bits_retain(0xf_ffff),
                    error: ReceiveError::from_bits_retain(0xfff),
                    length: u16::MAX,
                    tag: u16::MAX,
                    hash_type: 15,
                    kind: 0x1fff,
                    hash: u32::MAX,
                };
            }
            Fault::ReceiveErrors => descriptor.error |= ReceiveError::RXE,
            Fault::TypesReserved => {
                descriptor.hash_type = 12;
                descriptor.kind = 0x1fff;
            }
            _ => {}
        }
        Deed::Write
    }

    /// The queue that a frame goes to.
    pub(super) fn queue(&mut self, queue: u8) -> u8 {
        if self.is(Fault::QueueWrong) { queue ^ 1 } else { queue }
    }

    /// A report that a frame was sent is kept back.
    pub(super) fn withholds_report(&mut self) -> bool {
        self.is(Fault::TransmitDoneNever) || self.at_random()
    }

    /// What is written as head of a ring of `size` descriptors.
    pub(super) fn head(&mut self, head: u32, size: u32) -> u32 {
        if self.is(Fault::HeadWritebackWild) {
            return size.saturating_add(7);
        }
        if self.at_random() { low(self.random.bits()) } else { head }
    }
}

fn low(value: u64) -> u32 {
    drivers::bus::Width::narrow(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_documentation_lists_every_fault() {
        let page = include_str!("../../../../docs/test-your-driver.md");
        for fault in Fault::ALL {
            assert!(page.contains(&format!("| `{fault}` |")), "{fault}");
        }
    }

    #[test]
    fn every_fault_reads_back_from_its_name() {
        for fault in Fault::ALL {
            assert_eq!(fault.to_string().parse::<Fault>().unwrap(), *fault);
        }
        let unknown = "honest".parse::<Fault>().unwrap_err().to_string();
        assert!(unknown.contains("`honest`") && unknown.contains("done-never"), "{unknown}");
    }

    #[test]
    fn a_fault_under_traffic_strikes_after_some_honest_frames() {
        let mut trick = Trick::new(Some(Fault::LengthZero));
        let mut strikes = || {
            let mut descriptor = WriteBack { length: 60, ..WriteBack::default() };
            assert_eq!(trick.receive(&mut descriptor, 2048), Deed::Write);
            trick.count(1);
            descriptor.length == 0
        };
        assert!((0..HONEST).all(|_| !strikes()));
        assert!(strikes());
        trick.reset();
        assert!(!trick.is(Fault::LengthZero));
        trick.set_after(Some(Fault::LengthZero), 0);
        assert!(trick.once(Fault::LengthZero) && !trick.once(Fault::LengthZero));
        assert!(Trick::new(Some(Fault::EepromNeverReady)).is(Fault::EepromNeverReady));
    }
}
