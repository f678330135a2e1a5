//! Engines: the threads that move packets.
//!
//! An engine is one thread pinned to one core. It owns its queues and works in rounds of two halves: it receives
//! a burst from each queue, then delivers what it received, first to whom costs least (see [`Scheduler`](crate::config::Scheduler)).
//!
//! Ports are joined, or switched. A receive queue of a joined port is a [`Lane`]: all that it gives goes to one [`Sender`]. That of a switched port is an
//! [`Input`]: what it gives goes through the engine's pipeline ([`Switching`]), and from there to the [`Outlet`] of whichever port it is for, which is in
//! front of a sender of this engine, or leads to the engine that has one ([`Peers`]). An input may also be divided between all engines by flows.
//!
//! While packets flow it takes no lock, allocates nothing, logs nothing and does not call
//! the kernel. It talks to control by counters that it stores ([`crate::stats::QueueCell`]), a stop flag, and a ring of commands in each
//! direction, over which lanes come and go while the others run ([`Running::add`], [`Running::remove`]).
//!
//! A transmit queue that is full holds up only the lane whose packets wait for it, and nobody where packets are switched: each outlet has room for some.
//! They wait for [`EngineConfig::hold`](crate::config::EngineConfig::hold) at most; then, or when there is no room, they are dropped under the name `tx_queue_full`. What a transmit queue
//! cannot do for a packet is done in software before: packets in a virtual machine's memory are made whole, large ones are cut.
//!
//! Life cycle: [`Engine::start`] → [`Running::stop`], which drains: nothing more is received, what was
//! received is sent, and transmit queues are given time to finish. The queues come back as they are, also after a panic. Engines that pass packets to each
//! other are asked to stop together ([`Running::ask_to_stop`]) and end when nothing is left between them.
//!
//! A port leaves ([`Running::remove`]) when nothing of it waits here, and when nobody, no other engine either, has a packet any more that lies in its memory
//! ([`RxQueue::underway`]).
//!
//! With [`Poll::Adaptive`](crate::config::Poll), an engine that found nothing for a while arms its queues and sleeps until one of
//! them has packets. A queue that cannot wake anybody (a generator, a capture file) makes it look every 20 µs
//! instead; then the others are not armed either. Control and other engines wake it by its [`Bell`]. An engine without anything to do sleeps until it gets
//! something.

pub(crate) mod adapt;
mod command;
mod idle;
mod input;
mod lane;
mod outlet;
mod peers;
pub mod plan;
mod roster;
mod round;
mod running;
mod sender;
mod source;
mod spread;
#[cfg(test)]
mod switch_tests;
mod switching;
mod waiting;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use drivers::nic::{RxQueue, TxQueue};
use hugemem::PacketPool;

use crate::bell::Bell;
use crate::clock::CycleClock;
use crate::config::EngineConfig;
use crate::copy::{Copier, CopyDesk};
use crate::port::Wake;
use command::{COMMANDS, Desk};
use idle::Watch;
pub use input::Input;
pub use lane::Lane;
pub use outlet::Outlet;
pub use peers::{Peers, peers};
use plan::QueueId;
use roster::{Counts, Roster};
pub use running::Running;
pub use sender::Sender;
pub use switching::Switching;
use worker::Ended;

/// How long a stopping engine waits for its transmit queues to finish.
pub const DRAIN_LIMIT: Duration = Duration::from_millis(500);

/// An engine cannot do what it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The system refused something that the engine needs.
    #[error("engine {engine}: cannot {action}: {source}")]
    System {
        /// Number of the engine.
        engine: usize,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// It does not answer.
    #[error(
        "engine {engine} did not answer within {} s: its core is overloaded, or a device holds it up; \
         give it a core of its own with --cores",
        limit.as_secs()
    )]
    Silent {
        /// Number of the engine.
        engine: usize,
        /// How long it had.
        limit: Duration,
    },
    /// It has ended.
    #[error("engine {engine} has ended; restart mirach")]
    Ended {
        /// Number of the engine.
        engine: usize,
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

/// A transmit queue with what belongs to it, as an engine takes it over and gives it back.
pub struct Transmitter {
    /// Which queue it is.
    pub id: QueueId,
    /// The queue.
    pub tx: Box<dyn TxQueue>,
    /// Buffers for what is made of packets before they can be sent there: whole ones, and segments. They must lie in memory that the queue's
    /// device reaches. Without them, packets that need them are dropped as `no_buffer` and `no_offload`.
    pub pool: Option<PacketPool>,
    /// Where the queue leaves copies for a device, if it does.
    pub desk: Option<Arc<CopyDesk>>,
}

/// What an engine gets to work on. No queue may be with it twice, and every lane's and outlet's transmit queue must be among `senders` or with the engine
/// already.
#[derive(Default, Debug)]
pub struct Load {
    /// The receive queues of joined ports, each with the transmit queue that it feeds.
    pub lanes: Vec<Lane>,
    /// The transmit queues.
    pub senders: Vec<Sender>,
    /// The receive queues of switched ports.
    pub inputs: Vec<Input>,
    /// Where packets for switched ports go: at most one for each slot.
    pub outlets: Vec<Outlet>,
    /// The switch. An engine has one at most, and keeps its first.
    pub switching: Option<Box<Switching>>,
    /// What has copies done by a device. An engine has one at most, and keeps its first.
    pub copier: Option<Box<Copier>>,
}

/// One engine, and what it begins with.
pub struct Engine {
    /// Number of the engine, from 0.
    pub number: usize,
    /// The core to run on.
    pub core: usize,
    /// How to work.
    pub config: EngineConfig,
    /// What to work on.
    pub load: Load,
    /// For conversions of time.
    pub clock: CycleClock,
    /// By which others wake it: it is called after something was left for the engine on a ring.
    pub bell: Arc<Bell>,
}

/// What control and an engine share beside counters and commands.
struct Signals {
    stop: AtomicBool,
    /// Something is wrong with the engine: it has left its loop without being asked.
    failed: AtomicBool,
    /// What wakes the engine when it sleeps.
    watch: Watch,
}

/// What an engine's thread works on.
struct Work {
    core: usize,
    config: EngineConfig,
    clock: CycleClock,
    roster: Roster,
}

/// What an engine gives back.
#[derive(Default)]
pub struct Finished {
    /// Its receive queues.
    pub receivers: Vec<Receiver>,
    /// Its transmit queues.
    pub transmitters: Vec<Transmitter>,
    /// Its switch, when it has ended.
    pub switching: Option<Box<Switching>>,
    /// Its copier, when it has ended.
    pub copier: Option<Box<Copier>>,
    /// What it said when it panicked.
    pub panic: Option<Box<str>>,
    /// Packets were still underway on a transmit queue when time ran out.
    pub unfinished: bool,
}

impl Engine {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread, eventfd or epoll for it, or does not let it run on its core. The queues come back
    /// beside the error.
    #[expect(clippy::result_large_err, reason = "all queues come back with the error, which comes once in a while")]
    pub fn start(self) -> Result<Running, (EngineError, Finished)> {
        let Self { number, core, config, load, clock, bell } = self;
        let failure = |action, source: std::io::Error| EngineError::System { engine: number, action, source };
        let mut roster = Roster::of(load, Counts::default());
        let counts = roster.counts();
        let mut tokens = 0;
        let prepared = Watch::new(bell).and_then(|watch| {
            let signals = Signals { stop: AtomicBool::new(false), failed: AtomicBool::new(false), watch };
            running::prepare(&signals, &mut roster, &mut tokens, config.scheduler)?;
            Ok(Arc::new(signals))
        });
        let signals = match prepared {
            Ok(signals) => signals,
            Err(error) => return Err((failure("prepare to sleep", error.into()), Finished::of(roster))),
        };
        let (commands, their_commands) = rtrb::RingBuffer::new(COMMANDS);
        let (their_answers, answers) = rtrb::RingBuffer::new(COMMANDS);
        // The work travels through a slot, so that it is still here when no thread can be made.
        let work = Work { core, config, clock, roster };
        let slot = Arc::new(std::sync::Mutex::new(Some((work, Desk::new(their_commands, their_answers)))));
        let (reporter, report) = std::sync::mpsc::sync_channel(1);
        let spawned = {
            let (slot, signals) = (Arc::clone(&slot), Arc::clone(&signals));
            std::thread::Builder::new().name(format!("engine-{number}")).spawn(move || {
                let Some((work, desk)) = slot.lock().ok().and_then(|mut slot| slot.take()) else {
                    return Ended { finished: Finished::default(), commands: None };
                };
                drop(slot);
                match worker::pin(work.core) {
                    Ok(()) => {
                        let _ = reporter.send(Ok(()));
                        drop(reporter);
                        worker::run(work, desk, &signals)
                    }
                    Err(error) => {
                        let _ = reporter.send(Err(error));
                        Ended { finished: Finished::of(work.roster), commands: None }
                    }
                }
            })
        };
        let thread = match spawned {
            Ok(thread) => thread,
            Err(error) => {
                let work = slot.lock().ok().and_then(|mut slot| slot.take());
                let finished = work.map_or_else(Finished::default, |(work, _)| Finished::of(work.roster));
                return Err((failure("start a thread", error), finished));
            }
        };
        let error = match report.recv() {
            Ok(Ok(())) => {
                return Ok(Running {
                    engine: number,
                    thread,
                    signals,
                    commands,
                    answers,
                    scheduler: config.scheduler,
                    counts,
                    tokens,
                    numbers: 0,
                    unanswered: 0,
                    late: Finished::default(),
                });
            }
            Ok(Err(error)) => failure("run on its core", error.into()),
            Err(_) => failure("start", std::io::Error::other("the thread ended at once")),
        };
        let finished = thread.join().map_or_else(|_| Finished::default(), |ended| ended.finished);
        Err((error, finished))
    }
}

impl Finished {
    fn of(roster: Roster) -> Self {
        let mut finished = Self::default();
        roster.give_back(&mut finished);
        finished
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("id", &self.id).field("wake", &self.wake).finish_non_exhaustive()
    }
}

impl fmt::Debug for Transmitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transmitter").field("id", &self.id).field("pool", &self.pool).finish_non_exhaustive()
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
