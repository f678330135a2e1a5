//! What one engine uses and control changes now and then, with no atomic read-modify-write and no fence on the engine's side.
//!
//! The engine says "inside" and then looks whether control wants in; control says that it wants in and then looks whether the
//! engine is inside. Each side has to store before it loads. Control sees to it for both: `membarrier(2)` runs a full barrier on
//! every thread of the process that is running. Where the system has no such call, the engine uses a fence.
//!
//! The engine never waits: when control is inside, it does something else and comes back.

#![expect(unsafe_code, reason = "two threads take turns at a value, and the kernel runs barriers")]

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long control waits for an engine to come out, which is inside for one batch at a time.
const PATIENCE: Duration = Duration::from_secs(5);
/// What control sleeps between two looks.
const PAUSE: Duration = Duration::from_micros(20);
/// Looks before it sleeps.
const SPINS: u32 = 200;

/// A value for an engine, which control changes now and then.
///
/// Invariant: the value is borrowed only by who is inside: the engine while `inside` is set and `wanted` was not when it looked;
/// control while `wanted` is set and `inside` was not when it looked.
pub(super) struct Gate<T> {
    /// The engine is inside, or is looking whether it may be.
    inside: AtomicBool,
    /// Control is inside, or waiting.
    wanted: AtomicBool,
    /// One thread of control at a time.
    control: Mutex<()>,
    /// The kernel runs barriers for us.
    asymmetric: bool,
    value: UnsafeCell<T>,
}

// SAFETY: the gate hands the value from thread to thread, one at a time.
unsafe impl<T: Send> Sync for Gate<T> {}

impl<T> Gate<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            inside: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            control: Mutex::new(()),
            asymmetric: has_barrier(),
            value: UnsafeCell::new(value),
        }
    }

    /// The engine's way in. `None` while control is inside or waiting.
    ///
    /// # Safety
    /// One thread at a time calls this on a gate, and not again while it holds what it got.
    #[inline(always)]
    pub(super) unsafe fn try_enter(&self) -> Option<Engine<'_, T>> {
        self.inside.store(true, Ordering::Relaxed);
        if self.asymmetric {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
        // From here on the engine leaves when this is dropped. Acquire: what control did inside is seen.
        let engine = Engine { gate: self };
        (!self.wanted.load(Ordering::Acquire)).then_some(engine)
    }

    /// Control's way in. Waits for the engine to come out.
    ///
    /// # Errors
    /// When it does not: its thread hangs within one batch, which no queue of ours does.
    pub(super) fn enter(&self) -> Result<Control<'_, T>, Busy> {
        let turn = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        self.wanted.store(true, Ordering::Relaxed);
        let control = Control { gate: self, _turn: turn };
        fence(Ordering::SeqCst);
        if self.asymmetric {
            barrier();
        }
        let start = Instant::now();
        let mut looks = 0;
        // Acquire: what the engine did inside is seen.
        while self.inside.load(Ordering::Acquire) {
            looks += 1;
            if looks < SPINS {
                std::hint::spin_loop();
            } else if start.elapsed() < PATIENCE {
                std::thread::sleep(PAUSE);
            } else {
                return Err(Busy);
            }
        }
        Ok(control)
    }
}

/// An engine did not come out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Busy;

/// The engine is inside.
pub(super) struct Engine<'g, T> {
    gate: &'g Gate<T>,
}

impl<T> Deref for Engine<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: by the gate's invariant the engine is alone inside.
        unsafe { &*self.gate.value.get() }
    }
}

impl<T> DerefMut for Engine<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: by the gate's invariant the engine is alone inside, and there is one of these.
        unsafe { &mut *self.gate.value.get() }
    }
}

impl<T> Drop for Engine<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.gate.inside.store(false, Ordering::Release);
    }
}

/// Control is inside.
pub(super) struct Control<'g, T> {
    gate: &'g Gate<T>,
    /// Released after `wanted` was taken back.
    _turn: MutexGuard<'g, ()>,
}

impl<T> Deref for Control<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: by the gate's invariant control is alone inside.
        unsafe { &*self.gate.value.get() }
    }
}

impl<T> DerefMut for Control<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: by the gate's invariant control is alone inside, and there is one of these.
        unsafe { &mut *self.gate.value.get() }
    }
}

impl<T> Drop for Control<'_, T> {
    fn drop(&mut self) {
        self.gate.wanted.store(false, Ordering::Release);
    }
}

impl<T> fmt::Debug for Gate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("inside", &self.inside).field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

/// Registers the process for barriers, once. `false` when the system does not do them. Once there are threads, the kernel waits for a grace period, which takes
/// some ten milliseconds.
pub(super) fn has_barrier() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED))
}

/// Runs a full barrier on every thread of the process that runs now. Those that do not have one on their way.
fn barrier() {
    // It cannot fail once the process is registered.
    let done = membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    debug_assert!(done, "the process is registered");
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the call takes numbers only.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::sync::Arc;

    /// The one engine's way in.
    fn enter<T>(gate: &Gate<T>) -> Option<Engine<'_, T>> {
        // SAFETY: each test has one engine, which holds nothing when it calls this.
        unsafe { gate.try_enter() }
    }

    /// Two numbers that differ while somebody is inside, so that a second one inside shows.
    #[test]
    fn engine_and_control_are_never_inside_together() {
        let gate = Arc::new(Gate::new((0_u64, 0_u64)));
        let stop = Arc::new(AtomicBool::new(false));
        let engine = {
            let (gate, stop) = (Arc::clone(&gate), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut entered = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let Some(mut value) = enter(&gate) else { continue };
                    assert_eq!(value.0, value.1);
                    value.0 += 1;
                    compiler_fence(Ordering::SeqCst);
                    value.1 += 1;
                    entered += 1;
                }
                entered
            })
        };
        let mut changes = 0;
        while changes < 2000 {
            let mut value = gate.enter().unwrap();
            assert_eq!(value.0, value.1);
            value.0 += 1;
            std::hint::spin_loop();
            value.1 += 1;
            changes += 1;
        }
        stop.store(true, Ordering::Relaxed);
        let entered = engine.join().unwrap();
        let value = gate.enter().unwrap();
        assert_eq!(*value, (entered + changes, entered + changes));
    }

    #[test]
    fn a_panic_inside_opens_the_gate() {
        let gate = Gate::new(1);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _inside = enter(&gate).unwrap();
            panic!("inside");
        }));
        assert!(caught.is_err());
        assert_eq!(*gate.enter().unwrap(), 1);
    }
}
