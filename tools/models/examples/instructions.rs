//! Moves frames from one software card to another, on one thread: what callgrind counts in the two functions below is what a
//! packet costs in instructions, whatever the machine. `cargo xtask instructions` runs it and divides.
//!
//! `instructions DRIVER BURST BURSTS`, where DRIVER is ixgbe, virtio-split or virtio-packed; prints how many packets were moved.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drivers::bus::Clock;
use drivers::ixgbe::{self, Ixgbe};
use drivers::nic::{Nic, NicError, QueuePair, RxQueue, TxQueue};
use drivers::virtio::{self, RingChoice, VirtioNet};
use hugemem::{Batch, HEADROOM, Iova, PacketPool, Region};
use models::wire::{Traffic, TrafficPlan};
use models::{StepClock, card, ixgbe as chip, virtio_net};

/// Buffers of each card, and room of a buffer in bytes.
const BUFFERS: usize = 1024;
const ROOM: usize = 2048;
/// Polls in which a card has filled its ring at the latest.
const POLLS: usize = 16;

/// What is counted as receiving.
#[inline(never)]
fn counted_receive(rx: &mut impl RxQueue, batch: &mut Batch) -> usize {
    rx.receive(batch)
}

/// What is counted as sending.
#[inline(never)]
fn counted_transmit(tx: &mut impl TxQueue, batch: &mut Batch) -> usize {
    tx.transmit(batch)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [driver, burst, bursts] = arguments.as_slice() else { return Err("give DRIVER BURST BURSTS".into()) };
    let (burst, bursts) = (burst.parse()?, bursts.parse()?);
    let silent = TrafficPlan { count: 0, ..TrafficPlan::default() };
    let (source, sink) = Traffic::pair(TrafficPlan { flows: 64, ..TrafficPlan::default() }, silent);
    match driver.as_str() {
        "ixgbe" => {
            let plug = |name: &str, wire| -> Result<_, Box<dyn Error>> {
                let config = chip::Config { link_delay: Duration::ZERO, ..chip::Config::default() };
                let (function, device) = card::new(card::Options::named(name), chip::Ixgbe::new(config), wire)?;
                let device = Mutex::new(device);
                Ok((function, move || {
                    device.lock().unwrap_or_else(PoisonError::into_inner).poll();
                }))
            };
            let open = |function, clock, memory: &Region, pools| {
                Ixgbe::open(function, clock, memory, pools, ixgbe::Config::default())
            };
            forward([plug("card0", source)?, plug("card1", sink)?], open, burst, bursts)
        }
        "virtio-split" | "virtio-packed" => {
            let ring = if driver == "virtio-packed" { RingChoice::Packed } else { RingChoice::Split };
            let features = virtio_net::Config::USUAL | virtio_net::Features::RING_PACKED;
            let plug = |name: &str, wire| {
                let config = virtio_net::Config { name: name.to_owned(), features, ..virtio_net::Config::default() };
                let (function, device) = virtio_net::new(config, wire);
                let device = Mutex::new(device);
                (function, move || {
                    device.lock().unwrap_or_else(PoisonError::into_inner).poll();
                })
            };
            let open = |function, clock, memory: &Region, pools| {
                VirtioNet::open(function, clock, memory, pools, virtio::Config { ring, ..virtio::Config::default() })
            };
            forward([plug("card0", source), plug("card1", sink)], open, burst, bursts)
        }
        other => Err(format!("there is no driver {other}").into()),
    }
}

/// Opens both cards and moves `bursts` full bursts from the first to the second.
fn forward<F, P, N>(
    cards: [(F, P); 2],
    open: impl Fn(F, Arc<dyn Clock>, &Region, Vec<PacketPool>) -> Result<N, NicError>,
    burst: usize,
    bursts: usize,
) -> Result<(), Box<dyn Error>>
where
    P: Fn() + Send + Sync + 'static,
    N: Nic,
{
    let memory = Region::on_heap(2 * BUFFERS * (ROOM + HEADROOM) + (2 << 20), Iova::new(1 << 30))?;
    let mut polls = Vec::with_capacity(2);
    let mut nics = Vec::with_capacity(2);
    let mut queues = Vec::with_capacity(2);
    for (function, poll) in cards {
        let poll = Arc::new(poll);
        let step = Arc::clone(&poll);
        let clock = Arc::new(StepClock::new(move || step()));
        let mut nic = open(function, clock, &memory, vec![memory.packets(BUFFERS, ROOM)?])?;
        queues.extend(nic.start()?);
        nics.push(nic);
        polls.push(poll);
    }
    let mut batch = Batch::new(burst);
    let mut moved = 0;
    if let [QueuePair { rx, .. }, QueuePair { tx, .. }] = queues.as_mut_slice() {
        for _ in 0..bursts {
            for _ in 0..POLLS {
                polls.iter().for_each(|poll| poll());
            }
            let received = counted_receive(rx, &mut batch);
            if received < burst || counted_transmit(tx, &mut batch) < burst {
                return Err(format!("a burst of {burst} was cut to {received}").into());
            }
            moved += received;
        }
    }
    println!("{moved}");
    for (nic, pair) in nics.iter_mut().zip(queues) {
        nic.stop(vec![(pair.rx, pair.tx)])?;
    }
    Ok(())
}
