//! mirach: a host network dataplane in one binary.
//!
//! This crate only reads flags and prints; everything that does something is in the libraries.
//! Exit codes: 0 done, 1 failed, 2 wrong usage.

mod cli;
mod commands;
mod embedded;
mod logging;
mod machines;
mod output;
mod report;
mod signals;
mod table;

use std::process::ExitCode;

use clap::Parser;

use cli::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Before the thread that logs is there.
    dataplane::port::vhost_user::prepare();
    let log = logging::start(arguments.verbose);
    let result = match arguments.command {
        Command::Run(run) => commands::run::execute(run),
        Command::Port(port) => commands::port::execute(port),
        Command::Apply(apply) => commands::apply::execute(apply),
        Command::Show(show) => commands::show::execute(show),
        Command::Set(set) => commands::edit::set(set),
        Command::Unset(unset) => commands::edit::unset(unset),
        Command::Flows(flows) => commands::flows::execute(flows),
        Command::Why(why) => commands::why::execute(why),
        Command::Trace(trace) => commands::trace::execute(trace),
        Command::Capture(capture) => commands::capture::execute(capture),
        Command::Top(top) => commands::top::execute(top),
        Command::Subscribe(subscribe) => commands::subscribe::execute(subscribe),
        Command::Schema(schema) => commands::schema::execute(&schema),
        Command::Demo(demo) => commands::demo::execute(&demo),
        Command::Bench(bench) => commands::bench::execute(bench),
        Command::Devices(devices) => commands::devices::execute(&devices),
        Command::Bind(bind) => commands::bind::bind(&bind),
        Command::Unbind(unbind) => commands::bind::unbind(&unbind),
        Command::Device(device) => commands::device::execute(device),
        Command::Doctor(doctor) => commands::doctor::execute(&doctor),
        Command::Completions(completions) => commands::completions::execute(&completions),
    };
    if let Some(log) = &log {
        log.finish();
    }
    match result {
        Ok(code) => code,
        Err(error) if output::is_reader_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", output::sentence(&error));
            ExitCode::FAILURE
        }
    }
}
