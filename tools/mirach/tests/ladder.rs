//! `mirach bench ladder`: short runs. What is measured is of no interest here; that all of it is there, exact, and gone afterwards is.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A run takes seconds; a machine that is busy with others may need more.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs that share no folder with others: what they leave is theirs.
struct Run {
    folder: TempDir,
}

impl Run {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let temporary = self.file("tmp");
        fs::create_dir_all(&temporary).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mirach"));
        command.args(["bench", "ladder"]).args(arguments).env("TMPDIR", temporary).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        finish(self.start(arguments))
    }

    /// Nothing in the folder for sockets, no process, no interface.
    fn assert_clean(&self, before: &[String]) {
        assert_eq!(fs::read_dir(self.file("tmp")).unwrap().count(), 0, "a folder for sockets is left");
        // A process that has lost its parent ends a moment later.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.processes().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(self.processes(), [""; 0]);
        assert_eq!(interfaces(), before);
    }

    /// Programs that know the folder by their environment.
    fn processes(&self) -> Vec<String> {
        let folder = self.folder.path().to_str().unwrap();
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let is_ours = |process: &PathBuf| {
            fs::read(process.join("environ")).is_ok_and(|text| String::from_utf8_lossy(&text).contains(folder))
        };
        let name = |process: PathBuf| fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        processes.filter(is_ours).map(name).filter(|name| !name.is_empty()).collect()
    }
}

/// The interfaces of the namespace that tests run in.
fn interfaces() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").unwrap().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Waits for the end; a run that hangs is killed.
fn finish(mut child: Child) -> Output {
    let deadline = Instant::now() + LIMIT;
    // What it prints fits into a pipe.
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn objects(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One rung has all that it should.
fn assert_rung(rung: &Value, mode: &str) {
    assert_eq!((&rung["type"], &rung["mode"]), (&"rung".into(), &mode.into()));
    let throughput = rung["throughput"].as_array().unwrap();
    assert_eq!(throughput.len(), 3);
    for (of, length) in throughput.iter().zip([64, 1518, 65_226]) {
        assert_eq!(of["frame_bytes"], length);
        for name in
            ["mpps", "gbit_per_second", "host_cycles_per_byte", "host_cycles_per_packet", "host_cores", "frames"]
        {
            assert!(number(&of[name]) > 0.0, "{mode}, {length} bytes: {name} in {of}");
        }
        // 2000 of the shorter and 200 of the longest are checked byte by byte each way, and some of those that are measured.
        assert!(number(&of["frames_checked_whole"]) >= if length == 65_226 { 400.0 } else { 4000.0 }, "{of}");
        assert!((0.0..=1.0).contains(&number(&of["host_idle_share"])), "{of}");
    }
    let trips = &rung["round_trip"];
    assert!(number(&trips["count"]) > 0.0 && number(&trips["p50_ns"]) > 0.0, "{trips}");
    assert!(number(&trips["p99_ns"]) >= number(&trips["p50_ns"]), "{trips}");
}

fn all_modes_are_measured_and_nothing_is_left() {
    let (run, before) = (Run::new(), interfaces());
    let (picture, table) = (run.file("ladder.svg"), run.file("ladder.txt"));
    let files = ["--svg", picture.to_str().unwrap(), "--table", table.to_str().unwrap()];
    let output = run.run(&[&["--json", "--seconds", "0.1", "--dma", "cpu"][..], &files].concat());
    assert!(output.status.success(), "{}", errors(&output));
    let objects = objects(&output);
    assert_eq!(objects.len(), 5);
    for (rung, mode) in objects.iter().zip(["kernel", "helper", "direct", "dma"]) {
        assert_rung(rung, mode);
        for of in rung["throughput"].as_array().unwrap() {
            let same = mode == "kernel";
            assert!(number(&of["times_kernel_throughput"]) > 0.0 && number(&of["times_fewer_cycles"]) > 0.0, "{of}");
            assert!(!same || number(&of["times_kernel_throughput"]) == 1.0, "{of}");
        }
        assert!(number(&rung["round_trip"]["times_lower_latency"]) > 0.0);
    }
    let summary = objects.last().unwrap();
    assert_eq!(summary["type"], "ladder");
    assert_eq!(summary["rungs"], serde_json::json!(["kernel", "helper", "direct", "dma"]));
    assert_eq!(summary["paper"], serde_json::json!({"throughput": 19.0, "latency": 7.0, "cycles_per_byte": 16.0}));
    let picture = fs::read_to_string(picture).unwrap();
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    let table = fs::read_to_string(table).unwrap();
    for word in ["kernel", "helper", "direct", "dma", "64 KiB", "19 x", "Every frame arrived"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    run.assert_clean(&before);
}

fn an_interrupted_run_ends_soon_and_leaves_nothing() {
    // In each mode, while its packets are on their way.
    for mode in ["kernel", "helper", "direct", "dma"] {
        let (run, before) = (Run::new(), interfaces());
        let table = run.file("ladder.txt");
        let child =
            run.start(&["--mode", mode, "--dma", "cpu", "--seconds", "600", "--table", table.to_str().unwrap()]);
        let process = Pid::from_child(&child);
        wait_for_load(&child);
        let signalled = Instant::now();
        kill_process(process, Signal::INT).unwrap();
        let output = finish(child);
        assert_eq!(output.status.code(), Some(1), "{mode}: {}", errors(&output));
        assert!(errors(&output).contains("interrupted"), "{mode}: {}", errors(&output));
        assert!(signalled.elapsed() < Duration::from_secs(60), "{mode}: it did not wait for the end");
        assert!(!Path::new(&table).exists(), "{mode}: half a table");
        run.assert_clean(&before);
    }
}

/// Waits until the thread of the machines is there.
fn wait_for_load(child: &Child) {
    let deadline = Instant::now() + LIMIT;
    let tasks = format!("/proc/{}/task", child.id());
    let has_load = || {
        let tasks = fs::read_dir(&tasks).unwrap().flatten();
        tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()).any(|name| name.trim() == "vms")
    };
    while !has_load() {
        assert!(Instant::now() < deadline, "no load");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
}

fn a_helper_process_that_dies_is_named_and_one_whose_parent_dies_ends() {
    let (run, before) = (Run::new(), interfaces());
    let child = run.start(&["--mode", "helper", "--seconds", "600"]);
    wait_for_load(&child);
    kill_process(helper_of(&child), Signal::KILL).unwrap();
    let output = finish(child);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("the helper process ended early"), "{}", errors(&output));
    run.assert_clean(&before);

    let mut child = run.start(&["--mode", "helper", "--seconds", "600"]);
    wait_for_load(&child);
    child.kill().unwrap();
    child.wait().unwrap();
    run.assert_clean(&before);
}

fn helper_of(child: &Child) -> Pid {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
}

fn what_cannot_be_done_is_said_before_anything_is_measured() {
    let (run, before) = (Run::new(), interfaces());
    let output = run.run(&["--svg", "/nonexistent/ladder.svg"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("there is no folder /nonexistent"), "{}", errors(&output));
    let output = run.run(&["--mode", "direct", "--svg", run.file("x.svg").to_str().unwrap()]);
    assert!(errors(&output).contains("kernel mode"), "{}", errors(&output));
    let output = run.run(&["--mode", "dma"]);
    assert!(errors(&output).contains("needs --dma DEVICE"), "{}", errors(&output));
    assert_eq!(run.run(&["--mode", "boat"]).status.code(), Some(2));
    run.assert_clean(&before);
}

fn without_root_kernel_mode_says_what_to_do_and_the_others_work() {
    let (run, before) = (Run::new(), interfaces());
    let output = run.run(&["--mode", "kernel", "--seconds", "0.05"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("root") && errors(&output).contains("--mode helper,direct"),
        "{}",
        errors(&output)
    );
    let output = run.run(&["--mode", "helper,direct", "--seconds", "0.05", "--json"]);
    assert!(output.status.success(), "{}", errors(&output));
    let objects = objects(&output);
    assert_rung(&objects[0], "helper");
    assert_rung(&objects[1], "direct");
    assert_eq!(objects[1]["throughput"][0]["times_kernel_throughput"], Value::Null);
    run.assert_clean(&before);
}

/// One after the other: each takes all cores.
#[test]
fn the_ladder() {
    what_cannot_be_done_is_said_before_anything_is_measured();
    if is_root() {
        all_modes_are_measured_and_nothing_is_left();
        an_interrupted_run_ends_soon_and_leaves_nothing();
        a_helper_process_that_dies_is_named_and_one_whose_parent_dies_ends();
    } else {
        without_root_kernel_mode_says_what_to_do_and_the_others_work();
    }
}
