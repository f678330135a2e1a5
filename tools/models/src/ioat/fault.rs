//! Ways in which the engine can lie, each with a name.

use super::errors::Errors;
use crate::plan::{Lie, When};

crate::fault::named_faults! {
    /// Completions are written a millisecond after the copies.
    CompleteLate = "complete-late",
    /// Completions are gathered: one write and one interrupt for sixteen descriptors, or for what there is after a millisecond.
    CompleteBurst = "complete-burst",
    /// The completion is written before the bytes.
    CompleteEarly = "complete-early",
    /// The completion is not written.
    CompleteNever = "complete-never",
    /// The completion names address 0.
    CompletionZero = "completion-zero",
    /// The completion names an address far away from all descriptors.
    CompletionWild = "completion-wild",
    /// The completion names the descriptor that was completed before.
    CompletionStale = "completion-stale",
    /// The completion names the descriptor after the one that is done, submitted or not.
    CompletionAhead = "completion-ahead",
    /// The completion is all ones.
    CompletionOnes = "completion-ones",
    /// The completion has a reserved number as its state.
    CompletionState = "completion-state",
    /// A copy is reported done and nothing was copied.
    CopySkipped = "copy-skipped",
    /// The last byte of a copy is wrong.
    CopyWrong = "copy-wrong",
    /// Half of a copy is done, then the channel halts with a write error.
    CopyPartial = "copy-partial",
    /// The channel halts: illegal source address.
    ErrorSourceAddress = "error-source-address",
    /// The channel halts: illegal destination address.
    ErrorTargetAddress = "error-destination-address",
    /// The channel halts after the copy: illegal next descriptor address.
    ErrorNextAddress = "error-next-address",
    /// The channel halts: descriptor error.
    ErrorDescriptor = "error-descriptor",
    /// The channel halts: illegal chain address.
    ErrorChainAddress = "error-chain-address",
    /// The channel halts: invalid command.
    ErrorCommand = "error-command",
    /// The channel halts after half of the copy: data integrity error of the chipset.
    ErrorChipsetIntegrity = "error-chipset-integrity",
    /// The channel halts after half of the copy: data integrity error of the engine.
    ErrorEngineIntegrity = "error-engine-integrity",
    /// The channel halts: read error.
    ErrorRead = "error-read",
    /// The channel halts: write error.
    ErrorWrite = "error-write",
    /// The channel halts: illegal control field.
    ErrorControl = "error-control",
    /// The channel halts: illegal length.
    ErrorLength = "error-length",
    /// The channel halts after the copy, without a completion: illegal completion address.
    ErrorCompletionAddress = "error-completion-address",
    /// The channel halts after the completion: interrupts are not configured.
    ErrorInterrupt = "error-interrupt",
    /// A soft error is reported and nothing is wrong.
    ErrorSoft = "error-soft",
    /// An error that belongs to no channel; it halts one that is to abort at any error.
    ErrorUnaffiliated = "error-unaffiliated",
    /// The channel halts after the copy: P parity or CRC.
    ErrorParityP = "error-parity-p",
    /// The channel halts after the copy: Q parity.
    ErrorParityQ = "error-parity-q",
    /// The channel halts: descriptor count.
    ErrorCount = "error-count",
    /// The channel halts with a bit that is not defined.
    ErrorReserved = "error-reserved",
    /// The channel halts and reports no error.
    Halt = "halt",
    /// The channel halts in the middle of a copy and reports no error.
    HaltPartial = "halt-partial",
    /// The channel halts and neither writes nor interrupts.
    HaltSilent = "halt-silent",
    /// The channel stays active and does nothing any more, until a reset.
    Hang = "hang",
    /// The channel is never suspended.
    SuspendStuck = "suspend-stuck",
    /// A reset never ends.
    ResetNeverDone = "reset-never-done",
    /// The channel stays halted whatever is written.
    ArmNever = "arm-never",
    /// The channel resets itself.
    ResetSpontaneous = "reset-spontaneous",
    /// CHANSTS reads all ones.
    StatusOnes = "status-ones",
    /// Stores of 64 bits write the lower half alone.
    StoreNarrow = "store-narrow",
    /// All memory is gone for the engine.
    DmaRefused = "dma-refused",
    /// The engine also reads at 0xdeadd000, where nothing is mapped.
    DmaStray = "dma-stray",
    /// The engine is pulled out: all ones from every register.
    Removed = "removed",
    /// The engine does not answer from the start.
    Absent = "absent",
    /// Interrupts do not arrive.
    InterruptsLost = "interrupts-lost",
    /// Interrupts arrive all the time.
    InterruptsStorm = "interrupts-storm",
    /// CHANCNT is 0.
    ChannelsNone = "channels-none",
    /// CHANCNT is 31, and the registers of most are reserved.
    ChannelsMany = "channels-many",
    /// XFERCAP is 0.
    LongestZero = "longest-zero",
    /// CBVER is 2.0.
    VersionOld = "version-old",
}

/// Descriptors before a fault that needs some strikes, unless asked otherwise.
const HONEST: u64 = 5;

impl Lie for Fault {
    type Error = Errors;

    /// The error that halts the channel.
    fn error(self) -> Option<Errors> {
        Some(match self {
            Self::ErrorSourceAddress => Errors::SOURCE_ADDRESS,
            Self::ErrorTargetAddress => Errors::TARGET_ADDRESS,
            Self::ErrorNextAddress => Errors::NEXT_ADDRESS,
            Self::ErrorDescriptor => Errors::DESCRIPTOR,
            Self::ErrorChainAddress => Errors::CHAIN_ADDRESS,
            Self::ErrorCommand => Errors::COMMAND,
            Self::ErrorChipsetIntegrity => Errors::CHIPSET_INTEGRITY,
            Self::ErrorEngineIntegrity => Errors::ENGINE_INTEGRITY,
            Self::ErrorRead => Errors::READ,
            Self::ErrorWrite | Self::CopyPartial => Errors::WRITE,
            Self::ErrorControl => Errors::CONTROL,
            Self::ErrorLength => Errors::LENGTH,
            Self::ErrorCompletionAddress => Errors::COMPLETION_ADDRESS,
            Self::ErrorInterrupt => Errors::INTERRUPT,
            Self::ErrorUnaffiliated => Errors::UNAFFILIATED,
            Self::ErrorParityP => Errors::PARITY_P,
            Self::ErrorParityQ => Errors::PARITY_Q,
            Self::ErrorCount => Errors::COUNT,
            Self::ErrorReserved => Errors::RESERVED,
            Self::Halt | Self::HaltPartial | Self::HaltSilent => Errors::empty(),
            _ => return None,
        })
    }

    fn usually(self) -> When {
        match self {
            Self::SuspendStuck
            | Self::ResetNeverDone
            | Self::ArmNever
            | Self::StoreNarrow
            | Self::Absent
            | Self::InterruptsLost
            | Self::InterruptsStorm
            | Self::ChannelsNone
            | Self::ChannelsMany
            | Self::LongestZero
            | Self::VersionOld => When::From(0),
            Self::Hang | Self::ErrorSoft | Self::ResetSpontaneous => When::Once(HONEST),
            _ if self.error().is_some() => When::Once(HONEST),
            _ => When::From(HONEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_fault() {
        let page = include_str!("../../../../docs/copy-engine.md");
        for fault in Fault::ALL {
            assert!(page.contains(&format!("| `{fault}` |")), "{fault}");
        }
    }
}
