//! Engines: the threads that move packets.
//!
//! An engine is one thread pinned to one core. It owns its queues ([`Lane`]s and [`Sender`]s) and runs to completion over them: receive a
//! burst, send it, next queue. While packets flow it takes no lock, allocates nothing, logs nothing and does not call
//! the kernel. It talks to control by two things only: a stop flag that it reads, and counters that it stores
//! ([`crate::stats::QueueCell`]).
//!
//! A transmit queue that is full holds up only the receive queue whose packets wait for it, and only for
//! [`EngineConfig::hold`](crate::config::EngineConfig::hold); then they are dropped under the name `tx_queue_full`.
//!
//! Life cycle: [`plan`](plan::plan) → [`Engine::start`] → [`Running::stop`], which drains: nothing more is received, what was
//! received is sent, and transmit queues are given time to finish. The queues come back as they are, also after a panic.
//!
//! With [`Poll::Adaptive`](crate::config::Poll), an engine that found nothing for a while arms its queues and sleeps until one of
//! them has packets. A queue that cannot wake anybody (a generator, a capture file) makes it look every 20 µs
//! instead; then the others are not armed either.

mod idle;
mod lane;
pub mod plan;
mod worker;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use drivers::nic::{RxQueue, TxQueue};
use rustix::event::{EventfdFlags, eventfd};

use crate::clock::CycleClock;
use crate::config::EngineConfig;
use crate::port::Wake;
use crate::stats::PortCells;
use idle::Idle;
pub use lane::{Lane, Sender};
use plan::QueueId;

/// How long a stopping engine waits for its transmit queues to finish.
pub const DRAIN_LIMIT: Duration = Duration::from_millis(500);

/// An engine cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The system refused something that the thread needs.
    #[error("engine {engine}: cannot {action}: {source}")]
    System {
        /// Number of the engine.
        engine: usize,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A receive queue with what belongs to it, as an engine takes it over and gives it back.
pub struct Receiver {
    /// Which queue it is.
    pub id: QueueId,
    /// The queue.
    pub rx: Box<dyn RxQueue>,
    /// What to wait for while it is armed.
    pub wake: Option<Wake>,
}

/// All that one engine works on.
pub struct Engine {
    /// Number of the engine, from 0.
    pub number: usize,
    /// The core to run on.
    pub core: usize,
    /// How to work.
    pub config: EngineConfig,
    /// The receive queues, and which sender each one feeds.
    pub lanes: Vec<Lane>,
    /// The transmit queues.
    pub senders: Vec<Sender>,
    /// Where to publish what is counted.
    pub cells: Arc<[PortCells]>,
    /// For conversions of time.
    pub clock: CycleClock,
}

/// What control and an engine share beside counters.
struct Signals {
    stop: AtomicBool,
    /// Something is wrong with the engine: it has left its loop without being asked.
    failed: AtomicBool,
    /// Wakes the engine when it sleeps.
    wake: OwnedFd,
}

/// What an engine gives back.
pub struct Finished {
    /// Its receive queues.
    pub receivers: Vec<Receiver>,
    /// Its transmit queues.
    pub transmitters: Vec<(QueueId, Box<dyn TxQueue>)>,
    /// What it said when it panicked.
    pub panic: Option<String>,
    /// Packets were still underway on a transmit queue when time ran out.
    pub unfinished: bool,
}

/// A running engine.
pub struct Running {
    thread: JoinHandle<Finished>,
    signals: Arc<Signals>,
}

impl Engine {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread, eventfd or epoll for it, or does not let it run on its core. The queues come back
    /// beside the error.
    pub fn start(self) -> Result<Running, (EngineError, Finished)> {
        let number = self.number;
        let failure = |action, source: std::io::Error| EngineError::System { engine: number, action, source };
        let prepared = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).and_then(|wake| {
            let idle = Idle::new(&wake, &self.lanes)?;
            Ok((wake, idle))
        });
        let (wake, idle) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Err((failure("prepare to sleep", error.into()), self.finish(None, false))),
        };
        let signals = Arc::new(Signals { stop: AtomicBool::new(false), failed: AtomicBool::new(false), wake });
        // The engine travels through a slot, so that it is still here when no thread can be made.
        let slot = Arc::new(std::sync::Mutex::new(Some((self, idle))));
        let (reporter, report) = std::sync::mpsc::sync_channel(1);
        let spawned = {
            let (slot, signals) = (Arc::clone(&slot), Arc::clone(&signals));
            std::thread::Builder::new().name(format!("engine-{number}")).spawn(move || {
                let Some((engine, idle)) = slot.lock().ok().and_then(|mut slot| slot.take()) else {
                    return Finished::empty();
                };
                drop(slot);
                match worker::pin(engine.core) {
                    Ok(()) => {
                        let _ = reporter.send(Ok(()));
                        drop(reporter);
                        worker::run(engine, idle, &signals)
                    }
                    Err(error) => {
                        let _ = reporter.send(Err(error));
                        engine.finish(None, false)
                    }
                }
            })
        };
        let thread = match spawned {
            Ok(thread) => thread,
            Err(error) => {
                let engine = slot.lock().ok().and_then(|mut slot| slot.take());
                let finished = engine.map_or_else(Finished::empty, |(engine, _)| engine.finish(None, false));
                return Err((failure("start a thread", error), finished));
            }
        };
        match report.recv() {
            Ok(Ok(())) => Ok(Running { thread, signals }),
            Ok(Err(error)) => {
                let finished = thread.join().unwrap_or_else(|_| Finished::empty());
                Err((failure("run on its core", error.into()), finished))
            }
            Err(_) => {
                let finished = thread.join().unwrap_or_else(|_| Finished::empty());
                Err((failure("start", std::io::Error::other("the thread ended at once")), finished))
            }
        }
    }

    fn finish(self, panic: Option<String>, unfinished: bool) -> Finished {
        Finished {
            receivers: self.lanes.into_iter().map(Lane::into_receiver).collect(),
            transmitters: self.senders.into_iter().map(Sender::into_queue).collect(),
            panic,
            unfinished,
        }
    }
}

impl Finished {
    fn empty() -> Self {
        Self { receivers: Vec::new(), transmitters: Vec::new(), panic: None, unfinished: false }
    }
}

impl Running {
    /// Whether the engine left its loop without being asked: it panicked.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.signals.failed.load(Ordering::Acquire)
    }

    /// Asks the engine to drain and end. Does not wait.
    pub fn ask_to_stop(&self) {
        self.signals.stop.store(true, Ordering::Release);
        // The counter cannot overflow: nobody writes to it often. A failure leaves the engine to notice by itself, within a second.
        let _ = rustix::io::write(&self.signals.wake, &1_u64.to_ne_bytes());
    }

    /// Lets the engine drain, waits for its end (at most a little over [`DRAIN_LIMIT`]) and takes its queues back.
    #[must_use]
    pub fn stop(self) -> Finished {
        self.ask_to_stop();
        self.thread.join().unwrap_or_else(|_| Finished {
            panic: Some("the engine thread died while it was cleaning up".to_owned()),
            ..Finished::empty()
        })
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("thread", &self.thread.thread().name()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("id", &self.id).field("wake", &self.wake).finish_non_exhaustive()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("number", &self.number)
            .field("core", &self.core)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finished")
            .field("receivers", &self.receivers)
            .field("panic", &self.panic)
            .field("unfinished", &self.unfinished)
            .finish_non_exhaustive()
    }
}
