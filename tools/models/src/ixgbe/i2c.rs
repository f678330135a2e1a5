//! The cage of the module: the pin that says whether there is one (ESDP, 8.2.3.1.4), the two wires to the module's management interface
//! (I2CCTL, 8.2.3.1.5), and the memory at their other end.
//!
//! The driver moves clock and data by hand. The module answers at address A0h (identification) and acknowledges nothing else.

use super::config::Config;
use super::registers::ESDP;
use super::sfp;

/// I2CCTL: clock and data, as they are and as the driver drives them. Both wires are pulled up and either side can pull them down.
const CLOCK_IN: u32 = 1 << 0;
const CLOCK_OUT: u32 = 1 << 1;
const DATA_IN: u32 = 1 << 2;
const DATA_OUT: u32 = 1 << 3;
/// ESDP: values of pins 0 to 7, and which of them the driver drives. Pin 2 is high while there is a module.
const PINS: u32 = 0xff;
const DIRECTION_SHIFT: u32 = 8;
const MODULE: u32 = 1 << 2;
/// Address of the identification, with the direction in bit 0.
const IDENTIFICATION: u8 = 0xa0;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Between a stop and a start, or spoken to somebody else.
    Idle,
    /// Bits of the device address arrive.
    Address,
    /// Bits of the memory address arrive.
    Place,
    /// Bits of data to write arrive: taken, and ignored.
    Data,
    /// The module sends bits.
    Send,
}

/// The module's end.
#[derive(Debug)]
pub(super) struct I2c {
    memory: Option<Box<[u8; 256]>>,
    /// ESDP as the driver wrote it.
    pins: u32,
    /// What the driver drives.
    clock: bool,
    data: bool,
    /// The module lets the data wire go.
    released: bool,
    state: State,
    /// Bits of the current byte that were seen; 8 is the acknowledge.
    bits: u8,
    byte: u8,
    place: u8,
}

impl I2c {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            memory: sfp::image(config.module, config.speed).filter(|_| !config.kind.is_copper()).map(Box::new),
            pins: 0,
            clock: true,
            data: true,
            released: true,
            state: State::Idle,
            bits: 0,
            byte: 0,
            place: 0,
        }
    }

    /// A reset of the chip: the driver drives nothing.
    pub(super) fn reset(&mut self) {
        self.pins = 0;
    }

    /// Reads one of its registers.
    pub(super) fn load(&self, offset: u32) -> u32 {
        if offset == ESDP.offset {
            let driven = self.pins >> DIRECTION_SHIFT & PINS;
            let input = if self.memory.is_some() { MODULE } else { 0 };
            return self.pins & !(PINS & !driven) | input & !driven;
        }
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        bit(self.clock, CLOCK_IN | CLOCK_OUT) | bit(self.data, DATA_OUT) | bit(self.data && self.released, DATA_IN)
    }

    /// Writes one of its registers.
    pub(super) fn store(&mut self, offset: u32, value: u32) {
        if offset == ESDP.offset {
            self.pins = value;
            return;
        }
        let (clock, data) = (value & CLOCK_OUT != 0, value & DATA_OUT != 0);
        let (was_clock, was_data) = (self.clock, self.data);
        (self.clock, self.data) = (clock, data);
        if was_clock && clock {
            // Data moves only while the clock is low, but to start and to stop.
            if was_data && !data {
                (self.state, self.bits, self.byte, self.released) = (State::Address, 0, 0, true);
            } else if !was_data && data {
                (self.state, self.released) = (State::Idle, true);
            }
        } else if !was_clock && clock {
            self.rise();
        } else if was_clock && !clock {
            self.fall();
        }
    }

    /// The clock rises: a bit is valid.
    fn rise(&mut self) {
        match self.state {
            State::Idle => return,
            // The driver acknowledges to have more, or ends it.
            State::Send if self.bits == 8 && self.data => self.state = State::Idle,
            State::Send => {}
            _ if self.bits < 8 => self.byte = self.byte << 1 | u8::from(self.data),
            _ => {}
        }
        self.bits += 1;
    }

    /// The clock falls: whoever drives the next bit changes the wire.
    fn fall(&mut self) {
        self.released = true;
        match (self.state, self.bits) {
            (State::Idle, _) => {}
            (State::Send, 0..8) => self.send_bit(),
            // The driver's acknowledge.
            (State::Send, 8) => {}
            (State::Send, _) => {
                self.place = self.place.wrapping_add(1);
                self.begin_byte();
            }
            (_, 8) => self.released = !self.takes(),
            (_, 9) => self.next(),
            _ => {}
        }
    }

    /// Whether the byte that arrived is acknowledged.
    fn takes(&mut self) -> bool {
        let mine = self.memory.is_some() && (self.state != State::Address || self.byte & 0xfe == IDENTIFICATION);
        if !mine {
            self.state = State::Idle;
        }
        mine
    }

    /// The acknowledge of a byte from the driver is over.
    fn next(&mut self) {
        self.bits = 0;
        match self.state {
            State::Address if self.byte & 1 == 1 => {
                self.state = State::Send;
                self.begin_byte();
                return;
            }
            State::Address => self.state = State::Place,
            State::Place => {
                self.place = self.byte;
                self.state = State::Data;
            }
            State::Data => self.place = self.place.wrapping_add(1),
            State::Idle | State::Send => {}
        }
        self.byte = 0;
    }

    fn begin_byte(&mut self) {
        self.bits = 0;
        self.byte = self.memory.as_ref().map_or(0xff, |memory| memory[usize::from(self.place)]);
        self.send_bit();
    }

    fn send_bit(&mut self) {
        self.released = self.byte & 0x80 != 0;
        self.byte <<= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Module;
    use super::super::registers::I2CCTL;
    use super::*;

    /// A driver's end of the wires.
    struct Master(I2c);

    impl Master {
        fn wires(&mut self, clock: bool, data: bool) -> bool {
            self.0.store(I2CCTL.offset, if clock { CLOCK_OUT } else { 0 } | if data { DATA_OUT } else { 0 });
            self.0.load(I2CCTL.offset) & DATA_IN != 0
        }

        fn start(&mut self) {
            self.wires(false, true);
            self.wires(true, true);
            self.wires(true, false);
            self.wires(false, false);
        }

        fn stop(&mut self) {
            self.wires(false, false);
            self.wires(true, false);
            self.wires(true, true);
        }

        fn bit(&mut self, data: bool) -> bool {
            self.wires(false, data);
            let seen = self.wires(true, data);
            self.wires(false, data);
            seen
        }

        /// Sends a byte; `true` when it was acknowledged.
        fn send(&mut self, byte: u8) -> bool {
            for place in (0..8).rev() {
                self.bit(byte >> place & 1 == 1);
            }
            !self.bit(true)
        }

        fn receive(&mut self, last: bool) -> u8 {
            let byte = (0..8).fold(0, |byte, _| byte << 1 | u8::from(self.bit(true)));
            self.bit(last);
            byte
        }

        fn read(&mut self, place: u8, count: usize) -> Option<Vec<u8>> {
            self.start();
            let there = self.send(0xa0) && self.send(place);
            self.start();
            let bytes =
                (there && self.send(0xa1)).then(|| (0..count).map(|at| self.receive(at + 1 == count)).collect());
            self.stop();
            bytes
        }
    }

    fn master(module: Module) -> Master {
        Master(I2c::new(&Config { module, ..Config::default() }))
    }

    #[test]
    fn the_identification_reads_bit_by_bit() {
        let mut cable = master(Module::DirectAttach);
        assert_eq!(cable.read(0, 3), Some(vec![0x03, 0x04, 0x21]));
        assert_eq!(cable.read(8, 1), Some(vec![0x04]));
        assert_eq!(cable.read(37, 3), Some(vec![0x00, 0x1b, 0x21]));
    }

    #[test]
    fn an_empty_cage_and_a_wrong_address_are_not_acknowledged() {
        assert_eq!(master(Module::Empty).read(0, 1), None);
        let mut cable = master(Module::DirectAttach);
        cable.start();
        assert!(!cable.send(0xa4));
        cable.stop();
        assert_eq!(cable.read(0, 1), Some(vec![0x03]));
    }
}
