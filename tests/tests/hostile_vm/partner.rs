//! The machine that the offender's port is joined to: it sends all the time while a case is under way, so that both of the offender's rings are
//! under load.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use lab::vm::{Content, Series, Vm};
use lab::wait;

use crate::scene::PATIENCE;

/// Frames in a row.
const BURST: u64 = 16;
const SERIES: Series = Series { id: 20, content: Content::Plain(60, 1514) };

/// The machine, and a thread that drives it.
pub(crate) struct Partner {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
}

struct Shared {
    vm: Mutex<Option<Vm>>,
    sends: AtomicBool,
    ends: AtomicBool,
    /// Turns of the thread.
    turns: AtomicU64,
}

impl Shared {
    fn vm(&self) -> MutexGuard<'_, Option<Vm>> {
        self.vm.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The machine, for whoever has it now.
pub(crate) struct Alone<'p>(MutexGuard<'p, Option<Vm>>);

impl std::ops::Deref for Alone<'_> {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        self.0.as_ref().expect("it is there until the end")
    }
}

impl std::ops::DerefMut for Alone<'_> {
    fn deref_mut(&mut self) -> &mut Vm {
        self.0.as_mut().expect("it is there until the end")
    }
}

impl Partner {
    pub(crate) fn new(vm: Vm) -> Self {
        let shared = Arc::new(Shared {
            vm: Mutex::new(Some(vm)),
            sends: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            turns: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || run(&theirs));
        Self { shared, thread }
    }

    /// Has it send, or not. It receives in any case.
    pub(crate) fn send(&self, on: bool) {
        self.shared.sends.store(on, Ordering::Relaxed);
    }

    /// Waits until it certainly sends no more.
    pub(crate) fn quiet(&self) -> Result<()> {
        let turns = self.shared.turns.load(Ordering::Relaxed);
        wait::until("the partner", PATIENCE, || {
            ensure!(!self.thread.is_finished(), "the partner ended");
            Ok((self.shared.turns.load(Ordering::Relaxed) > turns + 1).then_some(()))
        })
    }

    /// Takes it out of its thread's hands for a while.
    pub(crate) fn alone(&self) -> Alone<'_> {
        Alone(self.shared.vm())
    }

    /// Detaches it.
    pub(crate) fn end(self) -> Result<()> {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the partner panicked"))??;
        let vm = self.shared.vm().take();
        vm.map_or(Ok(()), Vm::detach)
    }
}

fn run(shared: &Shared) -> Result<()> {
    let mut frame = Vec::new();
    let mut number = 0;
    while !shared.ends.load(Ordering::Relaxed) {
        if let Some(vm) = shared.vm().as_mut() {
            if shared.sends.load(Ordering::Relaxed) {
                for _ in 0..BURST {
                    let metadata = SERIES.write(number, 0, &mut frame);
                    if !vm.stage(0, &frame, metadata)? {
                        break;
                    }
                    number += 1;
                }
            }
            vm.flush();
            // What the offender sends is its own business.
            vm.receive(|_| Ok(()))?;
        }
        shared.turns.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}
