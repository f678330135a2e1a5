//! Memory that is taken away, or that is none.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use lab::hostile::{Format, Machine, Memory, Pages, Setup, USER, feature, huge_pages, request, words32, words64};
use rustix::event::EventfdFlags;
use rustix::fs::{CWD, Mode, OFlags};

use crate::Offence;
use crate::scene::Case;

pub(crate) const ALL: &[(&str, Offence)] = &[
    ("cut-under-load", cut),
    ("huge-pages-cut-under-load", cut_huge),
    ("cut-before-the-rings-start", cut_early),
    ("cut-and-grown-again", cut_and_grown),
    ("files-that-are-no-memory", files),
    ("tables-that-cannot-be", tables),
    ("log-cut-while-it-is-written", log),
    ("in-flight-regions-that-cannot-be", inflight),
    ("in-flight-region-of-garbage", inflight_garbage),
    ("in-flight-region-cut-under-load", inflight_cut),
    ("regions-come-and-go-under-load", hotplug),
    ("rings-lose-their-memory-and-get-it-back", unplugged_rings),
];

/// What is said when memory goes.
const TAKEN: &str = "memory of its guest away";

fn cut(case: &Case<'_>, format: Format) -> Result<()> {
    // All of it, the buffers, and all but the first page.
    for size in [0, lab::hostile::LAYOUT_BUFFERS, 4096] {
        let before = case.printed().len();
        let mut machine = case.scene.machine(Setup::new(format))?;
        machine.turn();
        machine.memory.cut(size)?;
        machine.kick(0);
        machine.kick(1);
        case.says_since(before, &[TAKEN])?;
        machine.channel.closed()?;
    }
    Ok(())
}

fn cut_huge(case: &Case<'_>, format: Format) -> Result<()> {
    huge_pages(6)?;
    for size in [0, 4 << 20] {
        let before = case.printed().len();
        let mut machine = case.scene.machine(Setup { pages: Pages::Huge, ..Setup::new(format) })?;
        machine.turn();
        machine.memory.cut(size)?;
        machine.kick(0);
        machine.kick(1);
        if size == 0 {
            case.says_since(before, &[TAKEN])?;
            machine.channel.closed()?;
        } else {
            // Nothing that it uses is gone.
            case.still_works(&mut machine, 1)?;
            case.still_works(&mut machine, 0)?;
        }
    }
    Ok(())
}

/// Plays the setup up to the first request of this number.
fn begin(machine: &Machine, until: u32) -> Result<()> {
    for step in machine.steps() {
        if step.0 == until {
            return Ok(());
        }
        ensure!(machine.play(&step)?, "request {} was not taken", step.0);
    }
    Ok(())
}

/// Plays the setup from the first request of this number on.
fn go_on(machine: &Machine, from: u32) -> Result<()> {
    for step in machine.steps().iter().skip_while(|step| step.0 != from) {
        ensure!(machine.play(step)?, "request {} was not taken", step.0);
    }
    Ok(())
}

fn cut_early(case: &Case<'_>, format: Format) -> Result<()> {
    for until in [request::SET_VRING_NUM, request::SET_VRING_KICK, request::SET_VRING_ENABLE] {
        let before = case.printed().len();
        let machine = Machine::connect(&case.scene.socket(), Setup::new(format))?;
        begin(&machine, until)?;
        // The answer tells that all before was done.
        machine.channel.must(request::SET_OWNER, &[], &[])?;
        machine.memory.cut(0)?;
        // It may be found out before the last of them.
        let _ = go_on(&machine, until);
        machine.kick(0);
        machine.kick(1);
        case.says_since(before, &[TAKEN])?;
        machine.channel.closed()?;
    }
    Ok(())
}

fn cut_and_grown(case: &Case<'_>, format: Format) -> Result<()> {
    // Zeroes everywhere, all at once: rings that went back, or memory that was missed.
    for _ in 0..4 {
        let mut machine = case.scene.machine(Setup::new(format))?;
        machine.turn();
        machine.memory.cut(0)?;
        machine.memory.cut(machine.memory.size())?;
        machine.kick(0);
        machine.kick(1);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

fn files(case: &Case<'_>, format: Format) -> Result<()> {
    let machine = Machine::connect(&case.scene.socket(), Setup::new(format))?;
    begin(&machine, request::SET_MEM_TABLE)?;
    let open = |path: &str| -> Result<OwnedFd> {
        rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("cannot open {path}"))
    };
    let disk = case.scene.file("disk");
    File::create(&disk)?.set_len(machine.memory.size())?;
    let pipe = case.scene.file("pipe");
    rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let (socket, _other) = std::os::unix::net::UnixStream::pair()?;
    let candidates: Vec<(&str, OwnedFd)> = vec![
        ("a character device", open("/dev/zero")?),
        ("a character device", open("/dev/null")?),
        ("a pipe", open(&pipe.display().to_string())?),
        ("a folder", File::open(case.scene.file("."))?.into()),
        ("a folder", File::open("/dev/shm")?.into()),
        ("a socket", socket.into()),
        ("an anonymous descriptor", rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?),
        ("memory", File::options().read(true).write(true).open(&disk)?.into()),
    ];
    for (words, file) in candidates {
        let taken = machine.channel.tell(request::SET_MEM_TABLE, &machine.table(), &[file.as_fd()])?;
        ensure!(taken == Some(false), "{words} as memory: {taken:?}");
        // The region of another request, and nothing is left of the one before.
        let mut body = words64(&[0]);
        body.extend(words64(&[0, machine.memory.size(), USER, 0]));
        let taken = machine.channel.tell(request::ADD_MEM_REG, &body, &[file.as_fd()])?;
        ensure!(taken == Some(false), "{words} as a region: {taken:?}");
    }
    std::fs::remove_file(disk)?;
    std::fs::remove_file(pipe)?;
    case.says(&["/dev/zero"])?;
    serves_on(case, machine)
}

/// After all that was refused the machine is set up and passes frames.
fn serves_on(case: &Case<'_>, mut machine: Machine) -> Result<()> {
    go_on(&machine, request::SET_MEM_TABLE)?;
    case.still_works(&mut machine, 1)?;
    case.still_works(&mut machine, 0)
}

fn tables(case: &Case<'_>, format: Format) -> Result<()> {
    let machine = Machine::connect(&case.scene.socket(), Setup::new(format))?;
    begin(&machine, request::SET_MEM_TABLE)?;
    let size = machine.memory.size();
    let single: [[u64; 4]; 9] = [
        [0, 0, USER, 0],
        [0, size + 1, USER, 0],
        [0, size, USER, 4096],
        [0, u64::MAX, USER, 0],
        [0, 1 << 50, USER, 0],
        [u64::MAX - 4095, size, USER, 0],
        [0, size, u64::MAX - 4095, 0],
        [0, size, USER, u64::MAX - 4095],
        [0, u64::MAX - 4095, USER, 8192],
    ];
    for region in single {
        let mut body = words32(&[1, 0]);
        body.extend(words64(&region));
        let taken = machine.channel.tell(request::SET_MEM_TABLE, &body, &[machine.memory.file()])?;
        ensure!(taken == Some(false), "{region:#x?}: {taken:?}");
    }
    // Two that overlap, for the guest or for the VMM.
    for second in [[0x1000, 0x2000, USER + size, 0], [size, 0x2000, USER + 0x1000, 0]] {
        let mut body = words32(&[2, 0]);
        body.extend(words64(&[0, size, USER, 0]));
        body.extend(words64(&second));
        let files = [machine.memory.file(), machine.memory.file()];
        let taken = machine.channel.tell(request::SET_MEM_TABLE, &body, &files)?;
        ensure!(taken == Some(false), "{second:#x?}: {taken:?}");
    }
    serves_on(case, machine)
}

fn log(case: &Case<'_>, format: Format) -> Result<()> {
    let setup = Setup::new(format);
    let setup = Setup { features: setup.features | feature::LOG_ALL, ..setup };
    let mut machine = case.scene.machine(setup)?;
    let log = Memory::new(4096, Pages::Small)?;
    let body = words64(&[log.size(), 0]);
    ensure!(machine.channel.send(request::SET_LOG_BASE, 1, &body, &[log.file()])?, "the session ended");
    machine.channel.receive()?.context("the log was not taken")?;
    case.still_works(&mut machine, 0)?;
    let marked = (0..log.size() / 8).any(|word| log.word64(word * 8).load(std::sync::atomic::Ordering::Relaxed) != 0);
    ensure!(marked, "nothing was marked");
    log.cut(0)?;
    case.turn_until_said(&mut machine, 0, &[TAKEN])?;
    machine.channel.closed()
}

/// The body of a message about an in-flight region.
fn region(size: u64, offset: u64, queues: u16, descriptors: u16) -> Vec<u8> {
    let mut body = words64(&[size, offset]);
    body.extend(queues.to_ne_bytes());
    body.extend(descriptors.to_ne_bytes());
    body.extend([0; 4]);
    body
}

fn inflight(case: &Case<'_>, format: Format) -> Result<()> {
    let machine = Machine::connect(&case.scene.socket(), Setup::new(format))?;
    begin(&machine, request::SET_MEM_TABLE)?;
    let small = Memory::new(4096, Pages::Small)?;
    let bodies = [
        region(4096, 0, 2, 32_768),
        region(1 << 40, 0, 2, 256),
        region(u64::MAX, 4096, 2, 256),
        region(4096, u64::MAX - 4095, 2, 256),
        region(16, 0, 2, 256),
        region(0, 0, 2, 256),
        region(4096, 0, 0, 256),
        region(4096, 0, u16::MAX, 256),
        region(4096, 0, 2, 0),
        region(4096, 0, 2, u16::MAX),
    ];
    for body in bodies {
        let taken = machine.channel.tell(request::SET_INFLIGHT_FD, &body, &[small.file()])?;
        ensure!(taken == Some(false), "{body:x?}: {taken:?}");
    }
    let zero = File::open("/dev/zero")?;
    let taken = machine.channel.tell(request::SET_INFLIGHT_FD, &region(1 << 20, 0, 2, 256), &[zero.as_fd()])?;
    ensure!(taken == Some(false), "/dev/zero as an in-flight region: {taken:?}");
    case.says(&["in-flight region"])?;
    serves_on(case, machine)
}

/// A machine whose rings have this in-flight region.
fn with_inflight(case: &Case<'_>, format: Format, memory: &Memory) -> Result<Machine> {
    let machine = Machine::connect(&case.scene.socket(), Setup::new(format))?;
    begin(&machine, request::SET_MEM_TABLE)?;
    let body = region(memory.size(), 0, 2, 256);
    machine.channel.must(request::SET_INFLIGHT_FD, &body, &[memory.file()])?;
    Ok(machine)
}

fn inflight_garbage(case: &Case<'_>, format: Format) -> Result<()> {
    let mut random = crate::changes::Random(7);
    for round in 0..24 {
        let memory = Memory::new(64 << 10, Pages::Small)?;
        for word in 0..memory.size() / 8 {
            // At first everywhere, then here and there.
            if random.below(1 << (round / 3)) == 0 {
                memory.word64(8 * word).store(random.next(), std::sync::atomic::Ordering::Relaxed);
            }
        }
        let mut machine = with_inflight(case, format, &memory)?;
        let _ = go_on(&machine, request::SET_MEM_TABLE);
        machine.run(std::time::Duration::from_millis(5), u64::MAX >> 1);
    }
    Ok(())
}

fn inflight_cut(case: &Case<'_>, format: Format) -> Result<()> {
    let memory = Memory::new(64 << 10, Pages::Small)?;
    let mut machine = with_inflight(case, format, &memory)?;
    go_on(&machine, request::SET_MEM_TABLE)?;
    machine.load()?;
    memory.cut(0)?;
    case.turn_until_said(&mut machine, 0, &[TAKEN])?;
    machine.channel.closed()
}

fn hotplug(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = case.scene.machine(Setup::new(format))?;
    let more = Memory::new(4 << 20, Pages::Small)?;
    let mut body = words64(&[0]);
    body.extend(words64(&[1 << 30, more.size(), USER + (1 << 30), 0]));
    for _ in 0..50 {
        machine.turn();
        machine.channel.must(request::ADD_MEM_REG, &body, &[more.file()])?;
        machine.turn();
        machine.channel.must(request::REM_MEM_REG, &body, &[])?;
    }
    case.still_works(&mut machine, 1)?;
    case.still_works(&mut machine, 0)?;
    // The whole table anew while frames flow; the same memory in it.
    for _ in 0..50 {
        machine.turn();
        machine.channel.must(request::SET_MEM_TABLE, &machine.table(), &[machine.memory.file()])?;
    }
    case.still_works(&mut machine, 1)?;
    case.still_works(&mut machine, 0)?;
    // More regions than there can be.
    let mut taken = 0_u64;
    for number in 0..2000 {
        let mut body = words64(&[0]);
        body.extend(words64(&[(1 << 40) + number * 4096, 4096, USER + (1 << 40) + number * 4096, 0]));
        match machine.channel.tell(request::ADD_MEM_REG, &body, &[more.file()])? {
            Some(true) => taken += 1,
            Some(false) => break,
            None => anyhow::bail!("too many regions ended the session"),
        }
    }
    ensure!((1..2000).contains(&taken), "{taken} regions were taken");
    case.still_works(&mut machine, 1)?;
    case.still_works(&mut machine, 0)
}

fn unplugged_rings(case: &Case<'_>, format: Format) -> Result<()> {
    let mut machine = case.scene.machine(Setup::new(format))?;
    let mut body = words64(&[0]);
    body.extend(words64(&[0, machine.memory.size(), USER, 0]));
    for _ in 0..5 {
        machine.turn();
        machine.channel.must(request::REM_MEM_REG, &body, &[])?;
        machine.turn();
        machine.channel.must(request::ADD_MEM_REG, &body, &[machine.memory.file()])?;
        case.still_works(&mut machine, 1)?;
        case.still_works(&mut machine, 0)?;
    }
    Ok(())
}
