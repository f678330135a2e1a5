//! `mirach doctor`: what this machine has and lacks, and the command that mends it.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::json;
use vfio::Sysfs;
use vfio::doctor::{Finding, State, examine};

use crate::cli::DoctorArguments;
use crate::output;

/// Runs the command. It is done when it has reported, whatever it found.
pub(crate) fn execute(arguments: &DoctorArguments) -> anyhow::Result<ExitCode> {
    let findings = examine(&Sysfs::default());
    if arguments.json {
        for finding in &findings {
            output::json(&json!({
                "topic": finding.topic,
                "state": finding.state.word(),
                "found": finding.found,
                "fix": finding.fix,
            }))?;
        }
    } else {
        output::line(&text(&findings))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.topic.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { topic, state, found, fix } in findings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<7}  {topic:<width$}  {found}", state.word());
        if let Some(fix) = fix {
            let word = if *state == State::Good { "what comes next" } else { "mend it" };
            let _ = writeln!(text, "{:7}  {:width$}  {word}: {fix}", "", "");
        }
    }
    let bad = findings.iter().filter(|finding| finding.state == State::Bad).count();
    text.push_str(match bad {
        0 => "Nothing keeps mirach from driving devices here.",
        _ => "What is bad keeps mirach from driving devices here; without hardware it works all the same: mirach demo",
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_followed_by_what_mends_it() {
        let finding = Finding {
            topic: "vfio-pci",
            state: State::Bad,
            found: "not loaded".to_owned(),
            fix: Some("modprobe vfio-pci".to_owned()),
        };
        let text = text(&[finding]);
        assert!(text.contains("bad      vfio-pci  not loaded\n"), "{text}");
        assert!(text.contains("mend it: modprobe vfio-pci\n"), "{text}");
    }
}
