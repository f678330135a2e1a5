//! A port that is started anew on a thread of its own.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use drivers::nic::{LinkStatus, Offloads};
use hugemem::Region;

use crate::port::{PortControl, PortError, PortQueue, Supply};

/// What the thread works on.
struct Work {
    control: Box<dyn PortControl>,
    queues: Vec<PortQueue>,
    /// Why it is started anew.
    reason: PortError,
    /// Why it is stopped for good instead, if it is.
    given_up: Option<PortError>,
}

/// What became of a port.
pub(super) struct Renewed {
    /// Its control side; gone when that panicked.
    pub(super) control: Option<Box<dyn PortControl>>,
    /// Its queues; it is stopped when there are none.
    pub(super) queues: Result<Vec<PortQueue>, PortError>,
}

/// A port that is being started anew.
pub(super) struct Restart {
    /// Its number.
    pub(super) id: usize,
    name: String,
    /// Why, in words.
    pub(super) reason: String,
    thread: Result<JoinHandle<Renewed>, Renewed>,
}

impl Restart {
    /// Starts the port `name` anew, or stops it for good because it is given up.
    pub(super) fn begin(
        id: usize,
        name: &str,
        control: Box<dyn PortControl>,
        queues: Vec<PortQueue>,
        reason: PortError,
        given_up: Option<PortError>,
    ) -> Self {
        let words = reason.to_string();
        // The port travels through a slot, so that it is still here when no thread can be made.
        let slot = Arc::new(Mutex::new(Some(Work { control, queues, reason, given_up })));
        let (there, port) = (Arc::clone(&slot), name.to_owned());
        let thread = std::thread::Builder::new().name("restart".to_owned()).spawn(move || match take(&there) {
            Some(work) => work.run(),
            None => Renewed::lost(&port, "went away"),
        });
        let thread = thread.map_err(|error| match take(&slot) {
            // It holds up the others then.
            Some(work) => work.run(),
            None => Renewed::lost(name, &error.to_string()),
        });
        Self { id, name: name.to_owned(), reason: words, thread }
    }

    /// It has come to an end, of whatever kind.
    pub(super) fn is_done(&self) -> bool {
        self.thread.as_ref().map_or(true, JoinHandle::is_finished)
    }

    /// Waits for the end.
    pub(super) fn finish(self) -> Renewed {
        let Self { name, thread, .. } = self;
        match thread {
            Ok(thread) => thread.join().unwrap_or_else(|_| Renewed::lost(&name, "its driver panicked")),
            Err(renewed) => renewed,
        }
    }
}

fn take(slot: &Mutex<Option<Work>>) -> Option<Work> {
    slot.lock().ok().and_then(|mut slot| slot.take())
}

impl Work {
    fn run(self) -> Renewed {
        let Self { mut control, queues, reason, given_up } = self;
        let queues = match given_up {
            Some(error) => Err(control.stop(queues).err().unwrap_or(error)),
            None => control.restart(queues, reason),
        };
        Renewed { control: Some(control), queues }
    }
}

impl Renewed {
    fn lost(name: &str, reason: &str) -> Self {
        let error = PortError::Device { port: name.to_owned(), reason: format!("{reason} while it was started anew") };
        Self { control: None, queues: Err(error) }
    }
}

/// Stands in for the control side of a port while that is on another thread.
pub(super) struct Away {
    pub(super) offloads: Offloads,
}

impl PortControl for Away {
    fn link(&mut self) -> LinkStatus {
        LinkStatus::default()
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn describe(&mut self) -> String {
        "state DOWN starting anew".to_owned()
    }

    fn map(&mut self, _: &Region) -> Result<(), PortError> {
        Err(PortError::Device {
            port: "-".to_owned(),
            reason: "is being started anew; try again in a moment".to_owned(),
        })
    }

    fn supply(&self) -> Supply {
        Supply::Remaining
    }

    fn stop(&mut self, _: Vec<PortQueue>) -> Result<(), PortError> {
        Ok(())
    }
}
