//! Open vSwitch with DPDK: its two daemons in a folder and a network namespace of their own, and what they are told.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::peer_bench::device::{CORE, Device, Program, alone, sockets};
use crate::peer_bench::flows;
use crate::process::run;
use crate::{leftovers, wait};

/// The peer's name.
pub const PEER: &str = "ovs-dpdk";
/// What it is made of, by the Debian package [`PACKAGE`].
const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const PACKAGE: &str = "openvswitch-switch-dpdk";
/// Where its other threads run: beside the generator, as do those of mirach.
const OTHER_CORE: &str = "1";
/// Megabytes for its packets.
const MEMORY: u32 = 512;
/// How long the database may take to listen.
const START: Duration = Duration::from_secs(20);

/// What its flow table says.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Rules {
    /// The action NORMAL alone: a switch that learns Ethernet addresses.
    #[default]
    Normal,
    /// NORMAL for what mirach's network allows, addresses and UDP ports, and nothing else. Without connection tracking, as mirach needs none for it.
    Acl,
}

impl std::str::FromStr for Rules {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "normal" => Ok(Self::Normal),
            "acl" => Ok(Self::Acl),
            _ => bail!("--rules is normal or acl"),
        }
    }
}

impl Rules {
    /// As it takes them.
    fn flows(self) -> Vec<String> {
        let mut flows = Vec::new();
        match self {
            Self::Normal => flows.push("actions=NORMAL".into()),
            Self::Acl => {
                for (station, other) in [(1, 2), (2, 1)] {
                    let (own, their) = (flows::prefix(station), flows::prefix(other));
                    let from = format!("in_port={station},dl_src=02:00:00:00:00:{station:02x},udp,nw_src={own}");
                    // Ports below 1024, sending and receiving, and nothing else.
                    flows.push(format!("priority=30,{from},tp_dst=0/0xfc00,actions=drop"));
                    flows.push(format!("priority=30,{from},tp_src=0/0xfc00,actions=drop"));
                    flows.push(format!("priority=20,{from},nw_dst={their},actions=NORMAL"));
                }
                flows.push("priority=0,actions=drop".into());
            }
        }
        flows
    }
}

/// It, running or resting. Both daemons are ended on drop, the switch first.
pub struct Ovs {
    switch: Program,
    _database: Program,
    folder: TempDir,
}

impl Ovs {
    /// Starts it with two ports that connect to the generator's sockets.
    ///
    /// # Errors
    /// It is missing, or does not get ready.
    pub fn start(rules: Rules, huge_pages: bool) -> Result<Self> {
        ensure!(
            Path::new(SWITCH).exists(),
            "there is no {SWITCH}: install the Debian package {PACKAGE} (`apt-get install {PACKAGE}`)"
        );
        let folder = leftovers::folder("ovs")?;
        let home = folder.path();
        run(private(home, "ovsdb-tool").arg("create").arg(home.join("conf.db")).arg(SCHEMA))?;
        let mut command = daemon(home, "ovsdb-server", OTHER_CORE);
        command.arg(home.join("conf.db")).arg(format!("--remote=punix:{}", database(home)));
        command.arg(format!("--unixctl={}", home.join("database.control").display())).arg("--no-chdir");
        let listening = PathBuf::from(database(home));
        let mut database_server = Program::start("ovsdb-server", command, home)?;
        database_server.await_ready(|_| listening.exists())?;
        tell(home, &configuration(home, huge_pages))?;

        let mut command = daemon(home, SWITCH, &format!("{CORE},{OTHER_CORE}"));
        command.arg(format!("unix:{}", database(home))).arg(format!("--unixctl={}", control(home).display()));
        command.args(["--no-chdir", "-vsyslog:off", "-vfile:off", "-vconsole:info"]);
        let mut switch = Program::start("ovs-vswitchd", command, home)?;
        let bridge = home.join("br0.mgmt");
        switch.await_ready(|_| bridge.exists())?;
        switch.await_threads(|thread| thread.starts_with("pmd-"))?;
        let ovs = Self { switch, _database: database_server, folder };
        ovs.fill(rules).with_context(|| ovs.switch.last_lines())?;
        Ok(ovs)
    }

    /// Puts the rules in its flow table.
    fn fill(&self, rules: Rules) -> Result<()> {
        let home = self.folder.path();
        let bridge = format!("unix:{}", home.join("br0.mgmt").display());
        let control = |arguments: &[&str]| {
            run(private(home, "ovs-ofctl").args(["--timeout=10", "-O", "OpenFlow13"]).args(arguments))
        };
        wait::until("Open vSwitch's bridge", START, || Ok(control(&["del-flows", &bridge]).ok()))?;
        for flow in rules.flows() {
            control(&["add-flow", &bridge, &flow])?;
        }
        Ok(())
    }

    fn ask(&self, command: &str) -> Result<String> {
        let control = control(self.folder.path());
        run(private(self.folder.path(), "ovs-appctl").arg("--timeout=10").arg("-t").arg(control).arg(command))
    }
}

impl Device for Ovs {
    fn program(&mut self) -> &mut Program {
        &mut self.switch
    }

    fn name(&self) -> &'static str {
        PEER
    }

    fn sockets(&self) -> [PathBuf; 2] {
        sockets(self.folder.path())
    }

    fn connects(&self) -> bool {
        true
    }

    fn begin(&mut self) -> Result<()> {
        self.ask("dpif-netdev/pmd-stats-clear").map(drop)
    }

    fn account(&mut self, report: &Value) -> Result<Value> {
        let counts = Counts::read(&self.ask("dpif-netdev/pmd-stats-show")?);
        let (received, sent) = (counts.received, report["received"].as_u64().unwrap_or(0));
        ensure!(received >= sent, "it says that it received {received} packets, and {sent} came out of it");
        Ok(counts.json())
    }
}

/// What a thread that forwards counted.
#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    received: u64,
    exact: u64,
    wild: u64,
    missed: u64,
    cycles: f64,
}

impl Counts {
    /// Of the first thread in the answer to `pmd-stats-show`: the others belong to nobody.
    fn read(text: &str) -> Self {
        let mut counts = Self::default();
        let first = text.split("main thread").next().unwrap_or_default();
        for (name, value) in first.lines().filter_map(|line| line.trim().split_once(':')) {
            let word = value.split_whitespace().next().unwrap_or_default();
            let number = || word.parse().unwrap_or(0);
            match name {
                "packets received" => counts.received = number(),
                "emc hits" => counts.exact = number(),
                "megaflow hits" => counts.wild = number(),
                "miss with success upcall" => counts.missed = number(),
                "avg processing cycles per packet" => counts.cycles = word.parse().unwrap_or(0.0),
                _ => {}
            }
        }
        counts
    }

    #[expect(clippy::cast_precision_loss, reason = "percentages")]
    fn json(self) -> Value {
        let percent = |part: u64| (part as f64 * 1000.0 / self.received.max(1) as f64).round() / 10.0;
        let (exact, wild) = (percent(self.exact), percent(self.wild));
        json!({
            "emc_percent": exact, "megaflow_percent": wild, "upcalls": self.missed, "cycles_per_packet": self.cycles,
            "summary": format!("{PEER}: {exact:.0} % EMC, {:.0} cycles", self.cycles),
        })
    }
}

/// A program of its that finds everything in `home`, and no other of its kind.
fn private(home: &Path, program: &str) -> Command {
    in_home(Command::new(program), home)
}

/// The same, as a daemon on these cores, in a network namespace of its own, since its bridges are interfaces of the kernel that stay behind.
fn daemon(home: &Path, program: &str, cores: &str) -> Command {
    let mut command = alone(Path::new("unshare"));
    command.args(["--net", "taskset", "-c", cores, program]);
    in_home(command, home)
}

fn in_home(mut command: Command, home: &Path) -> Command {
    // The last is DPDK's.
    for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR", "RUNTIME_DIRECTORY"] {
        command.env(name, home);
    }
    command
}

fn database(home: &Path) -> String {
    home.join("database").display().to_string()
}

fn control(home: &Path) -> PathBuf {
    home.join("switch.control")
}

/// The whole configuration, as words of one transaction.
fn configuration(home: &Path, huge_pages: bool) -> Vec<String> {
    let memory = if huge_pages { "--in-memory" } else { "--no-huge --legacy-mem" };
    let mask = |core: &str| core.parse::<u32>().map_or(0, |core| 1_u64 << core);
    let mut words: Vec<String> = ["init", "--", "set", "Open_vSwitch", "."].map(str::to_owned).into();
    words.extend([
        "other_config:dpdk-init=true".into(),
        format!("other_config:pmd-cpu-mask={:#x}", mask(CORE)),
        format!("other_config:dpdk-lcore-mask={:#x}", mask(OTHER_CORE)),
        format!("other_config:dpdk-extra=\"--no-pci --no-telemetry {memory} -m {MEMORY}\""),
    ]);
    words.extend(["--", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"].map(str::to_owned));
    for (number, socket) in sockets(home).iter().enumerate() {
        let port = format!("p{number}");
        words.extend(["--", "add-port", "br0", &port, "--", "set", "Interface", &port].map(str::to_owned));
        words.push("type=dpdkvhostuserclient".into());
        words.push(format!("ofport_request={}", number + 1));
        words.push(format!("options:vhost-server-path={}", socket.display()));
    }
    words
}

/// Puts something in the database, before the switch is there.
fn tell(home: &Path, words: &[String]) -> Result<()> {
    let mut command = private(home, "ovs-vsctl");
    command.arg(format!("--db=unix:{}", database(home))).args(["--no-wait", "--timeout=10", "--"]).args(words);
    run(&mut command).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_thread_that_forwards() {
        let text = "pmd thread numa_id 0 core_id 0:
  packets received: 2000
  packet recirculations: 0
  avg. datapath passes per packet: 1.00
  phwol hits: 0
  emc hits: 500
  smc hits: 0
  megaflow hits: 1499
  avg. subtable lookups per megaflow hit: 1.00
  miss with success upcall: 1
  miss with failed upcall: 0
  idle cycles: 0 (0.00%)
  processing cycles: 512000 (100.00%)
  avg cycles per packet: 300.25 (600500/2000)
  avg processing cycles per packet: 256.50 (513000/2000)
main thread:
  packets received: 7
";
        let says = Counts::read(text).json();
        assert_eq!(says["emc_percent"], 25.0);
        assert_eq!((&says["upcalls"], &says["cycles_per_packet"]), (&json!(1), &json!(256.5)));
    }

    #[test]
    fn rules_say_what_a_station_may_send() {
        let rules = Rules::Acl.flows().join("\n");
        assert!(
            rules.contains("in_port=2,dl_src=02:00:00:00:00:02,udp,nw_src=10.2.0.0/16,nw_dst=10.1.0.0/16"),
            "{rules}"
        );
        assert_eq!(Rules::Normal.flows(), ["actions=NORMAL"]);
        assert!("5tuple".parse::<Rules>().is_err());
    }
}
