//! INTRCTRL, ATTNSTATUS and INTRDELAY: from a channel's wish to a vector.

use std::time::Duration;

use super::Tricks;
use super::fault::Fault;
use crate::card::Bus;

/// INTRCTRL: the master enable, which a read takes away; something wants attention; both; each channel has its own vector.
const MASTER: u8 = 1 << 0;
const STATUS: u8 = 1 << 1;
const BOTH: u8 = 1 << 2;
const VECTORS: u8 = 1 << 3;
/// INTRDELAY: microseconds; delays are possible.
const DELAY: u16 = 0x3fff;
const DELAYS: u16 = 0x8000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Interrupts {
    control: u8,
    delay: u16,
    /// ATTNSTATUS: one bit for each channel.
    attention: u32,
    /// Channels whose interrupt is under way, and when it is due.
    due: Vec<(u8, Duration)>,
}

impl Interrupts {
    /// Reads INTRCTRL.
    pub(super) fn load_control(&mut self) -> u8 {
        let status = if self.attention == 0 { 0 } else { STATUS };
        let both = if self.attention != 0 && self.control & MASTER != 0 { BOTH } else { 0 };
        let value = self.control | status | both;
        self.control &= !MASTER;
        value
    }

    pub(super) fn store_control(&mut self, value: u8) {
        self.control = value & (MASTER | VECTORS);
    }

    /// Reads ATTNSTATUS, which clears it.
    pub(super) fn load_attention(&mut self) -> u32 {
        std::mem::take(&mut self.attention)
    }

    pub(super) fn load_delay(&self) -> u16 {
        self.delay | DELAYS
    }

    pub(super) fn store_delay(&mut self, value: u16) {
        self.delay = value & DELAY;
    }

    /// A channel wants an interrupt.
    pub(super) fn raise(&mut self, bus: &mut Bus, tricks: &Tricks, channel: u8) {
        self.attention |= 1 << channel;
        if self.delay == 0 {
            self.signal(bus, tricks, channel);
        } else if !self.due.iter().any(|(waiting, _)| *waiting == channel) {
            self.due.push((channel, bus.now() + Duration::from_micros(self.delay.into())));
        }
    }

    fn signal(&self, bus: &mut Bus, tricks: &Tricks, channel: u8) {
        if tricks.is_on(Fault::InterruptsLost, channel) {
            return;
        }
        if self.control & VECTORS != 0 {
            bus.signal(channel.into());
        } else if self.control & MASTER != 0 {
            bus.signal(0);
        }
    }

    /// Sends what is due; `true` when there was something.
    pub(super) fn poll(&mut self, bus: &mut Bus, tricks: &Tricks, channels: u8) -> bool {
        let now = bus.now();
        let ready: Vec<u8> = self.due.iter().filter(|(_, at)| *at <= now).map(|(channel, _)| *channel).collect();
        self.due.retain(|(_, at)| *at > now);
        ready.iter().for_each(|channel| self.signal(bus, tricks, *channel));
        if tricks.is(Fault::InterruptsStorm) {
            (0..channels).for_each(|channel| self.signal(bus, tricks, channel));
        }
        !ready.is_empty()
    }
}
