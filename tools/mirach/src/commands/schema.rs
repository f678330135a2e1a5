//! `mirach schema`: prints what programs need to know to talk to mirach.

use std::process::ExitCode;

use crate::cli::SchemaArguments;
use crate::output;

/// Runs the command.
pub(crate) fn execute(arguments: &SchemaArguments) -> anyhow::Result<ExitCode> {
    let text = if arguments.config {
        serde_json::to_string_pretty(&dataplane::config::schema())?
    } else {
        serde_json::to_string_pretty(&dataplane::control::schema())?
    };
    output::line(&text)?;
    Ok(ExitCode::SUCCESS)
}
