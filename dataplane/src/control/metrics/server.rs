//! The HTTP server.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::address::MetricsAddress;
use super::text::CONTENT_TYPE;
use crate::control::Methods;
use crate::socket::{ListenError, Listener};

/// Most clients at a time.
const MOST: usize = 16;
/// Longest request, in bytes.
const LONGEST: usize = 8 << 10;
/// How long a client may take from coming to going.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nobody is let in when the system has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that may wait to be let in.
const BACKLOG: i32 = 64;

/// Metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics at {address}: {reason}; give another address with --metrics")]
pub struct MetricsError {
    address: MetricsAddress,
    reason: String,
}

/// What is served.
type Source = dyn Fn() -> Result<String, String> + Send + Sync;

/// Metrics that are served. Dropping it ends that.
pub struct MetricsServer {
    address: MetricsAddress,
    thread: Option<JoinHandle<()>>,
    stop: Arc<Stop>,
}

struct Stop {
    flag: AtomicBool,
    wake: OwnedFd,
}

/// Where clients come in.
enum Door {
    Tcp(TcpListener),
    Unix(Listener),
}

impl MetricsServer {
    /// Serves all counters of a forwarder at `address`, on a thread of its own.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn start(address: &MetricsAddress, methods: Methods) -> Result<Self, MetricsError> {
        Self::serve(address, move || methods.metrics())
    }

    /// Serves what `source` gives at `address`, on a thread of its own. Where `source` fails, its reason is served.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(super) fn serve(
        address: &MetricsAddress,
        source: impl Fn() -> Result<String, String> + Send + Sync + 'static,
    ) -> Result<Self, MetricsError> {
        let failed = |reason: String| MetricsError { address: address.clone(), reason };
        let (door, address) = Door::open(address).map_err(failed)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = wake.map_err(|errno| failed(format!("no eventfd can be had: {errno}")))?;
        let stop = Arc::new(Stop { flag: AtomicBool::new(false), wake });
        let thread = std::thread::Builder::new().name("metrics".to_owned()).spawn({
            let stop = Arc::clone(&stop);
            move || serve(&door, &source, &stop)
        });
        let thread = thread.map_err(|error| failed(format!("no thread can be had: {error}")))?;
        Ok(Self { address, thread: Some(thread), stop })
    }

    /// Where they are served: with the port that the system chose, if it was left to it.
    #[must_use]
    pub fn address(&self) -> &MetricsAddress {
        &self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.stop.flag.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.stop.wake, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for MetricsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Door {
    fn open(address: &MetricsAddress) -> Result<(Self, MetricsAddress), String> {
        match address {
            MetricsAddress::Tcp(address) => {
                let listener = TcpListener::bind(address).map_err(|error| error.to_string())?;
                listener.set_nonblocking(true).map_err(|error| error.to_string())?;
                let address = listener.local_addr().map_err(|error| error.to_string())?;
                Ok((Self::Tcp(listener), MetricsAddress::Tcp(address)))
            }
            MetricsAddress::Unix(path) => {
                // As on a TCP port, everybody may read; the folder's mode can say otherwise.
                let everybody = Mode::from_raw_mode(0o666);
                let listener = Listener::open(path, everybody, BACKLOG).map_err(|error| match error {
                    ListenError::Taken => "somebody listens there".to_owned(),
                    ListenError::NoSocket => "what is there is no socket".to_owned(),
                    ListenError::System { action, errno } => format!("cannot {action} it: {errno}"),
                })?;
                Ok((Self::Unix(listener), address.clone()))
            }
        }
    }

    fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::Tcp(listener) => match listener.accept() {
                Ok((client, _)) => {
                    client.set_nonblocking(true)?;
                    Ok(Some(client.into()))
                }
                Err(error) if is_nobody(&error) => Ok(None),
                Err(error) => Err(error),
            },
            Self::Unix(listener) => Ok(listener.accept()?),
        }
    }
}

/// The last one left before its turn.
fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted)
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// A client. It asks, is answered, and leaves.
struct Client {
    socket: OwnedFd,
    request: Vec<u8>,
    answer: Vec<u8>,
    written: usize,
    /// It was answered: what it still sends is read, so that its answer is not taken from it.
    answered: bool,
    deadline: Instant,
}

impl Client {
    fn new(socket: OwnedFd) -> Self {
        let deadline = Instant::now() + PATIENCE;
        Self { socket, request: Vec::new(), answer: Vec::new(), written: 0, answered: false, deadline }
    }

    fn interest(&self) -> PollFlags {
        if self.written < self.answer.len() { PollFlags::OUT } else { PollFlags::IN }
    }

    /// Does what can be done without waiting. `false` when the connection has ended.
    fn advance(&mut self, source: &Source) -> bool {
        if Instant::now() >= self.deadline {
            return false;
        }
        if self.answer.is_empty() || self.answered {
            let mut piece = [0; 4096];
            match recv(&self.socket, &mut piece[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok(_) if self.answered => return true,
                Ok((count, _)) => self.request.extend_from_slice(piece.get(..count).unwrap_or_default()),
                Err(Errno::AGAIN | Errno::INTR) => return true,
                Err(_) => return false,
            }
            let Some(answer) = answer(&self.request, source) else { return true };
            self.answer = answer;
        }
        match send(
            &self.socket,
            self.answer.get(self.written..).unwrap_or_default(),
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        ) {
            Ok(count) => self.written += count,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return false,
        }
        if self.written >= self.answer.len() {
            self.answered = true;
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
        true
    }
}

/// The answer to a request; `None` while it is not there as a whole.
fn answer(request: &[u8], source: &Source) -> Option<Vec<u8>> {
    let whole = request.windows(4).any(|end| end == b"\r\n\r\n") || request.windows(2).any(|end| end == b"\n\n");
    if !whole {
        return (request.len() > LONGEST).then(|| respond("431 Request Header Fields Too Large", "", true));
    }
    let line = request.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Some(respond("400 Bad Request", "this is no HTTP\n", true));
    };
    if !version.starts_with("HTTP/1.") {
        return Some(respond("505 HTTP Version Not Supported", "this is HTTP/1.1\n", true));
    }
    let body = match method {
        "GET" => true,
        "HEAD" => false,
        _ => return Some(respond("405 Method Not Allowed", "only GET is\n", true)),
    };
    if target.split('?').next() != Some("/metrics") {
        return Some(respond("404 Not Found", "there is /metrics and nothing else\n", body));
    }
    Some(match source() {
        Ok(text) => respond("200 OK", &text, body),
        Err(reason) => respond("503 Service Unavailable", &format!("{reason}\n"), body),
    })
}

fn respond(status: &str, text: &str, body: bool) -> Vec<u8> {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
        text.len()
    );
    [head.as_str(), if body { text } else { "" }].concat().into_bytes()
}

fn serve(door: &Door, source: &Source, stop: &Stop) {
    let mut clients: Vec<Client> = Vec::new();
    let mut closed_until: Option<Instant> = None;
    while !stop.flag.load(Ordering::Acquire) {
        closed_until = closed_until.filter(|until| *until > Instant::now());
        let open = closed_until.is_none();
        let interest = if open { PollFlags::IN } else { PollFlags::empty() };
        let mut files = vec![PollFd::new(&stop.wake, PollFlags::IN), PollFd::new(door, interest)];
        files.extend(clients.iter().map(|client| PollFd::new(&client.socket, client.interest())));
        let until = clients.iter().map(|client| client.deadline).chain(closed_until).min();
        let time = until.map(|until| {
            let time = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
        });
        // Interrupted or refused: nothing has happened then.
        if poll(&mut files, time.as_ref()).is_err() {
            continue;
        }
        let mut events = files.iter().skip(1).map(PollFd::revents);
        let at_door = events.next().is_some_and(|events| !events.is_empty());
        let events: Vec<PollFlags> = events.collect();
        drop(files);
        let now = Instant::now();
        let mut events = events.into_iter();
        clients.retain_mut(|client| {
            let happened = events.next().is_some_and(|events| !events.is_empty());
            if happened { client.advance(source) } else { client.deadline > now }
        });
        if at_door && open {
            match door.accept() {
                Ok(Some(socket)) => {
                    // Whoever came first goes first, done or not: ordinary clients are here for a moment.
                    if clients.len() >= MOST {
                        clients.remove(0);
                    }
                    clients.push(Client::new(socket));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!("metrics: nobody is let in for a moment: {error}");
                    closed_until = Some(Instant::now() + PAUSE);
                }
            }
        }
    }
}
