//! Stopping an engine for good.

use alloc::string::ToString;
use core::time::Duration;

use super::options::Version;
use super::registers::{CHANCMD, CHANERR, CHANERR_INT, Registers, State, chancmd};
use crate::bus::{Bar, BusError, Clock, PciFunction, wait_until};
use crate::error::DeviceError;
use crate::stopped::Stopped;

/// How long a channel may take to come to rest. The reset that follows stops it anyway.
const SUSPEND_LIMIT: Duration = Duration::from_millis(20);
const STEP: Duration = Duration::from_micros(20);
/// Errors are kept in configuration space, too, below this version.
const ERRORS_MOVED: Version = Version(0x33);

/// The error for an engine that is gone.
pub(super) fn gone(device: &str) -> DeviceError {
    BusError::Gone { device: device.to_string(), reason: "its registers read as all ones".to_string() }.into()
}

/// The error for a wait that came to its end.
pub(super) fn timed_out(device: &str, what: &'static str, limit: Duration) -> DeviceError {
    let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    DeviceError::Timeout { device: device.to_string(), what, milliseconds }
}

/// Resets channels `0..count` and takes the engine off the bus. From here on it touches no memory.
///
/// # Errors
/// When it is gone, or confirms neither its own resets within `limit` each nor one by the bus.
pub(super) fn halt<F: PciFunction>(
    function: &mut F,
    bar: &F::Bar,
    count: u8,
    version: Version,
    clock: &dyn Clock,
    limit: Duration,
) -> Result<Stopped, DeviceError> {
    let reset = (0..count).try_for_each(|number| {
        let registers = Registers::new(bar.clone(), number);
        one(&registers, function.name(), clock, limit)
    });
    if version < ERRORS_MOVED
        && let Ok(errors) = function.read_config(CHANERR_INT)
    {
        // Cleared by writing them back, as those of the register. One that cannot be written shows at the next start.
        let _ = function.write_config(CHANERR_INT, errors);
    }
    // Also when a reset failed: an engine that does not listen is at least kept from memory.
    let off_bus = function.set_bus_master(false);
    match reset {
        Ok(()) => {}
        // The bus may have a stronger reset than the engine.
        Err(DeviceError::Bus(error)) => return Err(error.into()),
        Err(error) if function.reset().is_err() => return Err(error),
        Err(_) => {}
    }
    off_bus?;
    Ok(Stopped::confirmed())
}

/// Stops one channel and clears its errors.
fn one<B: Bar>(registers: &Registers<B>, device: &str, clock: &dyn Clock, limit: Duration) -> Result<(), DeviceError> {
    let state = registers.state().ok_or_else(|| gone(device))?;
    if matches!(state, State::Active | State::Idle) {
        registers.store(&CHANCMD, chancmd::SUSPEND);
        // One that does not is what the reset is for.
        wait_until(clock, SUSPEND_LIMIT, STEP, || !matches!(registers.state(), Some(State::Active | State::Idle)));
    }
    let errors = registers.load(&CHANERR);
    registers.store(&CHANERR, errors);
    registers.store(&CHANCMD, chancmd::RESET);
    let mut present = true;
    let done = wait_until(clock, limit, STEP, || {
        let pending = registers.load(&CHANCMD) & chancmd::RESET != 0;
        let state = registers.state();
        present = state.is_some();
        !present || !(pending || state == Some(State::Active))
    });
    match (present, done) {
        (false, _) => Err(gone(device)),
        (true, false) => Err(timed_out(device, "a channel to finish its reset (CHANCMD)", limit)),
        (true, true) => Ok(()),
    }
}
