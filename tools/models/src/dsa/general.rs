//! What belongs to the whole device: its state, causes of interrupts, errors that no completion record tells of.

use super::Tricks;
use super::descriptor::Descriptor;
use super::fault::Fault;
use super::registers::{PERMISSIONS, half, merge};
use super::status::Status;
use crate::card::Bus;

/// INTCAUSE.
const CAUSE_ERROR: u32 = 1 << 0;
const CAUSE_COMMAND: u32 = 1 << 1;
const CAUSE_OCCUPANCY: u32 = 1 << 2;
const CAUSE_HALT: u32 = 1 << 4;
/// GENCTRL: interrupt at an error, and when the device halts.
const ON_ERROR: u32 = 1 << 0;
const ON_HALT: u32 = 1 << 1;
/// GENCFG: limit of read buffers.
const LIMIT: u32 = 0xff;
/// The handle of the vector 0, where the command that gives handles out is to be used.
const FIRST_HANDLE: u16 = 0x40;

/// GENSTS, bits 1 to 0.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum State {
    /// Takes no descriptors; can be configured.
    #[default]
    Disabled = 0,
    /// Works.
    Enabled = 1,
    /// Finishes what it has, to be disabled then.
    Draining = 2,
    /// Stopped by an error.
    Halted = 3,
}

/// GENSTS, bits 3 to 2: what gets a halted device going.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ResetKind {
    /// The command that resets the device.
    #[default]
    Software = 0,
    /// A reset of the PCI function.
    Function = 1,
}

/// Where a descriptor comes from that SWERR tells of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) queue: u8,
    /// Its place in a batch.
    pub(super) member: Option<u16>,
    pub(super) descriptor: Descriptor,
    /// The queue's address space, when it has one of its own.
    pub(super) pasid: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct General {
    pub(super) state: State,
    pub(super) needs: ResetKind,
    configuration: u32,
    control: u32,
    cause: u32,
    error: [u64; 4],
    /// By vector.
    permissions: Vec<u32>,
    /// By vector; whether its handle was given out. `None` when handles are vectors.
    handles: Option<Vec<bool>>,
}

impl General {
    pub(super) fn new(vectors: u16, handles: bool) -> Self {
        Self {
            permissions: vec![0; vectors.into()],
            handles: handles.then(|| vec![false; vectors.into()]),
            ..Self::default()
        }
    }

    pub(super) fn load_configuration(&self) -> u32 {
        self.configuration
    }

    pub(super) fn store_configuration(&mut self, value: u32, mask: u32) {
        self.configuration = merge(self.configuration, value, mask & LIMIT);
    }

    pub(super) fn load_control(&self) -> u32 {
        self.control
    }

    pub(super) fn store_control(&mut self, value: u32, mask: u32) {
        self.control = merge(self.control, value, mask & (ON_ERROR | ON_HALT));
    }

    pub(super) fn load_status(&self) -> u32 {
        self.state as u32 | if self.state == State::Halted { (self.needs as u32) << 2 } else { 0 }
    }

    pub(super) fn load_cause(&self) -> u32 {
        self.cause
    }

    /// Ones clear.
    pub(super) fn store_cause(&mut self, value: u32, mask: u32) {
        self.cause &= !(value & mask);
    }

    pub(super) fn load_error(&self, offset: u32) -> u32 {
        let word = usize::try_from(offset / 8).ok().and_then(|index| self.error.get(index));
        word.map_or(0, |word| half(*word, offset))
    }

    /// Ones clear: valid and overflow.
    pub(super) fn store_error(&mut self, offset: u32, value: u32, mask: u32) {
        if offset == 0 {
            self.error[0] &= !u64::from(value & mask & 0x3);
        }
    }

    pub(super) fn permission(&mut self, offset: u32) -> Option<&mut u32> {
        let offset = offset.checked_sub(PERMISSIONS).filter(|offset| offset % 8 == 0)?;
        self.permissions.get_mut(usize::try_from(offset / 8).ok()?)
    }

    /// The upper halves of permissions have nothing.
    pub(super) fn is_permission(&self, offset: u32) -> bool {
        offset.checked_sub(PERMISSIONS).is_some_and(|offset| (offset / 8) as usize <= self.permissions.len())
    }

    /// The vector that a handle names, for descriptors of this address space.
    pub(super) fn vector(&self, handle: u16, pasid: Option<u32>) -> Option<u16> {
        let vector = match &self.handles {
            None => handle,
            Some(given) => {
                let vector = handle.checked_sub(FIRST_HANDLE)?;
                given.get(usize::from(vector)).copied().filter(|given| *given).map(|_| vector)?
            }
        };
        let permission = *self.permissions.get(usize::from(vector))?;
        let (ignore, enabled) = (permission & 1 << 2 != 0, permission & 1 << 3 != 0);
        let own = enabled.then_some(permission >> 12);
        (ignore || own == pasid).then_some(vector)
    }

    /// A handle for a vector. The status of the command, when there is none.
    pub(super) fn give_handle(&mut self, vector: u16) -> Result<u16, u8> {
        let given = self.handles.as_mut().and_then(|given| given.get_mut(usize::from(vector)));
        *given.ok_or(0x41)? = true;
        Ok(vector + FIRST_HANDLE)
    }

    /// Takes a handle back.
    pub(super) fn take_handle(&mut self, handle: u16) -> Result<u16, u8> {
        let vector = handle.checked_sub(FIRST_HANDLE).map(usize::from);
        let given = self.handles.as_mut().zip(vector).and_then(|(given, vector)| given.get_mut(vector));
        match given {
            Some(given) if *given => {
                *given = false;
                Ok(0)
            }
            _ => Err(0x43),
        }
    }

    /// Signals a vector, unless the device loses it.
    pub(super) fn signal(bus: &mut Bus, tricks: &Tricks, vector: u16) {
        if !tricks.is(Fault::InterruptsLost) {
            bus.signal(vector);
        }
    }

    fn raise(&mut self, bus: &mut Bus, tricks: &Tricks, cause: u32) {
        self.cause |= cause;
        Self::signal(bus, tricks, 0);
    }

    /// A command has ended that was to interrupt.
    pub(super) fn command_ended(&mut self, bus: &mut Bus, tricks: &Tricks) {
        self.raise(bus, tricks, CAUSE_COMMAND);
    }

    /// A queue has come below the occupancy that was to interrupt.
    pub(super) fn queue_emptied(&mut self, bus: &mut Bus, tricks: &Tricks) {
        self.raise(bus, tricks, CAUSE_OCCUPANCY);
    }

    /// An error that no completion record tells of.
    pub(super) fn report(
        &mut self,
        bus: &mut Bus,
        tricks: &Tricks,
        status: Status,
        origin: Option<Origin>,
        address: u64,
    ) {
        if self.error[0] & 1 != 0 {
            self.error[0] |= 2;
        } else {
            let mut error = 1 | u64::from(status.0) << 8;
            self.error = [0, 0, address, 0];
            if let Some(origin) = origin {
                // Descriptor and queue are valid.
                error |= 0xc | u64::from(origin.queue) << 16 | u64::from(origin.descriptor.code()) << 32;
                error |= u64::from(origin.pasid & 0xf_ffff) << 40;
                if let Some(member) = origin.member {
                    error |= 1 << 4;
                    self.error[1] = member.into();
                }
                if status == Status::RECORD_PAGE_FAULT {
                    error |= 1 << 5;
                }
            }
            self.error[0] = error;
        }
        if self.control & ON_ERROR != 0 {
            self.raise(bus, tricks, CAUSE_ERROR);
        }
    }

    /// The device stops.
    pub(super) fn halt(&mut self, bus: &mut Bus, tricks: &Tricks, needs: ResetKind, silently: bool) {
        (self.state, self.needs) = (State::Halted, needs);
        if !silently && self.control & ON_HALT != 0 {
            self.raise(bus, tricks, CAUSE_HALT);
        }
    }
}
