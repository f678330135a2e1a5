//! The registers: common configuration (section 4.1.4.3) and the network configuration (section 5.1.4).

use drivers::bus::Width;

use super::core::Core;
use super::fault::Fault;
use super::pci;
use super::specification::{Features, NO_VECTOR, status};

/// Registers of one queue.
#[derive(Clone, Debug)]
pub(super) struct QueueRegisters {
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    pub(super) descriptors: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
}

impl QueueRegisters {
    pub(super) fn new(size: u16) -> Self {
        Self { size, vector: NO_VECTOR, enabled: false, descriptors: 0, driver: 0, device: 0 }
    }
}

/// Registers of the whole device.
#[derive(Debug)]
pub(super) struct Registers {
    device_feature_select: u32,
    driver_feature_select: u32,
    pub(super) driver_features: u64,
    pub(super) config_vector: u16,
    pub(super) status: u8,
    generation: u8,
    /// The configuration changed since it was last read.
    changed: bool,
    queue_select: u16,
    pub(super) isr: u8,
}

impl Registers {
    pub(super) fn new() -> Self {
        Self {
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            status: 0,
            generation: 0,
            changed: false,
            queue_select: 0,
            isr: 0,
        }
    }

    /// The network configuration changes: a driver that reads it now sees another generation afterwards.
    pub(super) fn configuration_changed(&mut self) {
        self.changed = true;
    }

    pub(super) fn reset(&mut self) {
        *self = Self { generation: self.generation, changed: self.changed, ..Self::new() };
    }
}

/// Half of a 64-bit register.
fn half(value: u64, high: bool) -> u64 {
    if high { value >> 32 } else { value & 0xffff_ffff }
}

fn set_half(target: &mut u64, high: bool, value: u64) {
    let value = value & 0xffff_ffff;
    *target = if high { *target & 0xffff_ffff | value << 32 } else { *target & !0xffff_ffff | value };
}

impl Core {
    /// Reads `bytes` bytes at `offset` of the BAR with the structures.
    pub(super) fn load_register(&mut self, offset: u32, bytes: u32) -> u64 {
        if let Some(value) = self.trick.register_at_random(bytes) {
            return value;
        }
        if let Some(inside) = offset.checked_sub(pci::COMMON).filter(|inside| *inside < pci::COMMON_BYTES) {
            self.load_common(inside, bytes)
        } else if let Some(inside) = offset.checked_sub(pci::DEVICE).filter(|inside| *inside < pci::DEVICE_BYTES) {
            self.load_network(inside, bytes)
        } else if offset == pci::ISR {
            u64::from(std::mem::take(&mut self.registers.isr))
        } else {
            0
        }
    }

    fn load_common(&mut self, offset: u32, bytes: u32) -> u64 {
        let select = self.registers.queue_select;
        let queue = self.queues.get(usize::from(select)).map(|queue| queue.registers.clone());
        match (offset, bytes) {
            (0, 4) => self.registers.device_feature_select.into(),
            (4, 4) => self.offered_word(),
            (8, 4) => self.registers.driver_feature_select.into(),
            (12, 4) if self.registers.driver_feature_select < 2 => {
                half(self.registers.driver_features, self.registers.driver_feature_select == 1)
            }
            (12, 4) => 0,
            (16, 2) => self.registers.config_vector.into(),
            (18, 2) => match self.trick.fault {
                Some(Fault::QueuesNone) => 0,
                _ => self.queues.len() as u64,
            },
            (20, 1) => self.status_shown().into(),
            (21, 1) => self.generation_shown().into(),
            (22, 2) => select.into(),
            (24, 2) => queue.map_or(0, |queue| self.queue_size_shown(queue.size)).into(),
            (26, 2) => queue.map_or(NO_VECTOR, |queue| queue.vector).into(),
            (28, 2) => {
                queue.is_some_and(|queue| queue.enabled && self.trick.fault != Some(Fault::QueueNeverEnabled)).into()
            }
            (30, 2) if queue.is_some() => {
                if self.config.notify_multiplier == 0 {
                    0
                } else {
                    select.into()
                }
            }
            (32 | 36, 4) => queue.map_or(0, |queue| half(queue.descriptors, offset == 36)),
            (40 | 44, 4) => queue.map_or(0, |queue| half(queue.driver, offset == 44)),
            (48 | 52, 4) => queue.map_or(0, |queue| half(queue.device, offset == 52)),
            (30 | 56 | 58 | 60 | 62, 2) => 0,
            _ => {
                self.violation(format!("a read of {bytes} bytes at {offset} of the common configuration"));
                0
            }
        }
    }

    fn offered_word(&mut self) -> u64 {
        let mut offered = self.config.features.bits();
        match self.trick.fault {
            Some(Fault::FeaturesChange) => offered &= self.trick.random.bits() | (1 << 32) | (1 << 33),
            Some(Fault::FeaturesNone) => offered = 0,
            _ => {}
        }
        match self.registers.device_feature_select {
            0 => half(offered, false),
            1 => half(offered, true),
            _ => 0,
        }
    }

    fn status_shown(&self) -> u8 {
        match self.trick.fault {
            Some(Fault::ResetNeverDone) => self.registers.status | status::ACKNOWLEDGE | status::DRIVER,
            _ => self.registers.status,
        }
    }

    /// Section 4.1.4.3.1: a changed generation after a driver could have read a changed value.
    fn generation_shown(&mut self) -> u8 {
        if std::mem::take(&mut self.registers.changed) || self.trick.fault == Some(Fault::GenerationNeverSettles) {
            self.registers.generation = self.registers.generation.wrapping_add(1);
        }
        self.registers.generation
    }

    fn queue_size_shown(&mut self, size: u16) -> u16 {
        match self.trick.fault {
            Some(Fault::QueueSizeZero) => 0,
            Some(Fault::QueueSizeOdd) => 100,
            Some(Fault::QueueSizeHuge) => 0xffff,
            Some(Fault::QueueSizeChanges) => 1 << self.trick.random.below(16),
            _ => size,
        }
    }

    fn load_network(&mut self, offset: u32, bytes: u32) -> u64 {
        let natural = match offset {
            0..6 | 16 | 17 => 1,
            6 | 8 | 10 | 18 => 2,
            12 | 20 | 24 => 4,
            _ => 0,
        };
        if bytes != natural {
            self.violation(format!("a read of {bytes} bytes at {offset} of the network configuration"));
        }
        let fields = self.network_configuration();
        let start = offset as usize;
        let slice = fields.get(start..start + bytes as usize).unwrap_or(&[]);
        slice.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
    }

    fn network_configuration(&self) -> [u8; 32] {
        let mut fields = [0; 32];
        fields[..6].copy_from_slice(&self.net.mac);
        fields[6] = self.net.link_up.into();
        let mut pairs = self.config.pairs;
        let mut mtu = self.config.mtu;
        match self.trick.fault {
            Some(Fault::MacGroup) => fields[..6].fill(0xff),
            Some(Fault::MtuZero) => mtu = 0,
            Some(Fault::PairsZero) => pairs = 0,
            Some(Fault::PairsHuge) => pairs = 0xffff,
            _ => {}
        }
        fields[8..10].copy_from_slice(&pairs.to_le_bytes());
        fields[10..12].copy_from_slice(&mtu.to_le_bytes());
        fields[12..16].copy_from_slice(&self.net.speed.to_le_bytes());
        // The specification's text has two opposite numberings; Linux and QEMU have 1 for full.
        fields[16] = self.config.full_duplex.into();
        fields[17] = 40;
        fields[18..20].copy_from_slice(&128_u16.to_le_bytes());
        fields[20..24].copy_from_slice(&super::specification::hash::SUPPORTED.to_le_bytes());
        fields
    }

    /// Writes `bytes` bytes at `offset` of the BAR with the structures. Doorbells do not come here.
    pub(super) fn store_register(&mut self, offset: u32, bytes: u32, value: u64) {
        let Some(inside) = offset.checked_sub(pci::COMMON).filter(|inside| *inside < pci::COMMON_BYTES) else {
            self.violation(format!("a write of {bytes} bytes at {offset:#x} of the BAR, where nothing can be written"));
            return;
        };
        let short = u16::narrow(value);
        match (inside, bytes) {
            (0, 4) => self.registers.device_feature_select = u32::narrow(value),
            (8, 4) => self.registers.driver_feature_select = u32::narrow(value),
            (12, 4) => self.store_features(value),
            (16, 2) => self.registers.config_vector = self.vector_granted(short),
            (20, 1) => self.store_status(u8::narrow(value)),
            (22, 2) => self.registers.queue_select = short,
            (24..=52, _) => self.store_queue(inside, bytes, value),
            _ => self.violation(format!("a write of {bytes} bytes at {inside} of the common configuration")),
        }
    }

    fn store_features(&mut self, value: u64) {
        if self.registers.status & status::FEATURES_OK != 0 {
            self.violation("features written after FEATURES_OK".to_owned());
            return;
        }
        match self.registers.driver_feature_select {
            0 => set_half(&mut self.registers.driver_features, false, value),
            1 => set_half(&mut self.registers.driver_features, true, value),
            _ if value == 0 => {}
            _ => self.violation("feature bits beyond 63 accepted".to_owned()),
        }
    }

    fn vector_granted(&self, vector: u16) -> u16 {
        let refused = vector >= self.config.vectors || self.trick.fault == Some(Fault::VectorRefused);
        if refused { NO_VECTOR } else { vector }
    }

    fn store_queue(&mut self, offset: u32, bytes: u32, value: u64) {
        let select = self.registers.queue_select;
        let granted = self.vector_granted(u16::narrow(value));
        let packed = self.negotiated().contains(Features::RING_PACKED);
        let limit = self.config.queue_size;
        let Some(queue) = self.queues.get_mut(usize::from(select)) else {
            self.violation(format!("queue {select}, which does not exist, is set up"));
            return;
        };
        let registers = &mut queue.registers;
        if registers.enabled && offset != 26 {
            self.violation(format!("queue {select} is changed while it is enabled"));
            return;
        }
        match (offset, bytes) {
            (24, 2) => {
                let size = u16::narrow(value);
                if size == 0 || size > limit || !(packed || size.is_power_of_two()) {
                    self.violation(format!("queue {select} gets the size {size}"));
                } else {
                    registers.size = size;
                }
            }
            (26, 2) => registers.vector = granted,
            (28, 2) if value == 1 => {
                registers.enabled = true;
                if self.registers.status & status::FEATURES_OK == 0 {
                    self.violation(format!("queue {select} is enabled before FEATURES_OK"));
                }
            }
            (32 | 36, 4) => set_half(&mut registers.descriptors, offset == 36, value),
            (40 | 44, 4) => set_half(&mut registers.driver, offset == 44, value),
            (48 | 52, 4) => set_half(&mut registers.device, offset == 52, value),
            _ => {
                self.violation(format!("a write of {value:#x} ({bytes} bytes) at {offset} of the common configuration"))
            }
        }
    }

    /// Section 3.1.1.
    fn store_status(&mut self, value: u8) {
        if value == 0 {
            if self.trick.fault != Some(Fault::ResetNeverDone) {
                self.reset();
            }
            return;
        }
        let before = self.registers.status;
        if before & !status::NEEDS_RESET & !value != 0 {
            self.violation(format!("status bits cleared without a reset: {before:#x} to {value:#x}"));
        }
        let mut value = value & !status::NEEDS_RESET | before & status::NEEDS_RESET;
        let set = value & !before;
        if set & status::FEATURES_OK != 0
            && let Err(reason) = self.features_acceptable()
        {
            value &= !status::FEATURES_OK;
            if let Some(reason) = reason {
                self.violation(reason);
            }
        }
        if set & status::DRIVER_OK != 0 && value & status::FEATURES_OK == 0 {
            self.violation("DRIVER_OK without FEATURES_OK".to_owned());
            value &= !status::DRIVER_OK;
        }
        self.registers.status = value;
    }

    fn features_acceptable(&self) -> Result<(), Option<String>> {
        let accepted = self.registers.driver_features;
        if self.trick.fault == Some(Fault::FeaturesRefused) {
            return Err(None);
        }
        if accepted & !self.config.features.bits() != 0 {
            return Err(Some(format!(
                "features accepted that were not offered: {:#x}",
                accepted & !self.config.features.bits()
            )));
        }
        let accepted = Features::from_bits_truncate(accepted);
        for needed in [Features::VERSION_1, Features::ACCESS_PLATFORM] {
            if self.config.features.contains(needed) && !accepted.contains(needed) {
                return Err(Some(format!("{needed:?} not accepted")));
            }
        }
        accepted.unmet().map_or(Ok(()), |feature| Err(Some(format!("{feature:?} accepted without what it needs"))))
    }

    /// What the driver accepted.
    pub(super) fn negotiated(&self) -> Features {
        Features::from_bits_truncate(self.registers.driver_features)
    }
}
