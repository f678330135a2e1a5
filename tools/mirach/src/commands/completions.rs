//! `mirach completions`: what lets a shell complete commands and flags.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::{Arguments, CompletionsArguments};
use crate::output;

/// Runs the command.
pub(crate) fn execute(arguments: &CompletionsArguments) -> anyhow::Result<ExitCode> {
    // Into memory first: writing to a reader who has left would panic.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "mirach", &mut script);
    output::line(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
