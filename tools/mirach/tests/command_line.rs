//! The binary as its users meet it, with neither hardware nor privileges.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn mirach(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirach"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("RUST_LOG");
    command
}

/// Runs to the end. A run that hangs is killed after two minutes, and then has no exit code.
fn run(arguments: &[&str]) -> Output {
    let child = mirach(arguments).spawn().unwrap();
    let id = Pid::from_child(&child);
    let (finished, watchdog) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if watchdog.recv_timeout(Duration::from_secs(120)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(id, Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(finished);
    watchdog.join().unwrap();
    output
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("it does not end by itself: {}", stderr(output)))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Every line is one JSON object.
fn objects(output: &Output) -> Vec<Value> {
    let parse = |line: &str| -> Value {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value.is_object(), "{line}");
        value
    };
    stdout(output).lines().map(parse).collect()
}

fn terminate(child: &Child) {
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_why() {
    for (arguments, words) in [
        (&["run", "--control", "none"][..], "no ports are given"),
        (&["port", "frobnicate"], "unrecognized"),
        (&["port", "add", "gen=nothing"], "packets a second"),
        (&["port", "add", "null", "--name", "a b"], "1 to 64 letters"),
        (&["port", "add", "null,name=a", "--name", "b"], "named twice"),
        (&["run", "--port", "null,name=a", "--port", "null,name=a"], "given to two ports"),
        (&["run", "--port", "null", "--port", "null", "--scheduler", "fair"], "least-cpu"),
        (&["run", "--port", "null", "--port", "null", "--metrics", "here"], "127.0.0.1:9100"),
        (&["set", "slice"], "say which slice: NAME"),
        (&["set", "port", "a", "network"], "`network` is not KEY=VALUE"),
        (&["set", "colour", "red"], "invalid value 'colour'"),
        (&["unset", "route", "red"], "say which route: NETWORK PREFIX"),
        (&["unset", "slice", "a", "b"], "say which slice: NAME"),
        (&["why", "a", "ping"], "expected words such as"),
        (&["why", "a", "tcp 10.0.0.1 > 10.0.0.2"], "expected 10.0.0.1:80"),
        (&["capture", "--count", "0"], "invalid value '0'"),
        (&["capture", "--seconds", "0"], "0.001 to 3600"),
        (&["flows", "--sort", "age"], "packets, bytes, index"),
        (&["show", "everything"], "networks"),
        (&["subscribe"], "TOPIC"),
        (&["demo", "--vms", "3"], "even number from 2 to 32"),
        (&["demo", "--vms", "34"], "even number from 2 to 32"),
        (&["demo", "--vms", "2", "--driver", "ixgbe"], "cannot be used with"),
        (&["run", "--port", "null"], "left over"),
        (&["run", "--port", "tap=a", "--port", "tap=a"], "given twice"),
        (&["run", "--port", "gen=nothing", "--port", "null"], "packets a second"),
        (&["run", "--port", "null", "--port", "null", "--burst", "129"], "1 to 128"),
        (&["run", "--port", "null", "--port", "null", "--burst", "0"], "1 to 128"),
        (&["run", "--port", "null", "--port", "null", "--cores", "4000"], "core 4000 is not available"),
        (&["run", "--port", "null", "--port", "null", "--cores", "3-1"], "1-3,8"),
        (&["run", "--port", "null", "--port", "null", "--memory", "much"], "64M"),
        (&["run", "--port", "null", "--port", "null", "--poll", "never"], "adaptive"),
        (&["run", "--port", "null", "--port", "null", "--huge-page-size", "3M"], "2M"),
        (&["demo", "--seconds", "0"], "1..=86400"),
        (&["demo", "--size", "1519"], "60..=1518"),
        (&["bench", "--burst", "257"], "1..=256"),
        (&["bench", "--seconds-per-case", "0"], "0.001"),
        (&["bind"], "required"),
        (&["frobnicate"], "unrecognized"),
    ] {
        let output = run(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("error: "), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn what_fails_is_exit_code_1_and_says_why() {
    for (arguments, words) in [
        (&["run", "--config", "/nonexistent/mirach.toml"][..], "/nonexistent/mirach.toml"),
        (&["run", "--port", "pcap=/nonexistent/in.pcap", "--port", "null"], "/nonexistent/in.pcap"),
        (&["run", "--port", "ffff:1f:1f.7", "--port", "null"], "ffff:1f:1f.7"),
        (&["port", "list", "--control", "/nonexistent/c.sock"], "mirach run --control /nonexistent/c.sock"),
        (&["run", "--control", "/nonexistent/c.sock"], "--control none"),
        (&["bind", "ffff:1f:1f.7"], "ffff:1f:1f.7"),
        (&["unbind", "ffff:1f:1f.7"], "ffff:1f:1f.7"),
    ] {
        let output = run(arguments);
        assert_eq!(code(&output), 1, "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
        let text = stderr(&output);
        assert!(text.contains("error: "), "{arguments:?}: {text}");
        // The last words of a sentence that is said twice come twice.
        let words: Vec<&str> = text.split_whitespace().collect();
        let last = words[words.len().saturating_sub(4)..].join(" ");
        assert_eq!(text.matches(&last).count(), 1, "{arguments:?}: {text}");
    }
}

#[test]
fn version_and_help_are_there() {
    let version = run(&["--version"]);
    assert_eq!((code(&version), stdout(&version).trim()), (0, concat!("mirach ", env!("CARGO_PKG_VERSION"))));
    let help = run(&["run", "--help"]);
    assert_eq!(code(&help), 0);
    for word in ["--port", "--cores", "tap=NAME", "gen=RATE", "pcap=IN", "vhost-user=SOCKET", "--control", "null"] {
        assert!(stdout(&help).contains(word), "{word}");
    }
}

#[test]
fn shells_can_complete_commands_and_flags() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        for word in ["hold-milliseconds", "doctor", "scheduler", "join"] {
            assert!(stdout(&output).contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn a_finite_run_ends_by_itself_and_counts_exactly() {
    let output = run(&[
        "run",
        "--no-huge",
        "--json",
        "--port",
        "gen=max,count=20000",
        "--port",
        "gen=max,count=10000,size=64-1514",
    ]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let objects = objects(&output);
    assert_eq!(objects[0]["type"], "forwarding");
    let summary = objects.last().unwrap();
    assert_eq!(summary["type"], "summary");
    assert_eq!((number(&summary["rx_packets"]), number(&summary["tx_packets"])), (30_000, 30_000));
    assert_eq!(summary["drops"].as_object().unwrap().len(), 0);
    let left = &summary["generators"]["gen0"];
    assert_eq!((number(&left["sent"]), number(&left["received"]), number(&left["lost"])), (20_000, 10_000, 0));
    assert!(number(&left["latency_ns"]["p50"]) > 0);
}

#[test]
fn text_names_the_joined_ports_cores_burst_and_polling() {
    let output = run(&[
        "run",
        "--no-huge",
        "--port",
        "gen=max,count=1000",
        "--port",
        "null",
        "--burst",
        "16",
        "--poll",
        "always",
    ]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("forwarding: gen0 <-> null0, 1 engine, core "), "{text}");
    assert!(text.contains(", burst 16, poll always"), "{text}");
    assert!(text.contains("forwarded 1,000 packets"), "{text}");
}

#[test]
fn a_file_says_the_same_as_flags_and_flags_win() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mirach.toml");
    std::fs::write(&path, "ports = [\"gen=max,count=500\", \"null\"]\nno-huge = true\nburst = 8\njson = true\n")
        .unwrap();
    let path = path.to_str().unwrap();
    let output = run(&["run", "--config", path, "--burst", "4"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let objects = objects(&output);
    assert_eq!(objects[0]["burst"], 4);
    assert_eq!(number(&objects.last().unwrap()["tx_packets"]), 500);

    std::fs::write(path, "ports = [\"null\", \"null\"]\n\nbrust = 8\n").unwrap();
    let output = run(&["run", "--config", path]);
    assert_eq!(code(&output), 2);
    let text = stderr(&output);
    assert!(text.contains(&format!("{path}:3: there is no key `brust`")), "{text}");
}

#[test]
fn seconds_end_a_run() {
    let start = Instant::now();
    let output = run(&["run", "--no-huge", "--json", "--seconds", "1", "--port", "gen=1000", "--port", "null"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(objects(&output).iter().any(|object| object["type"] == "summary"));
}

#[test]
fn more_seconds_than_the_clock_has_are_no_end() {
    let seconds = u64::MAX.to_string();
    let output = run(&["run", "--no-huge", "--seconds", &seconds, "--port", "gen=max,count=10", "--port", "null"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

/// Starts `arguments`, waits for the first line of statistics, and sends SIGTERM.
fn interrupted(arguments: &[&str]) -> Vec<Value> {
    let mut child = mirach(arguments).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut objects = Vec::new();
    while !objects.last().is_some_and(|object: &Value| object["type"] == "statistics") {
        let line = lines.next().expect("it goes on until it is told to stop").unwrap();
        objects.push(serde_json::from_str(&line).unwrap());
    }
    terminate(&child);
    objects.extend(lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    objects
}

#[test]
fn sigterm_drains_a_run_and_loses_nothing() {
    let objects = interrupted(&["run", "--no-huge", "--json", "--port", "gen=max", "--port", "gen=100k"]);
    let summary = objects.last().unwrap();
    assert_eq!(summary["type"], "summary");
    assert!(number(&summary["rx_packets"]) > 0);
    assert_eq!(summary["rx_packets"], summary["tx_packets"]);
}

#[test]
fn sigterm_ends_a_demo_cleanly() {
    let objects = interrupted(&["demo", "--json", "--seconds", "600"]);
    check_demo(objects.last().unwrap());
}

fn check_demo(summary: &Value) {
    assert!(number(&summary["packets_forwarded"]) > 0, "{summary}");
    for name in ["packets_lost", "packets_corrupt", "packets_reordered"] {
        assert_eq!(number(&summary[name]), 0, "{name}: {summary}");
    }
    assert!(summary["mpps"].as_f64().unwrap() > 0.0);
    let (median, high) = (number(&summary["latency_ns"]["p50"]), number(&summary["latency_ns"]["p99"]));
    assert!(median > 0 && median <= high);
}

#[test]
fn a_demo_forwards_without_loss() {
    let output = run(&["demo", "--seconds", "1", "--json", "--size", "1518"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let objects = objects(&output);
    check_demo(objects.last().unwrap());
    let live = objects.iter().find(|object| object["type"] == "statistics").unwrap();
    assert_eq!(live["ports"].as_array().unwrap().len(), 2);
    assert!(live["ports"][0]["rx_queues"][0]["packets"].is_u64());
}

#[test]
fn a_demo_is_also_for_people() {
    let output = run(&["demo", "--seconds", "1"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    for words in ["forwarding: card0 <-> card1", "Mpps", "latency p50", "lost 0, corrupt 0, reordered 0"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn machines_of_a_demo_talk_without_loss() {
    let output = run(&["demo", "--vms", "4", "--seconds", "1", "--json", "--size", "256"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let objects = objects(&output);
    let summary = objects.last().unwrap();
    check_demo(summary);
    assert_eq!(summary["packets_generated"], summary["packets_forwarded"]);
    let machines = summary["vms"].as_array().unwrap();
    assert_eq!(machines.len(), 4);
    assert!(machines.iter().all(|vm| number(&vm["sent"]) > 0 && number(&vm["lost"]) == 0), "{summary}");
    assert!(summary["ports"].as_array().unwrap().iter().all(|port| port["cpu_share"].as_f64().unwrap() > 0.0));
}

#[test]
fn machines_of_a_demo_are_also_for_people() {
    let output = run(&["demo", "--vms", "2", "--seconds", "1"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    for words in ["forwarding: vm0 <-> vm1", "Mpps", "latency p50", "lost 0, corrupt 0, reordered 0", "cpu"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

/// A `mirach run` on a control socket of its own, killed when it is dropped.
struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
}

impl Daemon {
    fn start(folder: tempfile::TempDir, ports: &[&str]) -> Self {
        let control = folder.path().join("control.sock");
        let control = control.to_str().unwrap();
        let mut command = mirach(&["run", "--no-huge", "--json", "--control", control]);
        for port in ports {
            command.args(["--port", port]);
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        reader.read_line(&mut line).unwrap();
        let first: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(first["control"], control);
        // Somebody has to take its report.
        std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        Self { child, folder }
    }

    fn port(&self, arguments: &[&str]) -> Output {
        let control = self.folder.path().join("control.sock");
        run(&[&["port", "--control", control.to_str().unwrap()], arguments].concat())
    }

    fn lines(&self, arguments: &[&str]) -> String {
        let output = self.port(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn ports_are_added_shown_and_deleted_while_it_runs() {
    let mut daemon = Daemon::start(tempfile::tempdir().unwrap(), &[]);
    assert_eq!(daemon.lines(&["list"]), "no ports\n");
    assert_eq!(daemon.lines(&["add", "gen=10k", "--name", "source"]), "added port source\n");
    daemon.lines(&["add", "null", "--join", "source"]);
    let added = daemon.lines(&["add", "vhost-user=vm.sock,name=vm"]);
    for words in ["added port vm\n", "-netdev vhost-user,id=net-vm,", "vhost_user=true,socket=/"] {
        assert!(added.contains(words), "{words}: {added}");
    }
    let list = daemon.lines(&["list"]);
    for words in ["source: gen join null0\n", "null0: null join source\n", "vm: vhost-user unjoined\n"] {
        assert!(list.contains(words), "{words}: {list}");
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let sent = || {
        let object: Value = serde_json::from_str(&daemon.lines(&["stats", "null0", "--json"])).unwrap();
        number(&object["counters"]["tx_packets"])
    };
    while sent() == 0 {
        assert!(Instant::now() < deadline, "packets flow");
    }
    let stats = daemon.lines(&["stats"]);
    assert!(stats.contains("source: cpu ") && stats.contains("share") && stats.contains("RX: packets"), "{stats}");
    for (arguments, words) in [
        (&["add", "null", "--join", "source"][..], "`source` is joined to `null0` already"),
        (&["add", "null,name=vm"], "there is a port `vm` already"),
        (&["del", "nobody"], "ports: source, null0, vm"),
    ] {
        let output = daemon.port(arguments);
        assert_eq!(code(&output), 1, "{arguments:?}");
        assert!(stderr(&output).starts_with("error: ") && stderr(&output).contains(words), "{}", stderr(&output));
    }
    daemon.lines(&["del", "null0"]);
    assert!(daemon.lines(&["list"]).contains("source: gen unjoined\n"));
    assert_eq!(daemon.lines(&["join", "source", "vm"]), "joined port source to vm\n");
    assert!(daemon.lines(&["list"]).contains("vm: vhost-user join source\n"));
    for name in ["vm", "source"] {
        assert_eq!(daemon.lines(&["del", name]), format!("deleted port {name}\n"));
    }
    assert_eq!(daemon.lines(&["list", "--json"]), "");
    terminate(&daemon.child);
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
    assert!(!daemon.folder.path().join("control.sock").exists());
    assert_eq!(code(&daemon.port(&["list"])), 1, "nobody is there any more");
}

#[test]
fn a_control_socket_that_hangs_up_is_a_failure_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let stranger = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let output = run(&["port", "--control", path.to_str().unwrap(), "list"]);
    stranger.join().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("did not answer"), "{}", stderr(&output));
}

#[test]
fn a_second_run_does_not_take_the_control_socket_but_a_later_one_does() {
    let mut daemon = Daemon::start(tempfile::tempdir().unwrap(), &["null", "null"]);
    let control = daemon.folder.path().join("control.sock");
    let output = run(&["run", "--control", control.to_str().unwrap(), "--port", "null", "--port", "null"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("another mirach listens on"), "{}", stderr(&output));
    assert!(daemon.lines(&["list"]).contains("null1: null join null0"), "the first goes on");
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    assert!(control.exists(), "what is killed cleans nothing up");
    let folder = std::mem::replace(&mut daemon.folder, tempfile::tempdir().unwrap());
    let later = Daemon::start(folder, &["null,name=a", "null"]);
    assert!(later.lines(&["list"]).contains("a: null join null0"));
}

#[test]
fn a_bench_reports_every_case_burst_and_size() {
    let output = run(&["bench", "--json", "--seconds-per-case", "0.005", "--burst", "1,32,256", "--size", "64,1518"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let objects = objects(&output);
    for port in ["generator to null", "virtio-net, split ring", "virtio-net, packed ring"] {
        for case in ["receive", "transmit", "forward"] {
            for (burst, size) in [(1, 64), (32, 64), (256, 64), (1, 1518), (32, 1518), (256, 1518)] {
                let found = objects.iter().find(|object| {
                    object["port"] == port
                        && object["case"] == case
                        && object["burst"] == burst
                        && object["frame_bytes"] == size
                });
                let found = found.unwrap_or_else(|| panic!("{port}, {case}, burst {burst}, {size} bytes"));
                for name in ["mpps", "ns_per_packet", "cycles_per_packet"] {
                    assert!(found[name].as_f64().unwrap() > 0.0, "{found}");
                }
            }
        }
    }
}

#[test]
fn any_port_can_be_measured() {
    let output =
        run(&["bench", "--seconds-per-case", "0.005", "--burst", "8", "--size", "64", "--port", "null", "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let objects = objects(&output);
    assert_eq!(objects.len(), 1, "a null port can only transmit");
    assert_eq!((&objects[0]["case"], &objects[0]["port"]), (&"transmit".into(), &"null".into()));
}

#[test]
fn a_bench_of_a_silent_port_fails_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("empty.pcap");
    write_capture(&file, 0);
    let port = format!("pcap={}", file.display());
    let output =
        run(&["bench", "--seconds-per-case", "0.005", "--burst", "8", "--size", "64", "--port", &port, "--json"]);
    // It can still transmit, to nowhere.
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(objects(&output).iter().all(|object| object["case"] == "transmit"));
}

/// A capture of `count` frames of 64 bytes, each with its number inside (libpcap's classic format).
fn write_capture(path: &Path, count: u32) {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for number in 0..count {
        for word in [number, 0, 64, 64] {
            bytes.extend(word.to_le_bytes());
        }
        let mut frame = [0_u8; 64];
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        frame[14..18].copy_from_slice(&number.to_be_bytes());
        bytes.extend(frame);
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_capture_is_forwarded_complete_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output_file) = (folder.path().join("in.pcap"), folder.path().join("out.pcap"));
    write_capture(&input, 300);
    let from = format!("pcap={}", input.display());
    let to = format!("pcap=,out={}", output_file.display());
    let output = run(&["run", "--no-huge", "--json", "--port", &from, "--port", &to]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(number(&objects(&output).last().unwrap()["tx_packets"]), 300);
    let written = std::fs::read(output_file).unwrap();
    let numbers: Vec<u32> = written
        .windows(6)
        .filter(|window| window[..2] == [0x88, 0xb5])
        .map(|window| u32::from_be_bytes(window[2..6].try_into().unwrap()))
        .collect();
    assert_eq!(numbers, (0..300).collect::<Vec<_>>());
}

#[test]
fn reports_of_the_machine_are_well_formed() {
    for arguments in [&["devices", "--json"][..], &["devices", "--all", "--json"], &["doctor", "--json"]] {
        let output = run(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
        objects(&output);
    }
    for arguments in [&["devices"][..], &["doctor"]] {
        let output = run(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
        assert!(!stdout(&output).trim().is_empty(), "{arguments:?}");
    }
}

/// As the kernel tells in proc_pid_status(5).
fn blocks_sigterm(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
    // While a thread is being made all signals are blocked for a moment, SIGCHLD too.
    mask & (1 << 14 | 1 << 16) == 1 << 14
}

#[test]
fn sigterm_ends_a_run_whose_report_nobody_reads() {
    let (unread, pipe) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&pipe, 4096).unwrap();
    // Fill it, so that the very first line finds no room.
    (&pipe).write_all(&[b' '; 4096]).unwrap();
    let mut command = mirach(&["run", "--no-huge", "--port", "gen=1000", "--port", "null"]);
    let mut child = command.stdout(pipe).stderr(Stdio::null()).spawn().unwrap();
    drop(command);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !blocks_sigterm(&child) {
        assert!(Instant::now() < deadline, "it takes signals when it has time for them");
        std::thread::sleep(Duration::from_millis(10));
    }
    terminate(&child);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it waits for its reader");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    drop(unread);
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn a_reader_who_leaves_ends_the_run() {
    let mut child = mirach(&["run", "--no-huge", "--port", "gen=1000", "--port", "null"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    // The pipe is closed now: the next line of statistics cannot be written.
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn commands_that_ask_say_that_nobody_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let file = folder.path().join("empty.toml");
    std::fs::write(&file, "").unwrap();
    let (socket, file) = (socket.to_str().unwrap(), file.to_str().unwrap());
    for command in [
        &["apply", file][..],
        &["show", "graph"],
        &["set", "slice", "a"],
        &["unset", "slice", "a"],
        &["flows"],
        &["why", "a", "icmp 10.0.0.1 > 10.0.0.2"],
        &["capture"],
        &["trace", "a"],
        &["top"],
        &["subscribe", "ports"],
    ] {
        for json in [&[][..], &["--json"]] {
            let output = run(&[command, &["--control", socket], json].concat());
            assert_eq!((code(&output), stdout(&output).as_str()), (1, ""), "{command:?}");
            assert!(stderr(&output).contains("mirach run --control"), "{command:?}: {}", stderr(&output));
        }
    }
    let output = run(&["apply", "/nonexistent/net.toml", "--control", socket]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("/nonexistent/net.toml: cannot read"), "{}", stderr(&output));
}

#[test]
fn descriptions_for_programs_need_nobody() {
    for (arguments, key) in [(&["schema"][..], "openrpc"), (&["schema", "--config"], "$schema")] {
        let output = run(arguments);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let schema: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert!(schema.get(key).is_some(), "{arguments:?}");
    }
}

#[test]
fn what_happens_in_the_switch_is_shown_as_it_happens() {
    let daemon = Daemon::start(tempfile::tempdir().unwrap(), &[]);
    let control = daemon.folder.path().join("control.sock");
    let ask = |arguments: &[&str]| {
        let output = run(&[arguments, &["--control", control.to_str().unwrap()]].concat());
        assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    };
    daemon.lines(&["add", "gen=1k,flows=1", "--name", "a"]);
    daemon.lines(&["add", "null", "--name", "b"]);
    daemon.lines(&["add", "gen=1k,flows=1", "--name", "c"]);
    daemon.lines(&["add", "null", "--name", "probe"]);
    ask(&["set", "network", "red"]);
    for (port, more) in [("a", "coprocessor={ shape = { bits-per-second = \"1G\" } }"), ("b", "macs="), ("c", "macs=")]
    {
        ask(&["set", "port", port, "network=red", "anti-spoofing=false", more]);
    }
    assert_eq!(ask(&["set", "mirror", "m", "port=a", "to=probe"]), "+ mirror m\n");
    assert!(
        ask(&["show", "mirrors"]).contains("m       a     -        both       probe  open"),
        "{}",
        ask(&["show", "mirrors"])
    );
    // Known flows go to the coprocessor and come back.
    let traced = ask(&["trace", "a", "--protocol", "udp", "--rate", "1000", "--count", "20"]);
    assert!(traced.contains("it goes to coprocessor 1") && traced.contains(", came back"), "{traced}");
    assert!(traced.contains("mirror       a copy goes to port probe"), "{traced}");
    let packets = ask(&["trace", "a", "--count", "3", "--json"]);
    assert_eq!(packets.lines().filter(|line| line.contains("\"element\":\"parse\"")).count(), 3, "{packets}");
    let shown = ask(&["show", "coprocessors", "--json"]);
    let report: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((report["port"].as_str(), report["running"].as_bool()), (Some("a"), Some(true)), "{shown}");
    assert!(number(&report["packets"]) > 0 && number(&report["cpu_nanoseconds"]) > 0, "{shown}");
    // Of those that no coprocessor had, some were timed.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ask(&["show", "graph"]).contains("through the elements") {
        assert!(Instant::now() < deadline, "{}", ask(&["show", "graph"]));
    }
    assert!(number(&objects(&daemon.port(&["stats", "probe", "--json"]))[0]["counters"]["tx_packets"]) > 0);
    assert_eq!(ask(&["unset", "mirror", "m"]), "- mirror m\n");
    assert!(ask(&["show", "mirrors"]).contains("no mirrors"));
}

#[test]
fn a_forwarder_without_networks_answers_what_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let socket = socket.to_str().unwrap();
    let run_arguments = ["run", "--port", "gen=1k,name=a", "--port", "null,name=b", "--no-huge", "--control", socket];
    let mut child = mirach(&run_arguments).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !Path::new(socket).exists() {
        assert!(Instant::now() < deadline, "it does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    let ask = |arguments: &[&str]| run(&[arguments, &["--control", socket]].concat());
    for (arguments, words) in [
        (&["show", "networks"][..], "no networks"),
        (&["show", "slices"], "no slices"),
        (&["show", "ports"], "no ports in networks"),
        (&["show", "tunnels"], "no tunnels"),
        (&["show", "groups"], "no groups"),
        (&["show", "routes"], "no routes"),
        (&["show", "config"], "\"gen=1k,name=a\",\n    \"null,name=b\",\n]"),
        (&["port", "list"], "a: gen join b"),
        (&["top", "--once", "--interval", "0.2"], "PORT"),
        (&["subscribe", "ports", "--count", "2", "--interval", "0.1"], "\"topic\":\"ports\""),
    ] {
        let output = ask(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
        assert!(stdout(&output).contains(words), "{arguments:?}: {}", stdout(&output));
    }
    let picture = ask(&["top", "--once", "--json", "--interval", "0.2"]);
    let objects = objects(&picture);
    assert_eq!((objects.len(), objects[0]["ports"].as_array().unwrap().len()), (1, 2));
    for arguments in
        [&["flows"][..], &["show", "graph"], &["capture", "--count", "1"], &["why", "a", "arp 10.0.0.1 > 10.0.0.2"]]
    {
        let output = ask(arguments);
        assert_eq!(code(&output), 1, "{arguments:?}");
        assert!(stderr(&output).contains("there are no networks yet"), "{arguments:?}: {}", stderr(&output));
    }
    terminate(&child);
    assert!(child.wait().unwrap().success());
}
