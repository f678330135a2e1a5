//! Receive: filters, RSS, flow director, packet buffers, security, wake up (8.2.3.7, 8.2.3.8, 8.2.3.10, 8.2.3.12 to 8.2.3.19, 8.2.3.21).

use super::Part::{Control, Director, Security};
use super::{at, table};

table! {
    /// Pending bits of MSI-X, kept from the 82598: they are in a window of their own.
    MSIXPBA = at(0x02000).fixed();
    /// Receive arbiter, 8.2.3.10.1.
    RTRPCS = at(0x02430);
    /// Receive credits of traffic classes, 8.2.3.10.
    RTRPT4C = at(0x02140).times(8, 4);
    /// Receive credits' status, 8.2.3.10.
    RTRPT4S = at(0x02160).times(8, 4).fixed();
    /// Which statistics a receive queue counts in, 8.2.3.23.71.
    RQSMR = at(0x02300).times(32, 4).bits(0x0f0f_0f0f).kept();
    /// DMA coalescing (X540 datasheet).
    DMACR = at(0x02400);
    /// DMA coalescing (X540 datasheet).
    DMCTLX = at(0x02404);
    /// FCoE DMA context, 8.2.3.26.
    FCOE_DMA = at(0x02410).times(3, 4);
    /// FCoE DMA context access, 8.2.3.26.
    FCDMARW = at(0x02420);
    /// Diagnostics of receive DMA, 8.2.3.25.
    RDSTAT = at(0x02c00).times(9, 4);
    /// Receive DMA control, 8.2.3.8.8.
    RDRXCTL = at(0x02f00).of(Control);
    /// Drops of a queue without descriptors, by index (8.2.3.8, called QDE for virtual functions).
    QDE = at(0x02f04);
    /// Diagnostics of receive DMA, 8.2.3.25.
    RDHMPN = at(0x02f08);
    /// Diagnostics of receive DMA, 8.2.3.25.
    RIC_DW = at(0x02f10).times(8, 4);
    /// Diagnostics of receive DMA, 8.2.3.25.
    RDMAM = at(0x02f30).times(2, 4);
    /// What the receive DMA counters count, 8.2.3.23.
    RXDSTATCTRL = at(0x02f40);
    /// Diagnostics of receive DMA, 8.2.3.25.
    DRECCCTL2 = at(0x02f8c);
    /// Malicious driver detection of receive queues (X540 datasheet).
    LMVM_RX = at(0x02fa4).times(2, 4).fixed();
    /// Receive queues blocked for bad behaviour (X540 datasheet).
    WQBR_RX = at(0x02fb0).times(4, 4).silent();

    /// Receive control, 8.2.3.8.10.
    RXCTRL = at(0x03000).bits(0x1);
    /// Traffic classes of priorities, 8.2.3.10.4.
    RTRUP2TC = at(0x03020).bits(0x00ff_ffff);
    /// Behaviour of several functions, 8.2.3.8.
    STARCTRL = at(0x03024);
    /// Small packets in coalescing, 8.2.3.8.12.
    RSCDBU = at(0x03028);
    /// Diagnostics of the packet buffer, 8.2.3.25.
    RXPB_POINTERS = at(0x03100).times(37, 4);
    /// DMA coalescing thresholds (X540 datasheet), or error correction.
    DMCTH = at(0x03300).times(8, 4);
    /// RSS of virtual functions (X550 datasheet).
    PFVFMRQC = at(0x03400).times(64, 4);
    /// Diagnostics of the packet buffer, 8.2.3.25.
    RXBUF = at(0x03600).times(8, 4);
    /// Diagnostics of the packet buffer, 8.2.3.25.
    RXBUF_POINTERS = at(0x03700).times(16, 4);
    /// Receive packet buffer sizes, 8.2.3.8.9: all 512 KiB for the first.
    RXPBSIZE = at(0x03c00).times(8, 4).bits(0x000f_fc00).first(0x0008_0000);
    /// Receive credits, 8.2.3.10.
    RT2CR = at(0x03c20).times(8, 4);
    /// Receive credits' status, 8.2.3.10.
    RT2SR = at(0x03c40).times(8, 4);
    /// Drop enable of packet buffers, kept from the 82598.
    DROPEN = at(0x03d04);
    /// Error correction of the packet buffer, 8.2.3.25.
    RXDBUECC = at(0x03f70).times(2, 4);

    /// Receive checksum control, 8.2.3.7.16.
    RXCSUM = at(0x05000).bits(0x3000);
    /// Receive filter control, 8.2.3.7.15.
    RFCTL = at(0x05008).bits(0x0003_80ff);
    /// Management VLANs, 8.2.3.24.
    MAVTV = at(0x05010).times(8, 4);
    /// Management ports, 8.2.3.24.
    MFUTP = at(0x05030).times(8, 4);
    /// Management addresses, 8.2.3.24.
    BMCIP = at(0x05050).times(5, 4);
    /// UDP ports of tunnels (X550 datasheet).
    VXLANCTRL = at(0x0507c);
    /// VLAN ethernet type of the outer tag, 8.2.3.7.12.
    EXVET = at(0x05078).reset(0x8100_0000);
    /// Filter control, 8.2.3.7.1.
    FCTRL = at(0x05080).bits(0x0000_0702);
    /// VLAN control, 8.2.3.7.2.
    VLNCTRL = at(0x05088).reset(0x0000_8100).bits(0xf000_ffff);
    /// Multicast control, 8.2.3.7.3.
    MCSTCTRL = at(0x05090).bits(0x7);
    /// Mapping of priorities, kept from the 82598.
    RUPPBMR = at(0x050a0);
    /// Test of receive filters, 8.2.3.25.
    RFVAL = at(0x050a4);
    /// Hash keys of pools (X550 datasheet).
    PFVFRSSRK = at(0x18000).times(1024, 4).kept();
    /// Redirection tables of pools (X550 datasheet).
    PFVFRETA = at(0x19000).times(1024, 4).kept();
    /// Flexible filter lengths (X540 datasheet).
    PFFLP = at(0x050b0).times(2, 4);
    /// FCoE receive control and filters, 8.2.3.26.
    FCOE_RX = at(0x05100).times(6, 4);
    /// Time stamped message types, 8.2.3.20.
    RXMTRL = at(0x05120).reset(0x88f7_0000);
    /// Ethernet type filters, 8.2.3.7.18.
    ETQF = at(0x05128).times(8, 4).kept();
    /// Congestion notification round trip, 8.2.3.10.
    RTTBCNRTT = at(0x05150);
    /// FCoE end of frame, 8.2.3.26.
    REOFF = at(0x05158);
    /// Management decision filters, 8.2.3.24.
    MDEF_EXT = at(0x05160).times(8, 4);
    /// Switch control of virtual machines, 8.2.3.27.
    VMTXSW = at(0x05180).times(2, 4);
    /// Receive time stamping, 8.2.3.20.1.
    TSYNCRXCTL = at(0x05188).bits(0x1e);
    /// Management type filters, 8.2.3.24.
    METF = at(0x05190).times(4, 4);
    /// Source of a stamped frame, 8.2.3.20.4.
    RXSATRL = at(0x051a0).fixed();
    /// Receive stamp, high, 8.2.3.20.3.
    RXSTMPH = at(0x051a4).fixed();
    /// Source of a stamped frame, 8.2.3.20.5.
    RXSATRH = at(0x051a8).fixed();
    /// Virtualisation control, 8.2.3.27.1.
    VT_CTL = at(0x051b0);
    /// Errors corrected in filters, 8.2.3.25.
    RXFECCERR0 = at(0x051b8);
    /// FCoE offset, 8.2.3.26.
    FCPARAM = at(0x051d8);
    /// Receive enable of virtual functions, 8.2.3.27.
    PFVFRE = at(0x051e0).times(2, 4);
    /// Receive stamp, low, 8.2.3.20.2.
    RXSTMPL = at(0x051e8).fixed();
    /// FCoE start of frame, 8.2.3.26.
    RSOFF = at(0x051f8);
    /// Multicast hash table, 8.2.3.7.7.
    MTA = at(0x05200).times(128, 4).kept();
    /// Wake up control, 8.2.3.21.1.
    WUC = at(0x05800).kept();
    /// Wake up filters, 8.2.3.21.2.
    WUFC = at(0x05808).kept();
    /// Wake up status, 8.2.3.21.3.
    WUS = at(0x05810).silent();
    /// Queues of virtual machines, kept from the 82598.
    VMD_CTL = at(0x0581c);
    /// Management control, 8.2.3.24.
    MANC = at(0x05820).fixed();
    /// Management filters, 8.2.3.24.
    MFVAL = at(0x05824);
    /// IP addresses valid for wake up, 8.2.3.21.4.
    IPAV = at(0x05838).kept();
    /// IPv4 addresses for wake up, 8.2.3.21.5.
    IP4AT = at(0x05840).times(8, 4).kept();
    /// Management to host, 8.2.3.24.
    MANC2H = at(0x05860);
    /// IPv6 address for wake up, 8.2.3.21.6.
    IP6AT = at(0x05880).times(4, 4).kept();
    /// Management decision filters, 8.2.3.24.
    MDEF = at(0x05890).times(8, 4);
    /// Management filter, 8.2.3.24.
    MIPAF = at(0x058b0).times(16, 4);
    /// Length of the wake up packet, 8.2.3.21.7.
    WUPL = at(0x05900).fixed();
    /// Management addresses, 8.2.3.24.
    MMA = at(0x05910).times(8, 4);
    /// The wake up packet, 8.2.3.21.8.
    WUPM = at(0x05a00).times(32, 4).fixed();
    /// Immediate interrupts of frames, kept from the 82598.
    IMIR = at(0x05a80).times(17, 4);
    /// Proxying (X540 datasheet).
    PROXY = at(0x05f60).times(2, 4);
    /// Flexible filters for wake up, 8.2.3.21.9.
    FHFT = at(0x09000).times(1024, 4).kept();

    /// VLAN filter table, 8.2.3.7.11.
    VFTA = at(0x0a000).times(128, 4).kept();
    /// Station addresses, low, 8.2.3.7.8.
    RAL = at(0x0a200).times(128, 8);
    /// Station addresses, high, 8.2.3.7.9.
    RAH = at(0x0a204).times(128, 8).bits(0x8000_ffff);
    /// Pools of station addresses, 8.2.3.7.10.
    MPSAR = at(0x0a600).times(256, 4).kept();
    /// Source address of queue filters, 8.2.3.7.19.
    SAQF = at(0x0e000).times(128, 4).kept();
    /// Destination address of queue filters, 8.2.3.7.20.
    DAQF = at(0x0e200).times(128, 4).kept();
    /// Ports of queue filters, 8.2.3.7.21.
    SDPQF = at(0x0e400).times(128, 4).kept();
    /// Five tuple queue filters, 8.2.3.7.22.
    FTQF = at(0x0e600).times(128, 4).kept();
    /// Immediate interrupts of queue filters, 8.2.3.7.23.
    L34TIMIR = at(0x0e800).times(128, 4).kept();
    /// Packet types that are split or replicated, 8.2.3.7.4.
    PSRTYPE = at(0x0ea00).times(64, 4).kept();
    /// Redirection table, 8.2.3.7.13.
    RETA = at(0x0eb00).times(32, 4).kept();
    /// Hash key, 8.2.3.7.14.
    RSSRK = at(0x0eb80).times(10, 4).kept();
    /// Queues of ethernet types, 8.2.3.7.18.
    ETQS = at(0x0ec00).times(8, 4).kept();
    /// Queue of SYN packets, 8.2.3.7.17.
    SYNQF = at(0x0ec30);
    /// Bits of the RSS queue for each traffic class, 8.2.3.7.
    RQTC = at(0x0ec70).reset(0x7777_7777);
    /// Multiple receive queues, 8.2.3.7.12.
    MRQC = at(0x0ec80);
    /// Low latency interrupt threshold, 8.2.3.5.
    LLITHRESH = at(0x0ec90);
    /// FCoE redirection, 8.2.3.26.
    FCRECTL = at(0x0ed00);
    /// FCoE redirection table, 8.2.3.26.
    FCRETA = at(0x0ed10).times(32, 4);
    /// Flow director control, 8.2.3.7.24.
    FDIRCTRL = at(0x0ee00).of(Director);
    /// Flow director's filters, 8.2.3.7.24.
    FDIR_FILTER = at(0x0ee0c).times(8, 4);
    /// Flow director command, 8.2.3.7.24.
    FDIRCMD = at(0x0ee2c).of(Director);
    /// Flow director: free filters, 8.2.3.7.24.
    FDIRFREE = at(0x0ee38).of(Director);
    /// Flow director's masks, 8.2.3.7.24.
    FDIR_MASKS = at(0x0ee3c).times(4, 4);
    /// Flow director: longest list, 8.2.3.7.24.
    FDIRLEN = at(0x0ee4c).fixed();
    /// Flow director: hash keys, 8.2.3.7.24.
    FDIRHKEY = at(0x0ee68);
    /// Flow director: signature keys, 8.2.3.7.24.
    FDIRSKEY = at(0x0ee6c);
    /// Flow director: fields that do not count, 8.2.3.7.24.
    FDIRM = at(0x0ee70);
    /// Flow director: IPv6 mask, 8.2.3.7.24.
    FDIRIP6M = at(0x0ee74);
    /// Flow director: SCTP mask, 8.2.3.7.24.
    FDIRSCTPM = at(0x0ee78);
    /// Redirection table beyond 128 entries (X550 datasheet).
    ERETA = at(0x0ee80).times(96, 4).kept();
    /// Pools: layer 2 control, 8.2.3.27.
    PFVML2FLT = at(0x0f000).times(64, 4);
    /// VLANs of pools, 8.2.3.27.
    PFVLVF = at(0x0f100).times(64, 4).kept();
    /// Pools of VLANs, 8.2.3.27.
    PFVLVFB = at(0x0f200).times(128, 4).kept();
    /// Unicast hash table, 8.2.3.27.
    PFUTA = at(0x0f400).times(128, 4).kept();
    /// Mirroring, 8.2.3.27.
    PFMRCTL = at(0x0f600).times(4, 4);
    /// Mirrored VLANs, 8.2.3.27.
    PFMRVLAN = at(0x0f610).times(8, 4);
    /// Mirrored pools, 8.2.3.27.
    PFMRVM = at(0x0f630).times(8, 4);
    /// Security of receive, 8.2.3.12.
    SECRXCTRL = at(0x08d00).reset(0x1).of(Security);
    /// Security of receive: its path is empty, 8.2.3.12.
    SECRXSTAT = at(0x08d04).of(Security);
    /// IPsec receive tables, 8.2.3.13.
    IPSRX = at(0x08e00).times(13, 4);
    /// LinkSec receive, 8.2.3.14.
    LSECRX = at(0x08f04).times(15, 4);
    /// LinkSec receive abilities, 8.2.3.14.
    LSECRXCAP = at(0x08f00).fixed();
    /// LinkSec receive counters, 8.2.3.14.
    LSECRX_COUNTERS = at(0x08f40).times(17, 4).counter();
}
