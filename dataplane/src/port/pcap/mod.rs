//! Capture files as a port: frames are read from one and written to another.
//!
//! The input (pcap or pcapng, Ethernet) is read into memory and checked as a whole when the port is opened, so that a
//! bad file is known at once and receiving calls no kernel. It is played as fast as the forwarder takes frames; a frame
//! waits while no buffer is free, so none is lost here.
//!
//! The output is a pcap file with nanosecond times, valid up to the last whole frame whenever control has looked after the port
//! (about once a second), and complete after [`PortControl::stop`]. Frames look as they would on a wire: checksums and VLAN
//! tags that were left to hardware are put in. Writing calls the kernel from the engine's thread, once a
//! megabyte: a port for tests and for looking, not for speed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drivers::nic::{LinkStatus, Offloads};
use hugemem::PacketPool;

use super::null::NullTx;
use super::{PcapSpec, PortControl, PortError, PortQueue, Supply};

mod capture;
mod reader;
mod writer;

pub use capture::Capture;
pub use reader::PcapRx;
pub use writer::PcapTx;
use writer::Writer;

/// Control side of a capture port.
#[derive(Debug)]
pub struct PcapControl {
    name: String,
    spec: PcapSpec,
    frames: usize,
    exhausted: Arc<AtomicBool>,
    writer: Option<Arc<Mutex<Writer>>>,
}

/// Reads the input of `spec`, an empty capture when it has none.
///
/// # Errors
/// When the file cannot be read, is no capture of Ethernet frames, or is damaged.
pub fn load(name: &str, spec: &PcapSpec) -> Result<Capture, PortError> {
    let Some(path) = &spec.input else { return Ok(Capture::default()) };
    Capture::load(path).map_err(|reason| PortError::Capture { port: name.into(), path: path.clone(), reason })
}

/// Makes a port with one queue pair for each of `pools`, whose buffers hold the frames that are underway. The first queue
/// pair receives the frames of `capture`; all write to the one output.
///
/// # Errors
/// When the output cannot be created, or is the input.
pub fn open(
    name: &str,
    spec: &PcapSpec,
    capture: Capture,
    pools: Vec<PacketPool>,
) -> Result<(Vec<PortQueue>, PcapControl), PortError> {
    let failure = |path: &Path, reason: String| PortError::Capture { port: name.into(), path: path.into(), reason };
    let writer = match &spec.output {
        None => None,
        Some(path) => {
            if spec.input.as_deref().is_some_and(|input| same_file(input, path)) {
                let reason = "it is the port's input and would be overwritten; choose another name for `out=`";
                return Err(failure(path, reason.into()));
            }
            let writer = Writer::create(path).map_err(|error| {
                failure(path, format!("cannot create it: {error}; check that its folder exists and may be written to"))
            })?;
            Some(Arc::new(Mutex::new(writer)))
        }
    };
    let frames = capture.len();
    let exhausted = Arc::new(AtomicBool::new(spec.input.is_some() && frames == 0));
    let mut capture = Some(capture);
    let queues = pools.into_iter().map(|pool| {
        // Taken by the first queue pair; the others have nothing to receive.
        let capture = capture.take().unwrap_or_default();
        let rx = PcapRx::new(capture, spec.repeat, pool, Arc::clone(&exhausted));
        let tx: Box<dyn drivers::nic::TxQueue> = match &writer {
            Some(writer) => Box::new(PcapTx::new(Arc::clone(writer))),
            None => Box::new(NullTx::default()),
        };
        PortQueue { rx: Box::new(rx), tx, wake: None, desk: None }
    });
    let queues = queues.collect();
    Ok((queues, PcapControl { name: name.into(), spec: spec.clone(), frames, exhausted, writer }))
}

/// Whether both paths exist and lead to the same file.
fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// A writer whose last user panicked is still consistent: frames are added whole.
fn lock(writer: &Mutex<Writer>) -> MutexGuard<'_, Writer> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PcapControl {
    fn flush(&self) -> Result<(), PortError> {
        let Some(writer) = &self.writer else { return Ok(()) };
        lock(writer).outcome().map_err(|error| PortError::Capture {
            port: self.name.clone(),
            path: self.spec.output.clone().unwrap_or_default(),
            reason: format!("cannot write to it: {error}; frames are missing from its end; free space on its disk"),
        })
    }
}

impl PortControl for PcapControl {
    fn link(&mut self) -> LinkStatus {
        LinkStatus { up: true, ..LinkStatus::default() }
    }

    fn offloads(&self) -> Offloads {
        // Checksums are put in; a frame that is to be cut is written whole.
        Offloads::TX_CHECKSUM
    }

    fn describe(&mut self) -> String {
        let mut text = String::from("pcap state UP");
        if let Some(input) = &self.spec.input {
            let times = match self.spec.repeat {
                0 => "for ever".to_owned(),
                1 => "once".to_owned(),
                times => format!("{times} times"),
            };
            text += &format!(" in {} ({} frames, {times})", input.display(), self.frames);
        }
        if let Some(output) = &self.spec.output {
            text += &format!(" out {}", output.display());
        }
        text
    }

    fn check(&mut self) -> Result<(), PortError> {
        self.flush()
    }

    fn supply(&self) -> Supply {
        match (&self.spec.input, self.exhausted.load(Ordering::Acquire)) {
            (None, _) => Supply::Endless,
            (Some(_), true) => Supply::Exhausted,
            (Some(_), false) if self.spec.repeat == 0 => Supply::Endless,
            (Some(_), false) => Supply::Remaining,
        }
    }

    fn stop(&mut self, queues: Vec<PortQueue>) -> Result<(), PortError> {
        drop(queues);
        self.flush()
    }
}

#[cfg(test)]
mod tests;
