//! Where registers are: BAR 0, in words of 32 bits; tables where OFFSETS says, in units of 256 bytes.

/// Base address registers: registers, portals, MSI-X table.
pub(super) const REGISTERS: u8 = 0;
pub(super) const PORTALS: u8 = 2;
pub(super) const MSIX: u8 = 4;

/// Bytes of the window of registers.
pub(super) const WINDOW_BYTES: u32 = 0x1_0000;

pub(super) const VERSION: u32 = 0x00;
pub(super) const GENCAP: u32 = 0x10;
pub(super) const WQCAP: u32 = 0x20;
pub(super) const GRPCAP: u32 = 0x30;
pub(super) const ENGCAP: u32 = 0x38;
pub(super) const OPCAP: u32 = 0x40;
pub(super) const OFFSETS: u32 = 0x60;
pub(super) const GENCFG: u32 = 0x80;
pub(super) const GENCTRL: u32 = 0x88;
pub(super) const GENSTS: u32 = 0x90;
pub(super) const INTCAUSE: u32 = 0x98;
pub(super) const CMD: u32 = 0xa0;
pub(super) const CMDSTS: u32 = 0xa8;
pub(super) const CMDCAP: u32 = 0xb0;
pub(super) const SWERR: u32 = 0xc0;
pub(super) const SWERR_LAST: u32 = 0xdc;

/// GRPCFG: 64 bytes a group, which are four words of queues, one of engines and one of flags, of 64 bits each.
pub(super) const GROUPS: u32 = 0x400;
pub(super) const GROUP_BYTES: u32 = 64;
/// Permissions of MSI-X vectors, 8 bytes each.
pub(super) const PERMISSIONS: u32 = 0x600;
/// WQCFG: 32 or 64 bytes a queue.
pub(super) const QUEUES: u32 = 0x800;

/// A portal is a page; a queue has four: unlimited and limited, with handles of the MSI-X table, and the same with handles of other tables.
pub(super) const PORTAL_BYTES: u32 = 4096;
pub(super) const QUEUE_PORTALS: u32 = 4 * PORTAL_BYTES;

/// The bits in `mask` of a word change.
pub(super) fn merge(before: u32, value: u32, mask: u32) -> u32 {
    before & !mask | value & mask
}

/// The half of a 64 bit register that a word at `offset` is.
pub(super) fn half(value: u64, offset: u32) -> u32 {
    drivers::bus::Width::narrow(if offset & 4 == 0 { value } else { value >> 32 })
}
