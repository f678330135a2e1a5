//! A card that moves on by itself, on a thread of its own.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};

use super::chip::Chip;
use super::device::{Control, Device};
use super::idle::Idle;
use crate::wire::Wire;

/// Frames that a card has moved, and whether it is to end.
#[derive(Default)]
pub(super) struct Moved {
    transmitted: AtomicU64,
    received: AtomicU64,
    end: AtomicBool,
}

impl Moved {
    /// Moves a card on until it is to end. Doorbells in shared memory wake nobody, so it looks again and again.
    pub(super) fn keep<C: Chip, W: Wire>(&self, mut device: Device<C, W>) -> Device<C, W> {
        let mut idle = Idle::default();
        while !self.end.load(Ordering::Relaxed) {
            let work = device.poll();
            self.transmitted.fetch_add(work.transmitted.into(), Ordering::Relaxed);
            self.received.fetch_add(work.received.into(), Ordering::Relaxed);
            idle.after(work.is_idle());
        }
        device
    }

    pub(super) fn end(&self) {
        self.end.store(true, Ordering::Relaxed);
    }

    /// Transmitted, and received or dropped.
    pub(super) fn frames(&self) -> (u64, u64) {
        (self.transmitted.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}

/// The device half of a card on a thread of its own, which spins while there is work and sleeps at most a millisecond when there is none.
/// Dropping it ends the thread.
pub struct Running<C, W> {
    control: Control<C>,
    moved: Arc<Moved>,
    thread: Option<JoinHandle<Device<C, W>>>,
}

impl<C, W> fmt::Debug for Running<C, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("control", &self.control).finish_non_exhaustive()
    }
}

impl<C: Chip, W: Wire + 'static> Device<C, W> {
    /// Lets the card move on by itself.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn run(self) -> io::Result<Running<C, W>> {
        let (control, moved) = (self.control(), Arc::<Moved>::default());
        let its = Arc::clone(&moved);
        let thread = Builder::new().name("card".to_owned()).spawn(move || its.keep(self))?;
        Ok(Running { control, moved, thread: Some(thread) })
    }
}

impl<C, W> Running<C, W> {
    /// A handle that looks into the card.
    #[must_use]
    pub fn control(&self) -> &Control<C> {
        &self.control
    }

    /// Ends the thread; `None` when it panicked.
    #[must_use]
    pub fn stop(mut self) -> Option<Device<C, W>> {
        self.moved.end();
        self.thread.take().and_then(|thread| thread.join().ok())
    }
}

impl<C, W> Drop for Running<C, W> {
    fn drop(&mut self) {
        self.moved.end();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so on stderr.
            let _panicked = thread.join();
        }
    }
}
