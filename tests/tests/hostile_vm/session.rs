//! VMMs that break off, talk nonsense, do not listen, or die.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::hostile::{
    Channel, Format, HEADER, Machine, PLAIN, SIZE, Setup, USER, header, layout, request, words32, words64,
};
use lab::process::Running;
use lab::wait;

use crate::Offence;
use crate::changes::Random;
use crate::scene::{Case, OFFENDER, PATIENCE};

pub(crate) const ALL: &[(&str, Offence)] = &[
    ("closed-after-each-message", closed_between),
    ("closed-within-each-message", closed_within),
    ("message-never-ends", stalls),
    ("replies-are-never-read", mute),
    ("too-many-descriptors", descriptors),
    ("random-bytes", noise),
    ("random-messages", random_messages),
    ("killed-under-load", killed),
    ("geometry-changes-while-it-runs", geometry),
    ("queues-that-are-not-there", queues),
];

/// Says which socket this program is to attach to, as a machine that will be killed.
pub(crate) const VICTIM: &str = "MIRACH_LAB_VICTIM";
const PACKED: &str = "MIRACH_LAB_VICTIM_IS_PACKED";

/// Carries traffic for ever.
pub(crate) fn victim(socket: &Path) -> ExitCode {
    let format = if std::env::var_os(PACKED).is_some() { Format::Packed } else { Format::Split };
    let run = || -> Result<()> {
        lab::process::end_with_parent()?;
        let mut machine = Machine::attach(socket, Setup::new(format))?;
        machine.load()?;
        println!("under load");
        loop {
            machine.run(Duration::from_secs(1), u64::MAX >> 1);
        }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Counts sessions that the VMM closed.
const CLOSED: &str = "vm_disconnects_closed";
/// Counts sessions that it broke off, among others.
const BROKEN: &str = "vm_disconnects_breach";

fn closed_between(case: &Case<'_>, format: Format) -> Result<()> {
    let count = Machine::connect(&case.scene.socket(), Setup::new(format))?.steps().len();
    let before = case.scene.device(OFFENDER, CLOSED)?;
    for last in 0..=count {
        let machine = Machine::connect(&case.scene.socket(), Setup::new(format))?;
        for step in machine.steps().iter().take(last) {
            ensure!(machine.play(step)?, "request {} was not taken", step.0);
        }
    }
    ended(case, CLOSED, before + count as u64)
}

/// Waits until the counter says that so many sessions have ended.
fn ended(case: &Case<'_>, counter: &str, count: u64) -> Result<()> {
    wait::until(&format!("{counter} of {count}"), PATIENCE, || {
        Ok((case.scene.device(OFFENDER, counter)? >= count).then_some(()))
    })
}

fn closed_within(case: &Case<'_>, format: Format) -> Result<()> {
    let count = Machine::connect(&case.scene.socket(), Setup::new(format))?.steps().len();
    let mut due = case.scene.device(OFFENDER, BROKEN)?;
    for last in 0..count {
        for part in [1, HEADER - 1, HEADER, HEADER + 1] {
            let machine = Machine::connect(&case.scene.socket(), Setup::new(format))?;
            let steps = machine.steps();
            for step in steps.iter().take(last) {
                ensure!(machine.play(step)?, "request {} was not taken", step.0);
            }
            let Some((number, body, files)) = steps.get(last) else { continue };
            let mut bytes = header(*number, PLAIN, u32::try_from(body.len())?);
            bytes.extend(body);
            if let Some(bytes) = bytes.get(..part).filter(|bytes| bytes.len() < HEADER + body.len()) {
                ensure!(machine.channel.bytes(bytes, files)?, "the session ended early");
                due += 1;
            }
        }
    }
    ended(case, BROKEN, due)?;
    // Not every line is there: a port says only so much at once.
    case.says(&["in the middle of SET_"])
}

fn stalls(case: &Case<'_>, format: Format) -> Result<()> {
    let machine = case.scene.machine(Setup::new(format))?;
    let bytes = header(request::SET_VRING_ADDR, PLAIN, 40);
    let part = if format == Format::Split { HEADER } else { 3 };
    ensure!(machine.channel.bytes(&bytes[..part], &[])?, "the session ended early");
    machine.channel.closed()?;
    case.says(&["did not finish it within"])
}

fn mute(case: &Case<'_>, format: Format) -> Result<()> {
    let machine = case.scene.machine(Setup::new(format))?;
    machine.channel.flood(&header(request::GET_FEATURES, PLAIN, 0).repeat(64))?;
    case.says(&["does not read the replies"])
}

fn descriptors(case: &Case<'_>, format: Format) -> Result<()> {
    for (count, number, body) in [
        (9, request::SET_MEM_TABLE, words32(&[0, 0])),
        (33, request::SET_MEM_TABLE, words32(&[0, 0])),
        (64, request::GET_FEATURES, vec![]),
        (1, request::GET_FEATURES, vec![]),
        (2, request::SET_VRING_KICK, words64(&[0])),
    ] {
        let before = case.printed().len();
        let machine = case.scene.machine(Setup::new(format))?;
        let files: Vec<BorrowedFd<'_>> = (0..count).map(|_| machine.memory.file()).collect();
        ensure!(machine.channel.send(number, PLAIN, &body, &files)?, "the session ended early");
        machine.channel.closed()?;
        case.says_since(before, &["file descriptors"])?;
    }
    Ok(())
}

fn noise(case: &Case<'_>, format: Format) -> Result<()> {
    let mut random = Random(if format == Format::Split { 1 } else { 2 });
    for _ in 0..60 {
        let channel = Channel::connect(&case.scene.socket())?;
        let len = 1 + random.below(400);
        let bytes: Vec<u8> = (0..len).flat_map(|_| random.next().to_le_bytes()).take(usize::try_from(len)?).collect();
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        let files: Vec<BorrowedFd<'_>> = (0..random.below(4)).map(|_| event.as_fd()).collect();
        channel.bytes(&bytes, &files)?;
    }
    case.says(&["protocol version"])
}

fn random_messages(case: &Case<'_>, format: Format) -> Result<()> {
    let mut random = Random(if format == Format::Split { 3 } else { 4 });
    for _ in 0..60 {
        let mut machine = Machine::attach(&case.scene.socket(), Setup::new(format))?;
        machine.run(Duration::from_millis(2), u64::MAX >> 1);
        for _ in 0..10 {
            let steps = machine.steps();
            let (number, body, files) = &steps[usize::try_from(random.below(steps.len() as u64))?];
            let mut body = body.clone();
            let number = if random.below(4) == 0 { u32::try_from(random.below(48))? } else { *number };
            if !body.is_empty() && random.below(4) > 0 {
                let place = usize::try_from(random.below(body.len() as u64))?;
                body[place] ^= 1 << random.below(8);
            }
            let files = if random.below(4) == 0 { &[][..] } else { files.as_slice() };
            if !machine.channel.send(number, PLAIN, &body, files)? {
                break;
            }
        }
        machine.run(Duration::from_millis(2), u64::MAX >> 1);
    }
    Ok(())
}

fn killed(case: &Case<'_>, format: Format) -> Result<()> {
    for _ in 0..4 {
        let before = case.scene.device(OFFENDER, CLOSED)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.env(VICTIM, case.scene.socket()).stdin(Stdio::null());
        if format == Format::Packed {
            command.env(PACKED, "");
        }
        let log = case.scene.file("victim");
        command.stdout(std::fs::File::create(&log)?);
        let mut process = Running(command.spawn().context("cannot start a machine")?);
        wait::until("the machine to be killed", PATIENCE, || {
            ensure!(!process.has_ended(), "it ended by itself");
            Ok(std::fs::read_to_string(&log)?.contains("under load").then_some(()))
        })?;
        process.0.kill()?;
        process.0.wait()?;
        ended(case, CLOSED, before + 1)?;
    }
    Ok(())
}

fn geometry(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = case.scene.machine(Setup::new(format))?;
    for ring in [0_u32, 1] {
        let areas = layout(ring);
        let mut moved = words32(&[ring, 0]);
        moved.extend(words64(&[USER + areas.descriptors + 4096, USER + areas.device, USER + areas.driver, 0]));
        let mut misaligned = words32(&[ring, 0]);
        misaligned.extend(words64(&[USER + areas.descriptors + 1, USER + areas.device, USER + areas.driver, 0]));
        let other = if format == Format::Split { 1_u64 << 34 } else { 0 };
        let requests = [
            (request::SET_VRING_NUM, words32(&[ring, u32::from(SIZE) / 2])),
            (request::SET_VRING_NUM, words32(&[ring, 32_768])),
            (request::SET_VRING_BASE, words32(&[ring, 5])),
            (request::SET_VRING_ADDR, moved),
            (request::SET_VRING_ADDR, misaligned),
            (request::SET_VRING_ENABLE, words32(&[ring, 2])),
            (request::SET_FEATURES, words64(&[other | 1 << 32 | 1 << 30])),
        ];
        for (number, body) in requests {
            machine.turn();
            let taken = machine.channel.tell(number, &body, &[])?;
            ensure!(taken == Some(false), "request {number} while ring {ring} runs: {taken:?}");
        }
    }
    case.says(&["while it runs"])?;
    case.still_works(&mut machine, 1)?;
    case.still_works(&mut machine, 0)?;
    // On and off, as often as anybody likes.
    for _ in 0..50 {
        for ring in [0, 1] {
            machine.channel.must(request::SET_VRING_ENABLE, &words32(&[ring, 0]), &[])?;
            machine.turn();
            machine.channel.must(request::SET_VRING_ENABLE, &words32(&[ring, 1]), &[])?;
        }
    }
    case.still_works(&mut machine, 1)?;
    case.still_works(&mut machine, 0)
}

fn queues(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = case.scene.machine(Setup::new(format))?;
    for queue in [2, 255, 256, u32::MAX] {
        for number in [request::SET_VRING_NUM, request::SET_VRING_BASE, request::SET_VRING_ENABLE] {
            let taken = machine.channel.tell(number, &words32(&[queue, 1]), &[])?;
            ensure!(taken == Some(false), "request {number} for queue {queue}: {taken:?}");
        }
    }
    for size in [0, 3, 32_769, 65_536, u32::MAX] {
        let taken = machine.channel.tell(request::SET_VRING_NUM, &words32(&[0, size]), &[])?;
        ensure!(taken == Some(false), "a ring of {size}: {taken:?}");
    }
    case.says(&["there is no queue"])?;
    case.still_works(&mut machine, 1)?;
    case.still_works(&mut machine, 0)
}
