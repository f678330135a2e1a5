//! Giving commands with nothing else to do, and stopping a device for good.

use alloc::string::ToString;
use core::time::Duration;

use super::command::{self, Command};
use super::registers::{DeviceState, VERSION, device_state, wants_bus_reset};
use crate::bus::{Bar, BusError, Clock, PciFunction, wait_until};
use crate::error::DeviceError;
use crate::stopped::Stopped;

const STEP: Duration = Duration::from_micros(20);

/// The error for a device that is gone.
pub(super) fn gone(device: &str) -> DeviceError {
    BusError::Gone { device: device.to_string(), reason: "its registers read as all ones".to_string() }.into()
}

/// The error for a wait that came to its end.
fn timed_out(device: &str, what: &'static str, limit: Duration) -> DeviceError {
    let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    DeviceError::Timeout { device: device.to_string(), what, milliseconds }
}

/// Gives a command and waits for its end.
///
/// # Errors
/// When the device is gone, does not come to an end within `limit`, or refuses.
pub(super) fn order(
    device: &str,
    bar: &impl Bar,
    clock: &dyn Clock,
    command: Command,
    limit: Duration,
) -> Result<u16, DeviceError> {
    let wait = |what| {
        let mut outcome = None;
        let mut present = true;
        wait_until(clock, limit, STEP, || {
            outcome = command::ended(bar);
            present = device_state(bar).is_some();
            outcome.is_some() || !present
        });
        // All ones from CMDSTS look like a command that is active; VERSION cannot be all ones.
        if !present || VERSION.load(bar, 0) == u32::MAX {
            return Err(gone(device));
        }
        outcome.ok_or_else(|| timed_out(device, what, limit))
    };
    // Failed or not, what was told before is over.
    let _ = wait("the end of an earlier command (CMDSTS)")?;
    command.give(bar);
    wait("the end of a command (CMDSTS)")?.map_err(|error| DeviceError::Device {
        device: device.to_string(),
        reason: alloc::format!("it refuses to {}: {error}; stop and start it", name(command)),
    })
}

fn name(command: Command) -> alloc::string::String {
    match command {
        Command::EnableDevice => "be enabled".to_string(),
        Command::ResetDevice => "be reset".to_string(),
        Command::EnableQueue(queue) => alloc::format!("enable work queue {queue}"),
        Command::DisableQueue(queue) => alloc::format!("disable work queue {queue}"),
        Command::AbortQueue(queue) => alloc::format!("abort work queue {queue}"),
        Command::RequestInterrupt(vector) => alloc::format!("give a handle for interrupt {vector}"),
    }
}

/// Resets the device and takes it off the bus. From here on it touches no memory, and has no configuration.
///
/// # Errors
/// When it is gone, or confirms neither its own reset within `limit` nor one by the bus.
pub(super) fn halt<F: PciFunction>(
    function: &mut F,
    bar: &F::Bar,
    clock: &dyn Clock,
    limit: Duration,
) -> Result<Stopped, DeviceError> {
    let reset = match device_state(bar) {
        None => Err(gone(function.name())),
        // It takes no commands then.
        Some(DeviceState::Halted) if wants_bus_reset(bar) => Err(DeviceError::Device {
            device: function.name().to_string(),
            reason: "it halted, and needs a reset by the bus (GENSTS), which has none; restart the machine".to_string(),
        }),
        Some(_) => {
            order(function.name(), bar, clock, Command::ResetDevice, limit).and_then(|_| match device_state(bar) {
                Some(DeviceState::Disabled) => Ok(()),
                None => Err(gone(function.name())),
                Some(state) => Err(DeviceError::Device {
                    device: function.name().to_string(),
                    reason: alloc::format!("it says that it was reset, and is {state:?} (GENSTS)"),
                }),
            })
        }
    };
    // Also when a reset failed: a device that does not listen is at least kept from memory.
    let off_bus = function.set_bus_master(false);
    match reset {
        Ok(()) => {}
        Err(DeviceError::Bus(error)) => return Err(error.into()),
        // The bus has a stronger reset than the device.
        Err(error) if function.reset().is_err() => return Err(error),
        Err(_) => {}
    }
    off_bus?;
    Ok(Stopped::confirmed())
}
