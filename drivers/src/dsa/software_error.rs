//! What a device reports when it has no completion record to write to (SWERR).

use core::fmt;

use super::registers::SWERR;
use super::status::Status;
use crate::bus::Bar;

const VALID: u64 = 1 << 0;
const OVERFLOW: u64 = 1 << 1;
const DESCRIPTOR_VALID: u64 = 1 << 2;
const QUEUE_VALID: u64 = 1 << 3;
const BATCH: u64 = 1 << 4;
const WRITE: u64 = 1 << 5;

/// An error of software, as the device sees it: a descriptor that it dropped. Prints as a sentence.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SoftwareError {
    word: u64,
    /// Where it faulted, for faults.
    pub address: u64,
}

impl SoftwareError {
    /// The error that is there now.
    pub(super) fn load(bar: &impl Bar) -> Option<Self> {
        let [first, _, third] = &SWERR;
        let word = first.load(bar, 0);
        // All ones are no error: nobody answers.
        if word & VALID == 0 || word == u64::MAX {
            return None;
        }
        Some(Self { word, address: third.load(bar, 0) })
    }

    /// Makes room for the next one.
    pub(super) fn acknowledge(bar: &impl Bar) {
        let [first, ..] = &SWERR;
        first.store(bar, 0, VALID | OVERFLOW);
    }

    /// As two words, to be kept in atomics; [`SoftwareError::from_words`] is the way back.
    pub(super) fn words(self) -> [u64; 2] {
        [self.word, self.address]
    }

    pub(super) fn from_words([word, address]: [u64; 2]) -> Self {
        Self { word, address }
    }

    /// The work queue that it is about, when it says so.
    #[must_use]
    pub fn queue(self) -> Option<u8> {
        let [_, _, queue, ..] = self.word.to_le_bytes();
        (self.word & QUEUE_VALID != 0).then_some(queue)
    }

    /// What went wrong.
    #[must_use]
    pub fn status(self) -> Status {
        let [_, status, ..] = self.word.to_le_bytes();
        Status(status)
    }
}

impl fmt::Display for SoftwareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.word & VALID == 0 {
            return f.write_str("no software error");
        }
        write!(f, "software error: {}", self.status())?;
        if let Some(queue) = self.queue() {
            write!(f, ", work queue {queue}")?;
        }
        if self.word & DESCRIPTOR_VALID != 0 {
            let [_, _, _, _, operation, ..] = self.word.to_le_bytes();
            write!(f, ", operation {operation:#x}")?;
        }
        if self.word & BATCH != 0 {
            write!(f, ", in a batch")?;
        }
        if self.address != 0 {
            write!(f, ", {} at {:#x}", if self.word & WRITE != 0 { "writing" } else { "reading" }, self.address)?;
        }
        if self.word & OVERFLOW != 0 {
            f.write_str(", and others that were lost")?;
        }
        Ok(())
    }
}
