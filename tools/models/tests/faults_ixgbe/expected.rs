//! What becomes of each fault.

use drivers::bus::BusError;
use drivers::nic::{DropReason, NicError};
use models::ixgbe::{Doorbells, Fault};

use crate::bench::NAME;

/// What was asked of the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Open,
    Start,
    Check,
    Stop,
}

/// What kind of error it said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A wait came to its deadline.
    Timeout,
    /// The card broke its rules.
    Device,
    /// The card is gone.
    Gone,
}

impl Kind {
    /// That of an error, which has to name the device.
    pub(crate) fn of(error: &NicError, what: &str) -> Self {
        let text = error.to_string();
        assert!(text.contains(NAME) && text.len() > 20, "{what}: {text:?} says too little");
        match error {
            NicError::Timeout { milliseconds, .. } => {
                assert!(*milliseconds > 0, "{what}: {text}");
                Self::Timeout
            }
            NicError::Device { .. } => Self::Device,
            NicError::Bus(BusError::Gone { .. }) => Self::Gone,
            other => panic!("{what}: {other} is no error to be expected of a card"),
        }
    }
}

/// The first error, when there is one: without, the driver goes on by itself.
pub(crate) type First = Option<(Step, Kind)>;

/// What becomes of the frames for which the card lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Frames {
    /// They arrive.
    Arrive,
    /// They arrive, with other bytes.
    Strange,
    /// The driver drops each, and says why.
    Dropped(&'static [DropReason]),
    /// The driver drops some, and each of these takes many others along.
    Merged(DropReason),
    /// The card keeps them: it never shows them to the driver.
    Kept,
    /// The card counts each as missed, when there is no second queue that takes it.
    Missed,
}

/// The table: what comes of a fault that is there before the card is opened, of one that strikes a running card, and of frames.
pub(crate) struct Expected {
    pub(crate) before: First,
    pub(crate) during: First,
    pub(crate) frames: Frames,
}

const fn expect(before: First, during: First, frames: Frames) -> Expected {
    Expected { before, during, frames }
}

/// Nobody is told, and nothing is harmed but frames.
const fn borne(frames: Frames) -> Expected {
    expect(None, None, frames)
}

/// Both under traffic only, so that it makes no difference when it was there first.
const fn noticed(kind: Kind, frames: Frames) -> Expected {
    let first = Some((Step::Check, kind));
    expect(first, first, frames)
}

/// What has to come of a fault. A new fault is to be added here, and the compiler does not say so: [`Fault`] is open.
pub(crate) fn expected(fault: Fault, doorbells: Doorbells) -> Expected {
    use Frames::{Arrive, Dropped, Kept, Merged, Missed, Strange};
    use Kind::{Device, Gone, Timeout};
    use Step::{Open, Start};
    match fault {
        Fault::DoneNever | Fault::DoneAhead => noticed(Device, Kept),
        Fault::DoneEarly => borne(Strange),
        Fault::LengthBeyondBuffer | Fault::LengthZero => borne(Dropped(&[DropReason::BadLength])),
        Fault::EndOfPacketNever => noticed(Device, Merged(DropReason::BadLength)),
        Fault::DescriptorGarbage => borne(Dropped(&[DropReason::BadLength])),
        Fault::ReceiveErrors => borne(Dropped(&[DropReason::Damaged])),
        Fault::TypesReserved => borne(Arrive),
        Fault::QueueWrong => borne(Missed),
        Fault::HeadWild => borne(Arrive),
        Fault::TransmitHang | Fault::TransmitDoneNever => noticed(Device, Arrive),
        Fault::TransmitDoneEarly | Fault::HeadWritebackWild => borne(Arrive),
        Fault::LinkFlap | Fault::LinkNeverUp => borne(Arrive),
        Fault::Removed => noticed(Gone, Kept),
        Fault::Absent => expect(Some((Open, Gone)), None, Arrive),
        Fault::ResetNeverDone => borne(Arrive),
        Fault::EepromNeverReady => expect(Some((Open, Timeout)), Some((Start, Timeout)), Arrive),
        Fault::EepromChecksumBad => expect(Some((Open, Device)), None, Arrive),
        Fault::DmaNeverReady => expect(Some((Open, Timeout)), Some((Start, Timeout)), Arrive),
        Fault::MasterDisableStuck => borne(Arrive),
        // On a shared page the driver finds the bit as it wrote it, until the card has looked.
        Fault::QueueEnableNever if doorbells == Doorbells::Shared => noticed(Device, Kept),
        Fault::QueueEnableNever => expect(Some((Start, Timeout)), Some((Step::Check, Device)), Kept),
        Fault::ResetSpontaneous => noticed(Device, Kept),
        Fault::DmaRefused => noticed(Device, Kept),
        Fault::DmaStray => borne(Arrive),
        Fault::InterruptsLost | Fault::InterruptsStorm | Fault::StatisticsJump => borne(Arrive),
        Fault::MacInvalid => expect(Some((Open, Device)), None, Arrive),
        Fault::SemaphoreStuck => expect(Some((Open, Timeout)), Some((Start, Timeout)), Arrive),
        other => panic!("{other} is in no table: say what has to come of it"),
    }
}

/// The card itself reaches for what is not its own.
pub(crate) fn strays(fault: Fault) -> bool {
    matches!(fault, Fault::DmaStray | Fault::DmaRefused)
}

/// It cannot be undone: the card is gone.
pub(crate) fn is_final(fault: Fault) -> bool {
    matches!(fault, Fault::Removed | Fault::Absent)
}
