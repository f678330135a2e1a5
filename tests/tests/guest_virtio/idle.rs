//! What an engine costs while there is nothing to do.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::checks::forwarding::ends;
use lab::checks::{Case, Interface};
use lab::forwarder::{self, User};
use lab::pair::Pair;
use lab::site::{Booted, Site};
use lab::suite::Suite;
use lab::traffic::ping;

/// How long an engine is watched.
const SECONDS: u32 = 5;

/// Of one processor: an engine that sleeps takes less, however slow the machine; it wakes a few times a second.
const SLEEPS_BELOW: f64 = 0.3;

/// Of one processor: an engine that polls takes more.
const POLLS_ABOVE: f64 = 0.6;

/// The kernel counts a thread's processor time in hundredths of a second (USER_HZ, which is 100 on x86).
const TICKS_PER_SECOND: f64 = 100.0;

/// Both ways to poll, with two queue pairs: each of them has to wake the engine.
pub(crate) fn all(suite: &mut Suite, site: &mut Site, interface: Interface) {
    let case = Case { interface, rings: Some("packed"), queues: 2 };
    let prefix = interface.name();
    suite.check(&format!("{prefix}::poll-adaptive-sleeps-and-wakes"), || {
        let site = site.up()?;
        let share = share_of_processor(site, case, "adaptive")?;
        if share >= SLEEPS_BELOW {
            bail!("the engine took {share:.2} of a processor while there was no traffic");
        }
        ping(&site.pair.left, Pair::RIGHT, 50)?;
        ping(&site.pair.right, Pair::LEFT, 50)?;
        ends(site)
    });
    suite.check(&format!("{prefix}::poll-always-does-not-sleep"), || {
        let site = site.up()?;
        let share = share_of_processor(site, case, "always")?;
        if share <= POLLS_ABOVE {
            bail!("the engine took {share:.2} of a processor although it is to poll");
        }
        ping(&site.pair.left, Pair::RIGHT, 50)?;
        ends(site)
    });
}

/// Starts mirach, and measures the processor time of its engine by the guest's own clock.
fn share_of_processor(site: &mut Booted, case: Case, poll: &str) -> Result<f64> {
    forwarder::start(&mut site.guest, User::Root, &format!("{} --memory 32M --poll {poll}", case.ports()))?;
    // Once: what the network stacks say of themselves when a link comes up is over then.
    ping(&site.pair.left, Pair::RIGHT, 5)?;
    let engine = "$(grep -l '^engine-' /proc/$(cat /tmp/mirach.pid)/task/*/comm)";
    let tasks = site.guest.must(&format!("echo {engine}"))?;
    let task = match tasks.split_whitespace().collect::<Vec<_>>()[..] {
        [comm] => comm.trim_end_matches("comm").to_owned(),
        _ => bail!("not one engine: {tasks}"),
    };
    let command = format!("cat /proc/uptime {task}stat; sleep {SECONDS}; cat /proc/uptime {task}stat");
    let answer = site.guest.run(&command, Duration::from_secs(60))?;
    let lines: Vec<&str> = answer.output.lines().collect();
    let [uptime_before, before, uptime_after, after] = lines[..] else { bail!("not four lines: {}", answer.output) };
    let used = (ticks(after)? - ticks(before)?) / TICKS_PER_SECOND;
    let share = used / (uptime(uptime_after)? - uptime(uptime_before)?);
    println!("    {share:.2} of a processor with poll {poll}");
    Ok(share)
}

/// User and system time of a thread, from its `stat` (proc_pid_stat(5): fields 14 and 15).
fn ticks(stat: &str) -> Result<f64> {
    // The name before it, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ").with_context(|| format!("no stat: {stat}"))?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<f64>);
    let mut next = || times.next().context("too few fields")?.with_context(|| format!("no number in {stat}"));
    Ok(next()? + next()?)
}

fn uptime(line: &str) -> Result<f64> {
    line.split(' ').next().unwrap_or_default().parse().with_context(|| format!("no time: {line}"))
}
