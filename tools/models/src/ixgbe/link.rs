//! The link (3.7.4, 8.2.3.22): set up by AUTOC, up some time after cable, module and settings agree, and lost at once.

use std::time::Duration;

use super::config::{Config, Kind, Module, Speed};
use super::fault::{Fault, Trick};
use super::registers::{ANLP1, AUTOC, AUTOC2, LINKS, MACC, PCS1GLSTA};

/// AUTOC and MACC: the link is up whatever the other side does, for loopback (8.2.3.22.19, 8.2.3.22.33).
const FORCED: u32 = 1;
/// AUTOC: restart (clears itself), and the mode of the link (8.2.3.22.19).
const RESTART: u32 = 1 << 12;
const MODE_SHIFT: u32 = 13;
const MODE: u32 = 7 << MODE_SHIFT;
/// AUTOC as the EEPROM sets it: 10 Gb/s serial without negotiation. AUTOC2: the serial interface is SFI.
const AUTOC_FIRST: u32 = 0xc09c_6004;
const AUTOC2_FIRST: u32 = 0x000a_0000;
/// AUTOC2: the link is switched off (8.2.3.22.22).
const OFF: u32 = 7 << 28;
/// LINKS: up; speed; not down since it was read last; signal and alignment (8.2.3.22.20).
const UP: u32 = 1 << 30;
const STAYED_UP: u32 = 1 << 7;
const SIGNAL: u32 = 0x0002_0100;
/// ANLP1: state of the negotiation (8.2.3.22.23): not idle.
const NEGOTIATING: u32 = 4 << 16;
/// How long a flapping link stays up, and down.
const FLAP: Duration = Duration::from_millis(40);

/// The port.
#[derive(Debug)]
pub(super) struct Link {
    kind: Kind,
    module: Module,
    /// Speed of the link partner, or what a copper PHY has agreed on with it.
    speed: Option<Speed>,
    delay: Duration,
    plugged: bool,
    settings: u32,
    settings2: u32,
    mac: u32,
    up: bool,
    /// Since when everything agrees.
    training: Option<Duration>,
    /// It came up or went down, and no poll has reported it.
    changed: bool,
    /// It was down since LINKS was read.
    dropped: bool,
}

impl Link {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            kind: config.kind,
            module: config.module,
            speed: Some(config.speed),
            delay: config.link_delay,
            plugged: config.link_up,
            settings: AUTOC_FIRST,
            settings2: AUTOC2_FIRST,
            mac: 0,
            up: false,
            training: None,
            changed: false,
            dropped: true,
        }
    }

    /// Power is on: settings as in the EEPROM.
    pub(super) fn power_on(&mut self) {
        self.restart();
        (self.changed, self.dropped) = (false, true);
    }

    /// A link reset: settings as in the EEPROM, and from the start.
    pub(super) fn restart(&mut self) {
        (self.settings, self.settings2, self.mac) = (AUTOC_FIRST, AUTOC2_FIRST, 0);
        self.down();
    }

    /// The cable goes in or out.
    pub(super) fn plug(&mut self, plugged: bool) {
        self.plugged = plugged;
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    /// The PHY of a copper port negotiates anew, and will agree on `speed`.
    pub(super) fn negotiate(&mut self, speed: Option<Speed>) {
        self.speed = speed;
        self.down();
    }

    fn down(&mut self) {
        self.changed |= self.up;
        self.up = false;
        self.training = None;
        self.dropped = true;
    }

    fn is_forced(&self) -> bool {
        (self.settings | self.mac) & FORCED != 0
    }

    /// Settings, module and cable allow a link.
    fn agrees(&self, now: Duration, trick: &Trick) -> bool {
        let mode = (self.settings & MODE) >> MODE_SHIFT;
        let speed = if mode == 0 || mode == 2 { Speed::Gigabit } else { Speed::TenGigabit };
        let ready = match self.kind {
            Kind::X520 => self.module != Module::Empty && Some(speed) == self.speed && mode <= 3 && mode != 1,
            Kind::X540 | Kind::X550 => self.speed.is_some(),
        };
        let flapped = trick.is(Fault::LinkFlap) && (now.as_nanos() / FLAP.as_nanos()) % 2 == 1;
        (self.is_forced() || self.plugged && ready)
            && self.settings2 & OFF == 0
            && !flapped
            && !trick.is(Fault::LinkNeverUp)
    }

    /// Moves on; `true` when the link came up or went down.
    pub(super) fn poll(&mut self, now: Duration, trick: &Trick) -> bool {
        if !self.agrees(now, trick) {
            if self.up || self.training.is_some() {
                self.down();
            }
        } else if !self.up {
            let since = *self.training.get_or_insert(now);
            if now.saturating_sub(since) >= self.delay || self.is_forced() || trick.is(Fault::LinkFlap) {
                (self.up, self.changed) = (true, true);
            }
        }
        std::mem::take(&mut self.changed)
    }

    pub(super) fn load(&mut self, offset: u32) -> u32 {
        match offset {
            _ if offset == LINKS.offset => {
                let stayed = if self.up && !self.dropped { STAYED_UP } else { 0 };
                self.dropped = !self.up;
                if self.up { UP | SIGNAL | stayed | speed_bits(self.speed) } else { 0 }
            }
            _ if offset == AUTOC.offset => self.settings,
            _ if offset == AUTOC2.offset => self.settings2,
            _ if offset == MACC.offset => self.mac,
            _ if offset == ANLP1.offset => {
                // The modes from 4 on negotiate.
                if self.settings & (4 << MODE_SHIFT) == 0 { 0 } else { NEGOTIATING }
            }
            // 1 Gb/s: synchronised, negotiation complete.
            _ if offset == PCS1GLSTA.offset && self.up && self.speed == Some(Speed::Gigabit) => 0x0001_0011,
            _ => 0,
        }
    }

    pub(super) fn store(&mut self, offset: u32, value: u32) {
        match offset {
            _ if offset == AUTOC.offset => {
                let before = std::mem::replace(&mut self.settings, value & !RESTART);
                if value & RESTART != 0 || (before ^ value) & MODE != 0 {
                    self.down();
                }
            }
            _ if offset == AUTOC2.offset => self.settings2 = value,
            _ if offset == MACC.offset => self.mac = value,
            _ => {}
        }
    }
}

fn speed_bits(speed: Option<Speed>) -> u32 {
    match speed {
        Some(Speed::Megabits100) => 1 << 28,
        Some(Speed::Gigabit) => 2 << 28,
        Some(Speed::TenGigabit) | None => 3 << 28,
    }
}
