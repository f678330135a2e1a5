//! MDIO (8.2.3.22.11) and the copper PHY of the X540 and X550 behind it (IEEE 802.3 clause 45).
//!
//! On a card with a cage nobody answers: reads give all ones.

use std::collections::BTreeMap;

use super::config::{Kind, Speed};
use super::registers::{MSCA, MSRWD};

/// MSCA: the command runs while this bit is set; operation, port, device (8.2.3.22.11).
const RUN: u32 = 1 << 30;
const OPERATION_SHIFT: u32 = 26;
const ADDRESS: u32 = 0;
const WRITE: u32 = 1;
const READ_NEXT: u32 = 2;
const READ: u32 = 3;
/// Old frames (clause 22).
const OLD: u32 = 1 << 28;

/// Devices of the PHY: medium, interface to the MAC, negotiation, vendor.
const MEDIUM: u8 = 1;
const CODING: u8 = 3;
const INTERFACE: u8 = 4;
const NEGOTIATION: u8 = 7;
const VENDOR: u8 = 30;
/// What is advertised, of the device for negotiation: 100 Mb/s (bit 8), 10 Gb/s (bit 12), and, in the vendor's register, 1 Gb/s (bit 15).
const ADVERTISED_100M: u16 = 0x10;
const ADVERTISED_10G: u16 = 0x20;
const ADVERTISED_1G: u16 = 0xc400;
/// Control 1: reset. Negotiation control: restart. Both clear themselves.
const RESET: u16 = 1 << 15;
const RESTART: u16 = 1 << 9;

/// The management interface and the PHY.
#[derive(Debug)]
pub(super) struct Mdio {
    kind: Kind,
    partner: Speed,
    command: u32,
    data: u32,
    place: u16,
    /// What is not as it was at power on.
    stored: BTreeMap<(u8, u16), u16>,
    /// The driver restarted the negotiation.
    restarted: bool,
}

impl Mdio {
    pub(super) fn new(kind: Kind, partner: Speed) -> Self {
        Self { kind, partner, command: 0, data: 0, place: 0, stored: BTreeMap::new(), restarted: false }
    }

    /// Whether the driver restarted the negotiation since it was asked last.
    pub(super) fn take_restart(&mut self) -> bool {
        std::mem::take(&mut self.restarted)
    }

    /// What both sides can do: the fastest speed that is advertised here and not above that of the partner.
    pub(super) fn agreed(&self) -> Option<Speed> {
        [
            (Speed::TenGigabit, ADVERTISED_10G, 1 << 12),
            (Speed::Gigabit, ADVERTISED_1G, 1 << 15),
            (Speed::Megabits100, ADVERTISED_100M, 1 << 8),
        ]
        .into_iter()
        .find(|(speed, at, bit)| *speed <= self.partner && self.word(NEGOTIATION, *at, false) & bit != 0)
        .map(|(speed, ..)| speed)
    }

    pub(super) fn load(&self, offset: u32) -> u32 {
        if offset == MSCA.offset { self.command } else { self.data }
    }

    pub(super) fn store(&mut self, offset: u32, value: u32, up: bool) {
        if offset == MSRWD.offset {
            self.data = value & 0xffff | self.data & 0xffff_0000;
        } else if offset == MSCA.offset {
            // Done at once.
            self.command = value & !RUN;
            if value & RUN != 0 {
                self.run(value, up);
            }
        }
    }

    fn run(&mut self, command: u32, up: bool) {
        let [low, high, ..] = command.to_le_bytes();
        let device = u8::try_from(command >> 16 & 0x1f).unwrap_or(0);
        let answers = self.kind.is_copper() && command >> 21 & 0x1f == 0 && command & OLD == 0;
        match command >> OPERATION_SHIFT & 3 {
            ADDRESS => self.place = u16::from_le_bytes([low, high]),
            WRITE => {
                let [low, high, ..] = self.data.to_le_bytes();
                if answers {
                    self.write(device, u16::from_le_bytes([low, high]));
                }
            }
            operation @ (READ | READ_NEXT) => {
                let value = if answers { self.read(device, up) } else { 0xffff };
                self.data = self.data & 0xffff | u32::from(value) << 16;
                if operation == READ_NEXT {
                    self.place = self.place.wrapping_add(1);
                }
            }
            _ => {}
        }
    }

    fn write(&mut self, device: u8, value: u16) {
        if !is_there(device) {
            return;
        }
        let cleared = match (device, self.place) {
            (MEDIUM | CODING | INTERFACE, 0) => RESET,
            (NEGOTIATION, 0) => {
                self.restarted |= value & RESTART != 0;
                RESET | RESTART
            }
            _ => 0,
        };
        self.stored.insert((device, self.place), value & !cleared);
    }

    fn read(&self, device: u8, up: bool) -> u16 {
        self.word(device, self.place, up)
    }

    fn word(&self, device: u8, at: u16, up: bool) -> u16 {
        if !is_there(device) {
            return 0xffff;
        }
        let linked = |bit: u16| if up { bit } else { 0 };
        let place = (device, at);
        if let Some(value) = self.stored.get(&place) {
            return *value;
        }
        match place {
            // Identifier.
            (_, 2) => 0x0154,
            (_, 3) => {
                if self.kind == Kind::X540 {
                    0x0200
                } else {
                    0x0223
                }
            }
            // Abilities of speed: 10 Gb/s, 1 Gb/s, 100 Mb/s.
            (MEDIUM, 4) => 0x0031,
            // Devices in the package: medium, coding, interface, negotiation.
            (_, 5) => 0x009a,
            // Status 1: link; of the negotiation: complete too.
            (NEGOTIATION, 1) => linked(0x24) | 0x09,
            (_, 1) => linked(0x04),
            // Status 2: the device is present.
            (MEDIUM | CODING | INTERFACE, 8) => 0x8000,
            // Negotiation enabled; what is advertised; what the partner can do.
            (NEGOTIATION, 0) => 0x3000,
            (NEGOTIATION, ADVERTISED_100M) => 0x0de1,
            (NEGOTIATION, 0x13) => linked(0x4de1),
            (NEGOTIATION, ADVERTISED_10G) => 0x1001,
            (NEGOTIATION, ADVERTISED_1G) => 0x8000,
            (NEGOTIATION, 0x21) => linked(if self.partner == Speed::TenGigabit { 0x0800 } else { 0 }),
            // Vendor's status: link and speed.
            (NEGOTIATION, 0xc800) => linked(match self.agreed() {
                Some(Speed::Megabits100) => 0x3,
                Some(Speed::Gigabit) => 0x5,
                Some(Speed::TenGigabit) | None => 0x7,
            }),
            _ => 0,
        }
    }
}

/// The PHY has this device.
const fn is_there(device: u8) -> bool {
    matches!(device, MEDIUM | CODING | INTERFACE | NEGOTIATION | VENDOR)
}
