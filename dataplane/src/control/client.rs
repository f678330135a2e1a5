//! The asking side of the control socket.

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
    requests: u64,
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
        Ok(Self { path, stream: BufReader::new(stream), requests: 0 })
    }

    /// Has `method` carried out and gives its result.
    ///
    /// # Errors
    /// When it failed, or no answer came.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, ClientError> {
        self.requests += 1;
        let id = json!(self.requests);
        let request = json!({ "jsonrpc": "2.0", "method": method, "params": params, "id": id });
        let line = self.exchange(&request).map_err(|source| ClientError::Silent { path: self.path.clone(), source })?;
        let stranger = |reason: String| ClientError::Stranger { path: self.path.clone(), reason };
        let mut answer: Value =
            serde_json::from_str(&line).map_err(|error| stranger(format!("its answer is no JSON ({error})")))?;
        if let Some(error) = answer.get("error") {
            let message = error.get("message").and_then(Value::as_str).unwrap_or("it failed without a word");
            let code = error.get("code").and_then(Value::as_i64).unwrap_or(code::INTERNAL);
            return Err(RpcError::new(code, message).into());
        }
        if answer.get("id") != Some(&id) {
            return Err(stranger("it answers something else".to_owned()));
        }
        answer.get_mut("result").map(Value::take).ok_or_else(|| stranger("its answer has no result".to_owned()))
    }

    fn exchange(&mut self, request: &Value) -> io::Result<String> {
        // In one piece: whoever answers early and hangs up is still heard.
        self.stream.get_mut().write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up")),
            Ok(_) => Ok(line),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("waited {} s", ANSWER.as_secs())))
            }
            Err(error) => Err(error),
        }
    }
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
