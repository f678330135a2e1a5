//! What a completion record says (specification, "Completion Record", "Status").

use core::fmt;

use crate::copy_engine::CopyFailure;

/// The status of a completion record, as the device wrote it. Prints as its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Status(pub u8);

/// The bit that tells a fault on writing from one on reading.
const WRITE: u8 = 0x80;

/// What a status means for a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is done.
    Done,
    /// It failed, and nothing else did.
    Failed(CopyFailure),
    /// The work queue is not set up as it was: no copy is to blame.
    Misconfigured,
    /// No copy ends like this.
    Impossible,
}

/// What a name says about copies.
#[derive(Clone, Copy)]
enum Kind {
    Done,
    Fault,
    Refused,
    Hardware,
    Setup,
    Never,
}

const NAMES: [(u8, &str, Kind); 32] = [
    (0x01, "success", Kind::Done),
    (0x02, "success with a false predicate", Kind::Never),
    (0x03, "page fault", Kind::Fault),
    (0x04, "page fault that the system did not resolve", Kind::Fault),
    (0x05, "a descriptor of the batch failed", Kind::Never),
    (0x06, "page fault on the list of a batch", Kind::Never),
    (0x07, "offset of a delta record not increasing", Kind::Never),
    (0x08, "offset of a delta record out of range", Kind::Never),
    (0x09, "DIF error", Kind::Never),
    (0x10, "unknown operation", Kind::Refused),
    (0x11, "invalid flags", Kind::Refused),
    (0x12, "reserved field not zero", Kind::Refused),
    (0x13, "length out of range", Kind::Refused),
    (0x14, "number of descriptors out of range", Kind::Never),
    (0x15, "delta record out of range", Kind::Never),
    (0x16, "overlapping buffers", Kind::Refused),
    (0x17, "targets of a dualcast differ in their lowest bits", Kind::Never),
    (0x18, "list of a batch not aligned", Kind::Never),
    (0x19, "invalid interrupt handle", Kind::Setup),
    (0x1a, "page fault on a completion record", Kind::Never),
    (0x1b, "completion record not aligned", Kind::Never),
    (0x1c, "address not aligned", Kind::Refused),
    (0x1d, "privilege not allowed", Kind::Setup),
    (0x1e, "traffic class not configured", Kind::Setup),
    (0x1f, "page fault on a readback address", Kind::Never),
    (0x20, "hardware error", Kind::Hardware),
    (0x21, "hardware error at readback", Kind::Hardware),
    (0x22, "address translation failed", Kind::Fault),
    (0x23, "request for a page timed out", Kind::Fault),
    (0x24, "watchdog expired", Kind::Hardware),
    (0x26, "page fault before a drain, see the event log", Kind::Never),
    (0x27, "page fault in a batch, see the event log", Kind::Never),
];

impl Status {
    /// A record that the device has not written.
    pub const NONE: Self = Self(0);
    pub(super) const SUCCESS: Self = Self(0x01);
    /// Of a batch: copies in it failed, and say so themselves.
    pub(super) const BATCH_FAILED: Self = Self(0x05);

    fn entry(self) -> Option<(&'static str, Kind)> {
        let code = self.0 & !WRITE;
        NAMES.iter().find(|(known, ..)| *known == code).map(|(_, name, kind)| (*name, *kind))
    }

    /// It faulted on writing.
    #[must_use]
    pub fn is_write(self) -> bool {
        self.0 & WRITE != 0
    }

    /// It is a page fault, or a translation that failed, and has an address.
    #[must_use]
    pub fn is_fault(self) -> bool {
        matches!(self.entry(), Some((_, Kind::Fault)))
    }

    /// A batch can fail with it: as such, or because its own descriptor is not valid.
    pub(super) fn can_end_batch(self) -> bool {
        matches!(self.0 & !WRITE, 0x05 | 0x06)
            || matches!(self.0, 0x10..=0x12 | 0x14 | 0x18 | 0x19 | 0x1d | 0x1e | 0x20 | 0x22 | 0x27)
    }

    /// What it means for a copy.
    pub(super) fn verdict(self) -> Verdict {
        match self.entry() {
            // Only faults have a direction.
            Some((_, Kind::Fault)) if self.is_write() => Verdict::Failed(CopyFailure::Target),
            Some((_, Kind::Fault)) => Verdict::Failed(CopyFailure::Source),
            _ if self.is_write() => Verdict::Impossible,
            Some((_, Kind::Done)) => Verdict::Done,
            Some((_, Kind::Refused)) => Verdict::Failed(CopyFailure::Refused),
            Some((_, Kind::Hardware)) => Verdict::Failed(CopyFailure::Integrity),
            Some((_, Kind::Setup)) => Verdict::Misconfigured,
            Some((_, Kind::Never)) | None => Verdict::Impossible,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry() {
            Some((name, Kind::Fault)) => {
                write!(f, "{name} on {} ({:#04x})", if self.is_write() { "writing" } else { "reading" }, self.0)
            }
            Some((name, _)) if !self.is_write() => write!(f, "{name} ({:#04x})", self.0),
            None if *self == Self::NONE => f.write_str("none"),
            _ => write!(f, "undefined ({:#04x})", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn every_status_has_a_name_and_a_meaning_for_copies() {
        assert_eq!(Status(0x83).to_string(), "page fault on writing (0x83)");
        assert_eq!(Status(0x03).to_string(), "page fault on reading (0x03)");
        assert_eq!((Status(0).to_string().as_str(), Status(0x0f).to_string().as_str()), ("none", "undefined (0x0f)"));
        assert_eq!(Status(0x83).verdict(), Verdict::Failed(CopyFailure::Target));
        assert_eq!(Status(0x03).verdict(), Verdict::Failed(CopyFailure::Source));
        assert_eq!(Status(0x13).verdict(), Verdict::Failed(CopyFailure::Refused));
        assert_eq!(Status(0x19).verdict(), Verdict::Misconfigured);
        for lie in [0x02, 0x05, 0x0f, 0x7f, 0x81, 0x93, 0xff] {
            assert_eq!(Status(lie).verdict(), Verdict::Impossible, "{lie:#x}");
        }
        // The specification knows these of a copy, and the driver must know them all.
        for known in (0x10..=0x13).chain([0x01, 0x03, 0x04, 0x16, 0x19]).chain(0x1d..=0x1e).chain(0x20..=0x22) {
            assert_ne!(Status(known).verdict(), Verdict::Impossible, "{known:#x}");
        }
        assert!(NAMES.is_sorted_by_key(|(code, ..)| *code));
    }
}
