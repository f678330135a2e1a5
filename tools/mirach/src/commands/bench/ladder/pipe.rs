//! Frames through memory that two processes share: a ring of bytes for each direction, one side writes and the other reads.
//!
//! Layout, for each direction: a page with three words in cache lines of their own (bytes written, bytes read, whether the reader sleeps), then [`DATA`]
//! bytes. A record is its length in 8 bytes, a virtio-net header and the frame, and starts with a cache line; [`SKIP`] as length means that the next
//! record is at the start again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use anyhow::Context;
use dataplane::guest::{Access, GuestAddress, MapOptions, Memory, Piece, RegionSpec, Words};
use drivers::nic::{Counters, DropReason, RxQueue, TxQueue};
use drivers::virtio::Features;
use drivers::virtio::header::{Header, LONGEST, PLAIN, Sender};
use hugemem::{Batch, Packet, PacketPool};
use rustix::fs::{MemfdFlags, SealFlags};

/// Bytes of the words of a direction.
const CONTROL: u64 = 4096;
/// Bytes of the records of a direction: enough for all frames that are on their way at most.
const DATA: u64 = 2 << 20;
/// Bytes of a direction.
const DIRECTION: u64 = CONTROL + DATA;
/// Records start at multiples of this.
const LINE: u64 = 64;
/// Bytes of a record's length.
const LENGTH: u64 = 8;
/// Stands for a length: the rest of the ring is left out.
const SKIP: u64 = u64::MAX;

// Places of the words.
const WRITTEN: usize = 0;
const READ: usize = 16;
const SLEEPS: usize = 32;
const WORDS: usize = 64;

/// What a header may ask of the side that reads it.
const RECEIVABLE: Features =
    Features::GUEST_CSUM.union(Features::GUEST_TSO4).union(Features::GUEST_TSO6).union(Features::GUEST_ECN);
/// The same, said by the side that writes it.
const SENDABLE: Features =
    Features::CSUM.union(Features::HOST_TSO4).union(Features::HOST_TSO6).union(Features::HOST_ECN);

/// Memory for both directions, without a name: it goes with the last who has it.
///
/// # Errors
/// The system has none left.
pub(super) fn create() -> anyhow::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("mirach-ladder", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .context("cannot make memory to share")?;
    rustix::fs::ftruncate(&file, 2 * DIRECTION).context("cannot get memory to share")?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)
        .context("cannot seal the length of memory to share")?;
    Ok(file)
}

/// One direction.
struct Ring {
    memory: Arc<Memory>,
    words: Words<AtomicU64>,
    data: u64,
}

/// Both directions in shared memory.
pub(super) struct Shared(Arc<Memory>);

impl Shared {
    /// Maps what [`create`] made.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub(super) fn map(file: OwnedFd) -> anyhow::Result<Self> {
        let spec = RegionSpec { guest: 0, user: 0, size: 2 * DIRECTION, offset: 0 };
        let options = MapOptions { prefault: true, ..MapOptions::default() };
        Ok(Self(Memory::empty().with(spec, file, &options).context("cannot map shared memory")?))
    }

    fn ring(&self, direction: u64) -> anyhow::Result<Ring> {
        let start = direction * DIRECTION;
        let words = self.0.words(GuestAddress(start), WORDS, Access::Write).context("shared memory is too short")?;
        Ok(Ring { memory: Arc::clone(&self.0), words, data: start + CONTROL })
    }

    /// The writing end of a direction (0: from a machine; 1: to it), whose reader wakes by `event`.
    ///
    /// # Errors
    /// The memory is not what it should be.
    pub(super) fn writer(&self, direction: u64, event: OwnedFd) -> anyhow::Result<Writer> {
        Ok(Writer { ring: self.ring(direction)?, written: 0, read: 0, event })
    }

    /// The reading end of a direction.
    ///
    /// # Errors
    /// The memory is not what it should be.
    pub(super) fn reader(&self, direction: u64) -> anyhow::Result<Reader> {
        Ok(Reader { ring: self.ring(direction)?, written: 0, read: 0 })
    }
}

impl Ring {
    fn load(&self, word: usize) -> u64 {
        self.words.get(word).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store(&self, word: usize, value: u64) {
        if let Some(word) = self.words.get(word) {
            word.store(value, Ordering::Release);
        }
    }

    /// The bytes from `at` on, counted since the beginning; `None` when they are not in one piece.
    fn piece(&self, at: u64, len: u64) -> Option<Piece<'_>> {
        self.memory.whole(GuestAddress(self.data + at % DATA), u32::try_from(len).ok()?)
    }
}

/// The writing end of a direction.
pub(super) struct Writer {
    ring: Ring,
    /// Bytes written, shown or not.
    written: u64,
    /// Bytes read, when it was last looked.
    read: u64,
    event: OwnedFd,
}

impl Writer {
    /// The place for a record of `len` bytes behind the length, which is written; `None` when there is no room.
    fn reserve(&mut self, len: u64) -> Option<Piece<'_>> {
        let need = (LENGTH + len).next_multiple_of(LINE);
        let rest = DATA - self.written % DATA;
        let skip = if need > rest { rest } else { 0 };
        if self.written + skip + need - self.read > DATA {
            self.read = self.ring.load(READ);
            if self.written + skip + need - self.read > DATA {
                return None;
            }
        }
        if skip > 0 {
            self.ring.piece(self.written, LENGTH)?.copy_out(&SKIP.to_ne_bytes());
        }
        let start = self.written + skip;
        self.written = start + need;
        let (length, bytes) = self.ring.piece(start, LENGTH + len)?.split_at(8);
        length.copy_out(&len.to_ne_bytes());
        Some(bytes)
    }

    /// Shows what was written, and wakes the reader if it sleeps.
    pub(super) fn publish(&self) {
        self.ring.store(WRITTEN, self.written);
        fence(Ordering::SeqCst);
        let Some(sleeps) = self.ring.words.get(SLEEPS) else { return };
        if sleeps.load(Ordering::Relaxed) != 0 && sleeps.swap(0, Ordering::Relaxed) != 0 {
            // It sleeps for a moment only, should this fail.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

/// The reading end of a direction.
pub(super) struct Reader {
    ring: Ring,
    /// Bytes written, when it was last looked.
    written: u64,
    /// Bytes read, shown or not.
    read: u64,
}

impl Reader {
    /// The next record, without its length; it stays until [`Reader::advance`].
    fn peek(&mut self) -> Option<Piece<'_>> {
        loop {
            if self.read == self.written {
                self.written = self.ring.load(WRITTEN);
                if self.read == self.written {
                    return None;
                }
            }
            match self.ring.piece(self.read, LENGTH)?.word(0)? {
                SKIP => self.read += DATA - self.read % DATA,
                len => return Some(self.ring.piece(self.read, LENGTH.checked_add(len)?)?.split_at(8).1),
            }
        }
    }

    /// Goes on behind a record of `len` bytes.
    fn advance(&mut self, len: u64) {
        self.read += (LENGTH + len).next_multiple_of(LINE);
    }

    /// Gives the writer the room of what was read.
    fn release(&self) {
        self.ring.store(READ, self.read);
    }

    /// Asks to be woken. `false` when there is something to read already.
    pub(super) fn arm(&mut self) -> bool {
        self.ring.store(SLEEPS, 1);
        fence(Ordering::SeqCst);
        self.peek().is_none()
    }

    /// Asks no longer.
    pub(super) fn disarm(&self) {
        self.ring.store(SLEEPS, 0);
    }

    /// Copies records to `to`, `most` of them or as many as there is room for; how many.
    pub(super) fn forward(&mut self, to: &mut Writer, most: usize) -> usize {
        let mut count = 0;
        while count < most {
            let Some(record) = self.peek() else { break };
            let len = record.len().into();
            let Some(place) = to.reserve(len) else { break };
            record.copy_to(place);
            self.advance(len);
            count += 1;
        }
        if count > 0 {
            to.publish();
            self.release();
        }
        count
    }
}

/// Frames to another process.
pub(super) struct PipeTx(pub(super) Writer);

impl PipeTx {
    /// Writes one frame. `None` leaves it as it was, because there is no room.
    fn send(&mut self, packet: &mut Packet) -> Option<Result<(), DropReason>> {
        let sender = Sender { features: SENDABLE, longest: LONGEST };
        let header = match sender.describe(packet) {
            Ok(header) => header,
            Err(reason) => return Some(Err(reason)),
        };
        let (front, mut rest) = self.0.reserve((PLAIN + packet.len()) as u64)?.split_at(12);
        front.copy_out(&header);
        for segment in packet.segments() {
            let copied = rest.copy_out(segment);
            rest = rest.split_at(u32::try_from(copied).unwrap_or(u32::MAX)).1;
        }
        Some(Ok(()))
    }
}

impl TxQueue for PipeTx {
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        let mut taken = 0;
        for packet in batch.iter_mut() {
            if self.send(packet).is_none() {
                break;
            }
            taken += 1;
        }
        if taken > 0 {
            self.0.publish();
        }
        hugemem::recycle(batch.drain_front(taken));
        taken
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// Frames from another process, into buffers of a machine.
pub(super) struct PipeRx {
    reader: Reader,
    pool: PacketPool,
}

impl PipeRx {
    /// Puts frames into buffers of `pool`.
    pub(super) fn new(reader: Reader, pool: PacketPool) -> Self {
        Self { reader, pool }
    }

    /// The next frame; `None` when there is none, or are no buffers for it.
    fn next(&mut self) -> Option<Option<Packet>> {
        let record = self.reader.peek()?;
        let length = record.len();
        let (front, mut rest) = record.split_at(12);
        let room = self.pool.room();
        let mut header = [0; PLAIN];
        front.copy_in(&mut header);
        let mut packet: Option<Packet> = None;
        while !rest.is_empty() {
            let mut part = self.pool.take()?;
            part.resize((rest.len() as usize).min(room)).ok()?;
            let copied = rest.copy_in(part.bytes_mut());
            rest = rest.split_at(u32::try_from(copied).unwrap_or(u32::MAX)).1;
            match &mut packet {
                None => packet = Some(part),
                Some(packet) => packet.append(part).ok()?,
            }
        }
        if let Some(packet) = &mut packet {
            let metadata = Header::read(&header, false).and_then(|header| header.metadata(packet, RECEIVABLE));
            *packet.metadata_mut() = metadata.unwrap_or_default();
        }
        self.reader.advance(length.into());
        Some(packet)
    }
}

impl RxQueue for PipeRx {
    fn receive(&mut self, batch: &mut Batch) -> usize {
        let before = batch.len();
        while batch.room() > 0
            && let Some(packet) = self.next()
        {
            if let Some(packet) = packet {
                // There is room.
                let _ = batch.push(packet);
            }
        }
        if batch.len() > before {
            self.reader.release();
        }
        batch.len() - before
    }

    fn arm(&mut self) -> bool {
        self.reader.arm()
    }

    fn disarm(&mut self) {
        self.reader.disarm();
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// Another handle of the same file.
///
/// # Errors
/// The process has none left.
pub(super) fn duplicate(file: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    file.as_fd().try_clone_to_owned().context("cannot open one more file; raise the limit (ulimit -n)")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::frame::{Frames, PIECE, Size};
    use super::*;
    use hugemem::{Iova, Region};
    use rustix::event::{EventfdFlags, eventfd};

    #[test]
    fn frames_of_all_lengths_pass_in_order_through_two_rings_many_times_round() {
        let region = Region::on_heap(16 << 20, Iova::new(1 << 20)).unwrap();
        let mut pool = region.packets(64, PIECE).unwrap();
        let event = || eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
        let [near, far] = [(); 2].map(|()| {
            let file = create().unwrap();
            [Shared::map(duplicate(file.as_fd()).unwrap()).unwrap(), Shared::map(file).unwrap()]
        });
        let mut tx = PipeTx(near[0].writer(0, event()).unwrap());
        let (mut middle_in, mut middle_out) = (near[1].reader(0).unwrap(), far[0].writer(1, event()).unwrap());
        let mut rx = PipeRx::new(far[1].reader(1).unwrap(), region.packets(256, 2048).unwrap());
        let (mut batch, mut arrived) = (Batch::new(8), Batch::new(8));
        let mut sizes = Size::ALL.map(|size| Frames::new(0, size));
        let (mut made, mut seen) = (0_u64, 0_u64);
        while seen < 3000 {
            while batch.room() > 0 && made < 3000 {
                let frames = &sizes[usize::try_from(made % 7 % 3).unwrap()];
                let Some(mut frame) = pool.take() else { break };
                if frames.fill(&mut frame, &mut pool, made, true).is_none() {
                    break;
                }
                assert!(batch.push(frame).is_ok());
                made += 1;
            }
            tx.transmit(&mut batch);
            middle_in.forward(&mut middle_out, 32);
            rx.receive(&mut arrived);
            for frame in arrived.iter() {
                let frames = &mut sizes[usize::try_from(seen % 7 % 3).unwrap()];
                frames.check(frame, seen, true).unwrap();
                seen += 1;
            }
            arrived.clear();
        }
    }

    #[test]
    fn a_reader_that_sleeps_is_woken_once_and_one_that_has_work_does_not_sleep() {
        let region = Region::on_heap(1 << 20, Iova::new(1 << 20)).unwrap();
        let mut pool = region.packets(8, 2048).unwrap();
        let shared = Shared::map(create().unwrap()).unwrap();
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
        let mut tx = PipeTx(shared.writer(0, duplicate(event.as_fd()).unwrap()).unwrap());
        let mut reader = shared.reader(0).unwrap();
        let mut send = || {
            let mut batch = Batch::new(1);
            let mut frame = pool.take().unwrap();
            frame.resize(64).unwrap();
            assert!(batch.push(frame).is_ok());
            assert_eq!(tx.transmit(&mut batch), 1);
        };
        let mut counter = [0; 8];
        assert!(reader.arm());
        send();
        send();
        assert_eq!(rustix::io::read(&event, &mut counter), Ok(8));
        assert_eq!(u64::from_ne_bytes(counter), 1);
        assert!(!reader.arm(), "records wait");
        reader.disarm();
        send();
        assert_eq!(rustix::io::read(&event, &mut counter), Err(rustix::io::Errno::AGAIN), "it is awake");
    }
}
