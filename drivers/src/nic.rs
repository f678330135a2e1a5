//! What a network card offers to the packet path: queues, and a handle for everything that is slow.

use alloc::vec::Vec;
use core::fmt;

use hugemem::Batch;

use crate::bus::BusError;

/// Receives packets from one queue of one port. Owned by one engine thread at a time.
pub trait RxQueue: Send {
    /// Appends received packets to `batch`, at most as many as it has room for, and returns how many.
    /// Never blocks and never allocates.
    fn receive(&mut self, batch: &mut Batch) -> usize;

    /// Asks for an interrupt at the next packet. `false` when packets are already waiting (or the queue has no
    /// interrupt): poll again instead of sleeping.
    ///
    /// `true` is a promise that no packet comes without a wake-up. From a queue that was handed out with nothing to
    /// wake its owner by it means that nothing will ever come: the owner may sleep on it for good.
    fn arm(&mut self) -> bool {
        false
    }

    /// Takes back [`RxQueue::arm`]: no interrupts while polling.
    fn disarm(&mut self) {}

    /// What has been counted since the queue was made.
    fn counters(&self) -> Counters;
}

/// Sends packets on one queue of one port. Owned by one engine thread at a time.
pub trait TxQueue: Send {
    /// Takes packets from the front of `batch`, in order, and sends them; returns how many it took. What stays in `batch` was
    /// not sent because the queue is full. A packet that can never be sent is taken, dropped and counted.
    fn transmit(&mut self, batch: &mut Batch) -> usize;

    /// Takes back packets that the device has finished with, and sends what the queue had to hold back. Returns how many packets are
    /// still underway. Called when the port is otherwise idle.
    fn reclaim(&mut self) -> usize {
        0
    }

    /// What has been counted since the queue was made.
    fn counters(&self) -> Counters;
}

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
    pub const ALL: [Self; 10] = [
        Self::Full,
        Self::NoBuffer,
        Self::TooLong,
        Self::BadLength,
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

/// A 48-bit Ethernet address. Prints as `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text was no Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an Ethernet address (expected 52:54:00:12:34:56)")]
pub struct NotMacAddress;

impl core::str::FromStr for MacAddress {
    type Err = NotMacAddress;

    fn from_str(text: &str) -> Result<Self, NotMacAddress> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+')).ok_or(NotMacAddress)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| NotMacAddress)?;
        }
        if parts.next().is_some() { Err(NotMacAddress) } else { Ok(Self(octets)) }
    }
}

/// State of the link.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LinkStatus {
    /// Frames can pass.
    pub up: bool,
    /// Megabits per second, when the device knows.
    pub speed_mbps: Option<u32>,
    /// Full duplex, when the device knows.
    pub full_duplex: Option<bool>,
}

bitflags::bitflags! {
    /// What a port's hardware does for the packet path. What is missing is done in software or refused.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Offloads: u32 {
        /// Received packets carry a verdict on their checksums.
        const RX_CHECKSUM = 1 << 0;
        /// Completes a partial checksum on transmit.
        const TX_CHECKSUM = 1 << 1;
        /// Cuts TCP over IPv4 into segments on transmit.
        const TSO4 = 1 << 2;
        /// Cuts TCP over IPv6 into segments on transmit.
        const TSO6 = 1 << 3;
        /// Cuts UDP into datagrams on transmit.
        const USO = 1 << 4;
        /// Receives TCP over IPv4 segments larger than the MTU.
        const LRO4 = 1 << 5;
        /// Receives TCP over IPv6 segments larger than the MTU.
        const LRO6 = 1 << 6;
        /// Spreads flows over receive queues by a hash.
        const RSS = 1 << 7;
        /// Accepts TCP segments marked with ECN for cutting.
        const TSO_ECN = 1 << 8;
        /// Receives UDP datagrams larger than the MTU.
        const URO = 1 << 9;
    }
}

/// What a driver can report when something fails on its device.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NicError {
    /// The bus failed.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// No driver here knows this device, or it is of a kind that the driver cannot serve.
    #[error("{device}: {reason}")]
    Unsupported {
        /// The device.
        device: alloc::string::String,
        /// A sentence saying why, and what to do.
        reason: alloc::string::String,
    },
    /// The device broke its own rules.
    #[error("{device}: the device misbehaves: {reason}")]
    Device {
        /// The device.
        device: alloc::string::String,
        /// What it did.
        reason: alloc::string::String,
    },
    /// A wait came to its deadline.
    #[error("{device}: gave up waiting {milliseconds} ms for {what}")]
    Timeout {
        /// The device.
        device: alloc::string::String,
        /// What was awaited.
        what: &'static str,
        /// How long was waited.
        milliseconds: u64,
    },
    /// The caller asked for something that cannot be.
    #[error("{device}: {reason}")]
    Request {
        /// The device.
        device: alloc::string::String,
        /// A sentence saying what is wrong and what is possible.
        reason: alloc::string::String,
    },
    /// The memory given to the driver does not suffice.
    #[error("{device}: out of DMA memory: {source}")]
    Memory {
        /// The device.
        device: alloc::string::String,
        /// What was asked for.
        source: hugemem::OutOfMemory,
    },
}

/// A receive queue and a transmit queue that one engine serves together, with the interrupt of the receive queue when there is one.
#[derive(Debug)]
pub struct QueuePair<Rx, Tx, Interrupt> {
    /// The receive half.
    pub rx: Rx,
    /// The transmit half.
    pub tx: Tx,
    /// Signalled when the armed receive queue has packets.
    pub interrupt: Option<Interrupt>,
}

/// A network card after its driver brought it up: everything but the packet path.
pub trait Nic: Send {
    /// Receive half of a queue pair.
    type Rx: RxQueue + 'static;
    /// Transmit half of a queue pair.
    type Tx: TxQueue + 'static;
    /// Interrupt of a queue pair.
    type Interrupt: Send + 'static;

    /// The device's name, for messages.
    fn name(&self) -> &str;
    /// Its Ethernet address.
    fn mac(&self) -> MacAddress;
    /// Largest payload of an Ethernet frame, in bytes.
    fn mtu(&self) -> u16;
    /// State of the link, read now.
    fn link(&mut self) -> LinkStatus;
    /// What the hardware does for us.
    fn offloads(&self) -> Offloads;
    /// Starts the device and hands out its queue pairs.
    ///
    /// # Errors
    /// When the device does not come up in time or breaks its rules; it is reset then.
    #[expect(clippy::type_complexity, reason = "naming the tuple would hide which associated types it is made of")]
    fn start(&mut self) -> Result<Vec<QueuePair<Self::Rx, Self::Tx, Self::Interrupt>>, NicError>;
    /// Stops the device, then takes the buffers back that it held. Queues that are not given back here leak their
    /// buffers, which is safe.
    ///
    /// # Errors
    /// When the device does not confirm the reset; its buffers then stay lent.
    fn stop(&mut self, queues: Vec<(Self::Rx, Self::Tx)>) -> Result<(), NicError>;
    /// Receives frames for every address (`true`) or only for its own and for groups.
    ///
    /// # Errors
    /// When the device refuses or does not answer.
    fn set_promiscuous(&mut self, enabled: bool) -> Result<(), NicError>;
    /// Checks the device's health: `Err` when it asks for a reset, is gone, broke a queue, or holds packets to send and
    /// gives none back. Called about once a second.
    ///
    /// # Errors
    /// What is wrong; the cure is [`Nic::stop`] and [`Nic::start`].
    fn check(&mut self) -> Result<(), NicError>;
}
