//! Frames from VM to VM through both halves, over rings that the tests drive.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use drivers::nic::{Counters, DropReason, RxQueue, TxQueue};
use hugemem::{Batch, Iova, Region};
use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::port::vhost_user::ring::testing::{BUFFER, Driver, WRITE};

mod changes;
mod faults;
mod frames;
mod late;

/// Descriptors of the rings, and buffers of their guests.
const SIZE: u16 = 256;
const BUFFERS: u64 = 80;
/// Bytes of the header in front of a frame.
const HEADER: usize = 12;
/// What most tests negotiate.
const USUAL: Features = Features::VERSION_1.union(Features::INDIRECT_DESC).union(Features::MRG_RXBUF);

/// A queue of one direction with its ring.
struct Half<Q> {
    queue: Q,
    vring: Vring,
    driver: Driver,
    attention: Arc<OwnedFd>,
}

type From = Half<VmRx>;
type To = Half<VmTx>;

fn attention() -> Arc<OwnedFd> {
    Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap())
}

/// What an eventfd counted since it was last asked.
fn count(eventfd: &OwnedFd) -> u64 {
    let mut counter = [0; 8];
    if rustix::io::read(eventfd, &mut counter).is_ok() { u64::from_ne_bytes(counter) } else { 0 }
}

fn config(driver: &Driver, features: Features) -> RingConfig {
    RingConfig {
        format: Format::Split,
        size: driver.size,
        addresses: driver.addresses(),
        memory: Arc::clone(&driver.memory),
        features,
        base: Base(0),
        call: None,
        log: None,
        inflight: None,
    }
}

fn from_vm(driver: Driver, features: Features) -> From {
    let attention = attention();
    let region = Region::on_heap(SLOTS * 256 + 4096, Iova::new(0)).unwrap();
    let pool = region.packets_with_foreign(SLOTS, SLOT_ROOM, PIECES).unwrap();
    let (queue, vring) = receive_queue(pool, Arc::clone(&attention));
    vring.enable(true).unwrap();
    vring.start(config(&driver, features)).unwrap();
    Half { queue, vring, driver, attention }
}

fn to_vm(driver: Driver, features: Features) -> To {
    let attention = attention();
    let (queue, vring) = transmit_queue(Arc::clone(&attention), None);
    vring.enable(true).unwrap();
    vring.start(config(&driver, features)).unwrap();
    Half { queue, vring, driver, attention }
}

fn pair(features: Features) -> (From, To) {
    (from_vm(Driver::new(SIZE, BUFFERS), features), to_vm(Driver::new(SIZE, BUFFERS), features))
}

/// A frame of `len` bytes that differs from others by `seed`.
fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|index| (index as u8).wrapping_mul(31) ^ seed).collect()
}

impl From {
    /// Puts a header and `frame` into buffers from number `first` on, and offers them as the chain of `head`.
    fn send(&self, head: u16, first: u64, header: [u8; HEADER], frame: &[u8]) {
        let bytes = [&header[..], frame].concat();
        let at = self.driver.buffer(first);
        self.driver.write(at, &bytes);
        self.driver.offer_chain(head, &[(at, bytes.len() as u32, 0)]);
    }

    fn receive(&mut self, batch: &mut Batch) -> usize {
        self.queue.receive(batch)
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.queue.counters().dropped(reason)
    }
}

impl To {
    /// Offers `count` buffers of `len` bytes from number 0 on, one a chain.
    fn offer(&self, count: u16, len: u32) {
        for head in 0..count {
            self.driver.offer_chain(head, &[(self.driver.buffer(head.into()), len, WRITE)]);
        }
    }

    /// Takes the next frame that was delivered into buffers offered by [`To::offer`]: header and frame.
    fn take(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut bytes = Vec::new();
        let mut left = 1;
        while left > 0 {
            let (head, written) = self.driver.take_used()?;
            let piece = self.driver.read(self.driver.buffer(head.into()), written as usize);
            if bytes.is_empty() {
                left = u16::from_le_bytes([piece[10], piece[11]]);
            }
            bytes.extend(piece);
            left -= 1;
        }
        let frame = bytes.split_off(HEADER);
        Some((bytes, frame))
    }

    fn counters(&self) -> Counters {
        self.queue.counters()
    }
}

/// Takes everything from one and gives it to the other; gives how many frames went.
fn forward(from: &mut From, to: &mut To) -> usize {
    let mut batch = Batch::new(64);
    from.receive(&mut batch);
    to.queue.transmit(&mut batch)
}
