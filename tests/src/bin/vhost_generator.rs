//! Generator and sink of `cargo xtask bench vhost` and `bench ovs`: drives two vhost-user back-ends, and prints what came through as one line of JSON.
//!
//! Arguments are `KEY=VALUE`, see `USAGE`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dataplane::port::RingChoice;
use lab::peer_bench::flows::MOST;
use lab::peer_bench::frame::SHORTEST;
use lab::peer_bench::generator::{Plan, run};

const USAGE: &str = "\
usage: vhost-generator sockets=FIRST,SECOND [KEY=VALUE]..
  server=on|off        listen there (off)
  ring=split|packed    (split)
  ways=1|2             directions (1)
  size=BYTES           of a frame, without check sequence (64)
  large=on|off         frames are TCP segments that are still to be cut (off)
  flows=N              flows of each direction, in random order; each passes once before anything is measured (1)
  inflight=N           frames on their way at most (no limit)
  core=N               to run on (1)
  window=MS clean=N most=N warm=MS    windows (20, 30, 110, 200)
  watch=PROCESS/THREAD[,..]           threads of the device under test";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let plan = match parse(&arguments) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("vhost-generator: {error:#}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&plan) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("vhost-generator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<Plan> {
    let mut plan = Plan {
        sockets: [String::new(), String::new()],
        server: false,
        ring: RingChoice::Split,
        both_ways: false,
        size: 64,
        large: false,
        flows: 1,
        in_flight: None,
        core: 1,
        window: Duration::from_millis(20),
        clean: 30,
        most: 110,
        warm: Duration::from_millis(200),
        watch: Vec::new(),
    };
    for argument in arguments {
        let (key, value) = argument.split_once('=').with_context(|| format!("`{argument}` is not KEY=VALUE"))?;
        let wrong = || format!("{key}={value} makes no sense");
        let switch = || match value {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => bail!("{key} is on or off"),
        };
        match key {
            "sockets" => plan.sockets = value.split_once(',').map(|(a, b)| [a.into(), b.into()]).with_context(wrong)?,
            "server" => plan.server = switch()?,
            "ring" => {
                plan.ring = match value {
                    "split" => RingChoice::Split,
                    "packed" => RingChoice::Packed,
                    _ => bail!("ring is split or packed"),
                }
            }
            "ways" => {
                plan.both_ways =
                    value.parse::<u8>().ok().filter(|ways| (1..=2).contains(ways)).with_context(wrong)? == 2
            }
            "size" => plan.size = value.parse().with_context(wrong)?,
            "large" => plan.large = switch()?,
            "flows" => {
                plan.flows = value.parse().ok().filter(|flows| (1..=MOST).contains(flows)).with_context(wrong)?;
            }
            "inflight" => plan.in_flight = Some(value.parse().with_context(wrong)?),
            "core" => plan.core = value.parse().with_context(wrong)?,
            "window" => plan.window = Duration::from_millis(value.parse().with_context(wrong)?),
            "clean" => plan.clean = value.parse().with_context(wrong)?,
            "most" => plan.most = value.parse().with_context(wrong)?,
            "warm" => plan.warm = Duration::from_millis(value.parse().with_context(wrong)?),
            "watch" => plan.watch = value.split(',').map(str::parse).collect::<Result<_>>().with_context(wrong)?,
            _ => bail!("there is no key {key}"),
        }
    }
    let longest = if plan.large { 65_000 } else { 2048 };
    if plan.sockets.iter().any(String::is_empty) {
        bail!("sockets= is missing");
    }
    if plan.large && plan.flows > 1 {
        bail!("large frames are of one flow");
    }
    if !(SHORTEST..=longest).contains(&plan.size) {
        bail!("a frame has {SHORTEST} to {longest} bytes");
    }
    Ok(plan)
}
