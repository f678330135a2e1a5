//! Ways in which the model can lie, each with a name.

pub use crate::fault::{Chaos, UnknownFault};

crate::fault::named_faults! {
    /// A used entry names a buffer number beyond the ring.
    UsedIdOutOfRange = "used-id-out-of-range",
    /// A used entry names a buffer that the device does not hold.
    UsedIdNotOutstanding = "used-id-not-outstanding",
    /// The same buffer is reported used twice.
    UsedIdTwice = "used-id-twice",
    /// A receive length larger than the buffer.
    LengthTooBig = "length-too-big",
    /// A receive length of all ones.
    LengthHuge = "length-huge",
    /// A receive length smaller than the header.
    LengthTooSmall = "length-too-small",
    /// A receive length of zero.
    LengthZero = "length-zero",
    /// The used position jumps beyond what the driver made available.
    UsedIndexJumps = "used-index-jumps",
    /// The used position runs backwards.
    UsedIndexBackwards = "used-index-backwards",
    /// Buffers are taken and never given back.
    DoneNever = "done-never",
    /// The device asks for a reset in the middle of traffic.
    NeedsReset = "needs-reset",
    /// The offered features differ from read to read.
    FeaturesChange = "features-change",
    /// The offered features lack what every modern device has.
    FeaturesNone = "features-none",
    /// The size of queues differs from read to read.
    QueueSizeChanges = "queue-size-changes",
    /// All queues have size zero.
    QueueSizeZero = "queue-size-zero",
    /// The size of queues is no power of two.
    QueueSizeOdd = "queue-size-odd",
    /// The size of queues is the largest number there is.
    QueueSizeHuge = "queue-size-huge",
    /// The device has no queues.
    QueuesNone = "queues-none",
    /// A queue reads back as not enabled.
    QueueNeverEnabled = "queue-never-enabled",
    /// The list of PCI capabilities runs in a circle.
    CapabilityLoop = "capability-loop",
    /// A PCI capability pointer leads outside the header.
    CapabilityPointerWild = "capability-pointer-wild",
    /// A capability names a structure outside its BAR.
    CapabilityOutside = "capability-outside",
    /// A capability names a BAR that does not exist.
    CapabilityBarWrong = "capability-bar-wrong",
    /// A capability says that its structure has no bytes.
    CapabilityLengthZero = "capability-length-zero",
    /// There are no virtio capabilities.
    CapabilitiesMissing = "capabilities-missing",
    /// The doorbells lie outside the window.
    NotifyOffsetHuge = "notify-offset-huge",
    /// `num_buffers` is zero.
    NumBuffersZero = "num-buffers-zero",
    /// `num_buffers` is all ones.
    NumBuffersHuge = "num-buffers-huge",
    /// `num_buffers` is one more than arrive.
    NumBuffersMore = "num-buffers-more",
    /// The frame header has nonsense in its segmentation fields.
    HeaderSegmentation = "header-segmentation",
    /// The frame header has a checksum beyond the frame.
    HeaderChecksum = "header-checksum",
    /// The status register never reads zero after a reset.
    ResetNeverDone = "reset-never-done",
    /// The device refuses the features.
    FeaturesRefused = "features-refused",
    /// The device is gone: all ones from every register, and nothing happens.
    Removed = "removed",
    /// The device is gone from the start.
    Absent = "absent",
    /// The configuration generation changes at every read.
    GenerationNeverSettles = "generation-never-settles",
    /// Control commands are taken and never answered.
    ControlNeverAnswers = "control-never-answers",
    /// Control commands are answered with a number that is no answer.
    ControlGarbage = "control-garbage",
    /// Control commands are all refused.
    ControlRefuses = "control-refuses",
    /// Interrupt vectors are refused.
    VectorRefused = "vector-refused",
    /// Interrupts do not arrive.
    InterruptsLost = "interrupts-lost",
    /// Interrupts arrive all the time.
    InterruptsStorm = "interrupts-storm",
    /// The device writes over ring words that belong to the driver.
    RingOverwritten = "ring-overwritten",
    /// The MTU is nonsense.
    MtuZero = "mtu-zero",
    /// The number of queue pairs is nonsense.
    PairsZero = "pairs-zero",
    /// The number of queue pairs exceeds the queues.
    PairsHuge = "pairs-huge",
    /// The MAC address is a group address.
    MacGroup = "mac-group",
}

/// When a fault of the data path strikes: after this many buffers. The first ones are honest, so that the driver is up.
pub(super) const STRIKES_AFTER: u64 = 5;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_fault_reads_back_from_its_name() {
        for fault in Fault::ALL {
            assert_eq!(fault.to_string().parse::<Fault>().unwrap(), *fault);
        }
        assert!("honest".parse::<Fault>().is_err());
    }
}
