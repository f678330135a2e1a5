//! `cargo xtask bench ovs`: see [`lab::ovs_bench`].

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use lab::ovs_bench::cases;
use lab::ovs_bench::mirach::Mirach;
use lab::ovs_bench::ovs::{Ovs, PEER, Rules};
use lab::peer_bench::device::Device;
use lab::peer_bench::machine::has_huge_pages;
use lab::peer_bench::options::{Options, main as run_main};
use lab::peer_bench::outcome::Outcome;
use lab::peer_bench::rounds::Rounds;

const USAGE: &str = "[--json] [--runs N] [--case NAME] [--ring FORMAT] [--rules RULES]
  --ring FORMAT split or packed (split)
  --rules RULES what the peer's flow table says: normal, an action that learns Ethernet addresses,
                or acl, the same for the addresses and ports that mirach's network allows (normal)";
/// Huge pages of 2 MiB that both devices and the generator need together.
const HUGE_PAGES: u64 = 480;

struct Choice {
    options: Options,
    ring: String,
    rules: Rules,
}

fn main() -> ExitCode {
    run_main("ovs", USAGE, parse(std::env::args().skip(1)), run)
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Choice> {
    let (mut ring, mut rules) = ("split".to_owned(), Rules::default());
    let options = Options::parse(arguments, |name, value| {
        match (name, value) {
            ("--ring", "split" | "packed") => ring = value.into(),
            ("--ring", _) => bail!("--ring is split or packed"),
            ("--rules", _) => rules = value.parse()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Choice { options, ring, rules })
}

fn run(choice: &Choice) -> Result<()> {
    let cases = cases::cases(&choice.ring, &choice.options.filter);
    ensure!(!cases.is_empty(), "no case has `{}` in its name", choice.options.filter);
    let huge_pages = has_huge_pages(HUGE_PAGES);
    let mut done = |said: &str| eprintln!("{said}");
    let mut rounds = Rounds::new(&mut done)?;
    let mut outcomes: Vec<Outcome> = cases.into_iter().map(|case| Outcome::new(case, PEER)).collect();
    for _ in 0..choice.options.runs {
        for outcome in &mut outcomes {
            rounds.round(std::slice::from_mut(outcome), &mut start(choice.rules, huge_pages)?)?;
        }
    }
    if !choice.options.json {
        println!("{}", Outcome::heading(PEER));
    }
    for outcome in &outcomes {
        println!("{}", if choice.options.json { outcome.json().to_string() } else { outcome.line() });
    }
    Ok(())
}

/// Starts both; they rest.
fn start(rules: Rules, huge_pages: bool) -> Result<[Box<dyn Device>; 2]> {
    let mut mirach = Mirach::start(huge_pages)?;
    mirach.program().rest()?;
    let mut peer = Ovs::start(rules, huge_pages)?;
    peer.program().rest()?;
    Ok([Box::new(mirach), Box::new(peer)])
}
