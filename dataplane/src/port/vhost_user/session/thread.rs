//! The thread of a port: one peer after the other.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::Breach;
use super::device::{Device, Peer, Status, count};
use super::endpoint::Endpoint;
use super::limit::Limit;
use super::pace::Pace;
use super::socket::{self, Read};
use super::state::Session;
use super::wire::{Assembler, Message, encode_reply};

/// How long a peer may take to finish a message, or to take in a reply.
const PATIENCE: Duration = Duration::from_secs(5);
/// After how long a request of ours that found no room is tried again.
const AGAIN: Duration = Duration::from_millis(5);
/// How often a wait looks whether the port stops.
const GLANCE: Duration = Duration::from_millis(20);
/// Messages that are served, and queues that are taken from their engines by these, before anything else gets its turn.
const TURN: usize = 32;

/// Starts the thread of a port.
///
/// # Errors
/// When the system has none to give.
pub(super) fn spawn(device: Arc<Device>, endpoint: Endpoint) -> std::io::Result<JoinHandle<()>> {
    // The kernel shows 15 bytes of it.
    let name = format!("vm-{}", device.name);
    std::thread::Builder::new().name(name).spawn(move || run(&device, endpoint))
}

fn run(device: &Device, mut endpoint: Endpoint) {
    // Both outlast sessions, so that nobody gains by coming again.
    let mut pace = Pace::new(Instant::now());
    let mut limit = Limit::of_port();
    while let Some(socket) = endpoint.next(device) {
        count(&device.counters.connects);
        let peer =
            rustix::net::sockopt::socket_peercred(&socket).map(|peer| Peer { pid: peer.pid.as_raw_nonzero().get() });
        let pid = peer.as_ref().map_or(0, |peer| peer.pid);
        limit.info(&device.name, &format!("connected to process {pid}"));
        device.status().peer = peer.ok();
        let breach = serve(device, &socket, &mut pace);
        let ended = tell(device, &breach, &mut limit);
        *device.status() = Status { ended: Some(ended), ..Status::default() };
    }
}

/// Counts and logs the end of a session.
fn tell(device: &Device, breach: &Breach, limit: &mut Limit) -> String {
    let (counters, name) = (&device.counters, &device.name);
    match breach {
        Breach::Closed | Breach::Stopping => {
            count(&counters.closed);
            limit.info(name, &breach.to_string());
        }
        breach => {
            count(match breach {
                Breach::MemoryLost => &counters.memory_losses,
                Breach::Stalled { .. } | Breach::NotReading => &counters.stalls,
                _ => &counters.breaches,
            });
            limit.warn(name, &format!("the VM is disconnected: {breach}"));
        }
    }
    breach.to_string()
}

/// Serves a peer; what ended it.
fn serve(device: &Device, socket: &OwnedFd, pace: &mut Pace) -> Breach {
    let mut session = Session::new(device);
    let mut link = Link { socket, assembler: Assembler::default(), half_since: None };
    loop {
        let before = device.turns();
        let outcome = turn(&mut session, &mut link, pace);
        pace.spend(device.turns() - before);
        if let Err(breach) = outcome.and_then(|()| rest(device, pace)) {
            return breach;
        }
    }
}

/// Waits until the peer has paid for what it had done.
fn rest(device: &Device, pace: &mut Pace) -> Result<(), Breach> {
    while let Some(pause) = pace.wait(Instant::now()) {
        if device.is_stopping() {
            return Err(Breach::Stopping);
        }
        std::thread::sleep(pause.min(GLANCE));
    }
    Ok(())
}

/// The stream of a session.
struct Link<'s> {
    socket: &'s OwnedFd,
    assembler: Assembler,
    /// Since when a message has been coming.
    half_since: Option<Instant>,
}

/// Waits for whatever comes next, and does it.
fn turn(session: &mut Session<'_>, link: &mut Link<'_>, pace: &mut Pace) -> Result<(), Breach> {
    let stalled = link.half_since.map(|since| since + PATIENCE);
    let again = session.is_behind.then(|| Instant::now() + AGAIN);
    let deadline = [stalled, again].into_iter().flatten().min();

    let attention = session.device.attention.as_fd();
    let socket = link.socket.as_fd();
    let channel = session.channel();
    let mut events = vec![PollFd::new(&socket, PollFlags::IN), PollFd::new(&attention, PollFlags::IN)];
    if let Some(channel) = &channel {
        events.push(PollFd::new(channel, PollFlags::IN));
    }
    socket::wait(&mut events, deadline).map_err(|errno| Breach::System { action: "wait for the VM", errno })?;
    let is_ready = |index: usize| events.get(index).is_some_and(|event| !event.revents().is_empty());
    let (asked, called, answered) = (is_ready(0), is_ready(1), is_ready(2));
    drop(events);

    if called {
        session.device.consume();
    }
    if session.device.is_stopping() {
        return Err(Breach::Stopping);
    }
    if called || session.is_behind {
        session.attend()?;
    }
    if answered {
        session.drain_channel();
    }
    if asked {
        listen(session, link, pace)?;
    }
    match link.half_since {
        Some(since) if since.elapsed() >= PATIENCE => {
            Err(Breach::Stalled { request: link.assembler.request(), seconds: PATIENCE.as_secs() })
        }
        _ => Ok(()),
    }
}

/// Serves what has come over the socket.
fn listen(session: &mut Session<'_>, link: &mut Link<'_>, pace: &mut Pace) -> Result<(), Breach> {
    let before = session.device.turns();
    for _ in 0..TURN {
        match socket::read(link.socket.as_fd(), &mut link.assembler)? {
            Read::Message(message) => {
                link.half_since = None;
                answer(session, link.socket, message)?;
                pace.spend(1);
                if session.device.turns() - before > TURN as u64 {
                    return Ok(());
                }
            }
            Read::Nothing => {
                link.half_since = link.assembler.is_half().then(|| link.half_since.unwrap_or_else(Instant::now));
                return Ok(());
            }
            Read::Closed => return Err(Breach::Closed),
        }
    }
    Ok(())
}

fn answer(session: &mut Session<'_>, socket: &OwnedFd, message: Message) -> Result<(), Breach> {
    let request = message.header.request;
    tracing::trace!("port `{}`: {request:?}", session.device.name);
    let Some(reply) = session.serve(message)? else { return Ok(()) };
    let bytes = encode_reply(request.into(), &reply.body);
    let file = reply.file.as_ref().map(AsFd::as_fd);
    let device = session.device;
    socket::send(socket.as_fd(), &bytes, file, PATIENCE, || device.is_stopping())
}
