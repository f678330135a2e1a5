//! `mirach top`: a live view of ports, engines, elements, flows and drops of a mirach that runs.

mod picture;
mod terminal;
mod view;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use dataplane::control::Client;

use super::ask;
use crate::cli::TopArguments;
use crate::output;
use crate::signals::Signals;
use picture::{Picture, Snapshot};
use terminal::{Key, Terminal};

/// How often it is looked for keys, signals, and another size of the terminal.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the command.
pub(crate) fn execute(arguments: TopArguments) -> anyhow::Result<ExitCode> {
    let TopArguments { interval, once, ask } = arguments;
    let interval = Duration::from_secs_f64(interval);
    let signals = Signals::block()?;
    let mut client = ask::connect(ask.control)?;
    if once || ask.json {
        return plain(&mut client, interval, once, ask.json, &signals);
    }
    let mut terminal = match Terminal::take() {
        Ok(terminal) => terminal,
        Err(error) => {
            eprintln!(
                "error: there is no terminal to show it on ({error}); for one picture as text: mirach top --once"
            );
            return Ok(ExitCode::from(2));
        }
    };
    let shown = live(&mut client, interval, &mut terminal, &signals);
    // What went wrong is said where it can be read.
    drop(terminal);
    shown.map(|()| ExitCode::SUCCESS)
}

/// Pictures one below the other.
fn plain(
    client: &mut Client,
    interval: Duration,
    once: bool,
    json: bool,
    signals: &Signals,
) -> anyhow::Result<ExitCode> {
    let mut before = Snapshot::take(client)?;
    loop {
        if signals.wait(interval).is_some() {
            return Ok(ExitCode::SUCCESS);
        }
        let now = Snapshot::take(client)?;
        let picture = Picture::between(&before, &now);
        if json {
            output::json(&picture)?;
        } else {
            output::line(view::lines(&picture, None).join("\n").trim_end())?;
        }
        if once {
            return Ok(ExitCode::SUCCESS);
        }
        before = now;
    }
}

fn live(client: &mut Client, interval: Duration, terminal: &mut Terminal, signals: &Signals) -> anyhow::Result<()> {
    let mut before = Snapshot::take(client)?;
    let mut picture = Picture::between(&before, &before);
    let mut due = Instant::now() + interval;
    let mut size = terminal.size();
    terminal.show(&view::lines(&picture, Some(size)))?;
    loop {
        if signals.wait(Duration::ZERO).is_some() || matches!(terminal.key(LOOK)?, Some(Key::Quit)) {
            return Ok(());
        }
        let now = Instant::now();
        let resized = std::mem::replace(&mut size, terminal.size()) != size;
        if now >= due {
            let next = Snapshot::take(client)?;
            picture = Picture::between(&before, &next);
            before = next;
            due = now + interval;
        } else if !resized {
            continue;
        }
        terminal.show(&view::lines(&picture, Some(size)))?;
    }
}
