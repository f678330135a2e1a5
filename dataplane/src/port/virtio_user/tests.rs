//! Against back-ends that follow a script, and break it at each step in each way.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use hugemem::{IovaSpace, MemoryRequest, PageChoice};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::*;
use crate::port::PortSpec;
use crate::port::open::BUFFER_ROOM;

/// Messages as a back-end numbers them.
const GET_FEATURES: u32 = 1;
const GET_VRING_BASE: u32 = 11;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;
/// Version 1, and that there are protocol features; of these, acknowledgements and several queues.
const FEATURES: u64 = 1 << 32 | 1 << 30;
const PROTOCOL: u64 = 1 << 3 | 1 << 0;
/// Flags of a message: it wants to be acknowledged; it is an answer.
const NEED_REPLY: u32 = 8;
const ANSWER: u32 = 1 | 4;

/// How a back-end breaks the script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    /// It closes the connection instead of answering.
    HangsUp,
    /// It closes it in the middle of an answer.
    Half,
    /// It says nothing more, and keeps the connection.
    Silent,
    /// It answers another message.
    Another,
    /// It claims an answer without end.
    Endless,
    /// It says no, or gives a number that makes no sense.
    Nonsense,
    /// It sends descriptors along, as many as there may be.
    Files,
}

/// One message that came.
fn next(stream: &mut UnixStream) -> Option<(u32, u32, Vec<u8>)> {
    let mut header = [0; 12];
    stream.read_exact(&mut header).ok()?;
    let [request, flags, length] = [0, 4, 8].map(|at| u32::from_ne_bytes(*header[at..].first_chunk().unwrap()));
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).ok()?;
    Some((request, flags, body))
}

/// Serves one front-end; at answer number `step` comes the fault. Gives how many answers were given, once the front-end has hung up.
fn serve(listener: &UnixListener, fault: Fault, step: usize) -> usize {
    let (mut stream, _) = listener.accept().unwrap();
    let mut answers = 0;
    while let Some((request, flags, body)) = next(&mut stream) {
        let number = |value: u64| value.to_ne_bytes().to_vec();
        let answer = match request {
            GET_FEATURES => number(FEATURES),
            GET_PROTOCOL_FEATURES => number(PROTOCOL),
            GET_QUEUE_NUM => number(1),
            GET_VRING_BASE => body.clone(),
            _ if flags & NEED_REPLY != 0 => number(0),
            _ => continue,
        };
        let here = answers == step;
        answers += 1;
        let whole = |request: u32, length: usize, answer: &[u8]| {
            let length = u32::try_from(length).unwrap();
            [&[request, ANSWER, length].map(u32::to_ne_bytes).concat(), answer].concat()
        };
        let bytes = match fault {
            Fault::HangsUp if here => return answers,
            Fault::Half if here => {
                let _ = stream.write_all(&whole(request, answer.len(), &answer)[..15]);
                return answers;
            }
            Fault::Silent if answers > step => continue,
            Fault::Another if here => whole(request + 1, answer.len(), &answer),
            Fault::Endless if here => whole(request, 1 << 30, &answer),
            Fault::Nonsense if here => whole(request, answer.len(), &vec![0xff; answer.len()]),
            _ => whole(request, answer.len(), &answer),
        };
        let files = if fault == Fault::Files && here { vec![listener; 8] } else { Vec::new() };
        let files: Vec<_> = files.into_iter().map(std::os::fd::AsFd::as_fd).collect();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(files.is_empty() || control.push(SendAncillaryMessage::ScmRights(&files)));
        // The front-end may have hung up.
        let _ = sendmsg(&stream, &[std::io::IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL);
    }
    answers
}

/// Opens, starts and stops a port on the back-end at `path`.
fn live(path: &Path) -> Result<(), PortError> {
    let PortSpec::VirtioUser(spec) = format!("virtio-user={}", path.display()).parse().unwrap() else { panic!() };
    let mut device = Device::open("a", &spec, Offloads::empty())?;
    let mut space = IovaSpace::new(&device.iova_ranges());
    let mut region = |bytes| {
        let request = MemoryRequest { bytes, page: PageChoice::Size4K, node: None };
        request.allocate(&mut space).unwrap().region
    };
    let (rings, packets) = (region(device.ring_memory()), region(4 << 20));
    device.map(&packets)?;
    let pools = vec![packets.packets(1024, BUFFER_ROOM).unwrap()];
    let NicPort { queues, mut control, .. } = device.start(&rings, pools)?;
    let late = region(4096);
    control.map(&late)?;
    control.unmap(&late)?;
    control.check()?;
    control.stop(queues)
}

/// What comes of a fault at answer number `step`, and how many answers the back-end gave.
fn attempt(fault: Fault, step: usize) -> (Result<(), PortError>, usize, Duration) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        let back_end = scope.spawn(move || serve(&listener, fault, step));
        let began = Instant::now();
        let outcome = live(&path);
        // The back-end ends only when the front-end has closed its socket, wherever it failed.
        (outcome, back_end.join().unwrap(), began.elapsed())
    })
}

#[test]
fn a_back_end_that_breaks_the_script_at_any_step_gets_a_typed_error() {
    let (outcome, answers, _) = attempt(Fault::None, 0);
    outcome.unwrap();
    assert!(answers > 20, "{answers}");
    let faults = [Fault::HangsUp, Fault::Half, Fault::Another, Fault::Endless, Fault::Nonsense, Fault::Files];
    for fault in faults {
        for step in 0..answers {
            let (outcome, given, _) = attempt(fault, step);
            let said = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
            match fault {
                Fault::Files => assert!(outcome.is_ok(), "{step}: descriptors are closed: {said}"),
                // Features that make no sense can be features.
                Fault::Nonsense => assert!(outcome.is_err() || given >= step, "{step}: {said}"),
                // Who hangs up at the end has given everything back.
                Fault::HangsUp | Fault::Half => {
                    assert!(said.contains("port `a`") || given > answers / 2, "{step}: {said}")
                }
                _ => assert!(
                    said.contains("breaks the vhost-user protocol") || given > answers / 2,
                    "{fault:?} {step}: {said}"
                ),
            }
        }
    }
}

#[test]
fn a_back_end_that_falls_silent_at_any_step_is_waited_for_once() {
    let (_, answers, _) = attempt(Fault::None, 0);
    std::thread::scope(|scope| {
        let attempts: Vec<_> = (0..answers).map(|step| scope.spawn(move || attempt(Fault::Silent, step))).collect();
        for (step, attempt) in attempts.into_iter().enumerate() {
            let (outcome, _, took) = attempt.join().unwrap();
            // One that is silent while it is stopped, but hangs up when it sees the end, has given everything back.
            assert!(outcome.is_err() || step + 4 >= answers, "{step}");
            // Once for what was begun, and once to have it stopped; a budget for each message would be minutes.
            assert!(took < Duration::from_secs(60), "{step}: {took:?}");
        }
    });
}
