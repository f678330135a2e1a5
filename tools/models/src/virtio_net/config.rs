//! What a model is to be.

use drivers::nic::MacAddress;
use hugemem::IovaRange;

use super::fault::{Chaos, Fault};
use super::specification::Features;

/// Whether the driver has to ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Doorbells {
    /// The device looks at a queue only after its doorbell rang, as often as the specification demands it: a driver that
    /// forgets to ring stands still.
    Needed,
    /// The device polls and says so in the ring; a driver that rings all the same does no harm.
    #[default]
    Suppressed,
}

/// What happens to a frame for which the driver has no buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhenFull {
    /// It waits on the wire.
    #[default]
    Wait,
    /// It is dropped and counted.
    Drop,
}

/// Properties of a virtio-net card. Change the fields of [`Config::default`] as needed.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Name for messages.
    pub name: String,
    /// Features on offer.
    pub features: Features,
    /// Queue pairs, 1 to 32768. More than one needs [`Features::MQ`] or [`Features::RSS`].
    pub pairs: u16,
    /// Largest size of each queue.
    pub queue_size: u16,
    /// Ethernet address.
    pub mac: MacAddress,
    /// Largest payload of an Ethernet frame.
    pub mtu: u16,
    /// Megabits per second.
    pub speed: u32,
    /// Full duplex.
    pub full_duplex: bool,
    /// State of the link at first.
    pub link_up: bool,
    /// MSI-X vectors.
    pub vectors: u16,
    /// Whether the driver has to ring.
    pub doorbells: Doorbells,
    /// What happens to a frame for which the driver has no buffer.
    pub when_full: WhenFull,
    /// Drops what is for other addresses, unless the driver asks for all. Otherwise the card starts promiscuous.
    pub filtering: bool,
    /// Distance of doorbells in bytes: 0 (one for all queues), 4, 8 and so on.
    pub notify_multiplier: u32,
    /// The function has a reset of its own (FLR) beside the status register.
    pub function_reset: bool,
    /// With [`Features::IN_ORDER`], one used entry stands for a whole batch of transmitted frames.
    pub batch_in_order: bool,
    /// IOVAs that the IOMMU lets through.
    pub iova_ranges: Vec<IovaRange>,
    /// How the device lies.
    pub fault: Option<Fault>,
    /// How the device answers at random.
    pub chaos: Option<Chaos>,
}

impl Config {
    /// Everything that the model can do, but packed rings and in-order use, which change the rings.
    pub const USUAL: Features = Features::all()
        .difference(Features::RING_PACKED)
        .difference(Features::IN_ORDER)
        .difference(Features::NOTIFICATION_DATA)
        .difference(Features::HASH_REPORT);
}

impl Default for Config {
    /// One queue pair of 256 entries with all usual features, at 10 Gb/s, link up.
    fn default() -> Self {
        Self {
            name: "model".to_owned(),
            features: Self::USUAL,
            pairs: 1,
            queue_size: 256,
            mac: MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]),
            mtu: 1500,
            speed: 10_000,
            full_duplex: true,
            link_up: true,
            vectors: 8,
            doorbells: Doorbells::default(),
            when_full: WhenFull::default(),
            filtering: false,
            notify_multiplier: 4,
            function_reset: false,
            batch_in_order: true,
            iova_ranges: vec![
                IovaRange { first: 0, last: 0xfedf_ffff },
                IovaRange { first: 0xfef0_0000, last: (1 << 39) - 1 },
            ],
            fault: None,
            chaos: None,
        }
    }
}
