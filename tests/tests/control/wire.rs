//! The control socket as bytes: lines of JSON, and what is none.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::tenants::Daemon;
use serde_json::{Value, json};

/// For what takes milliseconds on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
pub(crate) struct Wire {
    stream: BufReader<UnixStream>,
    requests: u64,
}

impl Wire {
    pub(crate) fn open(daemon: &Daemon) -> Result<Self> {
        let stream = UnixStream::connect(daemon.control())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream), requests: 0 })
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(bytes)?)
    }

    /// The next line; `None` when the other side has hung up.
    pub(crate) fn line(&mut self) -> Result<Option<Value>> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).context("no answer")? == 0 {
            return Ok(None);
        }
        serde_json::from_str(&line).map(Some).with_context(|| format!("no JSON: {line}"))
    }

    /// Asks, and gives the whole answer, which may be an error; notifications before it are left out.
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.requests += 1;
        let id = json!(self.requests);
        let request = json!({ "jsonrpc": "2.0", "method": method, "params": params, "id": id });
        self.send(format!("{request}\n").as_bytes())?;
        loop {
            let answer = self.line()?.with_context(|| format!("it hung up at {method}"))?;
            if answer["id"] == id {
                return Ok(answer);
            }
        }
    }
}
