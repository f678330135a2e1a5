//! Writes a capture file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
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

    fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
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
}

impl PcapTx {
    pub(super) fn new(writer: Arc<Mutex<Writer>>) -> Self {
        Self { writer, counters: Counters::default() }
    }
}

impl TxQueue for PcapTx {
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        let packets = batch.len();
        if packets == 0 {
            return 0;
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut writer = lock(&self.writer);
        for packet in batch.iter() {
            match writer.add(packet, time) {
                Ok(()) => {
                    self.counters.packets += 1;
                    self.counters.bytes += packet.len() as u64;
                }
                Err(Refusal::TooLong) => self.counters.drop_packets(DropReason::TooLong, 1),
                Err(Refusal::BadHeader) => self.counters.drop_packets(DropReason::BadHeader, 1),
                Err(Refusal::Failed) => self.counters.drop_packets(DropReason::System, 1),
            }
        }
        // Frames that were taken earlier and could not be written after all.
        let lost = writer.take_lost();
        drop(writer);
        if lost > 0 {
            self.counters.packets = self.counters.packets.saturating_sub(lost);
            self.counters.drop_packets(DropReason::System, lost);
        }
        batch.clear();
        packets
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
