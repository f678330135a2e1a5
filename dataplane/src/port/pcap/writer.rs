//! Writes a capture file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drivers::nic::{Counters, DropReason, TxQueue};
use hugemem::{Batch, Packet};

use super::lock;
use crate::port::checksum::render;

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
    frames_held: u64,
    /// Frames that were lost because writing failed.
    lost: u64,
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
        let mut writer = Self { file, regular, written: 0, buffer: vec![0; BUFFER], used: 0, frames_held: 0, lost: 0 };
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
        if self.buffer.len() - self.used < RECORD + longest && self.flush().is_err() {
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
        self.frames_held += 1;
        Ok(())
    }

    /// Writes out what is held back. When that fails, the frames held are lost and counted, and the file ends with the
    /// last whole frame before them.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let held = self.buffer.get(..self.used).unwrap_or_default();
        if held.is_empty() {
            return Ok(());
        }
        let result = if self.regular { self.file.write_all_at(held, self.written) } else { self.file.write_all(held) };
        let frames = std::mem::take(&mut self.frames_held);
        let bytes = std::mem::take(&mut self.used) as u64;
        match result {
            Ok(()) => self.written += bytes,
            Err(_) => {
                self.lost += frames;
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

/// Writes what is "sent" into the port's file.
#[derive(Debug)]
pub struct PcapTx {
    writer: Arc<Mutex<Writer>>,
    counters: Counters,
    /// Frames that were counted as sent and lost after all. As many of the next are not counted, because counters
    /// never go back.
    debt: u64,
}

impl PcapTx {
    pub(super) fn new(writer: Arc<Mutex<Writer>>) -> Self {
        Self { writer, counters: Counters::default(), debt: 0 }
    }

    /// Counts what was lost after it had been taken.
    fn settle(&mut self, writer: &mut MutexGuard<'_, Writer>) {
        let lost = std::mem::take(&mut writer.lost);
        self.debt += lost;
        self.counters.drop_packets(DropReason::System, lost);
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
        // Frames may have been lost between two calls, and may be below.
        self.settle(&mut writer);
        for packet in batch.iter() {
            match writer.add(packet, time) {
                Ok(()) if self.debt > 0 => self.debt -= 1,
                Ok(()) => {
                    self.counters.packets += 1;
                    self.counters.bytes += packet.len() as u64;
                }
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
        lock(&writer).flush().unwrap();
        send(&mut tx, 2, 4);
        let good = std::mem::replace(&mut lock(&writer).file, File::open(&path).unwrap());
        assert!(lock(&writer).flush().is_err(), "it is open for reading only");
        lock(&writer).file = good;
        send(&mut tx, 3, 6);
        lock(&writer).flush().unwrap();
        let counters = tx.counters();
        assert_eq!((counters.packets, counters.bytes, counters.dropped(DropReason::System)), (9, 9 * 60, 4));
        let capture = Capture::load(&path).unwrap();
        let kinds: Vec<u8> = (0..capture.len()).map(|index| capture.frame(index).unwrap()[0]).collect();
        assert_eq!(kinds, [1, 1, 1, 3, 3, 3, 3, 3, 3]);
    }
}
