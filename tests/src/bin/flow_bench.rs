//! `cargo xtask bench flows`: see [`lab::flow_bench`].

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut json = false;
    for argument in std::env::args().skip(1) {
        if argument != "--json" {
            eprintln!("bench flows: there is no option {argument}\nusage: cargo xtask bench flows [--json]");
            return ExitCode::from(2);
        }
        json = true;
    }
    match lab::flow_bench::run() {
        Ok(outcome) => {
            println!("{}", if json { outcome.json().to_string() } else { outcome.to_string() });
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench flows: {error:#}");
            ExitCode::FAILURE
        }
    }
}
