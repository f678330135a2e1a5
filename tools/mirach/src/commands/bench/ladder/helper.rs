//! Helper mode: each monitor copies frames to and from rings in shared memory, and a process between them copies from the rings of one to those of the
//! other. No monitor sees the other's memory.
//!
//! The process is this program again. It gets its files over its standard input, a socket, and ends when the other end of that is closed, however
//! that came about.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use dataplane::port::{PortQueue, Wake};
use hugemem::IovaSpace;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::card::{Card, MachineMemory};
use super::modes::{Bed, Cores, Host, pin};
use super::pipe::{PipeRx, PipeTx, Reader, Shared, Writer, create, duplicate};
use super::vmm::Monitor;
use crate::signals::Signals;

/// Files that the process gets: the memory of both machines' rings, its own eventfd, and those of the monitors.
const FILES: usize = 5;
/// How long it may take to be ready, and to end.
const LIMIT: Duration = Duration::from_secs(10);
/// Records that are copied at a time.
const BURST: usize = 32;
/// Looks at empty rings before it sleeps, when it has a core of its own: some milliseconds.
const PATIENCE: u32 = 200_000;
/// Longest sleep.
const LONGEST: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// The subcommand that [`serve`] is run by.
pub(crate) const SUBCOMMAND: &str = "ladder-process";

/// Builds it.
pub(super) fn open(cores: &Cores) -> anyhow::Result<Bed> {
    let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("cannot make an eventfd");
    let bell = event()?;
    let (memories, wakes) = ([create()?, create()?], [event()?, event()?]);
    let [first, second] = &memories;
    let [first_wake, second_wake] = &wakes;
    let files = [first, second, &bell, first_wake, second_wake].map(AsFd::as_fd);
    let process = Process::start(cores, files)?;
    let (mut monitors, mut cards) = (Vec::new(), Vec::new());
    let mut space = IovaSpace::unlimited();
    for (index, (memory, wake)) in memories.into_iter().zip(wakes).enumerate() {
        let shared = Shared::map(memory)?;
        let MachineMemory { sources, receiving, .. } = MachineMemory::new(&mut space)?;
        let tx = PipeTx(shared.writer(0, duplicate(bell.as_fd())?)?);
        let rx = PipeRx::new(shared.reader(1)?, receiving);
        let queue = PortQueue { rx: Box::new(rx), tx: Box::new(tx), wake: Some(Wake::event(wake)), desk: None };
        // The process comes first when there are few cores.
        let (monitor, card) = Monitor::start(index, cores.host(index + 1), queue, sources)?;
        monitors.push(monitor);
        cards.push(card);
    }
    let cards = <[Card; 2]>::try_from(cards).map_err(|_| anyhow!("there are two machines"))?;
    Ok(Bed { cards, host: Box::new(Helper { monitors, process }) })
}

/// Two monitors, and a process between them.
struct Helper {
    monitors: Vec<Monitor>,
    process: Process,
}

impl Host for Helper {
    fn process(&self) -> Option<u32> {
        Some(self.process.child.id())
    }

    fn tend(&mut self) -> anyhow::Result<()> {
        ensure!(!self.monitors.iter().any(Monitor::has_failed), "a monitor failed");
        match self.process.child.try_wait().context("cannot look after the helper process")? {
            Some(status) => bail!("the helper process ended early: {status}"),
            None => Ok(()),
        }
    }

    fn stop(mut self: Box<Self>, cards: [Card; 2]) -> anyhow::Result<()> {
        drop(cards);
        for monitor in &mut self.monitors {
            monitor.stop().context("a monitor failed")?;
        }
        self.process.stop()
    }
}

/// The process between. It goes with this value.
struct Process {
    child: Child,
    /// It ends when this is closed.
    socket: Option<UnixStream>,
}

impl Process {
    /// Starts it and waits until it is ready.
    fn start(cores: &Cores, files: [BorrowedFd<'_>; FILES]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let (socket, far) = UnixStream::pair().context("cannot make a pair of sockets")?;
        let patience = if cores.suffice_for(3) { PATIENCE } else { 0 };
        let child = Command::new(program)
            .args(["bench", SUBCOMMAND, &cores.host(0).to_string(), &patience.to_string()])
            .stdin(Stdio::from(OwnedFd::from(far)))
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the helper process")?;
        // From here on it ends with this value.
        let mut process = Self { child, socket: Some(socket) };
        if let Err(error) = process.equip(files) {
            let ended = process.child.try_wait().ok().flatten().map(|status| format!("; it ended: {status}"));
            return Err(error.context(format!("the helper process does not start{}", ended.unwrap_or_default())));
        }
        Ok(process)
    }

    /// Hands its files over and waits for its answer.
    fn equip(&mut self, files: [BorrowedFd<'_>; FILES]) -> anyhow::Result<()> {
        let socket = self.socket.as_ref().context("it has ended")?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        ensure!(control.push(SendAncillaryMessage::ScmRights(&files)), "too many files");
        sendmsg(socket, &[IoSlice::new(&[1])], &mut control, SendFlags::NOSIGNAL).context("cannot hand files over")?;
        let mut ready = [PollFd::new(socket, PollFlags::IN)];
        let limit = Timespec::try_from(LIMIT).ok();
        // A signal is one that this program is going to look at.
        let answered = poll(&mut ready, limit.as_ref()).unwrap_or(0) == 1;
        ensure!(answered, "no answer within {} s", LIMIT.as_secs());
        ensure!(rustix::io::read(socket, &mut [0])? == 1, "it has ended");
        Ok(())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        self.socket = None;
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.child.try_wait().context("cannot wait for the helper process")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the helper process failed: {status}"),
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                None => bail!("the helper process does not end"),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.socket = None;
        // One that has ended is not killed, and its number is not given to others before it was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the process: copies frames between the rings of two machines on `core` until standard input closes. After `patience` looks at empty rings it sleeps.
pub(crate) fn serve(core: usize, patience: u32) -> anyhow::Result<ExitCode> {
    // Ctrl-C goes to all processes of a terminal; this one ends when the other one says so.
    let _signals = Signals::block().context("cannot block SIGINT and SIGTERM")?;
    let input = std::io::stdin();
    let mut received = receive_files(input.as_fd())?.into_iter();
    let mut next = || received.next().context("a file is missing");
    let shared = [Shared::map(next()?)?, Shared::map(next()?)?];
    let bell = next()?;
    let [first, second] = &shared;
    let (first_wake, second_wake) = (next()?, next()?);
    let mut ways: [(Reader, Writer); 2] =
        [(first.reader(0)?, second.writer(1, second_wake)?), (second.reader(0)?, first.writer(1, first_wake)?)];
    pin(core);
    rustix::io::write(&input, &[1]).context("cannot say that it is ready")?;
    let mut idle = 0_u32;
    loop {
        let mut moved = 0;
        for (from, to) in &mut ways {
            moved += from.forward(to, BURST);
        }
        if moved > 0 {
            idle = 0;
            continue;
        }
        idle = idle.saturating_add(1);
        if idle <= patience {
            std::hint::spin_loop();
            continue;
        }
        if sleep(&mut ways, &bell, input.as_fd()) {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Sleeps until there are records. `true` when it is over.
fn sleep(ways: &mut [(Reader, Writer); 2], bell: &OwnedFd, input: BorrowedFd<'_>) -> bool {
    // Both are asked, whatever the first says.
    let armed = ways.iter_mut().fold(true, |armed, (from, _)| from.arm() && armed);
    let mut ready = [PollFd::new(bell, PollFlags::IN), PollFd::from_borrowed_fd(input, PollFlags::IN)];
    // A full ring on the other side keeps records here, and nobody says when it has room again.
    let limit = if armed { LONGEST } else { Timespec { tv_sec: 0, tv_nsec: 0 } };
    let woken = poll(&mut ready, Some(&limit));
    ways.iter().for_each(|(from, _)| from.disarm());
    let [bell_ready, input_ready] = &ready;
    let (rung, over) = (!bell_ready.revents().is_empty(), !input_ready.revents().is_empty());
    if woken.is_ok() && rung {
        let _ = rustix::io::read(bell, &mut [0; 8]);
    }
    woken.is_ok() && over
}

/// The files that come over standard input.
fn receive_files(input: BorrowedFd<'_>) -> anyhow::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let limit = Timespec::try_from(LIMIT).ok();
    poll(&mut [PollFd::from_borrowed_fd(input, PollFlags::IN)], limit.as_ref())?;
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(input, &mut [IoSliceMut::new(&mut byte)], &mut control, flags);
    got.context("this command is part of `mirach bench ladder`, which starts it")?;
    let mut files = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = part {
            files.extend(descriptors);
        }
    }
    Ok(files)
}
