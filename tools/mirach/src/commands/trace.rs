//! `mirach trace`: follows packets of a port through the switch.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use dataplane::vswitch::report::TracedPacket;
use serde_json::{Value, json};

use super::ask;
use crate::cli::TraceArguments;
use crate::output;
use crate::signals::Signals;

/// How long one question waits for packets, so that signals are looked at.
const WAIT: Duration = Duration::from_millis(200);

/// Runs the command.
pub(crate) fn execute(arguments: TraceArguments) -> anyhow::Result<ExitCode> {
    let TraceArguments { port, address, protocol, transport_port, rate, count, seconds, ask } = arguments;
    let signals = Signals::block()?;
    let mut client = ask::connect(ask.control)?;
    let wanted = json!({
        "port": port, "address": address, "protocol": protocol.map(|protocol| protocol.0),
        "transport_port": transport_port, "per_second": rate,
    });
    let begun = client.call("trace.begin", wanted)?;
    let number = begun.get("trace").cloned().unwrap_or_default();
    let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    let mut left = count.unwrap_or(u64::MAX);
    let mut missed = 0;
    while left > 0 && signals.wait(Duration::ZERO).is_none() && deadline.is_none_or(|end| Instant::now() < end) {
        let wait = u64::try_from(WAIT.as_millis()).unwrap_or(200);
        let answer = client.call("trace.next", json!({ "trace": number, "wait_ms": wait }))?;
        missed = answer.get("missed").and_then(Value::as_u64).unwrap_or(missed);
        for packet in ask::list(&answer, "packets") {
            if left == 0 {
                break;
            }
            left -= 1;
            if ask.json {
                output::json(packet)?;
            } else {
                output::line(&text(&ask::read(packet.clone())?))?;
            }
        }
        if answer.get("over") == Some(&Value::Bool(true)) {
            eprintln!("the switch has ended");
            break;
        }
    }
    client.call("trace.end", json!({ "trace": number }))?;
    if missed > 0 {
        eprintln!("{missed} packets more were followed than could be printed in time; ask for fewer with --rate");
    }
    Ok(ExitCode::SUCCESS)
}

/// A packet's way, an element a line.
fn text(packet: &TracedPacket) -> String {
    let (seconds, micros) = (packet.nanoseconds / 1_000_000_000 % 86_400, packet.nanoseconds / 1000 % 1_000_000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let back = if packet.came_back { ", came back" } else { "" };
    let mut text = format!("{hours:02}:{minutes:02}:{:02}.{micros:06} engine {}{back}", seconds % 60, packet.engine);
    for step in &packet.steps {
        text += &format!("\n    {:<12} {}", step.element, step.text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::vswitch::report::ExplanationStep;

    #[test]
    fn a_packet_is_an_element_a_line() {
        let step = |element: &str, text: &str| ExplanationStep { element: element.to_owned(), text: text.to_owned() };
        let packet = TracedPacket {
            nanoseconds: 86_400_000_000_000 + 3_723_000_004_000,
            engine: 1,
            came_back: true,
            steps: vec![step("look up", "to port b"), step("queue", "it goes to port b")],
            dropped: None,
        };
        assert_eq!(
            text(&packet),
            "01:02:03.000004 engine 1, came back\n    look up      to port b\n    queue        it goes to port b"
        );
    }
}
