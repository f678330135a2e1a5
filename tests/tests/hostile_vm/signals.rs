//! Eventfds that block, that are none, and storms of kicks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use lab::hostile::{Format, Memory, Pages, Setup, request, words64};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::Offence;
use crate::scene::Case;

pub(crate) const ALL: &[(&str, Offence)] = &[
    ("call-that-would-block", full),
    ("call-that-blocks-now-and-then", flipped),
    ("call-that-is-no-eventfd", no_call),
    ("kick-that-is-no-eventfd", no_kick),
    ("storm-of-kicks", storm),
    ("calls-and-kicks-replaced-under-load", replaced),
];

/// The highest that the counter of an eventfd can be: one more blocks.
const FULL: u64 = u64::MAX - 1;

/// Fills the counter of an eventfd, and clears `O_NONBLOCK`.
fn fill(event: BorrowedFd<'_>) -> Result<()> {
    set_blocking(event, false)?;
    let mut counter = [0; 8];
    // Empty is as good.
    let _ = rustix::io::read(event, &mut counter);
    rustix::io::write(event, &FULL.to_ne_bytes())?;
    set_blocking(event, true)
}

fn set_blocking(event: BorrowedFd<'_>, blocks: bool) -> Result<()> {
    let mut flags = fcntl_getfl(event)?;
    flags.set(OFlags::NONBLOCK, !blocks);
    Ok(fcntl_setfl(event, flags)?)
}

fn full(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = case.scene.machine(Setup::new(format))?;
    fill(machine.call(0))?;
    fill(machine.call(1))?;
    for _ in 0..5 {
        case.still_works(&mut machine, 1)?;
        case.still_works(&mut machine, 0)?;
    }
    // A broken ring is told of by the same eventfd.
    let ring = &machine.rings[1];
    if format == Format::Split {
        ring.show(&machine.memory, ring.available().wrapping_add(1000));
        machine.kick(1);
        case.says(&["queue 1 is stopped"])?;
        case.still_works(&mut machine, 0)?;
    }
    Ok(())
}

fn flipped(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = case.scene.machine(Setup::new(format))?;
    let calls: Vec<OwnedFd> =
        [0, 1].map(|ring| machine.call(ring).try_clone_to_owned()).into_iter().collect::<Result<_, _>>()?;
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                for call in &calls {
                    // It goes on whatever happens.
                    let _ = fill(call.as_fd());
                    std::thread::yield_now();
                    let _ = set_blocking(call.as_fd(), false);
                }
            }
        });
        let result = (0..5).try_for_each(|_| {
            case.still_works(&mut machine, 1)?;
            case.still_works(&mut machine, 0)
        });
        ends.store(true, Ordering::Relaxed);
        result
    })
}

/// Things that are no eventfd.
fn strangers() -> Result<Vec<OwnedFd>> {
    let memory = Memory::new(4096, Pages::Small)?;
    let (socket, _) = std::os::unix::net::UnixStream::pair()?;
    let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok(vec![
        memory.file().try_clone_to_owned()?,
        socket.into(),
        reading,
        writing,
        std::fs::File::open("/dev/null")?.into(),
        std::fs::File::open("/")?.into(),
        rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?,
    ])
}

fn no_call(case: &Case<'_>, format: Format) -> Result<()> {
    refused(case, format, request::SET_VRING_CALL, "SET_VRING_CALL")
}

fn no_kick(case: &Case<'_>, format: Format) -> Result<()> {
    refused(case, format, request::SET_VRING_KICK, "SET_VRING_KICK")
}

fn refused(case: &Case<'_>, format: Format, number: u32, name: &str) -> Result<()> {
    let mut machine = case.scene.machine(Setup::new(format))?;
    for file in strangers()? {
        // Nobody waits for a kick of ring 0, so that what is given for it does not matter.
        for ring in if number == request::SET_VRING_KICK { 1..2 } else { 0..2_u64 } {
            let taken = machine.channel.tell(number, &words64(&[ring]), &[file.as_fd()])?;
            ensure!(taken == Some(false), "{file:?} was taken for an eventfd: {taken:?}");
        }
    }
    case.says(&["queue 1", name])?;
    case.still_works(&mut machine, 1)?;
    case.still_works(&mut machine, 0)
}

fn storm(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = case.scene.machine(Setup::new(format))?;
    for _ in 0..100_000 {
        machine.kick(0);
        machine.kick(1);
    }
    case.still_works(&mut machine, 1)?;
    case.still_works(&mut machine, 0)
}

fn replaced(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = case.scene.machine(Setup::new(format))?;
    for round in 0..200 {
        machine.turn();
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        for ring in [0, 1] {
            machine.channel.must(request::SET_VRING_CALL, &words64(&[ring]), &[event.as_fd()])?;
        }
        if round % 2 == 0 {
            // None at all: whoever polls needs no signals.
            machine.channel.must(request::SET_VRING_CALL, &words64(&[1 << 8]), &[])?;
        }
    }
    case.still_works(&mut machine, 1)?;
    case.still_works(&mut machine, 0)
}
