//! A run with a file, which is read again at SIGHUP.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// For what takes milliseconds on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run and the lines that it prints.
struct Run {
    child: Child,
    lines: Receiver<String>,
    folder: TempDir,
}

impl Run {
    fn start(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(file(&folder), text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_mirach"))
            .args(["run", "--json", "--no-huge", "--control", "none", "--config"])
            .arg(file(&folder))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_remove("RUST_LOG")
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let errors = sender.clone();
        forward(child.stdout.take().unwrap(), sender);
        forward(child.stderr.take().unwrap(), errors);
        let mut run = Self { child, lines, folder };
        run.line(|line| line.contains("\"forwarding\""));
        run
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Writes the file anew and has it read.
    fn reload(&self, text: &str) {
        std::fs::write(file(&self.folder), text).unwrap();
        self.signal(Signal::HUP);
    }

    /// The next line of that kind.
    fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let (deadline, mut seen) = (Instant::now() + PATIENCE, Vec::new());
        while Instant::now() < deadline {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{error}: {seen:#?}"));
            if wanted(&line) {
                return line;
            }
            seen.push(line);
        }
        panic!("it is not said: {seen:#?}");
    }

    /// What was changed.
    fn applied(&mut self) -> Vec<String> {
        let line = self.line(|line| line.contains("\"applied\""));
        let value: Value = serde_json::from_str(&line).unwrap();
        value["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("mirach.toml")
}

fn forward(stream: impl Read + Send + 'static, lines: std::sync::mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
}

const JOINED: &str = "ports = [\"gen=1000,name=a\", \"null,name=b\"]\n";
const SWITCHED: &str = "ports = [\"gen=1000,name=a\", \"null,name=b\", \"null,name=c\"]\n[[network]]\nname = \"blue\"\n\
    [[port]]\nname = \"a\"\nnetwork = \"blue\"\nanti-spoofing = false\n\
    [[port]]\nname = \"b\"\nnetwork = \"blue\"\nanti-spoofing = false\n\
    [[port]]\nname = \"c\"\nnetwork = \"blue\"\nanti-spoofing = false\n";

#[test]
fn a_good_file_is_applied_and_a_bad_one_changes_nothing() {
    let mut run = Run::start(JOINED);
    run.reload(SWITCHED);
    let lines = run.applied();
    assert!(lines.contains(&"+ port c (null,name=c)".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("+ network blue")), "{lines:?}");
    let path = file(&run.folder).display().to_string();
    for (old, new, line, words) in [
        ("name = \"blue\"\n[[port]]", "name = \"blue\"\nvlna = 3\n[[port]]", 4, "vlna"),
        ("gen=1000,name=a", "gen=fast,name=a", 1, "fast"),
        ("network = \"blue\"\nanti", "network = \"green\"\nanti", 6, "there is no network `green`"),
        ("null,name=c", "pcap=/nonexistent/in.pcap,name=d", 1, "/nonexistent/in.pcap"),
        ("ports", "burst = 7\nports", 1, "`burst` cannot change"),
    ] {
        run.reload(&SWITCHED.replacen(old, new, 1));
        let said = run.line(|line| line.contains("nothing was changed"));
        assert!(said.contains(&format!("{path}:{line}: ")) && said.contains(words), "{new}: {said}");
    }
    std::fs::remove_file(Path::new(&path)).unwrap();
    run.signal(Signal::HUP);
    let said = run.line(|line| line.contains("nothing was changed"));
    assert!(said.contains(&format!("{path}: cannot read the configuration")), "{said}");
    run.reload(SWITCHED);
    assert!(run.applied().is_empty(), "all is as it was");
    run.reload(JOINED);
    assert!(run.applied().contains(&"+ join a <-> b".to_owned()));
    run.signal(Signal::TERM);
    let summary = run.line(|line| line.contains("\"summary\""));
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let sum = |names: &[&str]| names.iter().filter_map(|name| summary.pointer(name)?.as_u64()).sum::<u64>();
    let drops: u64 = summary["drops"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    let came = sum(&["/rx_packets", "/switch/returned", "/switch/copied"]);
    assert_eq!(came, sum(&["/tx_packets", "/switch/raised", "/switch/held"]) + drops, "{summary}");
    assert!(run.child.wait().unwrap().success());
}
