//! Who may do what: members of the reader group, and everybody else.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use lab::binaries;
use lab::tenants::Daemon;
use serde_json::json;

use crate::scene::{close, set};

/// A group that every Debian has, and its number.
const READERS: (&str, &str) = ("games", "60");
/// A user without rights, and its group.
const NOBODY: &str = "65534";

/// Runs a command of mirach as a user without rights, in one more group.
fn as_somebody(daemon: &Daemon, group: Option<&str>, words: &[&str]) -> Result<Output> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY]);
    match group {
        Some(group) => command.args(["--groups", group]),
        None => command.arg("--clear-groups"),
    };
    // The binary may lie where only root can look.
    let program = daemon.path("mirach");
    if !program.exists() {
        std::fs::copy(binaries::host()?, &program)?;
    }
    command.arg("--").arg(program).args(words).arg("--control").arg(daemon.control());
    command.output().context("cannot start setpriv")
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn kinds() -> Result<()> {
    let (daemon, mut crowd) = set(&["--control-group", READERS.0])?;
    let folder = daemon.control().parent().context("no folder")?.to_owned();
    // Lab folders are root's alone, so that nobody would get as far as the socket.
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
    crowd.busy(|| {
        let group = Some(READERS.1);
        for words in [&["port", "list"][..], &["port", "stats"], &["flows"], &["show", "networks"], &["show", "graph"]]
        {
            let output = as_somebody(&daemon, group, words)?;
            ensure!(output.status.success(), "a reader may not {words:?}: {}", error(&output));
            let output = as_somebody(&daemon, None, words)?;
            ensure!(!output.status.success(), "a stranger may {words:?}");
            ensure!(error(&output).contains("let you in"), "{words:?}: {}", error(&output));
        }
        let file = daemon.file().display().to_string();
        for words in
            [&["port", "add", "null"][..], &["port", "del", "vm0"], &["set", "slice", "mine"], &["apply", &file]]
        {
            let output = as_somebody(&daemon, group, words)?;
            ensure!(!output.status.success(), "a reader may {words:?}");
            ensure!(!error(&output).is_empty(), "{words:?} fails without a word");
            let output = as_somebody(&daemon, None, words)?;
            ensure!(!output.status.success(), "a stranger may {words:?}");
        }
        let ports = daemon.call("port.list", json!({}))?;
        ensure!(ports["ports"].as_array().map(Vec::len) == Some(3), "somebody changed the ports: {ports}");
        Ok(())
    })?;
    close(daemon, crowd)
}
