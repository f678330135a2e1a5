//! The thread itself: rounds while there is something to do, and sleep when there is not.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::handle::{Request, Shared};
use super::state::State;

/// Requests that are carried out in a round.
const REQUESTS: usize = 8;
/// How long it looks for more to do before it sleeps: first packets come in bursts.
const SPIN: Duration = Duration::from_micros(50);
/// Longest sleep.
const LONGEST: Duration = Duration::from_millis(100);

/// Says that the thread has ended, however it did.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
    }
}

pub(super) fn start(state: State, requests: Receiver<Request>, shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("vswitch".into()).spawn(move || {
        // Dropped after the state and the requests, so that who waits for an answer knows why there is none.
        let running = Running(shared);
        run(state, &requests, &running.0);
    })
}

fn run(mut state: State, requests: &Receiver<Request>, shared: &Shared) {
    let mut idle: Option<Instant> = None;
    while !shared.stop.load(Ordering::Acquire) {
        if carry_out(&mut state, requests) | state.round() {
            idle = None;
            continue;
        }
        if idle.get_or_insert_with(Instant::now).elapsed() < SPIN {
            thread::yield_now();
            continue;
        }
        idle = None;
        shared.bell.lie_down();
        // Whatever came before it lay down did not call.
        let busy = shared.stop.load(Ordering::Acquire) || carry_out(&mut state, requests) | state.round();
        if !busy {
            sleep(shared, state.patience());
        }
        shared.bell.get_up();
    }
}

/// Carries out requests, some of them at a time. Whether there were any.
fn carry_out(state: &mut State, requests: &Receiver<Request>) -> bool {
    let mut busy = false;
    for request in requests.try_iter().take(REQUESTS) {
        busy = true;
        // It harms nobody but who asked; what it leaves half done is at worst a port that is to be detached, or a capture that sees nothing.
        if catch_unwind(AssertUnwindSafe(|| request(state))).is_err() {
            tracing::error!("a request to the switch panicked; it goes on with the next one");
        }
    }
    busy
}

fn sleep(shared: &Shared, patience: Duration) {
    let patience = patience.min(LONGEST);
    let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(patience.subsec_nanos()) };
    // A signal that interrupts it does no harm: then the next round begins early.
    let _ = poll(&mut [PollFd::new(&*shared.bell, PollFlags::IN)], Some(&limit));
}
