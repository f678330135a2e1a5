//! The asking side of the control socket.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::{Value, json};

use super::rpc::{RpcError, code};

/// How long the forwarder may take to let somebody in.
const DOOR: Duration = Duration::from_secs(5);
/// How long it may take to answer: a card takes some seconds to come up.
const ANSWER: Duration = Duration::from_secs(60);

/// Most news that are kept while an answer is waited for; older ones go.
const MOST_NEWS: usize = 1024;

/// Nothing came of a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there.
    #[error(
        "no mirach listens on {} ({source}); start one with: mirach run --control {}, or name the socket of one that runs with \
         --control", path.display(), path.display()
    )]
    Nobody {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The forwarder is another user's.
    #[error("mirach on {} does not let you in ({source}); ask as the user who runs it, or as root", path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The forwarder did not answer, or hung up.
    #[error("mirach on {} did not answer: {source}; see what it said where it runs", path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The answer makes no sense.
    #[error("what listens on {} is no mirach: {reason}; name another socket with --control", path.display())]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// What is wrong with its answer.
        reason: String,
    },
    /// The request failed.
    #[error(transparent)]
    Refused(#[from] RpcError),
}

/// A connection to a forwarder.
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    /// What was received of a line.
    line: Vec<u8>,
    requests: u64,
    /// News that came while an answer was waited for.
    news: VecDeque<Value>,
}

impl Client {
    /// Connects to the forwarder that listens on `path`.
    ///
    /// # Errors
    /// When nobody listens there, or does not let this user in.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let path = path.to_owned();
        let stream = match reach(&path) {
            Ok(stream) => stream,
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ClientError::Forbidden { path, source });
            }
            Err(source) if source.kind() == io::ErrorKind::TimedOut => {
                return Err(ClientError::Silent { path, source });
            }
            Err(source) => return Err(ClientError::Nobody { path, source }),
        };
        Ok(Self { path, stream: BufReader::new(stream), line: Vec::new(), requests: 0, news: VecDeque::new() })
    }

    /// Has `method` carried out and gives its result.
    ///
    /// # Errors
    /// When it failed, or no answer came.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, ClientError> {
        self.requests += 1;
        let id = json!(self.requests);
        let request = json!({ "jsonrpc": "2.0", "method": method, "params": params, "id": id });
        // In one piece: whoever answers early and hangs up is still heard.
        let sent = self.stream.get_mut().write_all(format!("{request}\n").as_bytes());
        sent.map_err(|source| self.silent(source))?;
        let deadline = Instant::now() + ANSWER;
        let mut answer = loop {
            let message = self.receive(deadline)?.ok_or_else(|| {
                let reason = format!("waited {} s", ANSWER.as_secs());
                self.silent(io::Error::new(io::ErrorKind::TimedOut, reason))
            })?;
            if message.get("method").is_none() {
                break message;
            }
            if self.news.len() >= MOST_NEWS {
                self.news.pop_front();
            }
            self.news.push_back(message);
        };
        if let Some(error) = answer.get("error") {
            return Err(rpc_error(error).into());
        }
        if answer.get("id") != Some(&id) {
            return Err(self.stranger("it answers something else"));
        }
        answer.get_mut("result").map(Value::take).ok_or_else(|| self.stranger("its answer has no result"))
    }

    /// The next news of what was subscribed to: the `params` of the notification. `None` when there are none within `patience`.
    ///
    /// # Errors
    /// When the forwarder hung up, or what it says makes no sense.
    pub fn news(&mut self, patience: Duration) -> Result<Option<Value>, ClientError> {
        let deadline = Instant::now() + patience;
        let message = match self.news.pop_front() {
            Some(message) => Some(message),
            None => self.receive(deadline)?,
        };
        let Some(mut message) = message else { return Ok(None) };
        message.get_mut("params").map(|params| Some(params.take())).ok_or_else(|| self.stranger("it says nothing"))
    }

    /// The next line, unless it has not come by then.
    fn receive(&mut self, deadline: Instant) -> Result<Option<Value>, ClientError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let limited = self.stream.get_ref().set_read_timeout(Some(left));
            limited.map_err(|source| self.silent(source))?;
            // What was received of a line stays there when time runs out.
            match self.stream.read_until(b'\n', &mut self.line) {
                Ok(_) if self.line.ends_with(b"\n") => break,
                Ok(_) => return Err(self.silent(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(self.silent(error)),
            }
        }
        let line = std::mem::take(&mut self.line);
        let message = serde_json::from_slice(&line);
        message.map(Some).map_err(|error| self.stranger(&format!("its answer is no JSON ({error})")))
    }

    fn silent(&self, source: io::Error) -> ClientError {
        ClientError::Silent { path: self.path.clone(), source }
    }

    fn stranger(&self, reason: &str) -> ClientError {
        ClientError::Stranger { path: self.path.clone(), reason: reason.to_owned() }
    }
}

/// An error as the standard writes it.
fn rpc_error(error: &Value) -> RpcError {
    let message = error.get("message").and_then(Value::as_str).unwrap_or("it failed without a word");
    RpcError::new(error.get("code").and_then(Value::as_i64).unwrap_or(code::INTERNAL), message)
}

fn reach(path: &Path) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let deadline = Instant::now() + DOOR;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match connect(&socket, &address) {
            Ok(()) => break,
            // Too many wait to be let in.
            Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Err(Errno::AGAIN) => return Err(io::Error::new(io::ErrorKind::TimedOut, "it lets nobody in")),
            Err(error) => return Err(error.into()),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    Ok(stream)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("path", &self.path).finish_non_exhaustive()
    }
}
