//! `mirach capture`, read back with a library that shares nothing with the writer.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dataplane::switch::Reason;
use lab::process::Running;
use lab::tenants::{Crowd, Daemon, Envelope, Stream, mac};
use lab::{binaries, wait};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};

use crate::scene::{close, set};

/// For what takes milliseconds on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(30);
/// Frames with another's address that are sent.
const FORGED: usize = 30;

/// A frame of a capture.
struct Captured {
    interface: String,
    comments: String,
    bytes: Vec<u8>,
}

fn read(source: impl Read) -> Result<Vec<Captured>> {
    let mut reader = PcapNgReader::new(source).context("no pcapng")?;
    let mut frames = Vec::new();
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block? else { continue };
        let comments: Vec<String> = packet
            .options
            .iter()
            .filter_map(|option| match option {
                EnhancedPacketOption::Comment(text) => Some(text.to_string()),
                _ => None,
            })
            .collect();
        let number = usize::try_from(packet.interface_id)?;
        let bytes = packet.data.to_vec();
        let comments = comments.join("; ");
        let interface = reader.interfaces().get(number).context("a frame of no interface")?;
        frames.push(Captured { interface: format!("{interface:?}"), comments, bytes });
    }
    Ok(frames)
}

/// Starts `mirach capture` with these arguments.
fn start(daemon: &Daemon, words: &[&str], output: Stdio) -> Result<Running> {
    let mut command = Command::new(binaries::host()?);
    command.arg("capture").args(words).arg("--control").arg(daemon.control()).stdout(output);
    Ok(Running(command.spawn()?))
}

/// Lets everybody talk until a capture has ended by itself.
fn talk_until_it_ends(crowd: &mut Crowd, capture: &mut Running) -> Result<()> {
    crowd.busy(|| wait::until("the end of the capture", PATIENCE, || Ok(capture.has_ended().then_some(()))))?;
    let status = capture.0.wait()?;
    ensure!(status.success(), "the capture ended with {status}");
    Ok(())
}

/// Starts a capture into a file, and waits until it has begun.
fn begin(daemon: &Daemon, name: &str, words: &[&str]) -> Result<(Running, PathBuf)> {
    let path = daemon.path(name);
    let file = path.display().to_string();
    let capture = start(daemon, &[words, &["-w", &file]].concat(), Stdio::null())?;
    wait::until("a capture file", PATIENCE, || Ok(path.exists().then_some(())))?;
    // The file comes first.
    std::thread::sleep(Duration::from_millis(500));
    Ok((capture, path))
}

pub(crate) fn to_a_file() -> Result<()> {
    let (daemon, mut crowd) = set(&[])?;
    let stream = crowd.talks.first().context("nobody talks")?.stream;
    // What one machine sends, byte for byte.
    let (mut capture, path) = begin(&daemon, "sent.pcapng", &["--at", "receive", "--port", "vm0", "--seconds", "2"])?;
    talk_until_it_ends(&mut crowd, &mut capture)?;
    let frames = read(File::open(&path)?)?;
    let mut expected = Vec::new();
    for frame in &frames {
        let (id, number) = Stream::mark(&frame.bytes).with_context(|| format!("{:02x?} was captured", frame.bytes))?;
        ensure!(id == stream.id, "a frame of the other machine");
        stream.write(number, &stream.sent, &mut expected)?;
        ensure!(frame.bytes == expected, "datagram {number} was captured as {:02x?}", frame.bytes);
        ensure!(frame.interface.contains("vm0") || frame.comments.contains("vm0"), "it is not said where it is from");
    }
    ensure!(frames.len() > 100, "only {} frames were captured", frames.len());
    // What is dropped, with the reason.
    let (mut capture, path) = begin(&daemon, "dropped.pcapng", &["--at", "drop", "--seconds", "3"])?;
    let mut forged = Vec::new();
    let lie = Envelope { from: mac(7), ..stream.sent };
    stream.write(u64::MAX, &lie, &mut forged)?;
    crowd.station(0)?.send(std::iter::repeat_n(forged.as_slice(), FORGED))?;
    daemon.wait_for_drops("spoofed", FORGED as u64)?;
    talk_until_it_ends(&mut crowd, &mut capture)?;
    let frames = read(File::open(&path)?)?;
    let reason = Reason::Spoofed;
    for frame in &frames {
        ensure!(frame.bytes == forged, "{:02x?} was dropped", frame.bytes);
        let said = frame.comments.contains(reason.name()) || frame.comments.contains(reason.sentence());
        ensure!(said, "the reason is not said: `{}`", frame.comments);
    }
    ensure!(frames.len() == FORGED, "{} of {FORGED} frames were captured", frames.len());
    // Behind an element, a number of them, cut short.
    let words = ["--at", "look-up", "--network", "red", "--count", "50", "--bytes", "64"];
    let path = daemon.path("some.pcapng");
    let file = path.display().to_string();
    let mut capture = start(&daemon, &[&words[..], &["-w", &file]].concat(), Stdio::null())?;
    talk_until_it_ends(&mut crowd, &mut capture)?;
    let frames = read(File::open(&path)?)?;
    ensure!(frames.len() == 50, "{} frames instead of 50", frames.len());
    ensure!(frames.iter().all(|frame| frame.bytes.len() <= 64), "frames are longer than 64 bytes");
    close(daemon, crowd)
}

pub(crate) fn to_a_pipe() -> Result<()> {
    let (daemon, mut crowd) = set(&[])?;
    let mut capture = start(&daemon, &["--count", "200", "-w", "-"], Stdio::piped())?;
    let output = capture.0.stdout.take().context("no output")?;
    let frames = crowd.busy(|| read(output))?;
    ensure!(frames.len() == 200, "{} frames instead of 200", frames.len());
    ensure!(frames.iter().any(|frame| Stream::mark(&frame.bytes).is_some()), "nothing of what was said");
    // A reader that goes away ends it, and nothing else.
    let mut capture = start(&daemon, &["-w", "-"], Stdio::piped())?;
    let mut output = capture.0.stdout.take().context("no output")?;
    crowd.busy(|| {
        output.read_exact(&mut [0; 100])?;
        drop(output);
        wait::until("the end of a capture that nobody reads", PATIENCE, || Ok(capture.has_ended().then_some(())))
    })?;
    // One that is killed leaves nothing behind: another one can begin, again and again.
    for _ in 0..20 {
        let mut capture = start(&daemon, &["-w", "-"], Stdio::piped())?;
        let mut output = capture.0.stdout.take().context("no output")?;
        crowd.busy(|| Ok(output.read_exact(&mut [0; 100])?))?;
        capture.0.kill()?;
        capture.0.wait()?;
    }
    close(daemon, crowd)
}
