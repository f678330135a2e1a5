//! Captures, which belong to the connection that began them.

use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Methods, failed};
use crate::control::caller::Caller;
use crate::control::hex;
use crate::control::rpc::{RpcError, code};
use crate::switch::{Point, Stage};
use crate::vswitch::{CaptureRequest, RunningCapture};

/// Bytes of a packet that are kept when it is not said how many: all of any that is not a large one to be cut.
const USUAL_BYTES: usize = 1 << 16;
/// Bytes of frames in one answer.
const MOST_BYTES: usize = 1 << 20;
/// Frames in one answer.
const MOST_FRAMES: usize = 4096;
/// How long there may be no answer.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked for packets meanwhile.
pub(super) const LOOK: Duration = Duration::from_millis(2);

type Shared = Mutex<RunningCapture>;

/// What to capture.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Begin {
    /// Where: `receive`, `deliver`, `drop`, or the name of an element for what leaves it, with `-` for a blank. `receive`, `deliver`
    /// and `drop` when left out.
    points: Option<Vec<String>>,
    /// Only what comes from this port, or leaves for it.
    port: Option<String>,
    /// Only what is in this network.
    network: Option<String>,
    /// Bytes of each packet that are kept, 65536 when left out.
    bytes: Option<usize>,
}

/// A capture that goes on until it is ended, or the connection is.
#[derive(Serialize, JsonSchema)]
pub(super) struct Begun {
    /// Its number on this connection.
    capture: u64,
}

/// What of a capture is wanted.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Next {
    /// Its number.
    capture: u64,
    /// Frames at most, up to 4096.
    most: Option<usize>,
    /// How long to wait for the first one, in milliseconds, up to 5000; 1000 when left out.
    wait_ms: Option<u64>,
}

/// Frames that were captured.
#[derive(Serialize, JsonSchema)]
pub(super) struct Frames {
    /// As they came in each engine.
    frames: Vec<Frame>,
    /// The numbers so far.
    #[serde(flatten)]
    numbers: Numbers,
    /// The switch has ended, and there will be no more.
    over: bool,
}

/// Numbers of a capture.
#[derive(Serialize, JsonSchema)]
pub(super) struct Numbers {
    /// Packets that were captured.
    taken: u64,
    /// Packets that were not, because those before were not asked for in time.
    missed: u64,
}

/// A frame that was captured.
#[derive(Serialize, JsonSchema)]
pub(super) struct Frame {
    /// Nanoseconds since 1970 at which it was received.
    nanoseconds: u64,
    /// The engine that saw it.
    engine: usize,
    /// Where it was captured.
    point: String,
    /// The port that it came from.
    port: String,
    /// The port that it leaves for, where it leaves.
    to: Option<String>,
    /// Its network, when that is known there.
    network: Option<String>,
    /// Name of the drop counter, when it was dropped.
    reason: Option<&'static str>,
    /// Why it was dropped, in words.
    sentence: Option<&'static str>,
    /// Bytes that it had.
    length: usize,
    /// Its first bytes, two hexadecimal digits each.
    bytes: String,
}

/// A capture to be ended.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    /// Its number.
    capture: u64,
}

pub(super) fn begin(methods: &Methods, caller: &Caller, begin: Begin) -> Result<Begun, RpcError> {
    let points = match begin.points {
        Some(names) => names.iter().map(|name| point(name)).collect::<Result<Vec<Point>, RpcError>>()?,
        None => vec![Point::Receive, Point::Deliver, Point::Drop],
    };
    let bytes = begin.bytes.unwrap_or(USUAL_BYTES).clamp(1, USUAL_BYTES);
    let request = CaptureRequest { points, port: begin.port, network: begin.network, bytes };
    let running = methods.switch()?.capture(request).map_err(failed)?;
    Ok(Begun { capture: caller.keep(Arc::new(Mutex::new(running)))? })
}

/// The point of that name.
fn point(name: &str) -> Result<Point, RpcError> {
    let named = |stage: &&Stage| stage.name() == name || dashed(stage.name()) == name;
    match name {
        "receive" => Ok(Point::Receive),
        "deliver" => Ok(Point::Deliver),
        "drop" => Ok(Point::Drop),
        _ => Stage::ALL.iter().find(named).map(|stage| Point::After(*stage)).ok_or_else(|| {
            let elements: Vec<String> = Stage::ALL.iter().map(|stage| dashed(stage.name())).collect();
            let reason =
                format!("there is no point `{name}`; there are receive, deliver, drop, {}", elements.join(", "));
            RpcError::new(code::INVALID_PARAMS, reason)
        }),
    }
}

fn dashed(name: &str) -> String {
    name.replace(' ', "-")
}

pub(super) fn next(_: &Methods, caller: &Caller, next: Next) -> Result<Frames, RpcError> {
    let running = caller.kept::<Shared>(next.capture).ok_or_else(|| unknown(next.capture))?;
    let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
    let most = next.most.unwrap_or(MOST_FRAMES).min(MOST_FRAMES);
    let wait = Duration::from_millis(next.wait_ms.unwrap_or(1000)).min(LONGEST_WAIT);
    let deadline = Instant::now() + wait;
    let mut frames = Vec::new();
    let mut bytes = 0;
    loop {
        while frames.len() < most && bytes < MOST_BYTES {
            let Some(frame) = running.next() else { break };
            bytes += frame.bytes.len();
            frames.push(Frame {
                nanoseconds: frame.nanoseconds,
                engine: frame.engine,
                point: dashed(&frame.point.to_string()),
                port: frame.port,
                to: frame.to,
                network: frame.network,
                reason: frame.reason.map(|reason| reason.name()),
                sentence: frame.reason.map(|reason| reason.sentence()),
                length: frame.len,
                bytes: hex::write(&frame.bytes),
            });
        }
        let over = running.is_over();
        if !frames.is_empty() || over || most == 0 || Instant::now() >= deadline {
            return Ok(Frames { frames, numbers: numbers(&running), over });
        }
        std::thread::sleep(LOOK);
    }
}

pub(super) fn end(_: &Methods, caller: &Caller, End { capture }: End) -> Result<Numbers, RpcError> {
    let running = caller.take::<Shared>(capture).ok_or_else(|| unknown(capture))?;
    let running = running.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(numbers(&running))
}

fn numbers(running: &RunningCapture) -> Numbers {
    Numbers { taken: running.taken(), missed: running.missed() }
}

fn unknown(number: u64) -> RpcError {
    RpcError::new(code::FAILED, format!("this connection has no capture {number}; begin one with `capture.begin`"))
}
