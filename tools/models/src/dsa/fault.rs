//! Ways in which the device can lie, each with a name.

use super::status::Status;
use crate::plan::{Lie, When};

crate::fault::named_faults! {
    /// Completion records are written a millisecond after the copies, and overtaken by others.
    CompleteLate = "complete-late",
    /// Completion records are gathered, up to sixteen, those of a batch, or those of a millisecond, and written in reverse.
    CompleteReverse = "complete-reverse",
    /// The completion record is written before the bytes.
    CompleteEarly = "complete-early",
    /// The completion record is not written, and no interrupt comes.
    CompleteNever = "complete-never",
    /// The completion record is all zeroes.
    CompletionZero = "completion-zero",
    /// The completion record is all ones.
    CompletionOnes = "completion-ones",
    /// The completion record has a status that does not exist.
    CompletionStatus = "completion-status",
    /// The completion record counts more bytes than there are.
    CompletionBytes = "completion-bytes",
    /// The completion record tells of a page fault at an address that nobody named.
    CompletionAddress = "completion-address",
    /// The completion record is written to 0xdeade000.
    CompletionWild = "completion-wild",
    /// The completion record is written over the one that was written before.
    CompletionOther = "completion-other",
    /// A copy is reported done and nothing was copied.
    CopySkipped = "copy-skipped",
    /// The last byte of a copy is wrong.
    CopyWrong = "copy-wrong",
    /// Half of a copy is done, then there is a page fault at its destination.
    CopyPartial = "copy-partial",
    /// The descriptor is forgotten.
    DescriptorLost = "descriptor-lost",
    /// Success, but the result is not the expected one (0x02).
    ErrorPredicate = "error-predicate",
    /// Page fault at the source, nothing done (0x03).
    ErrorPageFault = "error-page-fault",
    /// Page fault at the destination, nothing done (0x83).
    ErrorPageFaultWrite = "error-page-fault-write",
    /// Page request that was answered with no (0x04).
    ErrorPageResponse = "error-page-response",
    /// A descriptor of the batch did not succeed, and all have (0x05).
    ErrorBatch = "error-batch",
    /// Page fault when the descriptors of the batch were fetched, after half of them (0x06).
    ErrorBatchPageFault = "error-batch-page-fault",
    /// Unknown operation (0x10).
    ErrorOperation = "error-operation",
    /// Wrong flags (0x11).
    ErrorFlags = "error-flags",
    /// A reserved field is not zero (0x12).
    ErrorReserved = "error-reserved",
    /// Transfer size out of range (0x13).
    ErrorSize = "error-size",
    /// Number of descriptors out of range (0x14).
    ErrorCount = "error-count",
    /// Delta record size out of range (0x15).
    ErrorDeltaSize = "error-delta-size",
    /// Buffers overlap (0x16).
    ErrorOverlap = "error-overlap",
    /// Destinations that do not go together (0x17).
    ErrorDualcast = "error-dualcast",
    /// The list of descriptors is not aligned (0x18).
    ErrorListAlignment = "error-list-alignment",
    /// Wrong interrupt handle (0x19).
    ErrorInterruptHandle = "error-interrupt-handle",
    /// Page fault at the completion record, which is not written: SWERR tells (0x1a).
    ErrorRecordPageFault = "error-record-page-fault",
    /// The completion record is not aligned, and not written: SWERR tells (0x1b).
    ErrorRecordAlignment = "error-record-alignment",
    /// An address is not aligned (0x1c).
    ErrorAlignment = "error-alignment",
    /// Wrong privilege (0x1d).
    ErrorPrivilege = "error-privilege",
    /// Wrong traffic class (0x1e).
    ErrorTrafficClass = "error-traffic-class",
    /// Page fault when an address was read back (0x1f).
    ErrorReadbackPageFault = "error-readback-page-fault",
    /// Hardware error (0x20).
    ErrorHardware = "error-hardware",
    /// Hardware error when an address was read back (0x21).
    ErrorHardwareReadback = "error-hardware-readback",
    /// An address cannot be translated (0x22).
    ErrorTranslation = "error-translation",
    /// A status that does not exist (0x3f).
    ErrorUnknown = "error-unknown",
    /// The device halts; the command that resets it helps.
    Halt = "halt",
    /// The device halts in the middle of a copy.
    HaltPartial = "halt-partial",
    /// The device halts; only a reset of the function helps.
    HaltFunction = "halt-function",
    /// The device halts and does not interrupt.
    HaltSilent = "halt-silent",
    /// The queue stands still, until it is aborted or reset.
    Hang = "hang",
    /// The queue is disabled, with all that is in it.
    QueueDisabled = "queue-disabled",
    /// The device resets itself.
    ResetSpontaneous = "reset-spontaneous",
    /// A reset never ends.
    ResetNeverDone = "reset-never-done",
    /// Commands never end.
    CommandStuck = "command-stuck",
    /// Commands end with a hardware error.
    CommandFails = "command-fails",
    /// Commands that drain never end.
    DrainStuck = "drain-stuck",
    /// The device cannot be enabled.
    EnableRefused = "enable-refused",
    /// No queue can be enabled.
    QueueRefused = "queue-refused",
    /// Shared queues are always full.
    PortalRetry = "portal-retry",
    /// GENSTS reads all ones.
    StatusOnes = "status-ones",
    /// All memory is gone for the device.
    DmaRefused = "dma-refused",
    /// The device also reads at 0xdeadd000, where nothing is mapped.
    DmaStray = "dma-stray",
    /// The device is pulled out: all ones from every register.
    Removed = "removed",
    /// The device does not answer from the start.
    Absent = "absent",
    /// Interrupts do not arrive.
    InterruptsLost = "interrupts-lost",
    /// Interrupts arrive all the time.
    InterruptsStorm = "interrupts-storm",
    /// WQCAP has no queues.
    QueuesNone = "queues-none",
    /// WQCAP has 255 queues, and the registers of most are reserved.
    QueuesMany = "queues-many",
    /// WQCAP has no entries for its queues.
    EntriesNone = "entries-none",
    /// WQCAP has no dedicated mode.
    DedicatedNone = "dedicated-none",
    /// GRPCAP has no groups.
    GroupsNone = "groups-none",
    /// ENGCAP has no engines.
    EnginesNone = "engines-none",
    /// GENCAP's longest transfer is a byte, and its largest batch one descriptor.
    LimitsOne = "limits-one",
    /// GENCAP has no configuration: all of it is fixed.
    ConfigurationFixed = "configuration-fixed",
    /// OPCAP is empty.
    OperationsNone = "operations-none",
    /// OFFSETS points outside of the window.
    OffsetsWild = "offsets-wild",
    /// VERSION is 0.
    VersionZero = "version-zero",
}

/// Descriptors before a fault that needs some strikes, unless asked otherwise.
const HONEST: u64 = 5;

impl Lie for Fault {
    type Error = Status;

    /// The status that ends the descriptor.
    fn error(self) -> Option<Status> {
        Some(match self {
            Self::ErrorPredicate => Status::FALSE_PREDICATE,
            Self::ErrorPageFault | Self::ErrorPageFaultWrite | Self::CopyPartial => Status::PAGE_FAULT,
            Self::ErrorPageResponse => Status::PAGE_RESPONSE,
            Self::ErrorBatch => Status::BATCH,
            Self::ErrorBatchPageFault => Status::BATCH_PAGE_FAULT,
            Self::ErrorOperation => Status::OPERATION,
            Self::ErrorFlags => Status::FLAGS,
            Self::ErrorReserved => Status::RESERVED,
            Self::ErrorSize => Status::SIZE,
            Self::ErrorCount => Status::COUNT,
            Self::ErrorDeltaSize => Status::DELTA_SIZE,
            Self::ErrorOverlap => Status::OVERLAP,
            Self::ErrorDualcast => Status::DUALCAST,
            Self::ErrorListAlignment => Status::LIST_ALIGNMENT,
            Self::ErrorInterruptHandle => Status::INTERRUPT_HANDLE,
            Self::ErrorRecordPageFault => Status::RECORD_PAGE_FAULT,
            Self::ErrorRecordAlignment => Status::RECORD_ALIGNMENT,
            Self::ErrorAlignment => Status::ALIGNMENT,
            Self::ErrorPrivilege => Status::PRIVILEGE,
            Self::ErrorTrafficClass => Status::TRAFFIC_CLASS,
            Self::ErrorReadbackPageFault => Status::READBACK_PAGE_FAULT,
            Self::ErrorHardware => Status::HARDWARE,
            Self::ErrorHardwareReadback => Status::HARDWARE_READBACK,
            Self::ErrorTranslation => Status::TRANSLATION,
            Self::ErrorUnknown => Status(0x3f),
            _ => return None,
        })
    }

    fn usually(self) -> When {
        match self {
            Self::ResetNeverDone
            | Self::CommandStuck
            | Self::CommandFails
            | Self::DrainStuck
            | Self::EnableRefused
            | Self::QueueRefused
            | Self::PortalRetry
            | Self::Absent
            | Self::InterruptsLost
            | Self::InterruptsStorm
            | Self::QueuesNone
            | Self::QueuesMany
            | Self::EntriesNone
            | Self::DedicatedNone
            | Self::GroupsNone
            | Self::EnginesNone
            | Self::LimitsOne
            | Self::ConfigurationFixed
            | Self::OperationsNone
            | Self::OffsetsWild
            | Self::VersionZero => When::From(0),
            Self::DescriptorLost
            | Self::Halt
            | Self::HaltPartial
            | Self::HaltFunction
            | Self::HaltSilent
            | Self::Hang
            | Self::QueueDisabled
            | Self::ResetSpontaneous => When::Once(HONEST),
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
        let page = include_str!("../../../../docs/data-streaming-accelerator.md");
        for fault in Fault::ALL {
            assert!(page.contains(&format!("| `{fault}` |")), "{fault}");
        }
    }
}
