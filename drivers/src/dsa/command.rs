//! Telling a device what to do: one command at a time, for the whole device.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use super::registers::{CMD, CMDSTS};
use crate::bus::Bar;

const ACTIVE: u32 = 1 << 31;

/// What a device can be told (CMD).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Command {
    EnableDevice,
    ResetDevice,
    EnableQueue(u8),
    DisableQueue(u8),
    AbortQueue(u8),
    RequestInterrupt(u16),
}

impl Command {
    /// Its number, which is also its bit in CMDCAP.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::EnableDevice => 1,
            Self::ResetDevice => 5,
            Self::EnableQueue(_) => 6,
            Self::DisableQueue(_) => 7,
            Self::AbortQueue(_) => 9,
            Self::RequestInterrupt(_) => 13,
        }
    }

    fn word(self) -> u32 {
        let operand = match self {
            Self::EnableDevice | Self::ResetDevice => 0,
            Self::EnableQueue(queue) => queue.into(),
            // One bit of sixteen, and which sixteen.
            Self::DisableQueue(queue) | Self::AbortQueue(queue) => 1 << (queue % 16) | u32::from(queue / 16) << 16,
            Self::RequestInterrupt(vector) => vector.into(),
        };
        self.number() << 20 | operand
    }

    /// Gives the command. Nobody else's may be active.
    pub(super) fn give(self, bar: &impl Bar) {
        CMD.store(bar, 0, self.word());
    }
}

/// How a command ended: the result of those that have one, or why it failed. `None` while it is active, and when nobody answers.
pub(super) fn ended(bar: &impl Bar) -> Option<Result<u16, CommandError>> {
    let status = CMDSTS.load(bar, 0);
    if status & ACTIVE != 0 {
        return None;
    }
    let [error, low, high, _] = status.to_le_bytes();
    Some(if error == 0 { Ok(u16::from_le_bytes([low, high])) } else { Err(CommandError(error)) })
}

/// Why a command failed (CMDSTS). Prints as a sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CommandError(u8);

impl CommandError {
    /// The queue is not enabled.
    pub(super) const NOT_ENABLED: Self = Self(0x32);
}

const ERRORS: [(u8, &str); 22] = [
    (0x01, "unknown command"),
    (0x02, "no such work queue"),
    (0x03, "hardware error"),
    (0x10, "the device is enabled already"),
    (0x11, "the configuration is not valid"),
    (0x12, "it may not master the bus"),
    (0x13, "the PASID configuration is not valid"),
    (0x14, "the sizes of all work queues are more than the device has"),
    (0x15, "a group has work queues and no engines, or engines and no work queues"),
    (0x16, "a work queue is in more groups than one"),
    (0x17, "an engine is in more groups than one"),
    (0x18, "the read buffers of a group are not valid"),
    (0x20, "the device is not enabled"),
    (0x21, "the work queue is enabled already"),
    (0x22, "the work queue has no size"),
    (0x23, "the priority of the work queue is not valid"),
    (0x24, "the mode of the work queue is not valid"),
    (0x25, "block-on-fault is not supported"),
    (0x26, "the PASID of the work queue is not valid"),
    (0x27, "the largest batch of the work queue is not valid"),
    (0x28, "the longest copy of the work queue is not valid"),
    (0x32, "the work queue is not enabled"),
];

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ERRORS.iter().find(|(code, _)| *code == self.0).map_or("undefined error", |(_, name)| name);
        write!(f, "{name} (CMDSTS {:#04x})", self.0)
    }
}

/// Who may give commands, of all that share a device.
#[derive(Debug, Default)]
pub(super) struct Desk(AtomicBool);

impl Desk {
    /// Takes the desk when nobody has it.
    pub(super) fn take(&self) -> bool {
        self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Gives it back: the device is done with the command.
    pub(super) fn leave(&self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_queue_is_named_by_number_or_by_a_bit_of_sixteen() {
        assert_eq!(Command::EnableQueue(37).word(), 6 << 20 | 37);
        assert_eq!(Command::DisableQueue(37).word(), 7 << 20 | 2 << 16 | 1 << 5);
        assert_eq!(Command::AbortQueue(0).word(), 9 << 20 | 1);
        assert_eq!(CommandError(0x12).to_string(), "it may not master the bus (CMDSTS 0x12)");
        assert_eq!(CommandError(0x77).to_string(), "undefined error (CMDSTS 0x77)");
    }
}
