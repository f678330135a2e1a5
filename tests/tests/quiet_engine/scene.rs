//! Machines that talk through an engine.

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::tenants::{BROADCAST, Crowd, Daemon, Envelope, Ports, Stream, mac};
use serde_json::json;

use crate::inside::Inside;

/// For what takes milliseconds on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(20);
/// When so many datagrams have passed, the flows of those that go on are known.
const KNOWN: u64 = 2000;

/// What the engine has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Load {
    /// Ports that are joined pairwise.
    Wired,
    /// Ports of the switch, and flows that are known.
    Switched,
    /// New flows all the time.
    Misses,
    /// Changes of the configuration and questions all the time.
    Changes,
}

impl Load {
    pub(crate) const ALL: [Self; 4] = [Self::Wired, Self::Switched, Self::Misses, Self::Changes];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Wired => "wired-ports",
            Self::Switched => "switched-ports",
            Self::Misses => "new-flows",
            Self::Changes => "changes",
        }
    }

    /// Its networks; `number` makes them different each time.
    pub(crate) fn toml(self, number: u16) -> String {
        if self == Self::Wired {
            return String::new();
        }
        let limit = 1_000_000 + u32::from(number);
        format!(
            r#"
[[network]]
name = "red"
routers = ["10.0.0.1/24"]
[[network]]
name = "more{number}"
[[group]]
name = "some"
rules = [
    {{ direction = "out", action = "allow" }},
    {{ direction = "in", action = "allow", protocol = "udp", ports = "{number}" }},
    {{ direction = "in", action = "allow", protocol = "udp", ports = "9-20" }},
]
[[port]]
name = "vm0"
network = "red"
macs = ["52:54:00:00:00:00"]
addresses = ["10.0.0.10"]
groups = ["some"]
packets-per-second = {limit}
[[port]]
name = "vm1"
network = "red"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.11"]
groups = ["some"]
"#
        )
    }

    /// What the machines say.
    pub(crate) fn talk(self, crowd: &mut Crowd) -> Result<()> {
        let there = Envelope::new((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"))?;
        let back = Envelope::new((mac(1), "10.0.0.11"), (mac(0), "10.0.0.10"))?;
        let all = Envelope::new((mac(0), "10.0.0.10"), (BROADCAST, "10.0.0.255"))?;
        let short = |stream: Stream| Stream { payload: (20, 120), ..stream };
        crowd.talk(short(Stream::new(1, there, 100)), 0, &[1]);
        crowd.talk(short(Stream { port: 10, ..Stream::new(2, back, 100) }), 1, &[0]);
        crowd.talk(short(Stream { port: 11, ..Stream::new(3, all, 2) }), 0, &[1]);
        if self == Self::Misses {
            let new = Stream { port: 12, turns: 4, each: 3, ..Stream::new(4, there, 400_000) };
            crowd.talk(short(new), 0, &[1]);
        }
        Ok(())
    }
}

pub(crate) const PORTS: Ports<'_> = Ports { machines: &["vm0", "vm1"], hosts: &[] };

/// What has the engine.
enum Subject {
    Daemon(Box<Daemon>),
    Inside(Inside),
}

impl Subject {
    /// A change of the rules and networks, and every question.
    fn change(&self, number: u16) -> Result<()> {
        let toml = Load::Changes.toml(number);
        match self {
            Self::Daemon(daemon) => {
                daemon.apply(PORTS, &toml)?;
                for question in ["switch.stats", "port.stats", "port.list"] {
                    daemon.call(question, json!({}))?;
                }
                Ok(())
            }
            Self::Inside(inside) => inside.change(&toml),
        }
    }
}

/// An engine and its machines.
pub(crate) struct Scene {
    load: Load,
    subject: Subject,
    crowd: Crowd,
    changes: AtomicU16,
    /// A thread is followed.
    slow: bool,
}

impl Scene {
    /// In the real program, which polls like that.
    pub(crate) fn set(load: Load, poll: &str) -> Result<Self> {
        let daemon = Daemon::start(PORTS, &load.toml(100), &["--poll", poll])?;
        let crowd = Crowd::attach(&daemon, PORTS.machines)?;
        Self::with(load, Subject::Daemon(Box::new(daemon)), crowd)
    }

    /// In this process.
    pub(crate) fn inside(load: Load) -> Result<Self> {
        let inside = Inside::start(&load.toml(100))?;
        let crowd = inside.attach()?;
        Self::with(load, Subject::Inside(inside), crowd)
    }

    fn with(load: Load, subject: Subject, mut crowd: Crowd) -> Result<Self> {
        load.talk(&mut crowd)?;
        Ok(Self { load, subject, crowd, changes: AtomicU16::new(100), slow: false })
    }

    /// The process that has the engine.
    pub(crate) fn process(&self) -> u32 {
        match &self.subject {
            Subject::Daemon(daemon) => daemon.id(),
            Subject::Inside(_) => std::process::id(),
        }
    }

    /// Goes on until flows are known.
    pub(crate) fn warm(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.passed() < KNOWN {
            self.talk(Duration::from_millis(50))?;
            ensure!(Instant::now() < until, "only {} datagrams passed", self.passed());
        }
        Ok(())
    }

    /// From here on somebody follows a thread, which slows it down: datagrams that wait for long are dropped, and changes that wait for long refused.
    pub(crate) fn be_patient(&mut self) {
        self.slow = true;
        for talk in &mut self.crowd.talks {
            talk.may_lose();
            // Nobody knows what was lost last.
            talk.window = u64::MAX;
        }
    }

    /// Datagrams that arrived.
    pub(crate) fn passed(&self) -> u64 {
        self.crowd.talks.iter().map(lab::tenants::Talk::received).sum()
    }

    /// Goes on for a while.
    pub(crate) fn talk(&mut self, time: Duration) -> Result<()> {
        let Self { load, subject, crowd, changes, slow } = self;
        if *load != Load::Changes {
            return crowd.run(time);
        }
        let until = Instant::now() + time;
        crowd.busy(|| {
            while Instant::now() < until {
                let changed = subject.change(changes.fetch_add(1, Ordering::Relaxed) % 5000 + 100);
                if !*slow {
                    changed?;
                }
            }
            Ok(())
        })
    }

    pub(crate) fn close(mut self) -> Result<()> {
        self.crowd.settle()?;
        self.crowd.must_have_no_strays()?;
        self.crowd.leave()?;
        match self.subject {
            Subject::Inside(inside) => inside.end(),
            Subject::Daemon(_) if self.load == Load::Wired => Ok(()),
            Subject::Daemon(daemon) => daemon.end().map(drop),
        }
    }
}
