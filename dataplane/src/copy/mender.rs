//! The thread that mends the device.
//!
//! When a channel fails, all channels are called in, the device is stopped, which gives back what was underway, and is started anew. When it does not stop, it is
//! let go of: the bus takes it away from all memory. It is opened again then, and tried again and again, less and less often.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use drivers::copy_engine::CopyDone;

use super::copier::{Channel, Fresh};
use super::owner::{CopyState, Hardware, Opened, Shared, lock, of_seat};

/// How often it looks when nobody calls, and when there is something to wait for.
const LOOK: Duration = Duration::from_millis(200);
const GLANCE: Duration = Duration::from_micros(200);
/// How long engines may take to hand their channels in.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause before a device that did not start is tried again: the first, and the longest that it grows to.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub(super) fn spawn(shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("copy-mender".into()).spawn(move || run(&shared))
}

fn run(shared: &Shared) {
    let mut again: Option<Instant> = None;
    let mut pause = FIRST_PAUSE;
    while !shared.stop.load(Ordering::Acquire) {
        let busy = lock(&shared.seats).iter_mut().fold(false, |busy, seat| seat.tend() | busy);
        let due = again.is_some_and(|at| Instant::now() >= at);
        if shared.alarm.swap(false, Ordering::AcqRel) || due {
            match mend(shared, due) {
                Ok(()) => {
                    tracing::warn!("{}: works again; large frames are left to it", shared.name);
                    (again, pause) = (None, FIRST_PAUSE);
                }
                Err(reason) => {
                    shared.set_state(CopyState::Failed);
                    tracing::error!("{}: {reason}; the CPU copies, and it is tried again", shared.name);
                    again = Some(Instant::now() + pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            continue;
        }
        let left = again.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()).min(LOOK));
        std::thread::park_timeout(if busy { GLANCE } else { left });
    }
    end(shared);
}

/// Stops the device and starts it anew.
fn mend(shared: &Shared, again: bool) -> Result<(), String> {
    if !again {
        shared.failures.fetch_add(1, Ordering::Relaxed);
        let reason = lock(&shared.hardware).device.as_mut().and_then(|device| device.check().err());
        let reason = reason.map_or_else(|| "a channel failed".to_owned(), |error| error.to_string());
        tracing::error!("{}: {reason}; the CPU copies until it is started anew", shared.name);
    }
    shared.set_state(CopyState::Mending);
    let channels = call_in(shared);
    let mut hardware = lock(&shared.hardware);
    halt(shared, &mut hardware, channels);
    let started = start(&mut hardware);
    drop(hardware);
    let channels = started?;
    shared.recall.store(false, Ordering::Release);
    let mut seats = lock(&shared.seats);
    seats.iter_mut().zip(channels).for_each(|(seat, channel)| seat.give(channel));
    drop(seats);
    shared.restarts.fetch_add(1, Ordering::Relaxed);
    shared.set_state(CopyState::Working);
    Ok(())
}

/// Has all copiers hand their channels in. Those of engines that do not answer stay away.
fn call_in(shared: &Shared) -> Vec<Box<dyn Channel>> {
    shared.recall.store(true, Ordering::Release);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut seats = lock(&shared.seats);
        let mut here = true;
        for seat in seats.iter_mut() {
            if !seat.collect() {
                seat.call();
                here = false;
            }
        }
        if here || Instant::now() >= deadline || shared.stop.load(Ordering::Acquire) {
            return seats.iter_mut().filter_map(|seat| seat.take()).collect();
        }
        drop(seats);
        std::thread::park_timeout(GLANCE);
    }
}

/// Stops the device, and lets go of it when it does not stop. What was underway is answered.
fn halt(shared: &Shared, hardware: &mut Hardware, channels: Vec<Box<dyn Channel>>) {
    let expected = lock(&shared.seats).len();
    let complete = channels.len() == expected;
    let mut back: Vec<CopyDone> = Vec::new();
    let stopped = hardware.device.as_mut().map_or(Ok(()), |device| device.stop(channels, &mut back));
    let gone = stopped.is_err() || !complete;
    if gone {
        if let Err(error) = stopped {
            tracing::warn!("{}: {error}; it is let go of, and opened again", shared.name);
        }
        // Stops it in any case, and takes all memory away from it.
        hardware.device = None;
    }
    for (number, seat) in lock(&shared.seats).iter_mut().enumerate() {
        let fresh = Fresh { done: of_seat(&back, number), gone, channel: None };
        let _ =
            seat.send(fresh).inspect_err(|_| tracing::warn!("an engine does not take in what became of its copies"));
    }
}

/// Starts the device, opened anew if it has to be.
fn start(hardware: &mut Hardware) -> Result<Vec<Box<dyn Channel>>, String> {
    if hardware.device.is_none() {
        let Opened { mut device, .. } = (hardware.open)().map_err(|error| error.to_string())?;
        for window in &hardware.windows {
            device.map(window).map_err(|error| error.to_string())?;
        }
        hardware.device = Some(device);
    }
    let Some(device) = &mut hardware.device else { return Err("it is gone".to_owned()) };
    let started = device.start().map_err(|error| error.to_string());
    if started.is_err() {
        hardware.device = None;
    }
    started
}

/// Stops the device for good.
fn end(shared: &Shared) {
    let channels = call_in(shared);
    let mut hardware = lock(&shared.hardware);
    halt(shared, &mut hardware, channels);
    hardware.device = None;
    drop(hardware);
    // Copiers know what knows them.
    lock(&shared.seats).clear();
}
