//! `mirach device` as its users meet it: cards on sockets, words on stdin.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use drivers::bus::{Bar, BusError, PciFunction};
use drivers::ixgbe::{Config, Ixgbe, Rx, Tx};
use drivers::nic::{self, Nic, NicError, QueuePair, RxQueue, TxQueue};
use hugemem::{Batch, IovaSpace, MemoryRequest, PacketPool, PageChoice};
use models::ixgbe::Fault;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use vfio::user::{Function, Options};

type Pair = QueuePair<Rx<vfio::Bar>, Tx<vfio::Bar>, vfio::Interrupt>;

fn mirach(kind: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirach"));
    command.args(["device", kind]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("RUST_LOG");
    command
}

/// A process with cards. Killed, if it still runs, when this is dropped.
struct Cards {
    child: Child,
    words: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Cards {
    fn start(arguments: &[&str]) -> Self {
        Self::of("ixgbe", arguments)
    }

    fn of(kind: &str, arguments: &[&str]) -> Self {
        let mut child = mirach(kind, arguments).spawn().unwrap();
        let (words, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, words, lines: BufReader::new(stdout).lines() }
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.words.as_mut().unwrap(), "{word}").unwrap();
    }

    fn object(&mut self, kind: &str) -> Value {
        let line = self.lines.next().unwrap().unwrap();
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["type"], kind, "{line}");
        value
    }

    /// What `show` says once `done` agrees, which has twenty seconds.
    fn shown(&mut self, done: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            self.tell("show");
            let shown = self.object("show");
            if done(&shown) {
                return shown;
            }
            assert!(Instant::now() < deadline, "{shown}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(mut self) -> (i32, String) {
        self.words = None;
        let status = self.child.wait().unwrap();
        let mut errors = String::new();
        std::io::Read::read_to_string(&mut self.child.stderr.take().unwrap(), &mut errors).unwrap();
        (status.code().unwrap(), errors)
    }
}

impl Drop for Cards {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(path: &Path) -> Function {
    Function::connect(path, Options::default()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn two_cards_on_a_cable_are_served_and_obey() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let mut cards = Cards::start(&[
        "--socket",
        text(&a),
        "--socket",
        text(&b),
        "--wire",
        "cable",
        "--json",
        "--mac",
        "02:00:00:00:00:ff",
    ]);
    for path in [&a, &b] {
        let listening = cards.object("listening");
        assert_eq!(listening["socket"], text(path));
        assert_eq!(listening["qemu_device"]["socket"]["path"], text(path));
    }
    let mut functions = [connect(&a), connect(&b)];
    for (number, function) in functions.iter_mut().enumerate() {
        assert_eq!((function.id().vendor, function.id().device), (0x8086, 0x10fb));
        let bar = function.bar(0).unwrap();
        // The first receive address: low word, then high word with the valid bit (section 8.2.3.7.9).
        let (low, high) = (bar.load::<u32>(0xa200), bar.load::<u32>(0xa204));
        let mac = [low.to_le_bytes(), high.to_le_bytes()].concat();
        let expected = if number == 0 { [2, 0, 0, 0, 0, 0xff] } else { [2, 0, 0, 0, 1, 0] };
        assert_eq!(mac[..6], expected);
    }
    cards.shown(|shown| shown["cards"].as_array().unwrap().iter().all(|card| card["link"] == "up"));
    cards.tell("link down 1");
    let shown = cards.shown(|shown| shown["cards"][1]["link"] == "down");
    assert_eq!(shown["cards"][0]["link"], "up");
    // What is no text is one bad word, and not the last.
    cards.words.as_mut().unwrap().write_all(b"\xff\xfe\n").unwrap();
    cards.tell("fault nosuch");
    cards.tell("fault none 7");
    cards.tell("fault removed 0");
    // A client leaves, and the next one is served.
    let [first, second] = functions;
    drop((first, second));
    assert_eq!(connect(&b).id().device, 0x10fb);
    cards.tell("quit");
    let summary = cards.object("summary");
    assert_eq!(summary["cards"][1]["counters"]["tx_frames"], 0);
    assert_eq!(summary["cards"][0]["dma_faults"].as_array().unwrap().len(), 0);
    let (code, errors) = cards.end();
    assert_eq!(code, 0, "{errors}");
    assert!(errors.contains("`nosuch` is no fault") && errors.contains("no card 7"), "{errors}");
    assert!(!a.exists() && !b.exists());
}

#[test]
fn a_card_goes_on_without_stdin_and_ends_cleanly_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it's a card");
    let mut cards = Cards::start(&["--socket", text(&path), "--wire", "null"]);
    cards.words = None;
    assert_eq!(cards.lines.next().unwrap().unwrap(), format!("listening on {}", text(&path)));
    let arguments: Vec<String> = (0..4).map(|_| cards.lines.next().unwrap().unwrap()).collect();
    assert!(arguments.iter().any(|line| line.contains(r#"it'\''s a card","type":"unix"}}'"#)), "{arguments:?}");
    let function = connect(&path);
    kill_process(Pid::from_child(&cards.child), Signal::TERM).unwrap();
    let summary = cards.lines.next().unwrap().unwrap();
    assert!(summary.starts_with(&format!("{}: link ", text(&path))), "{summary}");
    let (code, errors) = cards.end();
    assert_eq!((code, errors.as_str()), (0, ""));
    drop(function);
}

#[test]
fn strict_fails_when_the_driver_breaks_a_rule() {
    let folder = tempfile::tempdir().unwrap();
    for (strict, expected) in [(false, 0), (true, 1)] {
        let path = folder.path().join("card");
        let mut arguments = vec!["--socket", text(&path), "--wire", "loop", "--json", "--seconds", "60"];
        arguments.extend(strict.then_some("--strict"));
        let mut cards = Cards::start(&arguments);
        cards.object("listening");
        let mut function = connect(&path);
        // An offset at which there is no register.
        function.bar(0).unwrap().store(0x1_5ff8, 1_u32);
        cards.shown(|shown| !shown["cards"][0]["violations"].as_array().unwrap().is_empty());
        cards.tell("quit");
        cards.object("summary");
        assert_eq!(cards.end().0, expected);
    }
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_why() {
    let run = |arguments: &[&str]| -> Output { mirach("ixgbe", arguments).output().unwrap() };
    for (arguments, words) in [
        (&["--wire", "null"][..], "--socket"),
        (&["--socket", "/tmp/x", "--wire", "cable"], "two sockets"),
        (&["--socket", "/tmp/x", "--wire", "cabel"], "a wire is cable"),
        (&["--socket", "/tmp/x", "--socket", "/tmp/x", "--wire", "cable"], "given twice"),
        (
            &["--socket", "/tmp/x", "--socket", "/tmp/y", "--wire", "tap=a", "--wire", "null", "--wire", "loop"],
            "3 wires",
        ),
        (&["--socket", "/tmp/x", "--wire", "null", "--fault", "nosuch"], "done-never"),
        (&["--socket", "/tmp/x", "--wire", "null", "--fault-after", "2s"], "--fault"),
        (&["--socket", "/tmp/x", "--wire", "null", "--fault", "done-never", "--fault-after", "soon"], "500-frames"),
        (&["--socket", "/tmp/x", "--wire", "null", "--mac", "01:00:00:00:00:00"], "unicast"),
    ] {
        let output = run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(words), "{arguments:?}: {errors}");
    }
    let output = run(&["--socket", "/nonexistent/card", "--wire", "null"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("/nonexistent/card") && errors.contains("create it first"), "{errors}");
}

#[test]
fn copy_engines_are_served_and_obey() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let sockets = ["--socket", text(&a), "--socket", text(&b)];
    let engines = ["--device", "6f21", "--channels", "2", "--fault", "version-old", "--fault", "copy-wrong@9#1"];
    let mut cards = Cards::of("ioat", &[&sockets[..], &engines, &["--strict", "--json"]].concat());
    cards.object("listening");
    assert_eq!(cards.object("listening")["qemu_device"]["socket"]["path"], text(&b));
    let mut function = connect(&b);
    let bar = function.bar(0).unwrap();
    // CHANCNT and CBVER.
    assert_eq!((function.id().device, bar.load::<u8>(0), bar.load::<u8>(8)), (0x6f21, 2, 0x20));
    cards.tell("fault none 1");
    // CHAINADDR: armed.
    bar.store(0x90, 0x1000_u64);
    cards.shown(|shown| shown["cards"][1]["channels"] == "armed, halted");
    assert_eq!(bar.load::<u8>(8), 0x32);
    cards.tell("halt 0 1");
    cards.shown(|shown| shown["cards"][1]["channels"] == "halted, halted");
    cards.tell("halt 2");
    cards.tell("fault nosuch");
    cards.tell("remove all 1");
    cards.shown(|shown| shown["cards"][1]["channels"] == "removed");
    assert_eq!(bar.load::<u64>(0x88), u64::MAX);
    cards.tell("quit");
    assert_eq!(cards.object("summary")["cards"][0]["counters"]["bytes"], 0);
    let (code, errors) = cards.end();
    assert_eq!(code, 0, "{errors}");
    assert!(errors.contains("no channel 2") && errors.contains("`nosuch` is no fault"), "{errors}");
    for (arguments, words) in [
        (&["--socket", "/tmp/x", "--device", "1521"][..], "give 0b00"),
        (&["--socket", "/tmp/x", "--channels", "9"], "1..=8"),
        (&["--socket", "/tmp/x", "--fault", "halt@soon"], "NAME@17"),
        (&["--socket", "/tmp/x", "--socket", "/tmp/x"], "given twice"),
    ] {
        let output = mirach("ioat", arguments).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(words), "{arguments:?}: {errors}");
    }
}

#[test]
fn every_fault_has_a_name_on_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    for fault in Fault::ALL {
        let path = folder.path().join(fault.name());
        let mut cards = Cards::start(&["--socket", text(&path), "--wire", "null", "--json", "--fault", fault.name()]);
        cards.object("listening");
        cards.tell(&format!("fault {fault} 0"));
        cards.tell("quit");
        cards.object("summary");
        let (code, errors) = cards.end();
        assert_eq!((code, errors.as_str()), (0, ""), "{fault}");
    }
}

/// A frame to send, when there is a packet for one; returns how many came.
fn send_and_receive(pair: &mut Pair, packets: &mut PacketPool) -> usize {
    let mut batch = Batch::new(64);
    if let Some(mut packet) = packets.take() {
        packet.write(&[0xff; 100]).unwrap();
        batch.push(packet).unwrap();
    }
    pair.tx.transmit(&mut batch);
    pair.tx.reclaim();
    batch.clear();
    pair.rx.receive(&mut batch)
}

/// The process with the card is killed under traffic: the driver says so, and gets all that it had lent.
#[test]
fn a_card_whose_process_is_killed_is_a_card_that_was_pulled_out() {
    const PACKETS: usize = 64;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("card");
    let mut cards = Cards::start(&["--socket", text(&path), "--wire", "loop", "--json"]);
    cards.object("listening");
    let request = MemoryRequest { bytes: 4 << 20, page: PageChoice::Size4K, node: None };
    let region = request.allocate(&mut IovaSpace::unlimited()).unwrap().region;
    let pool = region.packets(128, 2048).unwrap();
    let mut packets = region.packets(PACKETS, 2048).unwrap();
    let config = Config { nic: nic::Config { ring_size: 64, ..nic::Config::default() }, ..Config::default() };
    let clock = Arc::new(vfio::SystemClock::default());
    let mut card = Ixgbe::open(connect(&path), clock, &region, vec![pool], config).unwrap();
    let mut queues = card.start().unwrap();
    let mut received = 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    while received < 100 {
        received += send_and_receive(&mut queues[0], &mut packets);
        assert!(Instant::now() < deadline, "no frame comes back");
        card.check().unwrap();
    }
    cards.child.kill().unwrap();
    cards.child.wait().unwrap();
    for _ in 0..100 {
        send_and_receive(&mut queues[0], &mut packets);
    }
    let gone = |result: Result<(), NicError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, NicError::Bus(BusError::Gone { .. })), "{error}");
        assert!(error.to_string().contains(text(&path)), "{error}");
    };
    gone(card.check());
    gone(card.stop(queues.into_iter().map(|pair| (pair.rx, pair.tx)).collect()));
    gone(card.start().map(drop));
    assert!(Instant::now() < deadline, "too late");
    assert_eq!(packets.available(), PACKETS, "packets are lost with the card");
}
