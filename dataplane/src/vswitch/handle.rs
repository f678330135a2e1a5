//! How others ask the switch: closures that its thread carries out between two of its rounds.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use drivers::nic::MacAddress;

use super::capture::{CaptureRequest, Ended, RunningCapture};
use super::error::VswitchError;
use super::report::{Explanation, FlowFilter, FlowList, VswitchStatistics};
use super::state::State;
use super::trace::{RunningTrace, TraceRequest};
use crate::bell::Bell;
use crate::network::Config;
use crate::switch::PortSlot;

/// How long an answer that needs nobody else may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a change may take, for which every engine has to do something.
const CHANGE_PATIENCE: Duration = Duration::from_secs(12);
/// Requests that may wait.
pub(super) const MOST_REQUESTS: usize = 64;

/// Something to be done on the switch's thread.
pub(super) type Request = Box<dyn FnOnce(&mut State) + Send>;

/// Where an answer goes.
pub(super) type Reply<T> = SyncSender<Result<T, VswitchError>>;

/// A port that is to be attached to the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attached {
    /// Its number in the forwarder, which no other port has.
    pub number: usize,
    /// Bytes of the longest IP packet that it takes; 0 when it has no limit.
    pub mtu: u16,
    /// Its own Ethernet address, for a port to other hosts. Without one the switch makes one up.
    pub mac: Option<MacAddress>,
}

/// What handles and the thread share.
pub(super) struct Shared {
    pub(super) bell: Arc<Bell>,
    /// Names of the ports that the configuration has.
    pub(super) switched: RwLock<HashSet<String>>,
    /// Captures and traces whose users have gone.
    pub(super) ended: Ended,
    pub(super) running: AtomicBool,
    /// The thread is to end.
    pub(super) stop: AtomicBool,
}

impl Shared {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            bell: Arc::new(Bell::new()?),
            switched: RwLock::default(),
            ended: Ended::default(),
            running: AtomicBool::new(true),
            stop: AtomicBool::new(false),
        }))
    }

    /// The thread is to end.
    pub(super) fn end(&self) {
        self.stop.store(true, Ordering::Release);
        self.bell.call();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("running", &self.running).finish_non_exhaustive()
    }
}

/// Asks the switch. Each call has a deadline, and none blocks the switch. Calls are carried out in the order in which they come.
#[derive(Clone)]
pub struct Handle {
    requests: SyncSender<Request>,
    shared: Arc<Shared>,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> (Self, Receiver<Request>) {
        let (requests, received) = sync_channel(MOST_REQUESTS);
        (Self { requests, shared }, received)
    }

    /// Makes a port known, before its queues go to engines. Its slot is its place in the switch till [`Handle::detach`].
    ///
    /// # Errors
    /// When there is a port of this name already, or there are too many.
    pub fn attach(&self, name: &str, facts: Attached) -> Result<PortSlot, VswitchError> {
        let name = name.to_owned();
        self.later(CHANGE_PATIENCE, move |state, reply| state.attach(name, facts, reply))
    }

    /// Takes a port out, after the engines gave its queues back. Its slot is used again when no flow names it any more.
    ///
    /// # Errors
    /// When there is no port of this name.
    pub fn detach(&self, name: &str) -> Result<(), VswitchError> {
        let name = name.to_owned();
        self.ask(move |state| state.detach(&name))
    }

    /// What a configuration would change, a line each: `+ network blue` comes, `-` goes, `~` changes.
    ///
    /// # Errors
    /// What does not fit in it.
    pub fn plan(&self, config: Config) -> Result<Vec<String>, VswitchError> {
        self.ask(move |state| state.plan(config))
    }

    /// Makes the switch what the configuration says, all or nothing, and gives what changed, as [`Handle::plan`] does. Every packet sees all of it or nothing; when
    /// this returns, all do.
    ///
    /// # Errors
    /// What does not fit in it, or cannot be made: then everything is as before.
    pub fn apply(&self, config: Config) -> Result<Vec<String>, VswitchError> {
        self.change(move |running| {
            *running = config;
            Ok(())
        })
    }

    /// Edits the configuration that is in force, and applies it ([`Handle::apply`]). Nobody else's change comes between.
    ///
    /// # Errors
    /// What `edit` says, and as [`Handle::apply`].
    pub fn change(
        &self,
        edit: impl FnOnce(&mut Config) -> Result<(), String> + Send + 'static,
    ) -> Result<Vec<String>, VswitchError> {
        self.later(CHANGE_PATIENCE, move |state, reply| state.change(Box::new(edit), reply))
    }

    /// The configuration that is in force.
    ///
    /// # Errors
    /// When the switch does not answer.
    pub fn config(&self) -> Result<Config, VswitchError> {
        self.ask(|state| Ok(state.config().clone()))
    }

    /// At most `most` flows that the filter fits, and how many there are.
    ///
    /// # Errors
    /// When there is no such port or network.
    pub fn flows(&self, wanted: &FlowFilter, most: usize) -> Result<FlowList, VswitchError> {
        let wanted = wanted.clone();
        self.later(PATIENCE, move |state, reply| state.flows(&wanted, most, reply))
    }

    /// What would happen to a frame that came from a port now, and why. Nothing is changed by asking.
    ///
    /// # Errors
    /// When there is no such port, or the frame is too short or too long.
    pub fn why(&self, port: &str, frame: Vec<u8>) -> Result<Explanation, VswitchError> {
        let port = port.to_owned();
        self.ask(move |state| state.why(&port, &frame))
    }

    /// Captures packets, till what this gives is dropped.
    ///
    /// # Errors
    /// When there is no such port or network, there are too many captures, or there is no memory.
    pub fn capture(&self, request: CaptureRequest) -> Result<RunningCapture, VswitchError> {
        let shared = Arc::clone(&self.shared);
        self.ask(move |state| state.begin_capture(&request, shared))
    }

    /// Follows packets through the engines, till what this gives is dropped.
    ///
    /// # Errors
    /// When there is no such port, or there are too many traces.
    pub fn trace(&self, request: TraceRequest) -> Result<RunningTrace, VswitchError> {
        let shared = Arc::clone(&self.shared);
        self.ask(move |state| state.begin_trace(&request, shared))
    }

    /// The state of the switch.
    ///
    /// # Errors
    /// When the switch does not answer.
    pub fn statistics(&self) -> Result<VswitchStatistics, VswitchError> {
        self.ask(|state| Ok(state.statistics()))
    }

    /// The configuration names this port: in a network, or as the one that leads to other hosts.
    #[must_use]
    pub fn is_switched(&self, name: &str) -> bool {
        self.shared.switched.read().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// Asks for something that can be answered at once.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut State) -> Result<T, VswitchError> + Send + 'static,
    ) -> Result<T, VswitchError> {
        self.later(PATIENCE, move |state, reply: Reply<T>| {
            // Who does not wait any more does not want it.
            let _ = reply.try_send(request(state));
        })
    }

    /// Asks for something that is answered when it is done.
    fn later<T: Send + 'static>(
        &self,
        patience: Duration,
        request: impl FnOnce(&mut State, Reply<T>) + Send + 'static,
    ) -> Result<T, VswitchError> {
        let (reply, answer) = sync_channel(1);
        match self.requests.try_send(Box::new(move |state| request(state, reply))) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(VswitchError::Busy),
            Err(TrySendError::Disconnected(_)) => return Err(VswitchError::Gone),
        }
        self.shared.bell.call();
        match answer.recv_timeout(patience) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => Err(VswitchError::TimedOut(patience)),
            Err(RecvTimeoutError::Disconnected) if self.shared.running.load(Ordering::Acquire) => {
                Err(VswitchError::Fault)
            }
            Err(RecvTimeoutError::Disconnected) => Err(VswitchError::Gone),
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
