//! The control socket, the commands that use it, configuration files and metrics, all of a binary that runs and is busy.

mod apply;
mod bad;
mod capture;
mod clients;
mod commands;
mod hangup;
mod methods;
mod metrics;
mod rights;
mod scene;
mod subscriptions;
mod why;
mod wire;

use std::process::ExitCode;

use lab::suite::Suite;

fn main() -> ExitCode {
    lab::leftovers::remove();
    if let Err(error) = lab::process::end_with_parent() {
        eprintln!("{error:#}: interrupted, this run would go on without its parent");
    }
    let mut suite = Suite::from_arguments();
    suite.check("bad-files-are-refused-with-their-lines", bad::refused);
    suite.check("bad-files-keep-it-from-starting", bad::at_start);
    suite.check("applying-touches-what-differs-alone", apply::least_change);
    suite.check("applying-is-all-or-nothing", apply::all_or_nothing);
    suite.check("a-hangup-takes-the-file-again", hangup::good_and_bad);
    suite.check("every-method-answers", methods::every_one);
    suite.check("every-command-speaks-to-people-and-programs", commands::every_one);
    suite.check("readers-read-and-strangers-stay-out", rights::kinds);
    suite.check("subscribers-hear-of-it", subscriptions::topics);
    suite.check("metrics-are-the-statistics", metrics::sums);
    suite.check("captures-hold-what-passed", capture::to_a_file);
    suite.check("captures-go-through-pipes", capture::to_a_pipe);
    suite.check("why-tells-what-happens", why::frames);
    suite.check("hostile-clients-hurt-nobody", clients::hostile);
    suite.finish()
}
