//! Counters of one queue.

/// Why a packet was dropped or cut off. Each reason is counted on its own and prints as its counter's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
#[non_exhaustive]
pub enum DropReason {
    /// The outgoing queue stayed full.
    Full,
    /// No free packet buffer.
    NoBuffer,
    /// Longer than the port can carry.
    TooLong,
    /// The device or peer claimed a length that cannot be.
    BadLength,
    /// The card saw that the frame was damaged on the wire.
    Damaged,
    /// The device or peer named a buffer that it does not hold.
    BadIndex,
    /// The offload header in front of the packet contradicts the packet.
    BadHeader,
    /// No room in front of the packet for the device's header.
    NoHeadroom,
    /// The packet wants an offload that the port lacks.
    NoOffload,
    /// The operating system refused the packet.
    System,
    /// The port was stopping.
    Stopped,
}

impl DropReason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 11] = [
        Self::Full,
        Self::NoBuffer,
        Self::TooLong,
        Self::BadLength,
        Self::Damaged,
        Self::BadIndex,
        Self::BadHeader,
        Self::NoHeadroom,
        Self::NoOffload,
        Self::System,
        Self::Stopped,
    ];

    /// The counter's name, without direction: `bad_length` appears as `rx_bad_length` or `tx_bad_length`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "queue_full",
            Self::NoBuffer => "no_buffer",
            Self::TooLong => "too_long",
            Self::BadLength => "bad_length",
            Self::Damaged => "damaged",
            Self::BadIndex => "bad_index",
            Self::BadHeader => "bad_header",
            Self::NoHeadroom => "no_headroom",
            Self::NoOffload => "no_offload",
            Self::System => "system",
            Self::Stopped => "stopped",
        }
    }
}

/// Counters of one queue in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Packets received or sent.
    pub packets: u64,
    /// Their bytes, without frame check sequence and without device headers.
    pub bytes: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// Counts `packets` drops for `reason`.
    pub fn drop_packets(&mut self, reason: DropReason, packets: u64) {
        if let Some(counter) = self.drops.get_mut(reason as usize) {
            *counter = counter.wrapping_add(packets);
        }
    }

    /// Packets dropped for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or(0)
    }

    /// Packets dropped for any reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.drops.iter().sum()
    }
}
