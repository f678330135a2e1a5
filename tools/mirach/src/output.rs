//! Writing to stdout so that a reader who leaves (`mirach run | head`) ends the command and does not crash it, and one who
//! does not read (`mirach run | less`) does not keep SIGINT and SIGTERM from ending it.

use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::signals;

/// Bytes that a pipe takes without blocking once it is ready for any (`PIPE_BUF`, `pipe(7)`).
const PIECE: usize = 4096;
/// How often it is asked for signals while stdout takes nothing.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Nobody takes what is printed: the reader of stdout has gone, or does not read while the command is told to end.
#[derive(Debug)]
struct ReaderGone;

impl std::fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody reads the report")
    }
}

impl std::error::Error for ReaderGone {}

/// Whether stdout takes a line, or has nobody any more to take it, which printing a line then says.
pub(crate) fn is_ready() -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(poll(&mut [PollFd::new(&io::stdout(), PollFlags::OUT)], Some(&now)), Ok(0))
}

/// Prints a line. Nothing is held back in this process, so nothing can block when it exits.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut line = text.as_bytes().to_vec();
    if !text.ends_with('\n') {
        line.push(b'\n');
    }
    bytes(&line)
}

/// Writes bytes as they are, as [`line`] does.
pub(crate) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let stdout = io::stdout().lock();
    let mut rest = bytes;
    while let Some(piece) = rest.get(..rest.len().min(PIECE)).filter(|piece| !piece.is_empty()) {
        match poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], Some(&PATIENCE)) {
            Ok(0) | Err(rustix::io::Errno::INTR) if signals::are_pending() => {
                return Err(io::Error::other(ReaderGone));
            }
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match rustix::io::write(&stdout, piece) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(rustix::io::Errno::PIPE) => return Err(io::Error::other(ReaderGone)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Prints one JSON object on a line of its own.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    line(&serde_json::to_string(value)?)
}

/// The text of an error and its causes. An error that has its cause in its own text already does not repeat it.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether the reader of stdout has gone, or did not read until the command was told to end.
pub(crate) fn is_reader_gone(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.get_ref().is_some_and(|inner| inner.is::<ReaderGone>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::port::PortError;

    #[test]
    fn only_the_reader_of_stdout_is_let_go_without_a_word() {
        assert!(is_reader_gone(&anyhow::Error::new(io::Error::other(ReaderGone)).context("cannot report")));
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::TimedOut] {
            assert!(!is_reader_gone(&anyhow::Error::new(io::Error::from(kind))), "{kind}: of a socket, say");
        }
    }

    #[test]
    fn an_error_says_nothing_twice() {
        let source = io::Error::other("the disk is full");
        let error = PortError::Tap { port: "a".to_owned(), action: "write", source, remedy: "make room".to_owned() };
        let text = "port `a`: cannot write: the disk is full; make room";
        assert_eq!(sentence(&anyhow::Error::new(error)), text);
        let error = anyhow::Error::new(io::Error::other("the disk is full")).context("cannot write");
        assert_eq!(sentence(&error), "cannot write: the disk is full");
    }
}
