//! `mirach capture`: captures packets anywhere in the switch.

mod file;
mod line;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use dataplane::control::Client;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask;
use crate::cli::CaptureArguments;
use crate::output;
use crate::signals::Signals;
use crate::table::grouped;
use file::Writer;

/// How long the forwarder may wait for packets before it answers, in milliseconds: signals are looked for as often.
const WAIT: u64 = 200;

/// A frame that was captured.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Frame {
    nanoseconds: u64,
    engine: usize,
    point: String,
    port: String,
    to: Option<String>,
    network: Option<String>,
    reason: Option<String>,
    sentence: Option<String>,
    length: usize,
    bytes: String,
}

#[derive(Deserialize)]
struct Begun {
    capture: u64,
}

#[derive(Deserialize)]
struct Frames {
    frames: Vec<Frame>,
    missed: u64,
    over: bool,
}

/// Where frames go.
enum Sink {
    File(Box<Writer>),
    Lines,
    Json,
}

/// Runs the command.
pub(crate) fn execute(arguments: CaptureArguments) -> anyhow::Result<ExitCode> {
    let CaptureArguments { port, network, at, count, seconds, bytes, write, ask } = arguments;
    let signals = Signals::block()?;
    let mut client = ask::connect(ask.control)?;
    let points = (!at.is_empty()).then_some(at);
    let request = json!({ "points": points, "port": port, "network": network, "bytes": bytes });
    let Begun { capture } = ask::read(client.call("capture.begin", request)?)?;
    let named = write.clone().filter(|path| path.as_os_str() != "-");
    let mut sink = match write {
        Some(path) => Sink::File(Box::new(open(path)?)),
        None if ask.json => Sink::Json,
        None => Sink::Lines,
    };
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    let (mut taken, mut missed) = (0, 0);
    let outcome = loop {
        if count.is_some_and(|count| taken >= count) || signals.wait(Duration::ZERO).is_some() {
            break Ok(());
        }
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            break Ok(());
        }
        let wait = left.map_or(WAIT, |left| WAIT.min(u64::try_from(left.as_millis()).unwrap_or(WAIT)));
        let next = next(&mut client, capture, count.map(|count| count - taken), wait);
        let Frames { frames, missed: so_far, over } = match next {
            Ok(frames) => frames,
            Err(error) => break Err(error),
        };
        missed = so_far;
        taken += frames.len() as u64;
        if let Err(error) = put(&mut sink, &frames) {
            break Err(error);
        }
        if over {
            break Err(anyhow::anyhow!("the mirach that runs has stopped its switch"));
        }
    };
    if matches!(sink, Sink::File(_)) || missed > 0 {
        let place = named.map(|path| format!(" to {}", path.display())).unwrap_or_default();
        eprintln!("captured {} packets{place}, missed {}", grouped(taken), grouped(missed));
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

fn open(path: PathBuf) -> anyhow::Result<Writer> {
    if path.as_os_str() == "-" {
        return Ok(Writer::to_stdout()?);
    }
    Writer::create(&path).with_context(|| format!("cannot write {}; name another file with -w", path.display()))
}

fn next(client: &mut Client, capture: u64, most: Option<u64>, wait: u64) -> anyhow::Result<Frames> {
    let answer = client.call("capture.next", json!({ "capture": capture, "most": most, "wait_ms": wait }))?;
    ask::read(answer)
}

fn put(sink: &mut Sink, frames: &[Frame]) -> anyhow::Result<()> {
    match sink {
        Sink::File(writer) => {
            for frame in frames {
                writer.put(frame)?;
            }
            writer.flush()?;
        }
        Sink::Lines => {
            for frame in frames {
                output::line(&line::text(frame))?;
            }
        }
        Sink::Json => {
            for frame in frames {
                output::json(frame)?;
            }
        }
    }
    Ok(())
}
