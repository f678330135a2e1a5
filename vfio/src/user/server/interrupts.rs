//! DEVICE_SET_IRQS.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_MASK, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_TYPE_MASK, VFIO_IRQ_SET_ACTION_UNMASK,
    VFIO_IRQ_SET_DATA_BOOL, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, VFIO_IRQ_SET_DATA_TYPE_MASK,
};

use super::InterruptKind;
use super::session::{Answer, Session};
use crate::user::wire::Fields;

impl Session<'_> {
    pub(super) fn set_interrupts(&mut self, body: &[u8], files: Vec<OwnedFd>) -> Result<Answer, Errno> {
        let mut fields = Fields::new(body);
        let (Some(_), Some(flags), Some(index), Some(first), Some(count)) =
            (fields.u32(), fields.u32(), fields.u32(), fields.u32(), fields.u32())
        else {
            return Err(Errno::INVAL);
        };
        let kind = Self::kind(index)?;
        let vectors = self.device.interrupt_count(kind);
        let data = flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
        let action = flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
        if data | action != flags || first.checked_add(count).is_none_or(|end| end > vectors) {
            return Err(Errno::INVAL);
        }
        if data == VFIO_IRQ_SET_DATA_EVENTFD {
            return match action {
                VFIO_IRQ_SET_ACTION_TRIGGER if count > 0 => self.connect(kind, first, count, files),
                // The device would tell the client when it is masked: no client that is known needs that.
                VFIO_IRQ_SET_ACTION_MASK | VFIO_IRQ_SET_ACTION_UNMASK => Err(Errno::NOTSUP),
                _ => Err(Errno::INVAL),
            };
        }
        let chosen: Vec<u32> = match data {
            VFIO_IRQ_SET_DATA_NONE => (first..first + count).collect(),
            VFIO_IRQ_SET_DATA_BOOL => {
                let booleans = fields.rest().get(..count as usize).ok_or(Errno::INVAL)?;
                (first..).zip(booleans).filter(|(_, chosen)| **chosen != 0).map(|(vector, _)| vector).collect()
            }
            _ => return Err(Errno::INVAL),
        };
        match action {
            // By convention: disables the whole kind.
            VFIO_IRQ_SET_ACTION_TRIGGER if count == 0 && data == VFIO_IRQ_SET_DATA_NONE => {
                self.connect(kind, 0, vectors, Vec::new())
            }
            VFIO_IRQ_SET_ACTION_TRIGGER => each(&chosen, |vector| self.device.trigger(kind, vector)),
            VFIO_IRQ_SET_ACTION_MASK => each(&chosen, |vector| self.device.mask(kind, vector, true)),
            VFIO_IRQ_SET_ACTION_UNMASK => each(&chosen, |vector| self.device.mask(kind, vector, false)),
            _ => Err(Errno::INVAL),
        }
    }

    /// Connects vectors to as many eventfds, or disconnects them when there is none.
    fn connect(&mut self, kind: InterruptKind, first: u32, count: u32, files: Vec<OwnedFd>) -> Result<Answer, Errno> {
        let vectors = match files.len() {
            0 => (0..count).map(|_| None).collect(),
            given if given == count as usize => files.into_iter().map(Some).collect(),
            _ => return Err(Errno::INVAL),
        };
        self.device.interrupts(kind, first, vectors).map(|()| Answer::default())
    }
}

fn each(vectors: &[u32], action: impl FnMut(u32) -> Result<(), Errno>) -> Result<Answer, Errno> {
    vectors.iter().copied().try_for_each(action).map(|()| Answer::default())
}
