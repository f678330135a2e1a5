//! `mirach run` in a guest: started, waited for, ended.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::guest::Guest;
use crate::wait;

/// From the start of the program to its ports being up; what takes long is to clear pages of 1 GiB.
const START: Duration = Duration::from_secs(240);

/// From a signal to the end of the program.
const END: Duration = Duration::from_secs(60);

/// Who runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Root.
    Root,
    /// A user without rights, who may lock this many KiB of memory.
    Plain {
        /// RLIMIT_MEMLOCK.
        lockable_kib: u32,
    },
}

/// Starts `mirach run` with these arguments and waits until it forwards.
///
/// # Errors
///
/// It ended, or did not say so in time; the error has what it printed.
pub fn start(guest: &mut Guest, user: User, arguments: &str) -> Result<()> {
    launch(guest, user, arguments)?;
    wait::until("`forwarding` in the output of mirach run", START, || {
        let log = log(guest)?;
        if log.contains("forwarding") {
            return Ok(Some(()));
        }
        if let Some(status) = status(guest)? {
            bail!("`mirach run {arguments}` ended with status {status}");
        }
        Ok(None)
    })
    .with_context(|| log(guest).unwrap_or_default())
}

/// Starts `mirach run`, waits until it ends, and returns its exit status and what it printed.
///
/// # Errors
///
/// It did not end by itself.
pub fn fail(guest: &mut Guest, user: User, arguments: &str) -> Result<(i32, String)> {
    launch(guest, user, arguments)?;
    let status = ended(guest)?;
    Ok((status, log(guest)?))
}

/// The `facts` of each port, which it prints when it starts with `--json`, or without.
///
/// # Errors
///
/// The guest did not answer, or there are none in what it printed.
pub fn facts(guest: &mut Guest) -> Result<Vec<String>> {
    let log = log(guest)?;
    let mut facts = Vec::new();
    for line in log.lines() {
        if let Some((_, text)) = line.strip_prefix("port ").and_then(|rest| rest.split_once(": ")) {
            facts.push(text.to_owned());
        }
        // Notices have lines of their own, between those of JSON.
        let Ok(value) = serde_json::from_str::<Value>(line) else { continue };
        if value["type"] == "forwarding" {
            let ports = value["ports"].as_array().context("`forwarding` has no ports")?;
            facts.extend(ports.iter().filter_map(|port| port["facts"].as_str()).map(str::to_owned));
        }
    }
    if facts.is_empty() {
        bail!("it printed no facts about its ports: {log}");
    }
    Ok(facts)
}

/// Sends a signal and waits for the end of the program; returns its exit status.
///
/// # Errors
///
/// It was not running, or did not end.
pub fn signal(guest: &mut Guest, signal: &str) -> Result<i32> {
    must_run(guest)?;
    guest.must(&format!("kill -{signal} $(cat /tmp/mirach.pid)"))?;
    ended(guest)
}

/// Fails when it does not run.
///
/// # Errors
///
/// It was not started or has ended; the error has what it printed.
pub fn must_run(guest: &mut Guest) -> Result<()> {
    if guest.run("kill -0 $(cat /tmp/mirach.pid)", END)?.status != 0 {
        let status = status(guest)?;
        bail!("mirach does not run (status {status:?}): {}", log(guest)?);
    }
    Ok(())
}

/// Ends a program that a failed check left running, so that the next check has the devices.
///
/// # Errors
///
/// The guest did not answer.
pub fn clean_up(guest: &mut Guest) -> Result<()> {
    guest.run("kill -KILL $(pidof mirach) 2> /dev/null; while pidof mirach; do usleep 10000; done", END)?;
    Ok(())
}

/// What it printed so far.
///
/// # Errors
///
/// The guest did not answer.
pub fn log(guest: &mut Guest) -> Result<String> {
    Ok(guest.run("cat /tmp/mirach.log", END)?.output)
}

/// The summary that it printed as its last line because it was started with `--json`.
///
/// # Errors
///
/// The last line is no such object.
pub fn summary(guest: &mut Guest) -> Result<Value> {
    let last = guest.must("tail -n 1 /tmp/mirach.log")?;
    let value: Value = serde_json::from_str(last.trim()).with_context(|| format!("no JSON: {last}"))?;
    if value["type"] != "summary" {
        bail!("the last line is no summary: {last}");
    }
    Ok(value)
}

fn launch(guest: &mut Guest, user: User, arguments: &str) -> Result<()> {
    clean_up(guest)?;
    let command = match user {
        User::Root => format!("start mirach mirach run {arguments}"),
        User::Plain { lockable_kib } => {
            let script = format!("ulimit -l {lockable_kib}; exec su plain -c \"exec mirach run {arguments}\"");
            format!("start mirach sh -c '{script}'")
        }
    };
    guest.must(&command)?;
    Ok(())
}

/// Waits for the end of the program and returns its exit status.
///
/// # Errors
///
/// It did not end.
pub fn ended(guest: &mut Guest) -> Result<i32> {
    wait::until("the end of mirach", END, || status(guest)).with_context(|| log(guest).unwrap_or_default())
}

fn status(guest: &mut Guest) -> Result<Option<i32>> {
    let status = guest.run("cat /tmp/mirach.status 2> /dev/null", END)?.output;
    Ok(status.trim().parse().ok())
}
