//! Where registers are. Names are those of Intel's datasheets of Xeon processors (volume 2, Intel QuickData Technology).

/// The window of registers, its size, and the window of the MSI-X table.
pub(super) const REGISTERS: u8 = 0;
pub(super) const WINDOW_BYTES: u32 = 0x4000;
pub(super) const MSIX: u8 = 4;

/// CHANCNT, XFERCAP, GENCTRL and INTRCTRL: 8 bits each.
pub(super) const GENERAL: u32 = 0x00;
pub(super) const ATTNSTATUS: u32 = 0x04;
/// CBVER: 8 bits; PERPORTOFFSET in the upper half.
pub(super) const CBVER: u32 = 0x08;
/// INTRDELAY and CSSTATUS: 16 bits each.
pub(super) const INTRDELAY: u32 = 0x0c;
pub(super) const DMACAPABILITY: u32 = 0x10;
/// DCAOFFSET: 16 bits.
pub(super) const DCAOFFSET: u32 = 0x14;
/// CBPRIO: 8 bits.
pub(super) const CBPRIO: u32 = 0x40;
/// CHWPREFLMT: 8 bits, version 3.4.
pub(super) const CHWPREFLMT: u32 = 0x4c;

/// DMACAPABILITY: pages may break within a descriptor; blocks can be filled.
pub(super) const PAGE_BREAK: u32 = 1 << 0;
pub(super) const FILL: u32 = 1 << 6;
/// CSSTATUS: addresses are remapped.
pub(super) const REMAPPED: u32 = 1 << 3;

/// The registers of a channel.
pub(super) mod block {
    pub(in super::super) const BYTES: u32 = 0x80;

    /// CHANCTRL and DMA_COMP: 16 bits each.
    pub(in super::super) const CHANCTRL: u32 = 0x00;
    /// CHANCMD: 8 bits; DMACOUNT: the upper 16 bits.
    pub(in super::super) const CHANCMD: u32 = 0x04;
    pub(in super::super) const CHANSTS: u32 = 0x08;
    pub(in super::super) const CHANSTS_HIGH: u32 = 0x0c;
    pub(in super::super) const CHAINADDR: u32 = 0x10;
    pub(in super::super) const CHAINADDR_HIGH: u32 = 0x14;
    pub(in super::super) const CHANCMP: u32 = 0x18;
    pub(in super::super) const CHANCMP_HIGH: u32 = 0x1c;
    pub(in super::super) const CDAR: u32 = 0x20;
    pub(in super::super) const CDAR_HIGH: u32 = 0x24;
    pub(in super::super) const CHANERR: u32 = 0x28;
    pub(in super::super) const CHANERRMSK: u32 = 0x2c;
    pub(in super::super) const DCACTRL: u32 = 0x30;
    /// Of version 3.4, and behind the block, in the next channel's: how much latency the channel bears, in five words.
    pub(in super::super) const LATENCY: u32 = 0x34;
    pub(in super::super) const LATENCY_END: u32 = 0x48;

    /// Where a channel's block is.
    pub(in super::super) fn offset(channel: u8) -> u32 {
        BYTES * (u32::from(channel) + 1)
    }
}

/// `before` with the bits in `mask` from `value`.
pub(super) fn merge(before: u32, value: u32, mask: u32) -> u32 {
    before & !mask | value & mask
}
