//! Talking to a guest: one command a line over a serial port, answered with its output and exit status.
//!
//! The other side is `tests/lab/agent`. It answers `begin NUMBER LENGTH`, that many bytes of output, and
//! `end NUMBER STATUS`; it kills a command that takes longer than it was given.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::wait;

/// More than a command is given, for the way there and back.
const SPARE: Duration = Duration::from_secs(30);

/// Limits what is believed of a length that came over a serial line.
const OUTPUT_BYTES: usize = 16 << 20;

/// What a command in the guest did.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Standard output and standard error.
    pub output: String,
    /// The exit status; 137 when it was killed because its time was up.
    pub status: i32,
}

/// The connection to a guest's agent.
pub struct Agent {
    reader: BufReader<UnixStream>,
    number: u64,
}

impl Agent {
    /// Connects to the serial port's socket. `alive` is asked while waiting, so that a QEMU that ended is not waited for.
    ///
    /// # Errors
    ///
    /// No socket within the limit, or `alive` failed.
    pub fn attach(socket: &Path, limit: Duration, mut alive: impl FnMut() -> Result<()>) -> Result<Self> {
        let stream = wait::until("the guest's serial port", limit, || {
            alive()?;
            Ok(UnixStream::connect(socket).ok())
        })?;
        Ok(Self { reader: BufReader::new(stream), number: 0 })
    }

    /// Takes over from another connection to the same guest.
    pub fn go_on_after(&mut self, other: &Self) {
        self.number = other.number;
    }

    /// Waits until the agent says that it is ready, again after the guest was started anew.
    ///
    /// # Errors
    ///
    /// It does not within the limit, or `alive` failed.
    pub fn await_ready(&mut self, limit: Duration, mut alive: impl FnMut() -> Result<()>) -> Result<()> {
        let started = Instant::now();
        loop {
            alive()?;
            let left = limit.saturating_sub(started.elapsed());
            if left.is_zero() {
                bail!("the guest did not come up within {} s", limit.as_secs());
            }
            // In slices, so that a QEMU that ended is noticed; what was read of a line is kept.
            match self.line(left.min(Duration::from_secs(1))) {
                Ok(line) if line == "ready" => return Ok(()),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Runs a line of shell in the guest.
    ///
    /// # Errors
    ///
    /// The guest did not answer.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<Answer> {
        if command.contains('\n') {
            bail!("a command for the guest is one line, not {command:?}");
        }
        self.number += 1;
        let number = self.number;
        let line = format!("{number} {} {command}\n", limit.as_secs().max(1));
        self.reader.get_mut().write_all(line.as_bytes()).context("the guest's serial port is closed")?;
        self.answer(number, Instant::now() + limit + SPARE)
            .with_context(|| format!("the guest did not answer to `{command}`"))
    }

    fn answer(&mut self, number: u64, deadline: Instant) -> Result<Answer> {
        let begin = self.line(left(deadline)?)?;
        let length: usize = begin
            .strip_prefix(&format!("begin {number} "))
            .and_then(|length| length.parse().ok())
            .filter(|&length| length <= OUTPUT_BYTES)
            .with_context(|| format!("it said {begin:?}"))?;
        let mut output = vec![0; length];
        let mut filled = 0;
        while let Some(rest) = output.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            self.reader.get_ref().set_read_timeout(Some(left(deadline)?))?;
            match self.reader.read(rest)? {
                0 => bail!("its serial port was closed"),
                count => filled += count,
            }
        }
        let end = self.line(left(deadline)?)?;
        let status = end
            .strip_prefix(&format!("end {number} "))
            .and_then(|status| status.parse().ok())
            .with_context(|| format!("it said {end:?}"))?;
        Ok(Answer { output: String::from_utf8_lossy(&output).into_owned(), status })
    }

    fn line(&mut self, limit: Duration) -> Result<String> {
        self.reader.get_ref().set_read_timeout(Some(limit))?;
        let mut line = Vec::new();
        if self.reader.read_until(b'\n', &mut line)? == 0 {
            bail!("its serial port was closed");
        }
        Ok(String::from_utf8_lossy(&line).trim().to_owned())
    }
}

fn left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        bail!("its time is up");
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use super::Agent;

    /// A guest whose answers are given.
    fn talk(answer: &'static str) -> anyhow::Result<super::Answer> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        let guest = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"noise of the boot\nready\n").unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            line
        });
        let mut agent = Agent::attach(&path, Duration::from_secs(60), || Ok(())).unwrap();
        agent.await_ready(Duration::from_secs(60), || Ok(())).unwrap();
        let result = agent.run("echo hello", Duration::from_secs(60));
        assert_eq!(guest.join().unwrap(), "1 60 echo hello\n");
        result
    }

    #[test]
    fn output_may_hold_anything_even_what_looks_like_an_end() {
        let answer = talk("begin 1 8\nend 1 0\nend 1 3\n").unwrap();
        assert_eq!((answer.output.as_str(), answer.status), ("end 1 0\n", 3));
    }

    #[test]
    fn an_answer_to_another_command_is_an_error() {
        assert!(talk("begin 7 0\nend 7 0\n").is_err());
    }

    #[test]
    fn a_guest_that_goes_away_is_an_error() {
        assert!(talk("begin 1 100\nhal").is_err());
    }
}
