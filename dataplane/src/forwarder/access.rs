//! Two ways to have a forwarder: alone, or with others.

use std::sync::{Arc, Mutex, PoisonError};

use super::Forwarder;

/// A forwarder that is got hold of for a moment at a time.
pub trait Access {
    /// Does something with it. Others wait meanwhile, so nothing that depends on a device or a back-end: only on engines and the switch's thread, which answer
    /// in milliseconds, and within seconds when they are overloaded.
    fn with<R>(&mut self, act: impl FnOnce(&mut Forwarder) -> R) -> R;
}

impl Access for Forwarder {
    fn with<R>(&mut self, act: impl FnOnce(&mut Forwarder) -> R) -> R {
        act(self)
    }
}

impl Access for Arc<Mutex<Forwarder>> {
    fn with<R>(&mut self, act: impl FnOnce(&mut Forwarder) -> R) -> R {
        // What a panic left half done is for the next check to find.
        act(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
