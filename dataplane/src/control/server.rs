//! The thread that serves the control socket.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::connection::Connection;
use super::job::Office;
use super::rpc::Handler;
use super::socket::{ControlError, Listening, ReaderGroup, usual_place};

/// Most clients at a time.
const MOST: usize = 32;
/// How long nobody is let in when the system has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// A control socket that is served. Dropping it ends that and removes the socket; what is being carried out goes on, and nobody hears of it.
pub struct Server {
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
    stop: Arc<Stop>,
}

struct Stop {
    flag: AtomicBool,
    wake: Arc<OwnedFd>,
}

impl Server {
    /// Listens on `path` and lets `handler` do what is asked for, on a thread of its own. This user and root may do everything, members of
    /// `readers` may read.
    ///
    /// # Errors
    /// When somebody else has the socket, or the system refuses it.
    pub fn start(
        path: &Path,
        readers: Option<&ReaderGroup>,
        handler: impl Handler + 'static,
    ) -> Result<Self, ControlError> {
        let listening = Listening::open(path, readers)?;
        let failed = |action| move |source| ControlError::System { path: path.to_owned(), action, source };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| failed("make an eventfd for")(errno.into()))?;
        let wake = Arc::new(wake);
        let office = Office::new(Arc::new(handler), Arc::clone(&wake));
        let stop = Arc::new(Stop { flag: AtomicBool::new(false), wake });
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn({
                let stop = Arc::clone(&stop);
                move || serve(&listening, &office, &stop)
            })
            .map_err(failed("start a thread for"))?;
        Ok(Self { path: path.to_owned(), thread: Some(thread), stop })
    }

    /// As [`Server::start`], at the usual place, whose folder is made when it is not there.
    ///
    /// # Errors
    /// As [`Server::start`], and when there is no usual place.
    pub fn start_usual(readers: Option<&ReaderGroup>, handler: impl Handler + 'static) -> Result<Self, ControlError> {
        Self::start(&usual_place(readers)?, readers, handler)
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.flag.store(true, Ordering::Release);
        let _ = rustix::io::write(&*self.stop.wake, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("path", &self.path).finish_non_exhaustive()
    }
}

fn serve(listening: &Listening, office: &Office, stop: &Stop) {
    let mut clients: Vec<Connection> = Vec::new();
    let mut closed_until = None;
    while !stop.flag.load(Ordering::Acquire) {
        let now = Instant::now();
        closed_until = closed_until.filter(|until| *until > now);
        let events = wait(listening, &clients, office, stop, closed_until);
        let Some((door, events)) = events else { continue };
        let mut events = events.into_iter();
        clients.retain_mut(|client| client.advance(events.next().unwrap_or(PollFlags::empty()), office));
        if !door {
            continue;
        }
        match listening.accept() {
            Ok(Some((socket, caller))) => {
                let client = Connection::new(socket, caller);
                if clients.len() >= MOST {
                    // Who may only read takes nobody's place who may do more.
                    let rank = |client: &Connection| (client.may_write(), client.is_busy(), client.moved());
                    let oldest = clients.iter().enumerate().min_by_key(|(_, client)| rank(client));
                    match oldest.filter(|(_, oldest)| client.may_write() || !oldest.may_write()) {
                        Some((oldest, _)) => drop(clients.swap_remove(oldest)),
                        None => continue,
                    }
                }
                clients.push(client);
            }
            Ok(None) => {}
            Err(error) => {
                // It would be tried again at once, and again.
                tracing::warn!("control socket: nobody is let in for a moment: {error}");
                closed_until = Some(Instant::now() + PAUSE);
            }
        }
    }
}

/// Waits until something can be done. Gives whether somebody is at the door, and what happened to each client.
fn wait(
    listening: &Listening,
    clients: &[Connection],
    office: &Office,
    stop: &Stop,
    closed_until: Option<Instant>,
) -> Option<(bool, Vec<PollFlags>)> {
    let door = if closed_until.is_some() { PollFlags::empty() } else { PollFlags::IN };
    let mut files = vec![PollFd::new(&stop.wake, PollFlags::IN), PollFd::from_borrowed_fd(listening.as_fd(), door)];
    // The end of a connection is always reported: who waits for an answer of ours is not asked.
    let asked = clients.iter().filter(|client| !client.is_busy());
    files.extend(asked.map(|client| PollFd::from_borrowed_fd(client.as_fd(), client.interest())));
    let full = office.is_full();
    let due = clients.iter().filter(|_| !full).filter_map(Connection::due);
    let until = clients.iter().filter_map(Connection::deadline).chain(closed_until).chain(due).min();
    let mut time = until.map(|until| until.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
    if !full && clients.iter().any(Connection::is_ready) {
        time = Some(Duration::ZERO);
    }
    let time = time.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    });
    // Interrupted or refused: nothing has happened then.
    poll(&mut files, time.as_ref()).ok()?;
    // Before anybody looks at what it announced. There may be nothing.
    let _ = rustix::io::read(&stop.wake, &mut [0; 8]);
    let mut events = files.iter().skip(1).map(PollFd::revents);
    let at_door = events.next().is_some_and(|events| !events.is_empty());
    let mut next = |client: &Connection| if client.is_busy() { None } else { events.next() };
    Some((at_door, clients.iter().map(|client| next(client).unwrap_or(PollFlags::empty())).collect()))
}
