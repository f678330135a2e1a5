//! The options that the comparisons share.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

/// What a comparison was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// One object a line instead of a table.
    pub json: bool,
    /// How often each case is measured with each device.
    pub runs: usize,
    /// What the names of the cases have in them.
    pub filter: String,
}

impl Options {
    /// The usage of these options.
    pub const USAGE: &str = "  --json        one object a line instead of a table
  --runs N      how often each case is measured with each device (3)
  --case NAME   only the cases that have NAME in their name";

    /// Reads them; `more` takes an option that is none of these, with the value after it, and says whether it knows it.
    ///
    /// # Errors
    /// An option that nobody knows, or without its value.
    pub fn parse(
        mut arguments: impl Iterator<Item = String>,
        mut more: impl FnMut(&str, &str) -> Result<bool>,
    ) -> Result<Self> {
        let mut options = Self { json: false, runs: 3, filter: String::new() };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--json" => options.json = true,
                "--runs" => {
                    let number = arguments.next().and_then(|number| number.parse().ok()).filter(|runs| *runs > 0);
                    options.runs = number.context("--runs takes a number")?;
                }
                "--case" => options.filter = arguments.next().context("--case takes a name")?,
                other => {
                    let value = arguments.next().unwrap_or_default();
                    if !more(other, &value)? {
                        bail!("there is no option {other}");
                    }
                }
            }
        }
        Ok(options)
    }
}

/// Runs a comparison called `bench NAME` to its end: what does not make sense is answered with the usage.
pub fn main<T>(name: &str, usage: &str, parsed: Result<T>, run: impl FnOnce(&T) -> Result<()>) -> ExitCode {
    let choice = match parsed {
        Ok(choice) => choice,
        Err(error) => {
            eprintln!("bench {name}: {error:#}\nusage: cargo xtask bench {name} {usage}\n{}", Options::USAGE);
            return ExitCode::from(2);
        }
    };
    // So that what this program does to its session is not done to the user's shell. It fails for the leader of a process group, which a program that cargo starts
    // is not.
    let _ = rustix::process::setsid();
    crate::leftovers::remove();
    match crate::process::end_with_parent().and_then(|()| run(&choice)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn options_are_read_and_others_are_asked_for() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>().into_iter();
        let mut ring = String::new();
        let options = Options::parse(words(&["--runs", "5", "--ring", "packed", "--json"]), |name, value| {
            ring = value.into();
            Ok(name == "--ring")
        });
        assert_eq!(options.unwrap(), Options { json: true, runs: 5, filter: String::new() });
        assert_eq!(ring, "packed");
        for wrong in [&["--runs", "0"][..], &["--runs"], &["--case"], &["--what", "5"]] {
            assert!(Options::parse(words(wrong), |_, _| Ok(false)).is_err(), "{wrong:?}");
        }
    }
}
