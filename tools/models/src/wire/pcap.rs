//! A wire to capture files: one is played to the card, the other gets what it transmits.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use pcap_file::pcap::PcapReader;
use pcap_file::{DataLink, PcapError};

use super::{Wire, WireError};

/// See the module. The input is played once, as fast as the card takes it.
pub struct Pcap {
    input: Option<PcapReader<BufReader<File>>>,
    output: Option<BufWriter<File>>,
    /// The output has bytes that are not in the file yet.
    dirty: bool,
    frame: Option<Vec<u8>>,
    failure: Option<io::Error>,
}

impl std::fmt::Debug for Pcap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pcap").field("failure", &self.failure).finish_non_exhaustive()
    }
}

/// Longest frame that is written whole.
const SNAPLEN: u32 = 262_144;

impl Pcap {
    /// Plays the file `input`, and creates `output`.
    ///
    /// # Errors
    /// When a file cannot be opened, or is no capture of Ethernet frames in the pcap format.
    pub fn open(input: Option<&Path>, output: Option<&Path>) -> Result<Self, WireError> {
        let failed = |action, path: &Path, source: io::Error| WireError {
            wire: format!("pcap {}", path.display()),
            action,
            source,
            remedy: "",
        };
        let input =
            input.map(|path| read(path).map_err(|error| failed("read the capture", path, error))).transpose()?;
        let output =
            output.map(|path| create(path).map_err(|error| failed("write the capture", path, error))).transpose()?;
        Ok(Self { input, output, dirty: false, frame: None, failure: None })
    }

    /// What went wrong while reading or writing, once: it ended that direction.
    pub fn failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    fn read(&mut self) -> Option<Vec<u8>> {
        match self.input.as_mut()?.next_packet()? {
            Ok(packet) => Some(packet.data.into_owned()),
            Err(error) => {
                self.failure = Some(cause(error));
                self.input = None;
                None
            }
        }
    }
}

fn cause(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        PcapError::InvalidField("PcapHeader: wrong magic number") | PcapError::IncompleteBuffer => {
            io::Error::new(io::ErrorKind::InvalidData, "no capture in the pcap format (or its end is missing)")
        }
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

fn read(path: &Path) -> io::Result<PcapReader<BufReader<File>>> {
    let reader = PcapReader::new(BufReader::new(File::open(path)?)).map_err(cause)?;
    if reader.header().datalink != DataLink::ETHERNET {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its frames are not Ethernet"));
    }
    Ok(reader)
}

/// Creates the file, or empties it, and writes its header (draft-ietf-opsawg-pcap, section 4): nanosecond times, version 2.4,
/// link type Ethernet.
fn create(path: &Path) -> io::Result<BufWriter<File>> {
    let mut file = BufWriter::new(File::create(path)?);
    for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, SNAPLEN, 1] {
        file.write_all(&word.to_le_bytes())?;
    }
    file.flush()?;
    Ok(file)
}

/// Writes one frame (section 5).
fn record(file: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The format ends in 2106; times beyond are shown as its last second.
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    for word in [seconds, time.subsec_nanos(), len, len] {
        file.write_all(&word.to_le_bytes())?;
    }
    file.write_all(frame)
}

impl Wire for Pcap {
    fn peek(&mut self) -> Option<&[u8]> {
        if self.frame.is_none() {
            self.frame = self.read();
        }
        self.frame.as_deref()
    }

    fn advance(&mut self) {
        self.frame = None;
    }

    fn transmit(&mut self, frame: &[u8]) -> bool {
        let Some(output) = &mut self.output else { return true };
        self.dirty = true;
        if let Err(error) = record(output, frame) {
            self.failure = Some(error);
            self.output = None;
        }
        true
    }

    /// What was written in the last poll comes into the file.
    fn begin(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        if let Some(Err(error)) = self.output.as_mut().map(Write::flush) {
            self.failure = Some(error);
            self.output = None;
        }
    }
}
