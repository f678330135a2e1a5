//! The packet path of a tap interface.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use drivers::nic::{Counters, DropReason, Offloads, RxQueue, TxQueue};
use drivers::virtio::Features;
use drivers::virtio::header::{Header, LONGEST, PLAIN, Sender};
use hugemem::{Batch, Packet, PacketPool};
use rustix::io::Errno;

/// Most pieces that one frame is read from or written to in one call, header included.
const PIECES: usize = 72;
/// Shortest frame: an Ethernet header.
const SHORTEST: usize = 14;

/// What headers from the kernel may say.
const RECEIVABLE: Features = Features::GUEST_CSUM
    .union(Features::GUEST_TSO4)
    .union(Features::GUEST_TSO6)
    .union(Features::GUEST_ECN)
    .union(Features::GUEST_USO4)
    .union(Features::GUEST_USO6);

/// Receives frames from one queue of a tap.
#[derive(Debug)]
pub struct TapRx {
    file: Arc<File>,
    pool: PacketPool,
    /// Empty buffers of full length, to read into from the last to the first.
    buffers: Vec<Packet>,
    /// Buffers that hold a byte more than the longest frame, so that a frame that was cut off shows.
    wanted: usize,
    counters: Counters,
    failure: Arc<AtomicI32>,
}

impl TapRx {
    pub(super) fn new(file: Arc<File>, pool: PacketPool, failure: Arc<AtomicI32>) -> Self {
        let wanted = (LONGEST + 1).div_ceil(pool.room()).min(PIECES - 1);
        Self { file, pool, buffers: Vec::with_capacity(wanted), wanted, counters: Counters::default(), failure }
    }

    /// Gets buffers for a frame of any length. `false` when too few are free: the frame then waits in the kernel.
    fn refill(&mut self) -> bool {
        while self.buffers.len() < self.wanted {
            let Some(mut buffer) = self.pool.take() else { return false };
            let capacity = buffer.capacity();
            // A buffer can always be as long as itself.
            let _ = buffer.resize(capacity);
            self.buffers.push(buffer);
        }
        true
    }

    /// Reads one frame into the buffers; gives its header and the bytes read, header included.
    fn read(&mut self) -> Result<([u8; PLAIN], usize), Errno> {
        let mut header = [0; PLAIN];
        let count = self.buffers.len() + 1;
        let mut pieces: [IoSliceMut<'_>; PIECES] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let places = std::iter::once(&mut header[..]).chain(self.buffers.iter_mut().rev().map(Packet::bytes_mut));
        for (piece, place) in pieces.iter_mut().zip(places) {
            *piece = IoSliceMut::new(place);
        }
        let bytes = rustix::io::readv(&self.file, pieces.get_mut(..count).unwrap_or_default())?;
        Ok((header, bytes))
    }

    /// Makes a packet of the first `len` bytes that are in the buffers.
    fn assemble(&mut self, len: usize) -> Result<Packet, DropReason> {
        let mut left = len;
        let mut piece = |buffers: &mut Vec<Packet>| {
            let mut buffer = buffers.pop().ok_or(DropReason::TooLong)?;
            let part = left.min(buffer.len());
            buffer.truncate(part);
            left -= part;
            Ok((buffer, left))
        };
        let (mut packet, mut rest) = piece(&mut self.buffers)?;
        while rest > 0 {
            let buffer;
            (buffer, rest) = piece(&mut self.buffers)?;
            packet.append(buffer).map_err(|_| DropReason::TooLong)?;
        }
        match packet.len() {
            0..SHORTEST => Err(DropReason::BadLength),
            // Nobody knows how long a frame was that filled all there is.
            SHORTEST..=LONGEST => Ok(packet),
            _ => Err(DropReason::TooLong),
        }
    }
}

/// What the header says goes with the packet, if it fits the packet.
fn describe(packet: &mut Packet, header: &[u8; PLAIN]) -> Option<()> {
    let metadata = Header::read(header, false)?.metadata(packet, RECEIVABLE)?;
    *packet.metadata_mut() = metadata;
    Some(())
}

impl RxQueue for TapRx {
    fn receive(&mut self, batch: &mut Batch) -> usize {
        let before = batch.len();
        while batch.room() > 0 && self.refill() {
            let (header, bytes) = match self.read() {
                Ok(read) => read,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => {
                    self.failure.store(error.raw_os_error(), Ordering::Relaxed);
                    break;
                }
            };
            let packet = bytes.checked_sub(PLAIN).ok_or(DropReason::BadLength).and_then(|len| self.assemble(len));
            let packet = packet.and_then(|mut packet| match describe(&mut packet, &header) {
                Some(()) => Ok(packet),
                None => Err(DropReason::BadHeader),
            });
            match packet {
                Ok(packet) => {
                    self.counters.packets += 1;
                    self.counters.bytes += packet.len() as u64;
                    // There is room, as just asked.
                    let _ = batch.push(packet);
                }
                Err(reason) => self.counters.drop_packets(reason, 1),
            }
        }
        batch.len() - before
    }

    fn arm(&mut self) -> bool {
        // The file itself is readable for as long as frames wait.
        true
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

/// Sends frames to one queue of a tap.
#[derive(Debug)]
pub struct TapTx {
    file: Arc<File>,
    sender: Sender,
    counters: Counters,
}

impl TapTx {
    pub(super) fn new(file: Arc<File>, cuts_udp: bool) -> Self {
        let features = Features::CSUM | Features::HOST_TSO4 | Features::HOST_TSO6 | Features::HOST_ECN;
        let features = if cuts_udp { features | Features::HOST_USO } else { features };
        Self { file, sender: Sender { features, longest: LONGEST }, counters: Counters::default() }
    }

    /// Writes a frame that has its header in front.
    fn write(&self, packet: &Packet) -> Result<(), Errno> {
        loop {
            let result = if packet.is_chained() {
                let mut pieces = [IoSlice::new(&[]); PIECES];
                for (piece, segment) in pieces.iter_mut().zip(packet.segments()) {
                    *piece = IoSlice::new(segment);
                }
                rustix::io::writev(&self.file, pieces.get(..packet.segment_count()).unwrap_or_default())
            } else {
                rustix::io::write(&self.file, packet.bytes())
            };
            match result {
                // A frame is written whole or not at all.
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends one frame. `None` leaves it as it was, because the queue is full.
    fn send(&self, packet: &mut Packet) -> Option<Result<(), DropReason>> {
        if packet.segment_count() > PIECES {
            return Some(Err(DropReason::TooLong));
        }
        if let Err(reason) = self.sender.prepare(packet) {
            return Some(Err(reason));
        }
        match self.write(packet) {
            Ok(()) => Some(Ok(())),
            // The header goes away again; it was put there just now.
            Err(Errno::AGAIN) if packet.trim_front(PLAIN) => None,
            Err(_) => Some(Err(DropReason::System)),
        }
    }
}

impl TxQueue for TapTx {
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        let mut taken = 0;
        for index in 0..batch.len() {
            let Some(packet) = batch.as_mut_slice().get_mut(index) else { break };
            let bytes = packet.len() as u64;
            match self.send(packet) {
                Some(Ok(())) => {
                    self.counters.packets += 1;
                    self.counters.bytes += bytes;
                }
                Some(Err(reason)) => self.counters.drop_packets(reason, 1),
                None => break,
            }
            taken = index + 1;
        }
        hugemem::recycle(batch.drain_front(taken));
        taken
    }

    fn offloads(&self) -> Offloads {
        let features = self.sender.features;
        [
            (Features::CSUM, Offloads::TX_CHECKSUM),
            (Features::HOST_TSO4, Offloads::TSO4),
            (Features::HOST_TSO6, Offloads::TSO6),
            (Features::HOST_ECN, Offloads::TSO_ECN),
            (Features::HOST_USO, Offloads::USO),
        ]
        .into_iter()
        .filter(|(feature, _)| features.contains(*feature))
        .map(|(_, offload)| offload)
        .collect()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
