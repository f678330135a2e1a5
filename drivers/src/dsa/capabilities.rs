//! What a device can do, as far as it can be true.

use alloc::string::{String, ToString};

use super::options::{Config, Summary, Version};
use super::queue::Shape;
use super::registers::{
    CMDCAP, ENGCAP, GENCAP, GROUP, GRPCAP, LIMITED_PORTAL, OFFSETS, OPCAP, PORTAL, TABLE, VERSION, WQCAP,
};
use super::reset::gone;
use crate::bus::Bar;
use crate::error::DeviceError;
use crate::register::Reg;

/// Versions that this driver knows.
const OLDEST: Version = Version(0x100);
const NEWEST: Version = Version(0x3ff);
/// Least and most that a descriptor may be able to copy: 4 KiB to 2 GiB.
const SHORTEST: u8 = 12;
const LONGEST: u8 = 31;
/// Operations that the driver needs, and batches.
const NOOP_AND_MEMMOVE: u64 = 1 << 0 | 1 << 3;
const BATCH: u64 = 1 << 1;
/// Priority, mode and sizes take this many bytes, at least; with operations it is twice as much.
const ENTRY: u32 = 32;

/// What a device has and can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capabilities {
    pub(super) version: Version,
    pub(super) queues: u8,
    pub(super) groups: u8,
    pub(super) engines: u8,
    /// Descriptors that all work queues together can hold.
    pub(super) total_size: u16,
    pub(super) read_buffers: u8,
    /// Logarithms of the longest copy and of the largest batch.
    pub(super) copy_shift: u8,
    pub(super) batch_shift: u8,
    cache: bool,
    /// Which operations a queue allows can be chosen.
    chooses_operations: bool,
    operations: [u64; 4],
    /// Interrupts go by handles that have to be asked for.
    pub(super) handles: bool,
    shared: bool,
    dedicated: bool,
    /// Where the entries of groups and of work queues begin, and the bytes of the latter.
    groups_at: u32,
    queues_at: u32,
    queue_bytes: u32,
}

fn bit(word: u64, bit: u32) -> bool {
    word >> bit & 1 != 0
}

impl Capabilities {
    /// Finds out, and checks that all tables lie inside of their windows.
    pub(super) fn read(name: &str, [bar, portals]: [&impl Bar; 2]) -> Result<Self, DeviceError> {
        let version = VERSION.load(bar, 0);
        if version == u32::MAX {
            return Err(gone(name));
        }
        let [minor, major, ..] = version.to_le_bytes();
        let version = Version(u16::from_le_bytes([minor, major]));
        if !(OLDEST..=NEWEST).contains(&version) {
            let reason = alloc::format!("it is of version {version}; this driver knows 1.0 and what follows it");
            return Err(DeviceError::Unsupported { device: name.to_string(), reason });
        }
        let (general, queue) = (GENCAP.load(bar, 0), WQCAP.load(bar, 0));
        let [_, _, copy, copy_and_batch, ..] = general.to_le_bytes();
        let [size_low, size_high, queues, queue_shift, ..] = queue.to_le_bytes();
        let [groups, read_buffers, ..] = GRPCAP.load(bar, 0).to_le_bytes();
        let [engines, ..] = ENGCAP.load(bar, 0).to_le_bytes();
        let [group_low, group_high, queue_low, queue_high, ..] = OFFSETS.load(bar, 0).to_le_bytes();
        let request = super::command::Command::RequestInterrupt(0).number();
        let this = Self {
            version,
            queues,
            groups,
            engines,
            total_size: u16::from_le_bytes([size_low, size_high]),
            read_buffers,
            copy_shift: copy & 0x1f,
            // Four bits that lie across two bytes.
            batch_shift: copy >> 5 | (copy_and_batch & 1) << 3,
            cache: bit(general, 2),
            chooses_operations: bit(queue, 54),
            operations: OPCAP.map(|word| word.load(bar, 0)),
            handles: bit(general, 4) && CMDCAP.load(bar, 0) >> request & 1 != 0,
            shared: bit(queue, 48),
            dedicated: bit(queue, 49),
            groups_at: u32::from(u16::from_le_bytes([group_low, group_high])) * TABLE,
            queues_at: u32::from(u16::from_le_bytes([queue_low, queue_high])) * TABLE,
            queue_bytes: ENTRY << (queue_shift & 0xf),
        };
        this.check(bit(general, 31), [bar.size(), portals.size()])
            .map_err(|reason| DeviceError::Device { device: name.to_string(), reason })?;
        if !bit(general, 31) {
            let reason = "its configuration is fixed (GENCAP), which this driver does not support; use the idxd character device (/dev/dsa)";
            return Err(DeviceError::Unsupported { device: name.to_string(), reason: reason.to_string() });
        }
        Ok(this)
    }

    fn check(&self, configurable: bool, [registers, portals]: [u64; 2]) -> Result<(), String> {
        let Self { queues, groups, engines, total_size, copy_shift, .. } = *self;
        if queues == 0 || groups == 0 || engines == 0 || total_size == 0 {
            return Err(alloc::format!(
                "it has {queues} work queues of {total_size} entries, {groups} groups and {engines} engines (WQCAP, GRPCAP, ENGCAP)"
            ));
        }
        if copy_shift < SHORTEST {
            return Err(alloc::format!("it copies up to 2^{copy_shift} bytes (GENCAP); 2^{SHORTEST} is the least"));
        }
        let [operations, ..] = self.operations;
        if operations & NOOP_AND_MEMMOVE != NOOP_AND_MEMMOVE {
            return Err("it cannot copy (OPCAP)".to_string());
        }
        // In 64 bits, so that nothing wraps whatever it says.
        let group_end = u64::from(self.groups_at) + u64::from(groups) * u64::from(GROUP);
        let queue_end = u64::from(self.queues_at) + u64::from(queues) * u64::from(self.queue_bytes);
        let misplaced = configurable && (self.groups_at < TABLE || group_end > registers);
        if misplaced || self.queues_at < TABLE || queue_end > registers {
            return Err("its tables lie outside of its registers (OFFSETS)".to_string());
        }
        if self.chooses_operations && self.queue_bytes < 2 * ENTRY {
            return Err("its work queues are too short for what they can do (WQCAP)".to_string());
        }
        if u64::from(queues - 1) * u64::from(PORTAL) + 2 * u64::from(LIMITED_PORTAL) > portals {
            return Err(alloc::format!("its portals lie outside of their window ({queues} queues, {portals} bytes)"));
        }
        Ok(())
    }

    /// Where the entry of a group or of a work queue begins.
    pub(super) fn group(&self, group: u8) -> u32 {
        self.groups_at + u32::from(group) * GROUP
    }

    pub(super) fn queue(&self, queue: u8) -> u32 {
        self.queues_at + u32::from(queue) * self.queue_bytes
    }

    /// The registers that say which operations a queue allows, and what they are to be, where that can be chosen.
    pub(super) fn operations(&self) -> Option<impl Iterator<Item = (Reg<u32>, u32)> + use<>> {
        let first = super::registers::WQ_OPERATIONS;
        let words = self.operations.map(|word| [word & 0xffff_ffff, word >> 32]);
        let words = words.into_iter().flatten().map(|word| u32::try_from(word).unwrap_or(0));
        self.chooses_operations.then(move || (first..).step_by(4).map(Reg::at).zip(words))
    }

    /// What driver and device agree on.
    pub(super) fn agree(&self, name: &str, config: &Config) -> Result<Summary, DeviceError> {
        let kinds = [(config.shared, self.shared, "shared"), (!config.shared, self.dedicated, "dedicated")];
        if let Some((.., kind)) = kinds.into_iter().find(|(wanted, there, _)| *wanted && !there) {
            let reason = alloc::format!("it has no {kind} work queues (WQCAP); ask for the other kind");
            return Err(DeviceError::Unsupported { device: name.to_string(), reason });
        }
        let most = u8::try_from(self.total_size.min(self.queues.into())).unwrap_or(self.queues);
        let channels = config.channels.clamp(1, most);
        let [operations, ..] = self.operations;
        let batch = if operations & BATCH == 0 { 1 } else { u32::from(config.batch.max(1)).min(1 << self.batch_shift) };
        Ok(Summary {
            version: self.version,
            channels,
            device_queues: self.queues,
            engines: self.engines,
            entries: self.total_size / u16::from(channels),
            batch,
            unit: 1 << self.copy_shift.min(LONGEST),
            depth: config.underway(),
            shared: config.shared,
            interrupts: false,
        })
    }

    /// Groups that so many channels are spread over, each of which needs an engine.
    pub(super) fn groups_in_use(&self, channels: u8) -> u8 {
        channels.min(self.groups).min(self.engines)
    }

    /// How the queue of a channel is to be.
    pub(super) fn shape(&self, summary: &Summary) -> Shape {
        let Summary { depth, entries, batch, unit, .. } = *summary;
        Shape { depth, entries, batch, unit, cache: self.cache, shift: 0 }
    }
}
