//! `mirach demo`: with no hardware, no root and no huge pages.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use serde_json::Value;

/// Debian's user and group without rights, "nobody".
const NOBODY: u32 = 65534;

/// Runs `mirach demo` as a user without rights and an empty environment.
fn demo(arguments: &[&str]) -> Output {
    // A copy: the folders on the way to the original may be closed to other users.
    let folder = lab::leftovers::folder("demo").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("mirach");
    fs::copy(lab::binaries::host().unwrap(), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();

    let mut command = Command::new(&binary);
    command.arg("demo").args(arguments).env_clear().current_dir("/");
    if rustix::process::getuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.output().unwrap()
}

#[test]
fn the_last_line_is_an_object_that_tells_of_packets_and_no_loss() {
    let output = demo(&["--seconds", "2", "--json"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));

    let last: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert!(last["packets_forwarded"].as_u64().unwrap() > 0, "{last}");
    assert_eq!(last["packets_lost"].as_u64().unwrap(), 0, "{last}");
    assert!(last["mpps"].as_f64().unwrap() > 0.0, "{last}");
    let p50 = last["latency_ns"]["p50"].as_f64().unwrap();
    let p99 = last["latency_ns"]["p99"].as_f64().unwrap();
    assert!(0.0 < p50 && p50 <= p99, "{last}");
}

#[test]
fn people_see_throughput_latency_and_a_summary() {
    let output = demo(&["--seconds", "2"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    for word in ["Mpps", "p50", "p99"] {
        assert!(printed.contains(word), "no {word} in:\n{printed}");
    }
}

#[test]
fn a_wrong_option_is_wrong_usage() {
    assert_eq!(demo(&["--no-such-option"]).status.code(), Some(2));
}
