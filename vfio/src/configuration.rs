//! Configuration space, as far as every bus does the same with it.

use drivers::bus::{BusError, PciId};

/// Register with Command in its low half (PCI Local Bus Specification 3.0, section 6.2.2).
pub(crate) const COMMAND: u16 = 0x04;
/// The device answers accesses to its memory windows.
pub(crate) const MEMORY_SPACE: u16 = 1 << 1;
/// The device may access memory.
pub(crate) const BUS_MASTER: u16 = 1 << 2;

/// Revision and class: never virtual in VFIO (the vendor word is), and never all ones in a device that is there.
const CLASS: u16 = 0x08;

/// Reaches the configuration space of one function.
pub(crate) trait Configuration {
    /// Name for messages.
    fn name(&self) -> &str;
    /// Reads the aligned 32-bit word at `offset`.
    fn read_word(&self, offset: u16) -> Result<u32, BusError>;
    /// Writes 1, 2 or 4 bytes at an aligned `offset`.
    fn write(&self, offset: u16, bytes: &[u8]) -> Result<(), BusError>;

    /// Reads a word, and tells a device that is gone from one that honestly answers all ones.
    fn read(&self, offset: u16) -> Result<u32, BusError> {
        let value = self.read_word(offset)?;
        if value == u32::MAX && self.read_word(CLASS)? == u32::MAX {
            return Err(BusError::Gone {
                device: self.name().into(),
                reason: "its configuration space reads all ones".into(),
            });
        }
        Ok(value)
    }

    /// What the function says it is.
    fn identity(&self) -> Result<PciId, BusError> {
        let halves = |offset: u16| -> Result<(u16, u16), BusError> {
            let [a, b, c, d] = self.read(offset)?.to_le_bytes();
            Ok((u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])))
        };
        let (vendor, device) = halves(0x00)?;
        let [revision, class @ ..] = self.read(CLASS)?.to_le_bytes();
        let (subsystem_vendor, subsystem_device) = halves(0x2c)?;
        if vendor == u16::MAX {
            return Err(BusError::Gone { device: self.name().into(), reason: "its vendor id reads all ones".into() });
        }
        Ok(PciId {
            vendor,
            device,
            subsystem_vendor,
            subsystem_device,
            class: u32::from_le_bytes([class[0], class[1], class[2], 0]),
            revision,
        })
    }

    /// Changes bits of the Command register. The Status register beside it is left alone: its bits clear when written.
    fn change_command(&self, set: u16, clear: u16) -> Result<(), BusError> {
        let [low, high, ..] = self.read(COMMAND)?.to_le_bytes();
        let command = u16::from_le_bytes([low, high]) & !clear | set;
        self.write(COMMAND, &command.to_le_bytes())
    }
}

/// Where an access lies in a configuration space of `size` bytes, when it lies there.
pub(crate) fn position(name: &str, size: u64, offset: u16, bytes: usize) -> Result<u64, BusError> {
    let (offset, bytes) = (u64::from(offset), bytes as u64);
    if !offset.is_multiple_of(bytes) || offset + bytes > size {
        return Err(BusError::Missing {
            device: name.into(),
            missing: format!("configuration space of {size} bytes has no {bytes}-byte word at {offset:#x}"),
        });
    }
    Ok(offset)
}
