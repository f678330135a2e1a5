//! Software Data Streaming Accelerators.

use std::process::ExitCode;

use models::card::Control;
use models::dsa::{Config, Dsa, ResetKind};

use super::arguments::DsaArguments;
use super::model::{Card, Facts, Model, engines, faults};

/// Runs the devices.
pub(super) fn execute(arguments: &DsaArguments) -> anyhow::Result<ExitCode> {
    super::run(&arguments.common, None, || plug(arguments), None::<super::Later<fn(&Control<Dsa>)>>)
}

/// Makes the devices and serves them.
fn plug(arguments: &DsaArguments) -> anyhow::Result<Vec<Card<Dsa>>> {
    engines(&arguments.common.sockets, || {
        Dsa::new(Config {
            version: arguments.device,
            queues: arguments.queues,
            groups: arguments.engines,
            engines: arguments.engines,
            entries: arguments.entries,
            longest: arguments.longest,
            interrupt_handles: arguments.interrupt_handles,
            faults: arguments.faults.clone(),
            ..Config::default()
        })
    })
}

impl Model for Dsa {
    const HELP: &'static str =
        "give `fault PLAN[,PLAN]|none [CARD]`, `halt software|function [CARD]`, `remove all [CARD]`, `show` or `quit`";

    fn obey(control: &Control<Self>, verb: &str, object: &str) -> Result<(), String> {
        match (verb, object) {
            ("fault", plans) => {
                let plans = faults(plans)?;
                control.with(|chip, _| chip.set_faults(&plans));
            }
            ("halt", "software") => control.with(|chip, bus| chip.halt(bus, ResetKind::Software)),
            ("halt", "function") => control.with(|chip, bus| chip.halt(bus, ResetKind::Function)),
            ("remove", "all") => control.remove(),
            _ => return Err(format!("`{verb} {object}` is not understood: {}", Self::HELP)),
        }
        Ok(())
    }

    fn facts(card: &Card<Self>) -> Facts {
        let (counts, state, queues) = card.control.with(|chip, _| {
            let queues = (0..chip.config().queues).filter(|queue| chip.queue(*queue).is_some_and(|(on, _)| on)).count();
            (chip.counts(), chip.state(), queues)
        });
        let counters = vec![
            ("descriptors", counts.descriptors),
            ("bytes", counts.bytes),
            ("dropped", counts.dropped),
            ("retries", counts.retries),
            ("interrupts", card.control.interrupts()),
        ];
        let state = format!("{state:?}, {queues} queues enabled").to_lowercase();
        Facts { what: "device", state, counters }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use models::card::{self, Options};
    use models::dsa::State;
    use models::wire::Null;

    use super::*;

    #[test]
    fn words_are_obeyed_or_explained() {
        let (_function, device) = card::new(Options::default(), Dsa::new(Config::default()), Null).unwrap();
        let control = device.control();
        for (verb, object) in [("fault", "copy-wrong@3,halt@every:9#0"), ("fault", "none"), ("halt", "function")] {
            Dsa::obey(&control, verb, object).unwrap();
        }
        assert_eq!(control.with(|chip, _| chip.state()), State::Halted);
        Dsa::obey(&control, "remove", "all").unwrap();
        assert!(control.is_removed());
        for (verb, object, words) in [
            ("fault", "nosuch", "copy-wrong"),
            ("fault", "halt@x", "NAME@17"),
            ("halt", "0", "`halt software|function"),
            ("link", "up", "`show`"),
        ] {
            let error = Dsa::obey(&control, verb, object).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
