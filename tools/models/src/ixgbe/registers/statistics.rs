//! Statistics (8.2.3.23): cleared when they are read, and stuck at their largest value. Kept over a software reset.

use super::{at, table};

table! {
    /// FCoE frames dropped, 8.2.3.23.
    FCOERPDC = at(0x0241c).counter();
    /// FCoE errors in the last frame, 8.2.3.23.
    FCLAST = at(0x02424).counter();
    /// FCoE frames received, 8.2.3.23.
    FCOEPRC = at(0x02428).counter();
    /// FCoE words received, 8.2.3.23.
    FCOEDWRC = at(0x0242c).counter();
    /// Good frames that receive DMA took from the filters, 8.2.3.23.
    RXDGPC = at(0x02f50).counter();
    /// Their bytes, 8.2.3.23.
    RXDGBCL = at(0x02f54).octets();
    /// Their bytes, high, 8.2.3.23.
    RXDGBCH = at(0x02f58).octets_high();
    /// Duplicated frames in receive DMA, 8.2.3.23.
    RXDDPC = at(0x02f5c).counter();
    /// Their bytes, 8.2.3.23.
    RXDDBCL = at(0x02f60).octets();
    /// Their bytes, high, 8.2.3.23.
    RXDDBCH = at(0x02f64).octets_high();
    /// Looped back frames in receive DMA, 8.2.3.23.
    RXLPBKPC = at(0x02f68).counter();
    /// Their bytes, 8.2.3.23.
    RXLPBKBCL = at(0x02f6c).octets();
    /// Their bytes, high, 8.2.3.23.
    RXLPBKBCH = at(0x02f70).octets_high();
    /// Duplicated, looped back frames in receive DMA, 8.2.3.23.
    RXDLPBKPC = at(0x02f74).counter();
    /// Their bytes, 8.2.3.23.
    RXDLPBKBCL = at(0x02f78).octets();
    /// Their bytes, high, 8.2.3.23.
    RXDLPBKBCH = at(0x02f7c).octets_high();
    /// Frames from the host to management (X540 datasheet).
    B2OGPRC = at(0x02f90).counter();
    /// How often a priority's pause ended and began, 8.2.3.23.
    PXON2OFFCNT = at(0x03240).times(8, 4).counter();
    /// Priority pause ends sent, 8.2.3.23.
    PXONTXC = at(0x03f00).times(8, 4).counter();
    /// Priority pauses sent, 8.2.3.23.
    PXOFFTXC = at(0x03f20).times(8, 4).counter();
    /// Pause ends sent, 8.2.3.23.
    LXONTXC = at(0x03f60).counter();
    /// Pauses sent, 8.2.3.23.
    LXOFFTXC = at(0x03f68).counter();
    /// Frames missed because a packet buffer was full, 8.2.3.23.4.
    RXMPC = at(0x03fa0).times(8, 4).counter();
    /// Frames that found no receive buffer, kept from the 82598.
    RNBC = at(0x03fc0).times(8, 4).counter();
    /// CRC errors, 8.2.3.23.1.
    CRCERRS = at(0x04000).counter();
    /// Illegal bytes, 8.2.3.23.2.
    ILLERRC = at(0x04004).counter();
    /// Bad bytes, 8.2.3.23.3.
    ERRBC = at(0x04008).counter();
    /// Short frames discarded by the MAC, 8.2.3.23.
    MSPDC = at(0x04010).counter();
    /// Bad SFD (X540 datasheet).
    MBSDC = at(0x04018).counter();
    /// MAC local faults, 8.2.3.23.5.
    MLFC = at(0x04034).counter();
    /// MAC remote faults, 8.2.3.23.6.
    MRFC = at(0x04038).counter();
    /// Receive length errors, 8.2.3.23.7.
    RLEC = at(0x04040).counter();
    /// Frames received of 64 bytes, 8.2.3.23.12.
    PRC64 = at(0x0405c).counter();
    /// Frames received of 65 to 127 bytes, 8.2.3.23.13.
    PRC127 = at(0x04060).counter();
    /// Frames received of 128 to 255 bytes, 8.2.3.23.14.
    PRC255 = at(0x04064).counter();
    /// Frames received of 256 to 511 bytes, 8.2.3.23.15.
    PRC511 = at(0x04068).counter();
    /// Frames received of 512 to 1023 bytes, 8.2.3.23.16.
    PRC1023 = at(0x0406c).counter();
    /// Frames received of 1024 bytes and more, 8.2.3.23.17.
    PRC1522 = at(0x04070).counter();
    /// Good frames received, 8.2.3.23.21.
    GPRC = at(0x04074).counter();
    /// Broadcasts received, 8.2.3.23.18.
    BPRC = at(0x04078).counter();
    /// Multicasts received, 8.2.3.23.19.
    MPRC = at(0x0407c).counter();
    /// Good frames sent, 8.2.3.23.24.
    GPTC = at(0x04080).counter();
    /// Good bytes received, 8.2.3.23.22.
    GORCL = at(0x04088).octets();
    /// Good bytes received, high, 8.2.3.23.23.
    GORCH = at(0x0408c).octets_high();
    /// Good bytes sent, 8.2.3.23.25.
    GOTCL = at(0x04090).octets();
    /// Good bytes sent, high, 8.2.3.23.26.
    GOTCH = at(0x04094).octets_high();
    /// Frames received that are too short, 8.2.3.23.27.
    RUC = at(0x040a4).counter();
    /// Fragments received, 8.2.3.23.28.
    RFC = at(0x040a8).counter();
    /// Frames received that are too long, 8.2.3.23.29.
    ROC = at(0x040ac).counter();
    /// Jabber received, 8.2.3.23.30.
    RJC = at(0x040b0).counter();
    /// Management frames received, 8.2.3.23.31.
    MNGPRC = at(0x040b4).counter();
    /// Management frames dropped, 8.2.3.23.32.
    MNGPDC = at(0x040b8).counter();
    /// All bytes received, 8.2.3.23.33.
    TORL = at(0x040c0).octets();
    /// All bytes received, high, 8.2.3.23.33.
    TORH = at(0x040c4).octets_high();
    /// All frames received, 8.2.3.23.34.
    TPR = at(0x040d0).counter();
    /// All frames sent, 8.2.3.23.35.
    TPT = at(0x040d4).counter();
    /// Frames sent of 64 bytes, 8.2.3.23.36.
    PTC64 = at(0x040d8).counter();
    /// Frames sent of 65 to 127 bytes, 8.2.3.23.37.
    PTC127 = at(0x040dc).counter();
    /// Frames sent of 128 to 255 bytes, 8.2.3.23.38.
    PTC255 = at(0x040e0).counter();
    /// Frames sent of 256 to 511 bytes, 8.2.3.23.39.
    PTC511 = at(0x040e4).counter();
    /// Frames sent of 512 to 1023 bytes, 8.2.3.23.40.
    PTC1023 = at(0x040e8).counter();
    /// Frames sent of 1024 bytes and more, 8.2.3.23.41.
    PTC1522 = at(0x040ec).counter();
    /// Multicasts sent, 8.2.3.23.42.
    MPTC = at(0x040f0).counter();
    /// Broadcasts sent, 8.2.3.23.43.
    BPTC = at(0x040f4).counter();
    /// Frames with a bad IP, TCP or UDP checksum, 8.2.3.23.46.
    XEC = at(0x04120).counter();
    /// Priority pause ends received, 8.2.3.23.
    PXONRXCNT = at(0x04140).times(8, 4).counter();
    /// Priority pauses received, 8.2.3.23.
    PXOFFRXCNT = at(0x04160).times(8, 4).counter();
    /// Frames of the management controller, 8.2.3.23.
    BMC = at(0x04180).times(8, 4).counter();
    /// Pause ends received, 8.2.3.23.9.
    LXONRXCNT = at(0x041a4).counter();
    /// Pauses received, 8.2.3.23.11.
    LXOFFRXCNT = at(0x041a8).counter();
    /// Good frames that passed no filter, 8.2.3.23.
    RXNFGPC = at(0x041b0).counter();
    /// Their bytes, 8.2.3.23.
    RXNFGBCL = at(0x041b4).octets();
    /// Their bytes, high, 8.2.3.23.
    RXNFGBCH = at(0x041b8).octets_high();
    /// Frames between host and management (X540 datasheet).
    B2OSPC = at(0x041c0).times(2, 4).counter();
    /// Pauses of the management controller, 8.2.3.23.
    BXC = at(0x041e0).times(3, 4).counter();
    /// Low power idle of transmit and receive (X540 datasheet).
    LPIC = at(0x041f4).times(2, 4).counter();
    /// FCoE checksum errors, 8.2.3.23.
    FCCRC = at(0x05118).counter();
    /// Flow director: filters added and removed, 8.2.3.7.24.
    FDIRUSTAT = at(0x0ee50).counter();
    /// Flow director: filters that failed, 8.2.3.7.24.
    FDIRFSTAT = at(0x0ee54).counter();
    /// Flow director: frames that matched, 8.2.3.7.24.
    FDIRMATCH = at(0x0ee58).counter();
    /// Flow director: frames that did not, 8.2.3.7.24.
    FDIRMISS = at(0x0ee5c).counter();
    /// Frames sent by each set of queues, 8.2.3.23.
    QPTC = at(0x08680).times(16, 4).counter();
    /// Bytes sent by each set of queues, 8.2.3.23.
    QBTC_L = at(0x08700).times(16, 8).octets();
    /// Bytes sent, high, 8.2.3.23.
    QBTC_H = at(0x08704).times(16, 8).octets_high();
    /// Good frames sent by virtual functions, 8.2.3.23.
    PVFGPTC = at(0x08300).times(64, 4).counter();
    /// Good bytes sent by virtual functions, 8.2.3.23.
    PVFGOTC_L = at(0x08400).times(64, 8).octets();
    /// Good bytes sent, high, 8.2.3.23.
    PVFGOTC_H = at(0x08404).times(64, 8).octets_high();
    /// Frames that switching dropped, 8.2.3.23.
    SSVPC = at(0x08780).counter();
    /// FCoE frames sent, 8.2.3.23.
    FCOEPTC = at(0x08784).counter();
    /// FCoE words sent, 8.2.3.23.
    FCOEDWTC = at(0x08788).counter();
    /// Good frames that transmit DMA sent, 8.2.3.23.
    TXDGPC = at(0x087a0).counter();
    /// Their bytes, 8.2.3.23.
    TXDGBCL = at(0x087a4).octets();
    /// Their bytes, high, 8.2.3.23.
    TXDGBCH = at(0x087a8).octets_high();
    /// Frames between host and management (X540 datasheet).
    O2BSPC = at(0x087b0).counter();
    /// Priority pause ends received, kept from the 82598.
    PXONRXC = at(0x0cf00).times(8, 4).counter();
    /// Priority pauses received, kept from the 82598.
    PXOFFRXC = at(0x0cf20).times(8, 4).counter();
    /// Pause ends received, kept from the 82598.
    LXONRXC = at(0x0cf60).counter();
    /// Pauses received, kept from the 82598.
    LXOFFRXC = at(0x0cf68).counter();
    /// Management frames sent, 8.2.3.23.
    MNGPTC = at(0x0cf90).counter();

    /// Frames received by each set of queues, 8.2.3.23. On a page of queue registers.
    QPRC = at(0x01030).times(16, 0x40).counter();
    /// Bytes received by each set of queues, 8.2.3.23.
    QBRC_L = at(0x01034).times(16, 0x40).octets();
    /// Bytes received, high, 8.2.3.23.
    QBRC_H = at(0x01038).times(16, 0x40).octets_high();
    /// Frames dropped by each set of queues, 8.2.3.23.
    QPRDC = at(0x01430).times(16, 0x40).counter();
}
