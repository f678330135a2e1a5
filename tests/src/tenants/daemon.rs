//! `mirach run --config`, its configuration file, and who asks it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dataplane::control::Client;
use dataplane::switch::Reason;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::switch::Switch;
use crate::{binaries, leftovers, wait};

/// For what takes milliseconds on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(20);
/// Packets wait for so long for a machine that has no room, in milliseconds: as long as can be, as this machine may let the test wait for long, too.
const HOLD: u32 = 500;

/// Ports of a configuration, by their names.
#[derive(Clone, Copy, Default, Debug)]
pub struct Ports<'a> {
    /// Those of emulated machines.
    pub machines: &'a [&'a str],
    /// Those that are TAPs.
    pub hosts: &'a [&'a str],
}

impl Ports<'_> {
    /// A configuration file with these ports, whose sockets are in `folder`, and the networks that `toml` describes.
    #[must_use]
    pub fn file(&self, folder: &Path, toml: &str) -> String {
        let machines = self.machines.iter().map(|name| machine(folder, name));
        let hosts = self.hosts.iter().map(|name| format!("tap={name},name={name}"));
        let specs: Vec<String> = machines.chain(hosts).map(|spec| format!("    {spec:?},\n")).collect();
        format!("hold-milliseconds = {HOLD}\nports = [\n{}]\n{toml}", specs.concat())
    }
}

/// A running switch. Its TAPs are in a namespace of its own until hosts take them.
pub struct Daemon {
    /// Where its TAPs are made.
    pub namespace: Namespace,
    /// Until it is ended.
    switch: Option<Switch>,
    client: Mutex<Client>,
    folder: TempDir,
}

impl Daemon {
    /// Starts mirach with these ports and the networks that `toml` describes. `more` are further flags.
    ///
    /// Call it from a thread that lives as long as it is wanted.
    ///
    /// # Errors
    ///
    /// It does not come up; the error has what it printed.
    pub fn start(ports: Ports<'_>, toml: &str, more: &[&str]) -> Result<Self> {
        let folder = leftovers::folder("tenants")?;
        let namespace = Namespace::new("switch")?;
        let file = folder.path().join("mirach.toml");
        std::fs::write(&file, ports.file(folder.path(), toml))?;
        let control = folder.path().join("control");
        let [file, socket] = [&file, &control].map(|path| path.display().to_string());
        let arguments = [&["--config", &file, "--control", &socket], more].concat();
        let switch = Switch::start_in(&namespace, &arguments)?;
        let client = Client::connect(&control).with_context(|| switch.last_words())?;
        Ok(Self { namespace, switch: Some(switch), client: Mutex::new(client), folder })
    }

    /// The file with its configuration.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("mirach.toml")
    }

    /// A file of this name in its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The socket of a machine.
    #[must_use]
    pub fn socket(&self, machine: &str) -> PathBuf {
        self.path(machine)
    }

    /// The socket for requests.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.path("control")
    }

    /// How a port of an emulated machine is written.
    #[must_use]
    pub fn machine(&self, name: &str) -> String {
        machine(self.folder.path(), name)
    }

    /// The id of its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.switch.as_ref().map_or(0, Switch::id)
    }

    /// The end of what it printed for people.
    #[must_use]
    pub fn last_words(&self) -> String {
        self.switch.as_ref().map_or_else(String::new, Switch::last_words)
    }

    /// All that it printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.switch.as_ref().map_or_else(String::new, Switch::log)
    }

    /// Asks over its socket.
    ///
    /// # Errors
    ///
    /// It refuses, or does not answer.
    pub fn call(&self, method: &str, params: Value) -> Result<Value> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        client.call(method, params).with_context(|| method.to_owned())
    }

    /// Connects to its socket anew: who asks nothing for long gives its place to newcomers when there are many.
    ///
    /// # Errors
    ///
    /// It lets nobody in.
    pub fn reconnect(&self) -> Result<()> {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Client::connect(&self.control())?;
        Ok(())
    }

    /// Runs `mirach WORDS --control SOCKET` to its end.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn command(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(binaries::host()?);
        command.args(words).arg("--control").arg(self.control());
        command.output().context("cannot start mirach")
    }

    /// As [`Self::command`]; it has to succeed. What it printed.
    ///
    /// # Errors
    ///
    /// It did not; the error has what it said.
    pub fn say(&self, words: &[&str]) -> Result<String> {
        let output = self.command(words)?;
        let [out, error] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        ensure!(output.status.success(), "mirach {words:?} ended with {}: {error} {out}", output.status);
        Ok(out)
    }

    /// Writes the configuration file anew, and nothing more.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn write(&self, ports: Ports<'_>, toml: &str) -> Result<()> {
        Ok(std::fs::write(self.file(), ports.file(self.folder.path(), toml))?)
    }

    /// Writes the configuration file anew and has it applied; what was printed.
    ///
    /// # Errors
    ///
    /// It is refused.
    pub fn apply(&self, ports: Ports<'_>, toml: &str) -> Result<String> {
        self.write(ports, toml)?;
        let file = self.file().display().to_string();
        self.say(&["apply", &file])
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_raw(i32::try_from(self.id())?).context("no process")?;
        Ok(kill_process(id, signal)?)
    }

    /// Statistics of the switch.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn statistics(&self) -> Result<Value> {
        self.call("switch.stats", json!({}))
    }

    /// Packets that the switch dropped for a reason.
    ///
    /// # Errors
    ///
    /// There is no such reason.
    pub fn dropped(&self, reason: &str) -> Result<u64> {
        let statistics = self.statistics()?;
        ensure!(Reason::ALL.iter().any(|known| known.name() == reason), "there is no reason `{reason}`");
        let drops = statistics.pointer("/sums/drops").context("no drops in the statistics")?;
        // What never happened may be left out.
        Ok(drops.get(reason).and_then(Value::as_u64).unwrap_or(0))
    }

    /// A counter of a port.
    ///
    /// # Errors
    ///
    /// There is no such port or counter.
    pub fn counter(&self, port: &str, counter: &str) -> Result<u64> {
        let answer = self.call("port.stats", json!({ "name": port }))?;
        let value = answer.pointer(&format!("/ports/0/counters/{counter}")).and_then(Value::as_u64);
        value.with_context(|| format!("port {port} has no counter `{counter}`: {answer}"))
    }

    /// Waits until a reason has dropped this many packets, and then a little for one too many.
    ///
    /// # Errors
    ///
    /// It dropped fewer, or more.
    pub fn wait_for_drops(&self, reason: &str, count: u64) -> Result<()> {
        let seen = wait::until(&format!("{count} packets dropped as {reason}"), PATIENCE, || {
            let seen = self.dropped(reason)?;
            Ok((seen >= count).then_some(seen))
        });
        let seen = seen.with_context(|| {
            self.statistics().map_or_else(|_| String::new(), |all| all["sums"]["drops"].to_string())
        })?;
        ensure!(seen == count, "{seen} packets were dropped as {reason} instead of {count}");
        Ok(())
    }

    /// Fails when it does not run any more, or panicked.
    ///
    /// # Errors
    ///
    /// It does not; the error has what it printed.
    pub fn must_run(&mut self) -> Result<()> {
        self.switch.as_mut().map_or(Ok(()), Switch::must_run)
    }

    /// Waits until all sums are exact: what ports gave is what ports got and what was dropped by name.
    ///
    /// # Errors
    ///
    /// They are not.
    pub fn must_balance(&self) -> Result<()> {
        let mut seen = Value::Null;
        let balanced = wait::until("exact sums", PATIENCE, || {
            seen = self.statistics()?;
            let number = |name: &str| seen.pointer(&format!("/sums/packets/{name}")).and_then(Value::as_u64);
            let of = |names: &[&str]| names.iter().map(|name| number(name)).sum::<Option<u64>>();
            let drops = seen.pointer("/sums/drops").and_then(Value::as_object).context("no drops")?;
            let dropped: u64 = drops.values().filter_map(Value::as_u64).sum();
            let taken = of(&["received", "returned", "copied", "taken_over"]).context("no sums")?;
            let given = of(&["delivered", "passed_on", "handed_over", "raised", "held"]).context("no sums")?;
            Ok((taken == given + dropped && number("held") == Some(0)).then_some(()))
        });
        balanced.with_context(|| format!("{}", seen["sums"]))
    }

    /// Ends it, after a last look at its sums.
    ///
    /// # Errors
    ///
    /// A sum is wrong, it panicked, or does not end.
    pub fn end(mut self) -> Result<Value> {
        self.must_run()?;
        self.must_balance()?;
        let Some(switch) = self.switch.take() else { return Ok(Value::Null) };
        switch.end()
    }
}

impl Drop for Daemon {
    /// A check that failed is easier to understand with what the switch has to say.
    fn drop(&mut self) {
        if self.switch.is_none() {
            return;
        }
        if let Ok(statistics) = self.statistics() {
            let counted = &statistics["sums"]["packets"];
            println!("  the switch counted {counted} and dropped {}", some(&statistics["sums"]["drops"]));
        }
        let ports = self.call("port.stats", json!({}));
        for port in ports.iter().filter_map(|answer| answer["ports"].as_array()).flatten() {
            println!("  port {} counted {}", port["name"], some(&port["counters"]));
        }
    }
}

/// What is not 0.
fn some(counters: &Value) -> Value {
    let counters = counters.as_object().into_iter().flatten();
    counters.filter(|(_, count)| **count != 0).map(|(name, count)| (name.clone(), count.clone())).collect()
}

fn machine(folder: &Path, name: &str) -> String {
    format!("vhost-user={},client=off,name={name}", folder.join(name).display())
}
