//! Registers of the 82599 (datasheet 331520, section 8.2.3) and, where they differ, of the X540 and X550. Names are
//! those of the datasheet; bits of a register are in the module of its name.
//!
//! Only what this driver uses is here. All registers are 32 bits wide.

use crate::register::{ReadOnly, Reg, RegArray, WriteOnly};

/// Queues of each direction that this driver uses: as many as the redirection table can name (7.1.2.8).
pub(super) const QUEUES: u32 = 16;

// General (8.2.3.1, 8.2.3.2).
pub(super) const CTRL: Reg<u32> = Reg::at(0x00000);
pub(super) const STATUS: Reg<u32, ReadOnly> = Reg::at(0x00008);
pub(super) const CTRL_EXT: Reg<u32> = Reg::at(0x00018);
pub(super) const ESDP: Reg<u32> = Reg::at(0x00020);
pub(super) const I2CCTL: Reg<u32> = Reg::at(0x00028);

pub(super) mod ctrl {
    /// Master disable: no new requests on the bus.
    pub(in super::super) const GIO_MASTER_DISABLE: u32 = 1 << 2;
    /// Link reset, of MAC and PHY too.
    pub(in super::super) const LRST: u32 = 1 << 3;
    /// Device reset.
    pub(in super::super) const RST: u32 = 1 << 26;
}

pub(super) mod status {
    /// Which port of the card this is: 0 or 1.
    pub(in super::super) const LAN_ID: u32 = 1 << 2;
    /// Requests of ours are underway, or may be made.
    pub(in super::super) const GIO_MASTER_ENABLE: u32 = 1 << 19;
}

pub(super) mod ctrl_ext {
    /// No snoop is never used: memory stays coherent with caches.
    pub(in super::super) const NS_DIS: u32 = 1 << 16;
    /// Tells the firmware that a driver is there.
    pub(in super::super) const DRV_LOAD: u32 = 1 << 28;
}

pub(super) mod esdp {
    /// Transmitter off, as boards with SFP+ cages wire it.
    pub(in super::super) const SDP3: u32 = 1 << 3;
}

pub(super) mod i2cctl {
    pub(in super::super) const CLK_IN: u32 = 1 << 0;
    pub(in super::super) const CLK_OUT: u32 = 1 << 1;
    pub(in super::super) const DATA_IN: u32 = 1 << 2;
    pub(in super::super) const DATA_OUT: u32 = 1 << 3;
}

// Interrupts (8.2.3.5).
pub(super) const EICR: Reg<u32> = Reg::at(0x00800);
pub(super) const EIAC: Reg<u32> = Reg::at(0x00810);
pub(super) const EITR: RegArray<u32> = RegArray::at(0x00820, 4, 24);
pub(super) const EIMS: Reg<u32> = Reg::at(0x00880);
pub(super) const EIMC: Reg<u32, WriteOnly> = Reg::at(0x00888);
pub(super) const EIAM: Reg<u32> = Reg::at(0x00890);
pub(super) const GPIE: Reg<u32> = Reg::at(0x00898);
pub(super) const IVAR: RegArray<u32> = RegArray::at(0x00900, 4, 64);
pub(super) const IVAR_MISC: Reg<u32> = Reg::at(0x00a00);
pub(super) const EIMC_EX: RegArray<u32, WriteOnly> = RegArray::at(0x00ab0, 4, 2);

pub(super) mod eicr {
    /// An error in the card's own memory that its error correction could not mend.
    pub(in super::super) const ECC: u32 = 1 << 28;
    /// All causes; bit 31 is reserved.
    pub(in super::super) const ALL: u32 = 0x7fff_ffff;
}

pub(super) mod gpie {
    /// One vector for each cause that IVAR names.
    pub(in super::super) const MULTIPLE_MSIX: u32 = 1 << 4;
    /// Reading EICR leaves the causes of queues alone.
    pub(in super::super) const OCD: u32 = 1 << 5;
    /// A vector that fires is masked (EIAM).
    pub(in super::super) const EIAME: u32 = 1 << 30;
    /// The pending bits of MSI-X work.
    pub(in super::super) const PBA_SUPPORT: u32 = 1 << 31;
}

pub(super) mod eitr {
    /// The counters are left alone by a write.
    pub(in super::super) const CNT_WDIS: u32 = 1 << 31;
    /// Where the interval starts, and how large it can be.
    pub(in super::super) const INTERVAL_SHIFT: u32 = 3;
    pub(in super::super) const INTERVAL_MOST: u32 = 0x1ff;
}

pub(super) mod ivar {
    /// The entry is in use.
    pub(in super::super) const VALID: u32 = 1 << 7;
}

// Non-volatile memory, firmware and semaphores (8.2.3.3, 8.2.3.4).
pub(super) const EEC: Reg<u32> = Reg::at(0x10010);
pub(super) const EERD: Reg<u32> = Reg::at(0x10014);
pub(super) const SWSM: Reg<u32> = Reg::at(0x10140);
pub(super) const SW_FW_SYNC: Reg<u32> = Reg::at(0x10160);
/// The same for the X550EM of the Atom C3000, which has them elsewhere.
pub(super) const EEC_MOVED: Reg<u32> = Reg::at(0x15ff8);
pub(super) const SWSM_MOVED: Reg<u32> = Reg::at(0x15f70);
pub(super) const SW_FW_SYNC_MOVED: Reg<u32> = Reg::at(0x15f78);
pub(super) const GCR_EXT: Reg<u32> = Reg::at(0x11050);

pub(super) mod eec {
    /// The NVM is there.
    pub(in super::super) const EE_PRES: u32 = 1 << 8;
    /// What the card loads from its NVM after a reset is loaded.
    pub(in super::super) const AUTO_RD: u32 = 1 << 9;
}

pub(super) mod eerd {
    pub(in super::super) const START: u32 = 1 << 0;
    pub(in super::super) const DONE: u32 = 1 << 1;
    pub(in super::super) const ADDRESS_SHIFT: u32 = 2;
    pub(in super::super) const ADDRESS_MOST: u16 = 0x3fff;
    pub(in super::super) const DATA_SHIFT: u32 = 16;
}

pub(super) mod swsm {
    /// Set by the card when it is read as zero: between drivers.
    pub(in super::super) const SMBI: u32 = 1 << 0;
    /// Stays set when the firmware grants it: between driver and firmware.
    pub(in super::super) const SWESMBI: u32 = 1 << 1;
}

pub(super) mod sw_fw_sync {
    /// NVM.
    pub(in super::super) const NVM: u32 = 1 << 0;
    /// PHY of port 0; that of port 1 is the next bit.
    pub(in super::super) const PHY: u32 = 1 << 1;
    /// Shared registers of the MAC.
    pub(in super::super) const MAC: u32 = 1 << 3;
    /// The firmware's bits lie so far above those of software.
    pub(in super::super) const FIRMWARE_SHIFT: u32 = 5;
    /// X540 and later: set by the card when it is read as zero, before any other bit may be changed.
    pub(in super::super) const REGSMP: u32 = 1 << 31;
}

pub(super) mod gcr_ext {
    /// Throws away what waits for the bus.
    pub(in super::super) const BUFFERS_CLEAR: u32 = 1 << 30;
}

// Receive filters (8.2.3.7).
pub(super) const FCTRL: Reg<u32> = Reg::at(0x05080);
pub(super) const VLNCTRL: Reg<u32> = Reg::at(0x05088);
pub(super) const MCSTCTRL: Reg<u32> = Reg::at(0x05090);
pub(super) const RXCSUM: Reg<u32> = Reg::at(0x05000);
pub(super) const RFCTL: Reg<u32> = Reg::at(0x05008);
pub(super) const MTA: RegArray<u32> = RegArray::at(0x05200, 4, 128);
pub(super) const RAL: RegArray<u32> = RegArray::at(0x0a200, 8, 128);
pub(super) const RAH: RegArray<u32> = RegArray::at(0x0a204, 8, 128);
pub(super) const VFTA: RegArray<u32> = RegArray::at(0x0a000, 4, 128);
pub(super) const UTA: RegArray<u32> = RegArray::at(0x0f400, 4, 128);
pub(super) const MRQC: Reg<u32> = Reg::at(0x05818);
pub(super) const RETA: RegArray<u32> = RegArray::at(0x05c00, 4, 32);
/// The rest of the redirection table of the X550.
pub(super) const ERETA: RegArray<u32> = RegArray::at(0x0ee80, 4, 96);
pub(super) const RSSRK: RegArray<u32> = RegArray::at(0x05c80, 4, 10);

pub(super) mod fctrl {
    /// Every group address.
    pub(in super::super) const MPE: u32 = 1 << 8;
    /// Every address of a single station.
    pub(in super::super) const UPE: u32 = 1 << 9;
    /// Broadcasts.
    pub(in super::super) const BAM: u32 = 1 << 10;
}

pub(super) mod vlnctrl {
    /// Of tagged frames only those that VFTA names.
    pub(in super::super) const VFE: u32 = 1 << 30;
}

pub(super) mod mcstctrl {
    /// MTA is asked. The bits of the address that it is asked by are chosen below: 0 is 47:36.
    pub(in super::super) const MFE: u32 = 1 << 2;
}

pub(super) mod rah {
    /// The address is valid.
    pub(in super::super) const AV: u32 = 1 << 31;
}

pub(super) mod rxcsum {
    /// Descriptors carry the hash and not the checksum of fragments.
    pub(in super::super) const PCSD: u32 = 1 << 13;
}

pub(super) mod rfctl {
    /// No receive side coalescing.
    pub(in super::super) const RSC_DIS: u32 = 1 << 5;
}

pub(super) mod mrqc {
    /// RSS, and nothing else that chooses queues.
    pub(in super::super) const RSS: u32 = 1;
    pub(in super::super) const TCP_IPV4: u32 = 1 << 16;
    pub(in super::super) const IPV4: u32 = 1 << 17;
    pub(in super::super) const IPV6: u32 = 1 << 20;
    pub(in super::super) const TCP_IPV6: u32 = 1 << 21;
    pub(in super::super) const UDP_IPV4: u32 = 1 << 22;
    pub(in super::super) const UDP_IPV6: u32 = 1 << 23;
}

// Receive DMA (8.2.3.8).
pub(super) const RDBAL: RegArray<u32> = RegArray::at(0x01000, 0x40, QUEUES);
pub(super) const RDBAH: RegArray<u32> = RegArray::at(0x01004, 0x40, QUEUES);
pub(super) const RDLEN: RegArray<u32> = RegArray::at(0x01008, 0x40, QUEUES);
pub(super) const DCA_RXCTRL: RegArray<u32> = RegArray::at(0x0100c, 0x40, QUEUES);
pub(super) const RDH: RegArray<u32> = RegArray::at(0x01010, 0x40, QUEUES);
pub(super) const SRRCTL: RegArray<u32> = RegArray::at(0x01014, 0x40, QUEUES);
pub(super) const RDT: RegArray<u32> = RegArray::at(0x01018, 0x40, QUEUES);
pub(super) const RXDCTL: RegArray<u32> = RegArray::at(0x01028, 0x40, QUEUES);
pub(super) const RDRXCTL: Reg<u32> = Reg::at(0x02f00);
pub(super) const RXCTRL: Reg<u32> = Reg::at(0x03000);
pub(super) const RXPBSIZE: RegArray<u32> = RegArray::at(0x03c00, 4, 8);
pub(super) const SECRXCTRL: Reg<u32> = Reg::at(0x08d00);
pub(super) const SECRXSTAT: Reg<u32, ReadOnly> = Reg::at(0x08d04);
pub(super) const DCA_CTRL: Reg<u32> = Reg::at(0x11074);

pub(super) mod dca_rxctrl {
    /// Must be cleared before a queue is enabled (4.6.7).
    pub(in super::super) const RESERVED_12: u32 = 1 << 12;
}

pub(super) mod srrctl {
    /// 256 bytes for headers, as after a reset; without header split nobody asks.
    pub(in super::super) const HEADER: u32 = 4 << 8;
    /// Advanced descriptors, one buffer each.
    pub(in super::super) const ADVANCED_ONE_BUFFER: u32 = 1 << 25;
    /// Without a descriptor, drop the frame instead of holding up all queues.
    pub(in super::super) const DROP_EN: u32 = 1 << 28;
}

pub(super) mod queue {
    /// The queue is enabled (RXDCTL and TXDCTL).
    pub(in super::super) const ENABLE: u32 = 1 << 25;
    /// RXDCTL: VLAN tags are taken out.
    pub(in super::super) const VME: u32 = 1 << 30;
}

pub(super) mod rdrxctl {
    /// The frame check sequence is cut off; must say the same as HLREG0.
    pub(in super::super) const CRCSTRIP: u32 = 1 << 1;
    /// The receive DMA is initialized.
    pub(in super::super) const DMAIDONE: u32 = 1 << 3;
    /// To be set, says the register's description.
    pub(in super::super) const ALWAYS: u32 = 3 << 25;
    /// Of receive side coalescing, to be zero (4.6.7).
    pub(in super::super) const RSCFRSTSIZE: u32 = 0x1f << 17;
}

pub(super) mod rxctrl {
    pub(in super::super) const RXEN: u32 = 1 << 0;
}

pub(super) mod secrx {
    /// SECRXCTRL: stop the path in front of the receiver.
    pub(in super::super) const RX_DIS: u32 = 1 << 1;
    /// SECRXSTAT: it is empty.
    pub(in super::super) const SECRX_RDY: u32 = 1 << 0;
}

pub(super) mod dca_ctrl {
    pub(in super::super) const DCA_DIS: u32 = 1 << 0;
}

// Transmit (8.2.3.9, 8.2.3.10).
pub(super) const TDBAL: RegArray<u32> = RegArray::at(0x06000, 0x40, QUEUES);
pub(super) const TDBAH: RegArray<u32> = RegArray::at(0x06004, 0x40, QUEUES);
pub(super) const TDLEN: RegArray<u32> = RegArray::at(0x06008, 0x40, QUEUES);
pub(super) const DCA_TXCTRL: RegArray<u32> = RegArray::at(0x0600c, 0x40, QUEUES);
pub(super) const TDH: RegArray<u32> = RegArray::at(0x06010, 0x40, QUEUES);
pub(super) const TDT: RegArray<u32> = RegArray::at(0x06018, 0x40, QUEUES);
pub(super) const TXDCTL: RegArray<u32> = RegArray::at(0x06028, 0x40, QUEUES);
pub(super) const TDWBAL: RegArray<u32> = RegArray::at(0x06038, 0x40, QUEUES);
pub(super) const TDWBAH: RegArray<u32> = RegArray::at(0x0603c, 0x40, QUEUES);
pub(super) const DMATXCTL: Reg<u32> = Reg::at(0x04a80);
pub(super) const DTXTCPFLGL: Reg<u32> = Reg::at(0x04a88);
pub(super) const DTXTCPFLGH: Reg<u32> = Reg::at(0x04a8c);
pub(super) const DTXMXSZRQ: Reg<u32> = Reg::at(0x08100);
pub(super) const MTQC: Reg<u32> = Reg::at(0x08120);
pub(super) const RTTDQSEL: Reg<u32> = Reg::at(0x04904);
pub(super) const RTTBCNRC: Reg<u32> = Reg::at(0x04984);
pub(super) const RTTDCS: Reg<u32> = Reg::at(0x04900);
pub(super) const TXPBTHRESH: RegArray<u32> = RegArray::at(0x04950, 4, 8);
pub(super) const TXPBSIZE: RegArray<u32> = RegArray::at(0x0cc00, 4, 8);

pub(super) mod dca_txctrl {
    /// Written-back descriptors may overtake each other: never.
    pub(in super::super) const DESC_WRO_EN: u32 = 1 << 11;
}

pub(super) mod dmatxctl {
    pub(in super::super) const TE: u32 = 1 << 0;
}

pub(super) mod rttdcs {
    /// The arbiter rests, so that MTQC can be changed.
    pub(in super::super) const ARBDIS: u32 = 1 << 6;
}

// MAC and link (8.2.3.22).
pub(super) const HLREG0: Reg<u32> = Reg::at(0x04240);
pub(super) const MSCA: Reg<u32> = Reg::at(0x0425c);
pub(super) const MSRWD: Reg<u32> = Reg::at(0x04260);
pub(super) const MAXFRS: Reg<u32> = Reg::at(0x04268);
pub(super) const MFLCN: Reg<u32> = Reg::at(0x04294);
pub(super) const AUTOC: Reg<u32> = Reg::at(0x042a0);
pub(super) const LINKS: Reg<u32, ReadOnly> = Reg::at(0x042a4);
pub(super) const AUTOC2: Reg<u32> = Reg::at(0x042a8);
pub(super) const ANLP1: Reg<u32, ReadOnly> = Reg::at(0x042b0);
pub(super) const MMNGC: Reg<u32, ReadOnly> = Reg::at(0x042d0);
pub(super) const CORECTL: Reg<u32> = Reg::at(0x14f00);

pub(super) mod hlreg0 {
    pub(in super::super) const TXCRCEN: u32 = 1 << 0;
    pub(in super::super) const RXCRCSTRP: u32 = 1 << 1;
    pub(in super::super) const JUMBOEN: u32 = 1 << 2;
    pub(in super::super) const TXPADEN: u32 = 1 << 10;
    pub(in super::super) const LPBK: u32 = 1 << 15;
}

pub(super) mod msca {
    pub(in super::super) const DEVICE_SHIFT: u32 = 16;
    pub(in super::super) const PHY_SHIFT: u32 = 21;
    pub(in super::super) const WRITE: u32 = 1 << 26;
    pub(in super::super) const READ: u32 = 3 << 26;
    pub(in super::super) const MDI_CMD: u32 = 1 << 30;
}

pub(super) mod mflcn {
    /// Pause frames are not given to the driver.
    pub(in super::super) const DPF: u32 = 1 << 1;
    /// Pause frames hold back our sending.
    pub(in super::super) const RFCE: u32 = 1 << 3;
}

pub(super) mod autoc {
    /// Which part of the chip makes the link, and how.
    pub(in super::super) const LMS: u32 = 7 << 13;
    /// 1 Gb/s with autonegotiation.
    pub(in super::super) const LMS_1G_AN: u32 = 2 << 13;
    /// 10 Gb/s over one lane.
    pub(in super::super) const LMS_10G_SERIAL: u32 = 3 << 13;
    /// Flipped, and flipped back, to start the link anew.
    pub(in super::super) const LMS_2: u32 = 4 << 13;
    pub(in super::super) const RESTART_AN: u32 = 1 << 12;
    pub(in super::super) const SYM_PAUSE: u32 = 1 << 28;
    pub(in super::super) const ASM_PAUSE: u32 = 1 << 29;
}

pub(super) mod autoc2 {
    /// What drives the single lane: 2 is SFI.
    pub(in super::super) const SERIAL: u32 = 3 << 16;
    pub(in super::super) const SERIAL_SFI: u32 = 2 << 16;
    /// The link was disabled in the NVM.
    pub(in super::super) const LINK_DISABLE: u32 = 7 << 28;
}

pub(super) mod links {
    pub(in super::super) const LINK_UP: u32 = 1 << 30;
    /// Autonegotiation is complete.
    pub(in super::super) const AN_COMPLETE: u32 = 1 << 31;
    /// 3: 10 Gb/s, 2: 1 Gb/s, 1: 100 Mb/s.
    pub(in super::super) const SPEED_SHIFT: u32 = 28;
    /// X550: 3 is 2.5 and 1 is 5 Gb/s instead.
    pub(in super::super) const SPEED_NON_STANDARD: u32 = 1 << 27;
}

pub(super) mod anlp1 {
    pub(in super::super) const SYM_PAUSE: u32 = 1 << 10;
    pub(in super::super) const ASM_PAUSE: u32 = 1 << 11;
    /// Where autonegotiation is; 0 before it starts.
    pub(in super::super) const STATE: u32 = 0xf << 16;
}

pub(super) mod mmngc {
    /// The management firmware uses the link: it is not to be taken down.
    pub(in super::super) const MNG_VETO: u32 = 1 << 0;
}

// Flow control (8.2.3.3).
pub(super) const FCTTV: RegArray<u32> = RegArray::at(0x03200, 4, 4);
pub(super) const FCRTL: RegArray<u32> = RegArray::at(0x03220, 4, 8);
pub(super) const FCRTH: RegArray<u32> = RegArray::at(0x03260, 4, 8);
pub(super) const FCRTV: Reg<u32> = Reg::at(0x032a0);
pub(super) const FCCFG: Reg<u32> = Reg::at(0x03d00);

pub(super) mod fccfg {
    /// Link flow control: pause frames are sent.
    pub(in super::super) const TFCE_LINK: u32 = 1 << 3;
}

pub(super) mod fcrt {
    /// FCRTL: end the pause by a frame; FCRTH: watch the threshold.
    pub(in super::super) const ENABLE: u32 = 1 << 31;
}
