//! QEMU's monitor: one JSON object a line (docs/interop/qmp-spec.rst of QEMU).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::wait;

/// For QEMU to make its socket, and to answer a command; it may wait for a vhost-user peer in both.
const LIMIT: Duration = Duration::from_secs(60);

/// The connection to a monitor.
pub struct Monitor {
    reader: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects to the monitor's socket. `alive` is asked while waiting.
    ///
    /// # Errors
    ///
    /// There is no monitor, or `alive` failed.
    pub fn connect(socket: &Path, mut alive: impl FnMut() -> Result<()>) -> Result<Self> {
        let stream = wait::until("QEMU's monitor", LIMIT, || {
            alive()?;
            Ok(UnixStream::connect(socket).ok())
        })?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut monitor = Self { reader: BufReader::new(stream) };
        // Its greeting; nothing is accepted before the answer to it.
        monitor.line()?;
        monitor.run("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Runs a command and returns what it returned.
    ///
    /// # Errors
    ///
    /// QEMU refused, or is gone.
    pub fn run(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.reader.get_mut(), "{line}").context("QEMU's monitor is closed")?;
        loop {
            let mut answer = self.line().with_context(|| format!("QEMU did not answer to {line}"))?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refused {line}: {error}");
            }
            // Everything else is an event.
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
        }
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("QEMU's monitor was closed");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU's monitor said {line:?}"))
    }
}
