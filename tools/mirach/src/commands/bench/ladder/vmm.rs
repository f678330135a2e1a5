//! The monitor of an emulated machine, where one stands between the machine and the network: a thread that serves the machine's rings and sleeps when
//! there is nothing to do, as the device emulation of a virtual machine monitor does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Context;
use dataplane::bell::Bell;
use dataplane::port::PortQueue;
use hugemem::Batch;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::card::{Card, MonitorEnd, Sources, rings};
use super::modes::pin;

/// Frames that are moved at a time.
const BURST: usize = 32;
/// Longest sleep.
const LONGEST: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A monitor at work.
pub(super) struct Monitor {
    bell: Arc<Bell>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<PortQueue>>,
}

impl Monitor {
    /// Starts the monitor of machine `index` on `core`, which joins the machine's card to `network`. Gives the card, which sends from `sources`.
    ///
    /// # Errors
    /// The system has no thread or eventfd left.
    pub(super) fn start(
        index: usize,
        core: usize,
        network: PortQueue,
        sources: Sources,
    ) -> anyhow::Result<(Self, Card)> {
        let bell = Arc::new(Bell::new().context("cannot make an eventfd")?);
        let (rx, tx, machine) = rings(Arc::clone(&bell));
        let end = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name(format!("vmm{index}"))
            .spawn({
                let (bell, end) = (Arc::clone(&bell), Arc::clone(&end));
                move || {
                    pin(core);
                    serve(machine, network, &bell, &end)
                }
            })
            .context("cannot start the thread of a monitor")?;
        let monitor = Self { bell, end, thread: Some(thread) };
        Ok((monitor, Card { rx: Box::new(rx), tx: Box::new(tx), sources }))
    }

    /// It ended by itself, which is an error.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Ends it and gives back what it joined the card to; `None` when it had panicked.
    pub(super) fn stop(&mut self) -> Option<PortQueue> {
        self.end.store(true, Ordering::Release);
        self.bell.call();
        self.thread.take().and_then(|thread| thread.join().ok())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Moves frames in both directions until `end`.
fn serve(mut machine: MonitorEnd, mut network: PortQueue, bell: &Bell, end: &AtomicBool) -> PortQueue {
    let (mut outgoing, mut incoming) = (Batch::new(BURST), Batch::new(BURST));
    while !end.load(Ordering::Acquire) {
        while outgoing.room() > 0
            && let Ok(packet) = machine.sent.pop()
        {
            // There is room.
            let _ = outgoing.push(packet);
        }
        let mut moved = !outgoing.is_empty() && network.tx.transmit(&mut outgoing) > 0;
        moved |= network.rx.receive(&mut incoming) > 0;
        let count = machine.arrived.slots().min(incoming.len());
        for packet in incoming.drain_front(count) {
            // There is room.
            let _ = machine.arrived.push(packet);
        }
        if moved || count > 0 {
            continue;
        }
        if outgoing.is_empty() && incoming.is_empty() {
            sleep(&machine, &mut network, bell, end);
        } else {
            // Somebody else has to make room, perhaps on this core.
            std::thread::yield_now();
        }
    }
    network
}

/// Sleeps until the machine or the network has something.
fn sleep(machine: &MonitorEnd, network: &mut PortQueue, bell: &Bell, end: &AtomicBool) {
    let armed = network.rx.arm();
    bell.lie_down();
    if armed && machine.sent.is_empty() && !end.load(Ordering::Acquire) {
        // A failure is a short sleep.
        let _ = match &network.wake {
            Some(wake) => {
                poll(&mut [PollFd::new(bell, PollFlags::IN), PollFd::new(wake, PollFlags::IN)], Some(&LONGEST))
            }
            None => poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&LONGEST)),
        };
    }
    bell.get_up();
    network.rx.disarm();
    if let Some(wake) = &network.wake {
        wake.consume();
    }
}
