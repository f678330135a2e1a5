//! Transmit: DMA, packet buffers, arbiters, security, time (8.2.3.9, 8.2.3.10, 8.2.3.12, 8.2.3.20).

use super::Part::{Clock, Security};
use super::{at, table};

table! {
    /// Descriptor arbiter of transmit, 8.2.3.10.2: two bits are set after a reset.
    RTTDCS = at(0x04900).reset(0x00c0_0000);
    /// Queue whose settings the next registers are, 8.2.3.10.
    RTTDQSEL = at(0x04904);
    /// Credits of a queue, 8.2.3.10.
    RTTDT1C = at(0x04908);
    /// Credits' status of a queue, 8.2.3.10.
    RTTDT1S = at(0x0490c).fixed();
    /// Credits of traffic classes at the descriptors, 8.2.3.10.
    RTTDT2C = at(0x04910).times(8, 4);
    /// Their status, 8.2.3.10.
    RTTDT2S = at(0x04930).times(8, 4).fixed();
    /// Thresholds of the packet buffer, 8.2.3.9.17.
    TXPBTHRESH = at(0x04950).times(8, 4).first(0x96);
    /// Rate limiter, 8.2.3.10.
    RTTBCN = at(0x04980).times(4, 4);
    /// Errors of the descriptor arbiter, 8.2.3.10.
    RTTDTECC = at(0x04990);
    /// DMA control of transmit, 8.2.3.9.2.
    DMATXCTL = at(0x04a80).reset(0x8100_0004);
    /// TCP flags of the first and the middle segments, 8.2.3.9.3.
    DTXTCPFLGL = at(0x04a88).reset(0x0f76_0ff6);
    /// TCP flags of the last segment, 8.2.3.9.4.
    DTXTCPFLGH = at(0x04a8c).reset(0x0f7f);
    /// Congestion tags, 8.2.3.10.
    RTTBCNTG = at(0x04a90);
    /// FCoE frame delimiters, 8.2.3.26.
    TEOFF = at(0x04a94).times(2, 4);
    /// VLAN inserted for a pool, 8.2.3.27.
    PFVMVIR = at(0x08000).times(64, 4);
    /// Largest DMA requests of transmit, 8.2.3.9.1.
    DTXMXSZRQ = at(0x08100).reset(0x10).bits(0xfff);
    /// Malicious driver detection (X540 datasheet).
    LVMMC_TX = at(0x08108).fixed();
    /// Transmit enable of pools, 8.2.3.27.
    PFVFTE = at(0x08110).times(2, 4);
    /// Multiple transmit queues, 8.2.3.9.15.
    MTQC = at(0x08120).bits(0xf);
    /// Malicious driver detection (X540 datasheet).
    LMVM_TX = at(0x08124).fixed();
    /// Transmit queues blocked for bad behaviour (X540 datasheet).
    WQBR_TX = at(0x08130).times(4, 4).silent();
    /// Anti-spoofing, 8.2.3.27.
    PFVFSPOOF = at(0x08200).times(8, 4);
    /// Switch between pools, 8.2.3.27.
    PFDTXGSWC = at(0x08220);
    /// Diagnostics of transmit DMA, 8.2.3.25.
    TXDMA_DIAGNOSTICS = at(0x082b0).times(12, 4);
    /// Strict low latency queues, 8.2.3.9.
    TXLLQ = at(0x082e0).times(4, 4);
    /// Diagnostics of transmit DMA, 8.2.3.25.
    TDHMPN = at(0x082fc);
    /// Which statistics a transmit queue counts in, 8.2.3.23.73.
    TQSM = at(0x08600).times(32, 4).bits(0x0f0f_0f0f).kept();
    /// Enables malicious driver detection (X540 datasheet).
    VMECM = at(0x08790).times(2, 4);
    /// Security of transmit, 8.2.3.12.
    SECTXCTRL = at(0x08800).reset(0x1).of(Security);
    /// Security of transmit: its path is empty, 8.2.3.12.
    SECTXSTAT = at(0x08804).of(Security);
    /// Buffer of security, almost full, 8.2.3.12.
    SECTXBUFFAF = at(0x08808).reset(0x250).bits(0x3ff);
    /// Least gap of security, 8.2.3.12.
    SECTXMINIFG = at(0x08810).reset(0x1);
    /// IPsec transmit table, 8.2.3.13.
    IPSTX = at(0x08900).times(6, 4);
    /// LinkSec transmit abilities, 8.2.3.14.
    LSECTXCAP = at(0x08a00).fixed();
    /// LinkSec transmit, 8.2.3.14.
    LSECTX = at(0x08a04).times(14, 4);
    /// LinkSec transmit counters, 8.2.3.14.
    LSECTX_COUNTERS = at(0x08a3c).times(5, 4).counter();
    /// Congestion notification, 8.2.3.10.
    RTTBCNC = at(0x08b00).times(6, 4);
    /// Transmit time stamping, 8.2.3.20.6.
    TSYNCTXCTL = at(0x08c00).bits(0x10);
    /// Transmit stamp, 8.2.3.20.7.
    TXSTMP = at(0x08c04).times(2, 4).fixed();
    /// System time, low, 8.2.3.20.9.
    SYSTIML = at(0x08c0c).of(Clock);
    /// System time, high, 8.2.3.20.10.
    SYSTIMH = at(0x08c10).of(Clock);
    /// Increment of the system time, 8.2.3.20.11.
    TIMINCA = at(0x08c14).of(Clock);
    /// Adjustment of the system time, low, 8.2.3.20.12.
    TIMADJL = at(0x08c18).of(Clock);
    /// Adjustment of the system time, high, 8.2.3.20.13.
    TIMADJH = at(0x08c1c).of(Clock);
    /// Auxiliary control of the time, 8.2.3.20.14.
    TSAUXC = at(0x08c20);
    /// Target times and auxiliary stamps, 8.2.3.20.15.
    TRGTTIM = at(0x08c24).times(10, 4);
    /// Residue of the system time (X540 datasheet).
    SYSTIMR = at(0x08c58).of(Clock);
    /// Time interrupt cause (X540 datasheet).
    TSICR = at(0x08c60).silent();
    /// Time interrupt mask (X540 datasheet).
    TSIM = at(0x08c68);
    /// Traffic classes of priorities, 8.2.3.10.5.
    RTTUP2TC = at(0x0c800).bits(0x00ff_ffff);
    /// Diagnostics of the packet buffer, 8.2.3.25.
    TXPB_POINTERS = at(0x0c100).times(28, 4);
    /// Error correction of the packet buffer, 8.2.3.25.
    PBTXECC = at(0x0c300);
    /// Diagnostics of the packet buffer, 8.2.3.25.
    TXBUF = at(0x0c600).times(8, 4);
    /// Diagnostics of the packet buffer, 8.2.3.25.
    TXBUF_POINTERS = at(0x0c700).times(16, 4);
    /// Drops of looped back frames, 8.2.3.9.
    LBDRPEN = at(0x0ca00);
    /// Gap between frames, kept from the 82598.
    TIPG = at(0x0cb00);
    /// Transmit packet buffer sizes, 8.2.3.9.16: all 160 KiB for the first.
    TXPBSIZE = at(0x0cc00).times(8, 4).bits(0x000f_fc00).first(0x0002_8000);
    /// Packet arbiter of transmit, 8.2.3.10.3.
    RTTPCS = at(0x0cd00);
    /// Traffic class of management, 8.2.3.24.
    MNGTXMAP = at(0x0cd10);
    /// Credits of traffic classes at the packets, 8.2.3.10.
    RTTPT2C = at(0x0cd20).times(8, 4);
    /// Their status, 8.2.3.10.
    RTTPT2S = at(0x0cd40).times(8, 4).fixed();
    /// Error correction of the packet buffer, 8.2.3.25.
    TXDBUECC = at(0x0cf70).times(2, 4);
}
