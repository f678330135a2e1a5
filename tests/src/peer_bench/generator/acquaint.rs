//! Acquainting the device under test with all flows, one frame of each, before anything is measured: what a first packet costs is another question.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use dataplane::clock::cycles;

use super::direction::Direction;
use super::ports::Ports;

/// Frames of one direction that may be on their way: a first packet waits for somebody to decide on it.
const IN_FLIGHT: usize = 32;
/// After so long without a frame, what did not come through is sent again.
const AGAIN: Duration = Duration::from_millis(50);
/// How long nothing may come through at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to sleep when nothing moves: whoever decides may need this core.
const PAUSE: Duration = Duration::from_micros(20);
/// How long to leave this core to a device that has learned from the first frames where stations are, and has to do away with what it did before.
const REST: Duration = Duration::from_millis(300);

/// What has come through of one direction.
struct Known {
    flows: Vec<bool>,
    count: usize,
    /// The next flow to send.
    next: usize,
    in_flight: usize,
}

impl Ports {
    /// Sends one frame of each flow, until each has come through. How long that took.
    pub(super) fn acquaint(&mut self) -> Result<Duration> {
        let start = Instant::now();
        let mut known: Vec<Known> = self.directions.iter().map(Known::new).collect();
        let mut moved = start;
        while known.iter().any(|known| known.count < known.flows.len()) {
            let mut news = false;
            for (direction, known) in self.directions.iter_mut().zip(&mut known) {
                news |= known.receive(direction);
                known.send(direction)?;
            }
            if news {
                moved = Instant::now();
                continue;
            }
            if moved.elapsed() > PATIENCE {
                let counts: Vec<_> = known.iter().map(|known| (known.count, known.flows.len())).collect();
                bail!("not every flow passes: so many of so many each way {counts:?}");
            }
            if moved.elapsed() > AGAIN {
                known.iter_mut().for_each(|known| known.in_flight = 0);
            }
            std::thread::sleep(PAUSE);
        }
        let took = start.elapsed();
        std::thread::sleep(REST);
        self.settle();
        self.start_over()?;
        Ok(took)
    }
}

impl Known {
    /// Of a direction that sends nothing, and of one with a single flow, which the link was tried with, all is known.
    fn new(direction: &Direction) -> Self {
        let count = if direction.sends && direction.template.flows() > 1 { direction.template.flows() } else { 0 };
        Self { flows: vec![false; count as usize], count: 0, next: 0, in_flight: 0 }
    }

    /// Takes in what has arrived; whether there was anything.
    fn receive(&mut self, direction: &mut Direction) -> bool {
        let count = direction.rx.receive(&mut direction.arrived);
        self.in_flight = self.in_flight.saturating_sub(count);
        for frame in direction.arrived.iter() {
            let flow = direction.template.read(frame).and_then(|(number, _)| usize::try_from(number).ok());
            match flow.and_then(|flow| self.flows.get_mut(flow)) {
                Some(known) => self.count += usize::from(!std::mem::replace(known, true)),
                None => direction.strangers += 1,
            }
        }
        direction.arrived.clear();
        count > 0
    }

    /// Sends the next flows of which nothing came through yet.
    fn send(&mut self, direction: &mut Direction) -> Result<()> {
        while self.count < self.flows.len() && self.in_flight < IN_FLIGHT && direction.waiting.room() > 0 {
            let rest = self.flows.iter().enumerate().skip(self.next);
            let Some((flow, _)) = rest.into_iter().find(|(_, known)| !**known) else {
                // Round again, after those that are on their way had time to arrive.
                if self.in_flight == 0 {
                    self.next = 0;
                    continue;
                }
                break;
            };
            let number = u32::try_from(flow)?;
            let Some(frame) = direction.template.make(&mut direction.pool, number, flow as u64, cycles()) else {
                break;
            };
            // There is room.
            let _ = direction.waiting.push(frame);
            (self.next, self.in_flight) = (flow + 1, self.in_flight + 1);
        }
        direction.tx.transmit(&mut direction.waiting);
        direction.tx.reclaim();
        Ok(())
    }
}
