//! Rules of the datasheet about the order of writes, and about registers that belong together. What breaks one is recorded.

use super::registers::{HLREG0, MTQC, RDRXCTL, RTTDCS, RXCTRL, RXPBSIZE, Registers};

/// RXCTRL: receive is enabled. RTTDCS: the arbiter is stopped. HLREG0 and RDRXCTL: the check sequence is removed from frames.
const RECEIVE: u32 = 1;
const ARBITER_STOPPED: u32 = 1 << 6;
const STRIP: u32 = 1 << 1;

/// The rule that the change of the register at `offset`, which was just made, breaks.
pub(super) fn broken(registers: &Registers, offset: u32) -> Option<String> {
    let receives = registers.get(RXCTRL.offset) & RECEIVE != 0;
    if offset == MTQC.offset && registers.get(RTTDCS.offset) & ARBITER_STOPPED == 0 {
        return Some("MTQC was changed while the arbiter was running: set RTTDCS.ARBDIS first (7.2.1.2.1)".to_owned());
    }
    if receives && RXPBSIZE.index(offset).is_some() {
        return Some("RXPBSIZE was changed while receive was enabled: clear RXCTRL.RXEN first (4.6.7)".to_owned());
    }
    None
}

/// The rule that receiving a frame with these settings breaks.
pub(super) fn broken_by_receive(registers: &Registers) -> Option<&'static str> {
    // While receive is off, as after a reset, frames that come in are only dropped.
    let receives = registers.get(RXCTRL.offset) & RECEIVE != 0;
    let differ = (registers.get(HLREG0.offset) ^ registers.get(RDRXCTL.offset)) & STRIP != 0;
    (receives && differ).then_some("RDRXCTL.CRCSTRIP and HLREG0.RXCRCSTRP differ, and frames are received (8.2.3.8.8)")
}
