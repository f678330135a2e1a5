//! General control, NVM, interrupts, PCIe, management (8.2.3.1 to 8.2.3.6, 8.2.3.20, 8.2.3.24 and following).

use super::Part::{Clock, Control, I2c, Interrupts, Management, Nvm, Semaphore};
use super::{at, table};

table! {
    /// Device control, 8.2.3.1.1.
    CTRL = at(0x00000).of(Control);
    /// Device control, at its second address, 8.2.3.1.1.
    CTRL_AGAIN = at(0x00004).of(Control);
    /// Device status, 8.2.3.1.2.
    STATUS = at(0x00008).of(Control);
    /// Extended device control, 8.2.3.1.3. Bit 14 notifies that the function is out of reset, bit 28 that a driver is loaded.
    CTRL_EXT = at(0x00018).bits(0x1403_7c00);
    /// Software definable pins, 8.2.3.1.4.
    ESDP = at(0x00020).of(I2c);
    /// I2C control of the module's management interface, 8.2.3.1.5.
    I2CCTL = at(0x00028).of(I2c);
    /// Pins of the MAC (X540 datasheet).
    MAC_GPIO = at(0x00030);
    /// Time synchronisation on the pins, 8.2.3.20.
    TSSDP = at(0x0003c);
    /// Free running timer, 8.2.3.5.18.
    FRTIMER = at(0x00048).of(Clock);
    /// TCP timer, 8.2.3.5.17.
    TCPTIMER = at(0x0004c);
    /// Lights, 8.2.3.1.6.
    LEDCTL = at(0x00200).reset(0x0502_0100);
    /// Function level reset of virtual functions, 8.2.3.27.
    PFVFLRE = at(0x00600).times(2, 4).fixed();
    /// Spare bits of the core, 8.2.3.1.8.
    CORESPARE = at(0x00608);
    /// Acknowledges resets of virtual functions, 8.2.3.27.
    PFVFLREC = at(0x00700).times(2, 4).silent();
    /// Mailbox interrupt causes, 8.2.3.27.
    PFMBICR = at(0x00710).times(4, 4).fixed();
    /// Mailbox interrupt masks, 8.2.3.27.
    PFMBIMR = at(0x00720).times(4, 4).reset(0xffff_ffff);
    /// Mailboxes of virtual functions, 8.2.3.27.
    PFMAILBOX = at(0x04b00).times(64, 4);
    /// Memory of the mailboxes, 8.2.3.27.
    PFMBMEM = at(0x13000).times(1024, 4).kept();

    /// Interrupt causes, 8.2.3.5.1.
    EICR = at(0x00800).of(Interrupts);
    /// Sets interrupt causes, 8.2.3.5.2.
    EICS = at(0x00808).of(Interrupts);
    /// Causes that clear themselves, 8.2.3.5.5.
    EIAC = at(0x00810).of(Interrupts);
    /// Interval of vectors 0 to 23, 8.2.3.5.12.
    EITR = at(0x00820).times(24, 4).of(Interrupts);
    /// Enabled causes, 8.2.3.5.3.
    EIMS = at(0x00880).of(Interrupts);
    /// Disables causes, 8.2.3.5.4.
    EIMC = at(0x00888).of(Interrupts);
    /// Causes that mask themselves, 8.2.3.5.6.
    EIAM = at(0x00890).of(Interrupts);
    /// Which vectors virtual functions throttle, 8.2.3.5.14.
    EITRSEL = at(0x00894);
    /// General purpose interrupt enable, 8.2.3.5.18.
    GPIE = at(0x00898).of(Interrupts);
    /// Vectors of queues, 8.2.3.5.15.
    IVAR = at(0x00900).times(64, 4).of(Interrupts);
    /// Vectors of other causes, 8.2.3.5.16.
    IVAR_MISC = at(0x00a00).of(Interrupts);
    /// Causes of all 64 vectors, set, 8.2.3.5.7.
    EICS_EX = at(0x00a90).times(2, 4).of(Interrupts);
    /// Enabled vectors, 8.2.3.5.8.
    EIMS_EX = at(0x00aa0).times(2, 4).of(Interrupts);
    /// Disables vectors, 8.2.3.5.9.
    EIMC_EX = at(0x00ab0).times(2, 4).of(Interrupts);
    /// Vectors that mask themselves, 8.2.3.5.10.
    EIAM_EX = at(0x00ad0).times(2, 4).of(Interrupts);
    /// Interval of vectors 24 to 128, 8.2.3.5.12.
    EITR_HIGH = at(0x12300).times(105, 4).of(Interrupts);
    /// Clears pending bits of MSI-X: the first 32 vectors, 8.2.3.5.19.
    PBACL = at(0x11068).silent();
    /// Clears pending bits of MSI-X: the others, 8.2.3.5.19.
    PBACL_HIGH = at(0x110c4).times(7, 4).silent();

    /// EEPROM and flash control, 8.2.3.2.1.
    EEC = at(0x10010).of(Nvm);
    /// Reads a word of the EEPROM, 8.2.3.2.2.
    EERD = at(0x10014).of(Nvm);
    /// Writes a word of the NVM (X540 datasheet).
    EEWR = at(0x10018).of(Nvm);
    /// Flash access, 8.2.3.2.3.
    FLA = at(0x1001c).bits(0x3f);
    /// Management's access to the EEPROM, 8.2.3.2.4.
    EEMNGCTL = at(0x10110).reset(0x800c_0000);
    /// Its data, 8.2.3.2.5.
    EEMNGDATA = at(0x10114);
    /// Management's access to the flash, 8.2.3.2.6.
    FLMNGCTL = at(0x10118);
    /// Its data, 8.2.3.2.7.
    FLMNGDATA = at(0x1011c);
    /// Its counter, 8.2.3.2.8.
    FLMNGCNT = at(0x10120);
    /// Opcodes of the flash, 8.2.3.2.9.
    FLOP = at(0x1013c).reset(0x0007_06d8);
    /// General receive control, 8.2.3.2.10.
    GRC = at(0x10200).bits(0x2);
    /// Gives the shadow memory to the flash (X540 datasheet).
    SRAMREL = at(0x10210).silent();
    /// Debugging of the PHY (X540 datasheet).
    PHYDBG = at(0x10218);
    /// Threshold of management for DMA coalescing (X540 datasheet).
    DMCMNGTH = at(0x15f20);
    /// Vital product data, 8.2.3.2.
    VPDDIAG0 = at(0x10204).fixed();
    /// Vital product data, 8.2.3.2.
    VPDDIAG1 = at(0x10208).fixed();

    /// Software semaphore, 8.2.3.4.11.
    SWSM = at(0x10140).of(Semaphore);
    /// Firmware semaphore, 8.2.3.4.12.
    FWSM = at(0x10148).of(Semaphore);
    /// Power state of the functions, 8.2.3.4.10.
    FACTPS = at(0x10150).fixed();
    /// Shared resources of software and firmware, 8.2.3.4.13.
    SW_FW_SYNC = at(0x10160).of(Semaphore);

    /// PCIe control, 8.2.3.4.1.
    GCR = at(0x11000).reset(0x0004_0000);
    /// PCIe timer values, 8.2.3.4.
    GTV = at(0x11004);
    /// Function and tag, 8.2.3.4.
    FUNCTAG = at(0x11008);
    /// PCIe latency timer, 8.2.3.4.
    GLT = at(0x1100c);
    /// PCIe counters' control, 8.2.3.4.2.
    GSCL_1 = at(0x11010);
    /// PCIe counters' events, 8.2.3.4.3.
    GSCL_2 = at(0x11014);
    /// PCIe counters' bandwidth, 8.2.3.4.
    GSCL_3 = at(0x11018);
    /// PCIe counters' bandwidth, 8.2.3.4.
    GSCL_4 = at(0x1101c);
    /// PCIe counters, 8.2.3.4.5.
    GSCN = at(0x11020).times(4, 4);
    /// PCIe counters' thresholds, 8.2.3.4.4.
    GSCL_5 = at(0x11030).times(4, 4);
    /// Access to the PHY of PCIe, 8.2.3.4.
    PCIE_PHYADR = at(0x11040);
    /// Access to the PHY of PCIe, 8.2.3.4.
    PCIE_PHYDAT = at(0x11044);
    /// Access to the PHY of PCIe, 8.2.3.4.
    PCIE_PHYCTL = at(0x11048);
    /// Extended PCIe control, 8.2.3.4.14.
    GCR_EXT = at(0x11050);
    /// Mirrored revision, 8.2.3.4.15.
    MREVID = at(0x11064).fixed();
    /// PCIe error counters' control, 8.2.3.4.
    PCIEECCCTL = at(0x1106c);
    /// Requester of direct cache access, 8.2.3.11.1.
    DCA_ID = at(0x11070).fixed();
    /// Direct cache access, 8.2.3.11.2.
    DCA_CTRL = at(0x11074).reset(1);
    /// Diagnostics of PCIe, 8.2.3.4.
    PCIE_DIAG = at(0x11090).times(8, 4);
    /// Configuration space of virtual functions, 8.2.3.4.
    CIAA = at(0x11088).bits(0x7fff_ffff);
    /// Its data, 8.2.3.4.
    CIAD = at(0x1108c);
    /// PCIe interrupt cause, 8.2.3.4.16.
    PICAUSE = at(0x110b0).silent();
    /// Queue disable of PCIe completion, 8.2.3.4.
    CDQ_MBR = at(0x110b4);
    /// Spare bits of PCIe, 8.2.3.4.
    PCIESPARE = at(0x110bc);
    /// Error correction of PCIe memories, its status, 8.2.3.4.
    ECC_STATUS = at(0x110e0).fixed();
    /// Indirect access to the PHY's inside (X550 datasheet).
    SB_IOSF = at(0x11144).times(2, 4).bits(0x7fff_ffff);
    /// What management does with the PHY (X550 datasheet).
    NW_MNG_IF_SEL = at(0x11178).fixed();
    /// Fuses (X550 datasheet).
    FUSES0 = at(0x11158).times(4, 4).fixed();
    /// Configuration space of virtual functions, address and data (X550 datasheet).
    CIAA_LATE = at(0x11508);
    /// Its data (X550 datasheet).
    CIAD_LATE = at(0x11510);
    /// PCIe counters' control (X550 datasheet).
    GSCL_LATE = at(0x11800).times(8, 4);
    /// PCIe counters (X550 datasheet).
    GSCN_LATE = at(0x11820).times(4, 4);
    /// LinkSec ownership, at its address in the X540.
    LSWFW_EARLY = at(0x15014);
    /// I2C control (X550 datasheet).
    I2CCTL_LATE = at(0x15f5c);
    /// Firmware's debug register (X550 datasheet).
    HFDR = at(0x15fe8).fixed();
    /// PCIe interrupt enable, 8.2.3.4.17.
    PIENA = at(0x110b8);
    /// Miscellaneous bits of PCIe, 8.2.3.4.
    MISC_REG = at(0x110f0);
    /// Sizes of the windows, 8.2.3.4.
    BARCTRL = at(0x110f4).fixed();
    /// Error correction of PCIe memories, 8.2.3.4.
    ECC_CTRL = at(0x11100).times(2, 4);

    /// Host interface control, 8.2.3.24.
    HICR = at(0x15f00).of(Management);
    /// Host slave memory, 8.2.3.24.
    HSMCR = at(0x15f04).times(2, 4);
    /// Firmware status, 8.2.3.24.
    FWSTS = at(0x15f0c).fixed();
    /// Software status, 8.2.3.24.
    SWSR = at(0x15f10);
    /// LinkSec ownership of software and firmware, 8.2.3.14.
    LSWFW = at(0x15f14);
    /// How often the firmware was reset (X550 datasheet).
    FWRESETCNT = at(0x15f40).fixed();
    /// Memory of the host interface, 8.2.3.24.
    FLEX_MNG = at(0x15800).times(448, 4);
}
