//! `mirach subscribe`: prints news of a mirach that runs.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::ask;
use crate::cli::SubscribeArguments;
use crate::output;
use crate::signals::Signals;

/// How often it is asked for signals.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) fn execute(arguments: SubscribeArguments) -> anyhow::Result<ExitCode> {
    let SubscribeArguments { topics, interval, count, ask } = arguments;
    let signals = Signals::block()?;
    let mut client = ask::connect(ask.control)?;
    let interval = Duration::from_secs_f64(interval);
    for topic in topics {
        client.call("subscribe", json!({ "topic": topic.name(), "interval_ms": interval.as_millis() }))?;
    }
    let mut printed = 0;
    while count.is_none_or(|count| printed < count) && signals.wait(Duration::ZERO).is_none() {
        if let Some(news) = client.news(LOOK)? {
            output::json(&news)?;
            printed += 1;
        }
    }
    Ok(ExitCode::SUCCESS)
}
