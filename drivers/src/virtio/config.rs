//! The device configuration of a network device (virtio 1.3, section 5.1.4).

use super::features::Features;
use super::transport::Transport;
use crate::nic::{LinkStatus, MacAddress, NicError};
use crate::register::{ReadOnly, Reg};

const MAC: [Reg<u8, ReadOnly>; 6] = [Reg::at(0), Reg::at(1), Reg::at(2), Reg::at(3), Reg::at(4), Reg::at(5)];
const STATUS: Reg<u16, ReadOnly> = Reg::at(6);
const MAX_VIRTQUEUE_PAIRS: Reg<u16, ReadOnly> = Reg::at(8);
const MTU: Reg<u16, ReadOnly> = Reg::at(10);
const SPEED: Reg<u32, ReadOnly> = Reg::at(12);
const DUPLEX: Reg<u8, ReadOnly> = Reg::at(16);
const RSS_MAX_KEY_SIZE: Reg<u8, ReadOnly> = Reg::at(17);
const RSS_MAX_INDIRECTION_TABLE_LENGTH: Reg<u16, ReadOnly> = Reg::at(18);
const SUPPORTED_HASH_TYPES: Reg<u32, ReadOnly> = Reg::at(20);

/// `status`: the link is up.
const LINK_UP: u16 = 1;
/// `status`: the driver is asked to announce itself.
const ANNOUNCE: u16 = 2;
/// The largest speed that is one; anything above means unknown.
const MOST_SPEED: u32 = 0x7fff_ffff;
/// Smallest MTU of IPv4, and of this specification (5.1.4.1).
const LEAST_MTU: u16 = 68;
/// Most queue pairs (5.1.4.1).
const MOST_PAIRS: u16 = 0x8000;
/// How often the configuration may change while it is read, before that is called a fault.
const TRIES: usize = 16;

/// Limits for spreading flows over queues (5.1.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Spreading {
    /// Longest hash key in bytes.
    pub(super) key_size: u8,
    /// Longest indirection table, in entries.
    pub(super) table_length: u16,
    /// What the device can hash.
    pub(super) hash_types: u32,
}

/// A consistent copy of the device configuration; fields that no negotiated feature backs have their defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DeviceConfig {
    /// Ethernet address.
    pub(super) mac: Option<MacAddress>,
    /// The link. Up when the device does not say.
    pub(super) link: LinkStatus,
    /// The device asks for an announcement.
    pub(super) announce: bool,
    /// Queue pairs, at least one.
    pub(super) pairs: u16,
    /// Largest payload of a frame.
    pub(super) mtu: Option<u16>,
    /// Limits for spreading.
    pub(super) spreading: Spreading,
}

impl DeviceConfig {
    /// Reads the configuration between two equal generations (2.5.1, 4.1.4.3.1).
    pub(super) fn read(transport: &impl Transport, features: Features) -> Result<Self, NicError> {
        for _ in 0..TRIES {
            let before = transport.generation();
            let config = Self::read_once(transport, features);
            if transport.generation() == before {
                return config.check(transport);
            }
        }
        Err(transport.misbehaves("its configuration changes faster than it can be read"))
    }

    fn read_once(transport: &impl Transport, features: Features) -> Self {
        let when = |feature| features.contains(feature);
        let status = if when(Features::STATUS) { transport.load(&STATUS) } else { LINK_UP };
        let speed = if when(Features::SPEED_DUPLEX) { transport.load(&SPEED) } else { u32::MAX };
        let duplex = if when(Features::SPEED_DUPLEX) { transport.load(&DUPLEX) } else { u8::MAX };
        let several = features.intersects(Features::MQ | Features::RSS);
        let hashes = features.intersects(Features::RSS | Features::HASH_REPORT);
        Self {
            mac: when(Features::MAC).then(|| MacAddress(MAC.each_ref().map(|octet| transport.load(octet)))),
            link: LinkStatus {
                up: status & LINK_UP != 0,
                speed_mbps: (1..=MOST_SPEED).contains(&speed).then_some(speed),
                full_duplex: (duplex <= 1).then_some(duplex == 1),
                flow_control: None,
            },
            announce: when(Features::GUEST_ANNOUNCE) && status & ANNOUNCE != 0,
            pairs: if several { transport.load(&MAX_VIRTQUEUE_PAIRS) } else { 1 },
            mtu: when(Features::MTU).then(|| transport.load(&MTU)),
            spreading: if hashes {
                Spreading {
                    key_size: transport.load(&RSS_MAX_KEY_SIZE),
                    table_length: transport.load(&RSS_MAX_INDIRECTION_TABLE_LENGTH),
                    hash_types: transport.load(&SUPPORTED_HASH_TYPES),
                }
            } else {
                Spreading::default()
            },
        }
    }

    fn check(self, transport: &impl Transport) -> Result<Self, NicError> {
        if self.pairs == 0 || self.pairs > MOST_PAIRS {
            return Err(transport.misbehaves(alloc::format!("it claims {} queue pairs", self.pairs)));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < LEAST_MTU) {
            return Err(transport.misbehaves(alloc::format!("it claims an MTU of {mtu}")));
        }
        // A group address or none at all is nobody's own.
        let mac = self.mac.filter(|mac| mac.0[0] & 1 == 0 && mac.0 != [0; 6]);
        Ok(Self { mac, ..self })
    }
}
