//! Writing to stdout so that a reader who leaves (`mirach run | head`) ends the command and does not crash it.

use std::io::{self, Write};

use serde::Serialize;

/// Prints a line.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        stdout.write_all(b"\n")?;
    }
    stdout.flush()
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

/// Whether the reader of stdout has gone.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::port::PortError;

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
