//! Messages on stderr. A thread of its own writes them, so that a reader who pauses (`2>&1 | less`, a log collector that is stuck) holds up
//! nobody: what does not fit between is dropped, and the number of what was is said when there is room again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use tracing_subscriber::fmt::MakeWriter;

use crate::signals::Signals;

/// Messages that may wait to be written.
const WAITING: usize = 1024;
/// How long a command that ends waits for them to be read.
const FAREWELL: Duration = Duration::from_millis(500);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(1);

/// Where messages go to.
#[derive(Clone)]
pub(crate) struct Log {
    messages: SyncSender<Vec<u8>>,
    /// Those that wait.
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

/// Begins to log. `RUST_LOG` chooses what, as everywhere in Rust, and else `verbose`.
pub(crate) fn start(verbose: u8) -> Option<Log> {
    let default = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let format = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_target(false)
        .without_time();
    // Without a thread, whoever logs writes.
    let log = Log::start(Unlocked);
    match log.clone() {
        Some(log) => format.with_writer(log).init(),
        None => format.with_writer(io::stderr).init(),
    }
    log
}

impl Log {
    /// Starts the thread, which writes to `out`.
    fn start(out: impl io::Write + Send + 'static) -> Option<Self> {
        let (messages, queue) = sync_channel(WAITING);
        let (waiting, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let log = Self { messages, waiting: Arc::clone(&waiting), dropped: Arc::clone(&dropped) };
        let (ready, is_ready) = sync_channel(1);
        let work = move || {
            // They are for the thread that waits for them.
            let _blocked = Signals::block_with_reload();
            let _ = ready.send(());
            write(&queue, out, &waiting, &dropped);
        };
        std::thread::Builder::new().name("log".to_owned()).spawn(work).ok()?;
        is_ready.recv().ok()?;
        Some(log)
    }

    /// Waits until everything is written, but not for long.
    pub(crate) fn finish(&self) {
        let deadline = Instant::now() + FAREWELL;
        while self.waiting.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
    }

    fn post(&self, message: &[u8]) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        if self.messages.try_send(message.to_vec()).is_err() {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            self.dropped.fetch_add(1, Ordering::AcqRel);
        }
    }
}

fn write(queue: &Receiver<Vec<u8>>, mut out: impl io::Write, waiting: &AtomicUsize, dropped: &AtomicU64) {
    for message in queue {
        // A reader who has gone is no reason to end.
        let _ = out.write_all(&message);
        let missing = dropped.swap(0, Ordering::AcqRel);
        if missing > 0 {
            let _ = writeln!(out, " WARN {missing} messages were dropped here, because nobody read them in time");
        }
        waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One message; the subscriber writes it in one piece.
pub(crate) struct Message<'l>(&'l Log);

impl io::Write for Message<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.post(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'l> MakeWriter<'l> for Log {
    type Writer = Message<'l>;

    fn make_writer(&'l self) -> Message<'l> {
        Message(self)
    }
}

/// Stderr without its lock, which whoever prints or panics needs.
struct Unlocked;

impl io::Write for Unlocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(io::stderr(), bytes) {
                // Somebody else made it a descriptor that does not block.
                Err(rustix::io::Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&io::stderr(), PollFlags::OUT)], None)?;
                }
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::io::{Read, pipe};

    #[test]
    fn a_reader_who_pauses_holds_up_nobody_and_hears_what_he_missed() {
        let (mut reader, writer) = pipe().unwrap();
        let log = Log::start(writer).unwrap();
        let message = [&[b'x'; 1023][..], b"\n"].concat();
        // More than the pipe and the queue take together.
        for _ in 0..4 * WAITING {
            log.post(&message);
        }
        assert!(log.dropped.load(Ordering::Acquire) > 0);
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        while log.waiting.load(Ordering::Acquire) > 0 {
            std::thread::sleep(LOOK);
        }
        log.post(b"the last\n");
        log.finish();
        drop(log);
        let text = reading.join().unwrap();
        let written = text.lines().filter(|line| line.starts_with('x')).count();
        let said = text.lines().filter(|line| line.contains("messages were dropped here"));
        let missing: usize = said.filter_map(|line| line.split(' ').find_map(|word| word.parse::<usize>().ok())).sum();
        assert!(missing > 0);
        assert_eq!(written + missing, 4 * WAITING);
        assert!(text.ends_with("the last\n"));
    }
}
