//! Software copy engines.

use std::process::ExitCode;

use models::card::Control;
use models::ioat::{Config, Errors, Ioat};

use super::arguments::IoatArguments;
use super::model::{Card, Facts, Model, engines, faults};

/// Runs the engines.
pub(super) fn execute(arguments: &IoatArguments) -> anyhow::Result<ExitCode> {
    super::run(&arguments.common, None, || plug(arguments), None::<super::Later<fn(&Control<Ioat>)>>)
}

/// Makes the engines and serves them.
fn plug(arguments: &IoatArguments) -> anyhow::Result<Vec<Card<Ioat>>> {
    engines(&arguments.common.sockets, || {
        Ioat::new(Config {
            kind: arguments.device,
            channels: arguments.channels,
            longest: arguments.longest,
            faults: arguments.faults.clone(),
            ..Config::default()
        })
    })
}

impl Model for Ioat {
    const HELP: &'static str =
        "give `fault PLAN[,PLAN]|none [CARD]`, `halt CHANNEL [CARD]`, `remove all [CARD]`, `show` or `quit`";

    fn obey(control: &Control<Self>, verb: &str, object: &str) -> Result<(), String> {
        let wrong = || format!("`{verb} {object}` is not understood: {}", Self::HELP);
        match (verb, object) {
            ("fault", plans) => {
                let plans = faults(plans)?;
                control.with(|chip, _| chip.set_faults(&plans));
            }
            ("halt", channel) => {
                let channel = channel.parse().map_err(|_| wrong())?;
                control.with(|chip, bus| {
                    let there = chip.channel(channel).is_some();
                    chip.halt(bus, channel, Errors::empty());
                    there.then_some(()).ok_or_else(|| format!("there is no channel {channel}: the first is 0"))
                })?;
            }
            ("remove", "all") => control.remove(),
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn facts(card: &Card<Self>) -> Facts {
        let (counts, channels) = card.control.with(|chip, _| {
            let channels: Vec<_> = (0..chip.config().channels).filter_map(|number| chip.channel(number)).collect();
            (chip.counts(), channels)
        });
        let channel = |(state, errors): &(models::ioat::State, Errors)| match errors.bits() {
            0 => format!("{state:?}").to_lowercase(),
            bits => format!("{state:?} (CHANERR {bits:#x})").to_lowercase(),
        };
        let counters = vec![
            ("descriptors", counts.descriptors),
            ("bytes", counts.bytes),
            ("interrupts", card.control.interrupts()),
        ];
        let state = channels.iter().map(channel).collect::<Vec<_>>().join(", ");
        Facts { what: "channels", state, counters }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use models::card::{self, Options};
    use models::wire::Null;

    use super::*;

    #[test]
    fn words_are_obeyed_or_explained() {
        let (_function, device) = card::new(Options::default(), Ioat::new(Config::default()), Null).unwrap();
        let control = device.control();
        for (verb, object) in
            [("fault", "copy-wrong@3,halt@every:9#0"), ("fault", "none"), ("halt", "0"), ("remove", "all")]
        {
            Ioat::obey(&control, verb, object).unwrap();
        }
        assert!(control.is_removed());
        for (verb, object, words) in [
            ("fault", "nosuch", "copy-wrong"),
            ("fault", "halt@x", "NAME@17"),
            ("halt", "9", "no channel 9"),
            ("halt", "x", "`show`"),
            ("link", "up", "`show`"),
        ] {
            let error = Ioat::obey(&control, verb, object).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
