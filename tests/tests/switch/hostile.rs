//! Machines that send garbage, or end in the middle of a frame.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dataplane::port::RingChoice;
use hugemem::Metadata;
use lab::conformance::frame::{pattern, tagged};
use lab::process::Running;
use lab::tenants::{BROADCAST, Crowd, Daemon, Envelope, Ports, Station, Stream, mac};
use lab::vm::{Plan, Vm};

const PORTS: Ports<'_> = Ports { machines: &["vm0", "vm1", "offender"], hosts: &[] };
const TOML: &str = r#"
[[network]]
name = "red"
routers = ["10.0.0.1/24", "fd00::1/64"]
[[port]]
name = "vm0"
network = "red"
macs = ["52:54:00:00:00:00"]
addresses = ["10.0.0.10"]
[[port]]
name = "vm1"
network = "red"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.11"]
[[port]]
name = "offender"
network = "red"
macs = ["52:54:00:00:00:02"]
addresses = ["10.0.0.12", "fd00::12"]
"#;
/// So long the offender goes on.
const TIME: Duration = Duration::from_secs(5);
/// The first argument of the machine that is killed, which is this program in a process of its own.
const CHILD: &str = "machine-to-be-killed";

fn scene() -> Result<(Daemon, Crowd)> {
    let daemon = Daemon::start(PORTS, TOML, &[])?;
    // The offender comes later.
    let mut crowd = Crowd::attach(&daemon, &["vm0", "vm1"])?;
    let there = Envelope::new((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"))?;
    let back = Envelope::new((mac(1), "10.0.0.11"), (mac(0), "10.0.0.10"))?;
    crowd.talk(Stream::new(1, there, 50), 0, &[1]);
    crowd.talk(Stream::new(2, back, 50), 1, &[0]);
    Ok((daemon, crowd))
}

/// A frame that follows from its number: nothing but noise, or a good frame that was cut short, changed, tagged or lengthened.
fn nonsense(number: u32, good: &[Vec<u8>]) -> Vec<u8> {
    let dice = |salt: u32, sides: usize| -> usize {
        let bytes = pattern(number.wrapping_mul(31).wrapping_add(salt), 4);
        bytes.iter().fold(0, |sum, byte| sum * 256 + usize::from(*byte)) % sides.max(1)
    };
    let Some(start) = good.get(dice(1, good.len())) else { return Vec::new() };
    let mut frame = start.clone();
    match dice(2, 6) {
        0 => frame = pattern(number, 14 + dice(3, 1500)),
        1 => frame.truncate(14 + dice(3, frame.len())),
        2 | 3 => {
            for change in 0..=dice(3, 4) {
                let at = 12 + dice(10 + u32::try_from(change).unwrap_or(0), frame.len() - 12);
                if let Some(byte) = frame.get_mut(at) {
                    *byte = byte.wrapping_add(1 + u8::try_from(dice(20, 254)).unwrap_or(0));
                }
            }
        }
        4 => frame = tagged(&frame, u16::try_from(dice(3, 0xffff)).unwrap_or(0)),
        _ => frame.extend(pattern(number, dice(3, 600))),
    }
    frame.resize(frame.len().max(14), 0);
    frame
}

pub(crate) fn garbage() -> Result<()> {
    let (daemon, mut crowd) = scene()?;
    let mut offender = Station::attach(&daemon, "offender", mac(2))?;
    let mut good = Vec::new();
    for (to, address) in [(mac(0), "10.0.0.10"), (BROADCAST, "10.0.0.255"), (mac(77), "10.0.0.77")] {
        let envelope = Envelope::new((mac(2), "10.0.0.12"), (to, address))?;
        let mut frame = Vec::new();
        envelope.udp((1, 2), &[1; 100], &mut frame)?;
        good.push(frame);
        good.push(envelope.ping(1, 1)?);
    }
    good.push(Envelope::new((mac(2), "fd00::12"), ([0x33, 0x33, 0, 0, 0, 1], "ff02::1"))?.ping(1, 1)?);
    let until = Instant::now() + TIME;
    let mut number = 0;
    while Instant::now() < until {
        while offender.vm.stage(0, &nonsense(number, &good), Metadata::default())? {
            number += 1;
        }
        offender.vm.flush();
        offender.receive(|_| Ok(()))?;
        crowd.turn(true)?;
    }
    crowd.settle()?;
    println!("  {number} frames of nonsense");
    ensure!(number > 1000, "only {number} frames of nonsense were sent");
    // What reached others was at least sent by whom it says.
    for (_, frame) in &crowd.strays {
        ensure!(frame.get(6..12) == Some(&mac(2)), "a frame of nobody's came: {:02x?}", frame.get(..64));
    }
    ensure!(daemon.dropped("malformed")? > 0, "no frame was malformed");
    for talk in &crowd.talks {
        ensure!(talk.received() > 1000, "the others were not busy: {} datagrams", talk.received());
    }
    offender.vm.detach()?;
    crowd.leave()?;
    daemon.end().map(drop)
}

/// The machine that is killed, when this process is it.
pub(crate) fn child() -> Option<ExitCode> {
    let mut words = std::env::args().skip(1);
    if words.next()? != CHILD {
        return None;
    }
    let socket = words.next()?;
    match noise(Path::new(&socket)) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("{error:#}");
            Some(ExitCode::FAILURE)
        }
    }
}

/// Sends as much as it can, to one and to all, until it is killed.
fn noise(socket: &Path) -> Result<()> {
    let plan = Plan { socket: socket.into(), listens: false, ring: RingChoice::Auto, pairs: 1, mtu: None };
    let mut vm = Vm::attach("offender", &plan)?;
    println!("attached");
    let one = Envelope::new((mac(2), "10.0.0.12"), (mac(0), "10.0.0.10"))?;
    let all = Envelope::new((mac(2), "10.0.0.12"), (BROADCAST, "10.0.0.255"))?;
    let mut frame = Vec::new();
    for number in 0.. {
        let envelope = if number % 8 == 0 { all } else { one };
        envelope.udp((number % 50_000, 7), &[3; 500], &mut frame)?;
        while !vm.stage(0, &frame, Metadata::default())? {
            vm.flush();
            vm.receive(|_| Ok(()))?;
            std::thread::yield_now();
        }
    }
    Ok(())
}

pub(crate) fn killed() -> Result<()> {
    let (daemon, mut crowd) = scene()?;
    for _ in 0..8 {
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.arg(CHILD).arg(daemon.socket("offender")).stdout(Stdio::piped());
        let mut machine = Running(command.spawn().context("cannot start a machine")?);
        let output = machine.0.stdout.take().context("no output")?;
        crowd.busy(|| {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
            ensure!(line.starts_with("attached"), "the machine does not come up: {line}");
            Ok(())
        })?;
        crowd.run(Duration::from_millis(200))?;
        ensure!(!crowd.strays.is_empty(), "it sent nothing");
        crowd.strays.clear();
        // As `kill -9` does.
        machine.0.kill()?;
        crowd.busy(|| Ok(machine.0.wait().map(drop)?))?;
        crowd.run(Duration::from_millis(100))?;
    }
    crowd.settle()?;
    // The place is free for the next one.
    crowd.strays.clear();
    let visitor = Station::attach(&daemon, "offender", mac(2))?;
    crowd.stations.push(visitor);
    let envelope = Envelope::new((mac(2), "10.0.0.12"), (mac(0), "10.0.0.10"))?;
    crowd.talk(Stream { port: 99, ..Stream::new(3, envelope, 50) }, 2, &[0]);
    crowd.exchange(2000)?;
    crowd.must_have_no_strays()?;
    crowd.leave()?;
    daemon.end().map(drop)
}
