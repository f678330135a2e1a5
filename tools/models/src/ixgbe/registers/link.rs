//! The MAC and its link (8.2.3.22), flow control (8.2.3.3).

use super::Part::{Link, Mdio};
use super::{at, table};

table! {
    /// Priority flow control type, 8.2.3.3.1.
    PFCTOP = at(0x03008).reset(0x0001_8808);
    /// Flow control timers, 8.2.3.3.2.
    FCTTV = at(0x03200).times(4, 4);
    /// Flow control address, 8.2.3.3.
    FCADBU = at(0x03210).times(2, 4);
    /// Low thresholds, 8.2.3.3.3.
    FCRTL = at(0x03220).times(8, 4).bits(0x8007_fff0);
    /// High thresholds, 8.2.3.3.4.
    FCRTH = at(0x03260).times(8, 4).bits(0x8007_fff0);
    /// Refresh of pause frames, 8.2.3.3.5.
    FCRTV = at(0x032a0).bits(0xffff);
    /// What the link partner stopped, 8.2.3.3.6.
    TFCS = at(0x0ce00).reset(0x1).fixed();
    /// Flow control configuration, 8.2.3.3.7.
    FCCFG = at(0x03d00).bits(0x18);

    /// 1 Gb/s PCS configuration, 8.2.3.22.1.
    PCS1GCFIG = at(0x04200);
    /// 1 Gb/s link control, 8.2.3.22.1.
    PCS1GLCTL = at(0x04208).reset(0x2);
    /// 1 Gb/s link status, 8.2.3.22.2.
    PCS1GLSTA = at(0x0420c).of(Link);
    /// 1 Gb/s diagnostics, 8.2.3.22.
    PCS1GDBG = at(0x04210).times(2, 4);
    /// 1 Gb/s advertisement, 8.2.3.22.3.
    PCS1GANA = at(0x04218).reset(0x20);
    /// 1 Gb/s link partner's ability, 8.2.3.22.4.
    PCS1GANLP = at(0x0421c).fixed();
    /// 1 Gb/s next page, 8.2.3.22.5.
    PCS1GANNP = at(0x04220);
    /// 1 Gb/s link partner's next page, 8.2.3.22.6.
    PCS1GANLPNP = at(0x04224).fixed();
    /// MAC control, 8.2.3.22.8: CRC on transmit, CRC strip, padding, MDIO speed, length errors.
    HLREG0 = at(0x04240).reset(0x0801_0403);
    /// MAC status, 8.2.3.22.9.
    HLREG1 = at(0x04244).reset(0x1).fixed();
    /// Pause and pace, 8.2.3.22.10.
    PAP = at(0x04248).reset(0xffff);
    /// 10 Gb/s link ability, kept from the 82598.
    MACA = at(0x0424c);
    /// Kept from the 82598.
    APAE = at(0x04250);
    /// Kept from the 82598.
    ARD = at(0x04254);
    /// Kept from the 82598.
    AIS = at(0x04258);
    /// MDIO command, 8.2.3.22.11.
    MSCA = at(0x0425c).of(Mdio);
    /// MDIO data, 8.2.3.22.12.
    MSRWD = at(0x04260).of(Mdio);
    /// Low bits of the MAC's address, 8.2.3.22.
    MLADD = at(0x04264);
    /// Largest frame, 8.2.3.22.13.
    MAXFRS = at(0x04268).reset(0x05ee_0000);
    /// Test register, kept from the 82598.
    TREG = at(0x0426c);
    /// Physical coding sublayer status, 8.2.3.22.14.
    PCSS = at(0x04288).times(2, 4).fixed();
    /// XGXS status, 8.2.3.22.15.
    XPCSS = at(0x04290).fixed();
    /// MAC flow control, 8.2.3.22.34.
    MFLCN = at(0x04294).bits(0xfff);
    /// Serial interface control, 8.2.3.22.17.
    SERDESC = at(0x04298);
    /// MAC status, 8.2.3.22.18.
    MACS = at(0x0429c);
    /// Auto negotiation control, 8.2.3.22.19.
    AUTOC = at(0x042a0).of(Link);
    /// Link status, 8.2.3.22.20.
    LINKS = at(0x042a4).of(Link);
    /// Auto negotiation control 2, 8.2.3.22.22.
    AUTOC2 = at(0x042a8).of(Link);
    /// Auto negotiation control 3, kept from the 82598.
    AUTOC3 = at(0x042ac);
    /// Link partner's ability, 8.2.3.22.23.
    ANLP1 = at(0x042b0).of(Link);
    /// Link partner's ability 2, 8.2.3.22.24.
    ANLP2 = at(0x042b4).fixed();
    /// Test of the MAC's memories, 8.2.3.25.
    MDFT = at(0x042b8).times(6, 4);
    /// Management's control of the MAC, 8.2.3.22.25.
    MMNGC = at(0x042d0).fixed();
    /// Link partner's next page 1, 8.2.3.22.26.
    ANLPNP1 = at(0x042d4).fixed();
    /// Link partner's next page 2, 8.2.3.22.27.
    ANLPNP2 = at(0x042d8).fixed();
    /// KR coding control, 8.2.3.22.28.
    KRPCSFC = at(0x042e0);
    /// KR coding status, 8.2.3.22.29.
    KRPCSS = at(0x042e4).fixed();
    /// Error correction status, 8.2.3.22.30.
    FECS = at(0x042e8).times(2, 4).fixed();
    /// Serial interface to the analog part, 8.2.3.22.31.
    CORECTL = at(0x14f00);
    /// SMADAR control, 8.2.3.22.
    SMADARCTL = at(0x14f10);
    /// MAC SGMII control, 8.2.3.22.32.
    SGMIIC = at(0x04314);
    /// Memory test, 8.2.3.22.
    MPVC = at(0x04318);
    /// Link status 2, 8.2.3.22.21.
    LINKS2 = at(0x04324).fixed();
    /// Address in pause frames, 8.2.3.22.
    FCAMAC = at(0x04328).times(2, 4);
    /// MAC control, 8.2.3.22.33.
    MACC = at(0x04330).of(Link);
    /// Energy efficient Ethernet set up (X540 datasheet).
    EEE_SU = at(0x04380);
    /// Energy efficient Ethernet status (X540 datasheet).
    EEE_STAT = at(0x04398).fixed();
    /// Energy efficient Ethernet (X540 datasheet).
    EEER = at(0x043a0);
    /// Access to the analog part, kept from the 82598.
    ATLASCTL = at(0x04800);
}
