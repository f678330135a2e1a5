//! Writes a capture file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drivers::nic::{Counters, DropReason, Offloads, TxQueue};
use hugemem::{Batch, Packet};

use super::lock;
use crate::checksum::render;

/// Frames are collected up to this many bytes before they are written.
const BUFFER: usize = 1 << 20;
/// Longest frame in the file; larger ones are counted as too long. It fits into the buffer many times.
const SNAPLEN: u32 = 262_144;
/// Bytes in front of each frame.
const RECORD: usize = 16;

/// A capture file with the frames that are not written to it yet.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    /// A file that can be cut back; otherwise a pipe or terminal.
    regular: bool,
    /// Bytes in the file, all of them whole records.
    written: u64,
    buffer: Vec<u8>,
    used: usize,
    /// What is in the buffer.
    held: Tally,
    /// What has come into the file, and not been counted by the queue yet.
    done: Tally,
    /// Frames that were lost because writing failed, and not counted yet.
    lost: u64,
    /// Why, when the queue met with it and the control side has not told it yet.
    failure: Option<io::Error>,
}

/// A number of frames and their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    frames: u64,
    bytes: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

/// Why a frame is not in the file.
enum Refusal {
    TooLong,
    BadHeader,
    Failed,
}

impl Writer {
    /// Creates the file, or empties it, and writes the file header (draft-ietf-opsawg-pcap, section 4).
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let regular = file.metadata()?.is_file();
        let (held, done) = (Tally::default(), Tally::default());
        let buffer = vec![0; BUFFER];
        let mut writer = Self { file, regular, written: 0, buffer, used: 0, held, done, lost: 0, failure: None };
        // Nanosecond times, version 2.4, and link type Ethernet.
        let header = [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, SNAPLEN, 1];
        for (place, word) in writer.buffer.chunks_exact_mut(4).zip(header) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        writer.used = size_of_val(&header);
        writer.flush()?;
        Ok(writer)
    }

    fn add(&mut self, packet: &Packet, time: Duration) -> Result<(), Refusal> {
        // A tag that has to be put in takes four bytes.
        let longest = packet.len() + 4;
        if longest > SNAPLEN as usize {
            return Err(Refusal::TooLong);
        }
        if self.buffer.len() - self.used < RECORD + longest && !self.try_flush() {
            return Err(Refusal::Failed);
        }
        let place = self.buffer.get_mut(self.used..).unwrap_or_default();
        let Some((record, data)) = place.split_first_chunk_mut::<RECORD>() else { return Err(Refusal::TooLong) };
        let len = render(packet, data).ok_or(Refusal::BadHeader)?.len();
        let length = u32::try_from(len).unwrap_or(SNAPLEN);
        // The format ends in 2106; times beyond are shown as its last second.
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        for (place, word) in record.chunks_exact_mut(4).zip([seconds, time.subsec_nanos(), length, length]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        self.used += RECORD + len;
        self.held.add(Tally { frames: 1, bytes: packet.len() as u64 });
        Ok(())
    }

    /// As [`Writer::flush`], for the queue, which can tell nobody: a failure is kept for [`Writer::outcome`].
    fn try_flush(&mut self) -> bool {
        match self.flush() {
            Ok(()) => true,
            Err(error) => {
                self.failure = Some(error);
                false
            }
        }
    }

    /// Writes out what is held back, and says what went wrong then or since the last time.
    pub(super) fn outcome(&mut self) -> io::Result<()> {
        let now = self.flush();
        self.failure.take().map_or(now, Err)
    }

    /// Writes out what is held back. When that fails, the frames held are lost and counted, and the file ends with the
    /// last whole frame before them.
    fn flush(&mut self) -> io::Result<()> {
        let held = self.buffer.get(..self.used).unwrap_or_default();
        if held.is_empty() {
            return Ok(());
        }
        let result = if self.regular { self.file.write_all_at(held, self.written) } else { self.file.write_all(held) };
        let held = std::mem::take(&mut self.held);
        let bytes = std::mem::take(&mut self.used) as u64;
        match result {
            Ok(()) => {
                self.written += bytes;
                self.done.add(held);
            }
            Err(_) => {
                self.lost += held.frames;
                if self.regular {
                    // Half a record at the end would make the whole file unreadable to some tools. If even this fails,
                    // the error below says that the file is damaged.
                    let _ = self.file.set_len(self.written);
                }
            }
        }
        result
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // For a forwarder that ends without stopping its ports; nobody is left to be told of a failure.
        let _ = self.flush();
    }
}

/// Writes what is "sent" into the port's file. A frame counts as sent when it is in the file, and as underway until then.
#[derive(Debug)]
pub struct PcapTx {
    writer: Arc<Mutex<Writer>>,
    counters: Counters,
}

impl PcapTx {
    pub(super) fn new(writer: Arc<Mutex<Writer>>) -> Self {
        Self { writer, counters: Counters::default() }
    }

    /// Counts what has come into the file, or was lost, since the last time.
    fn settle(&mut self, writer: &mut MutexGuard<'_, Writer>) {
        let done = std::mem::take(&mut writer.done);
        self.counters.packets += done.frames;
        self.counters.bytes += done.bytes;
        self.counters.drop_packets(DropReason::System, std::mem::take(&mut writer.lost));
    }
}

impl TxQueue for PcapTx {
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        let packets = batch.len();
        if packets == 0 {
            return 0;
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let shared = Arc::clone(&self.writer);
        let mut writer = lock(&shared);
        for packet in batch.iter() {
            match writer.add(packet, time) {
                Ok(()) => {}
                Err(Refusal::TooLong) => self.counters.drop_packets(DropReason::TooLong, 1),
                Err(Refusal::BadHeader) => self.counters.drop_packets(DropReason::BadHeader, 1),
                Err(Refusal::Failed) => self.counters.drop_packets(DropReason::System, 1),
            }
        }
        self.settle(&mut writer);
        drop(writer);
        batch.clear();
        packets
    }

    /// Writes out what is held back: for when there is nothing else to do, and for the end. A failure is counted here
    /// and told by the port's control side.
    fn reclaim(&mut self) -> usize {
        let shared = Arc::clone(&self.writer);
        let mut writer = lock(&shared);
        writer.try_flush();
        self.settle(&mut writer);
        0
    }

    fn offloads(&self) -> Offloads {
        // What is in the file is what would be on a wire.
        Offloads::TX_CHECKSUM
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::port::pcap::Capture;
    use hugemem::{Iova, Region};

    #[test]
    fn a_file_that_cannot_be_written_for_a_while_stays_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.pcap");
        let writer = Arc::new(Mutex::new(Writer::create(&path).unwrap()));
        let mut tx = PcapTx::new(Arc::clone(&writer));
        let region = Region::on_heap(1 << 20, Iova::new(0)).unwrap();
        let mut pool = region.packets(16, 1920).unwrap();
        let mut batch = Batch::new(16);
        let mut send = |tx: &mut PcapTx, bytes: u8, count: usize| {
            for _ in 0..count {
                let mut packet = pool.take().unwrap();
                packet.write(&[bytes; 60]).unwrap();
                batch.push(packet).unwrap();
            }
            assert_eq!(tx.transmit(&mut batch), count);
        };
        send(&mut tx, 1, 3);
        lock(&writer).outcome().unwrap();
        send(&mut tx, 2, 4);
        let good = std::mem::replace(&mut lock(&writer).file, File::open(&path).unwrap());
        tx.reclaim();
        assert!(lock(&writer).outcome().is_err(), "it is open for reading only");
        assert!(lock(&writer).outcome().is_ok(), "it is told once");
        lock(&writer).file = good;
        send(&mut tx, 3, 6);
        assert_eq!(tx.counters().packets, 3, "the others are lost, or not in the file yet");
        assert_eq!(tx.reclaim(), 0);
        let counters = tx.counters();
        assert_eq!((counters.packets, counters.bytes, counters.dropped(DropReason::System)), (9, 9 * 60, 4));
        let capture = Capture::load(&path).unwrap();
        let kinds: Vec<u8> = (0..capture.len()).map(|index| capture.frame(index).unwrap()[0]).collect();
        assert_eq!(kinds, [1, 1, 1, 3, 3, 3, 3, 3, 3]);
    }
}
