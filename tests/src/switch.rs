//! The vhost-user switch between guests: `mirach run` on this host, or DPDK's testpmd in its place.
//!
//! Its ports are given in pairs; what comes in on one of a pair goes out on the other.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::process::{Running, bound_to_us};
use crate::{binaries, leftovers, wait};

/// From the start of the program to its ports being there.
const START: Duration = Duration::from_secs(60);

/// From a signal to the end of the program.
const END: Duration = Duration::from_secs(60);

/// The variable that chooses [`Program::Testpmd`] by its value `testpmd`: to tell an error of mirach from one of the lab.
pub const CHOICE: &str = "MIRACH_LAB_SWITCH";

/// A port of the switch.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its socket.
    pub socket: PathBuf,
    /// The switch makes the socket and listens; otherwise it connects to it, again and again.
    pub listens: bool,
    /// The most queue pairs that it has.
    pub pairs: u16,
    /// Largest payload of a frame; `None` leaves it at what is usual.
    pub mtu: Option<u16>,
}

/// What can be the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `mirach run`.
    Mirach,
    /// DPDK's testpmd with a `net_vhost` for each port.
    Testpmd,
}

impl Program {
    /// What the environment says; `mirach run` when it says nothing.
    #[must_use]
    pub fn chosen() -> Self {
        if std::env::var_os(CHOICE).is_some_and(|value| value == "testpmd") { Self::Testpmd } else { Self::Mirach }
    }
}

/// A running switch, killed on drop.
pub struct Switch {
    program: Program,
    process: Running,
    /// testpmd ends with its standard input.
    _input: Option<ChildStdin>,
    folder: TempDir,
}

impl Switch {
    /// Starts a switch with these ports and waits until they are there. `more` is for `mirach run`.
    ///
    /// Call it from a thread that lives as long as the switch is wanted.
    ///
    /// # Errors
    ///
    /// It is missing, or does not come up; the error has what it printed.
    pub fn start(program: Program, ports: &[Port], more: &[&str]) -> Result<Self> {
        let folder = leftovers::folder("switch")?;
        let command = match program {
            Program::Mirach => mirach(ports, more)?,
            Program::Testpmd => testpmd(ports, &folder.path().file_name().unwrap_or_default().to_string_lossy()),
        };
        Self::launch(program, command, folder)
    }

    /// Starts `mirach run` with these arguments in a namespace, where its TAPs are then made, and waits until it forwards.
    ///
    /// Call it from a thread that lives as long as the switch is wanted.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_in(namespace: &Namespace, arguments: &[&str]) -> Result<Self> {
        let program = binaries::host()?;
        let program = program.to_str().context("the path of mirach is no text")?;
        let command = namespace.command(&[&[program, "run", "--json", "--no-huge"], arguments].concat());
        Self::launch(Program::Mirach, command, leftovers::folder("switch")?)
    }

    fn launch(program: Program, mut command: Command, folder: TempDir) -> Result<Self> {
        let log = File::create(folder.path().join("log"))?;
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let mut child =
            command.spawn().with_context(|| format!("cannot start {program:?}: run `cargo xtask setup`"))?;
        let input = child.stdin.take();
        let mut switch = Self { program, process: Running(child), _input: input, folder };
        let ready = match program {
            Program::Mirach => "forwarding",
            Program::Testpmd => "Press enter to exit",
        };
        wait::until("the switch", START, || {
            if switch.process.has_ended() {
                bail!("it ended");
            }
            Ok(switch.log().contains(ready).then_some(()))
        })
        .with_context(|| last_lines(&switch.log()))?;
        Ok(switch)
    }

    /// Which program it is.
    #[must_use]
    pub fn program(&self) -> Program {
        self.program
    }

    /// The id of its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// What it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// The end of what it printed for people.
    #[must_use]
    pub fn last_words(&self) -> String {
        last_lines(&self.log())
    }

    /// Fails when it does not run any more, or panicked.
    ///
    /// # Errors
    ///
    /// It does not; the error has what it printed.
    pub fn must_run(&mut self) -> Result<()> {
        let log = self.log();
        if self.process.has_ended() || log.contains("panicked") {
            bail!("the switch failed:\n{}", last_lines(&log));
        }
        Ok(())
    }

    /// Kills it, as a crash would; its sockets stay as they are.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub fn kill(&mut self) -> Result<()> {
        self.process.0.kill()?;
        self.process.0.wait()?;
        Ok(())
    }

    /// Ends it by SIGTERM and returns its last line, which is the summary of `mirach run --json`.
    ///
    /// # Errors
    ///
    /// It had ended, does not end, or says that it failed.
    pub fn end(mut self) -> Result<Value> {
        self.must_run()?;
        let id = i32::try_from(self.process.0.id())?;
        kill_process(Pid::from_raw(id).context("no process")?, Signal::TERM)?;
        let status = wait::until("the end of the switch", END, || Ok(self.process.0.try_wait()?))
            .with_context(|| last_lines(&self.log()))?;
        let log = self.log();
        if !status.success() {
            bail!("the switch ended with {status}:\n{}", last_lines(&log));
        }
        Ok(log.lines().rev().find_map(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null))
    }
}

fn mirach(ports: &[Port], more: &[&str]) -> Result<Command> {
    let mut command = bound_to_us(&binaries::host()?);
    command.args(["run", "--json", "--no-huge"]).args(more);
    if !more.contains(&"--control") {
        command.args(["--control", "none"]);
    }
    for port in ports {
        let client = if port.listens { "off" } else { "on" };
        let mtu = port.mtu.map_or_else(String::new, |mtu| format!(",mtu={mtu}"));
        let spec = format!("vhost-user={},queues={},client={client}{mtu}", port.socket.display(), port.pairs);
        command.args(["--port", &spec]);
    }
    Ok(command)
}

/// With every offload, and with translation by the guest's IOMMU.
fn testpmd(ports: &[Port], prefix: &str) -> Command {
    let mut command = bound_to_us(Path::new("stdbuf"));
    // What it prints is a file here, into which it would write whole blocks.
    command
        .args(["-oL", "dpdk-testpmd"])
        .args(["--no-pci", "--no-huge", "--no-telemetry", "-m", "1024", "-l", "0,1", "--file-prefix", prefix])
        .args(["--log-level", "lib.vhost:info"]);
    // It uses as many queues of all ports, and a frontend may have fewer than its port.
    let pairs = ports.iter().map(|port| port.pairs).max().unwrap_or(1);
    for (number, port) in ports.iter().enumerate() {
        let Port { socket, listens, .. } = port;
        let client = u8::from(!listens);
        let socket = socket.display();
        command
            .arg("--vdev")
            .arg(format!("net_vhost{number},iface={socket},queues={pairs},client={client},iommu-support=1,tso=1"));
    }
    command
        .args(["--", "--auto-start", "--forward-mode=io", "--port-topology=paired", "--nb-cores=1"])
        .args(["--mbuf-size=2176", "--total-num-mbufs=65536"])
        .args([format!("--rxq={pairs}"), format!("--txq={pairs}")]);
    command
}

fn last_lines(log: &str) -> String {
    // Statistics are no help.
    let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with('{')).collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}
