//! Machines that talk through an engine.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use lab::tenants::{BROADCAST, Crowd, Daemon, Envelope, Ports, Station, Stream, mac};
use serde_json::json;

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

/// The program and its machines.
pub(crate) struct Scene {
    load: Load,
    daemon: Daemon,
    crowd: Crowd,
    changes: AtomicU16,
}

impl Scene {
    pub(crate) fn set(load: Load, poll: &str) -> Result<Self> {
        let daemon = Daemon::start(PORTS, &load.toml(100), &["--poll", poll])?;
        let stations = (0..).zip(PORTS.machines).map(|(number, name)| Station::attach(&daemon, name, mac(number)));
        let mut crowd = Crowd::new(stations.collect::<Result<_>>()?);
        load.talk(&mut crowd)?;
        Ok(Self { load, daemon, crowd, changes: AtomicU16::new(100) })
    }

    pub(crate) fn process(&self) -> u32 {
        self.daemon.id()
    }

    /// Datagrams that arrived.
    pub(crate) fn passed(&self) -> u64 {
        self.crowd.talks.iter().map(lab::tenants::Talk::received).sum()
    }

    /// Goes on for a while.
    pub(crate) fn talk(&mut self, time: Duration) -> Result<()> {
        let Self { load, daemon, crowd, changes } = self;
        if *load != Load::Changes {
            return crowd.run(time);
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let changing = scope.spawn(|| -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    change(daemon, changes)?;
                }
                Ok(())
            });
            let until = Instant::now() + time;
            let result = loop {
                match crowd.turn(true) {
                    Err(error) => break Err(error),
                    Ok(_) if changing.is_finished() || Instant::now() >= until => break Ok(()),
                    Ok(_) => {}
                }
            };
            stop.store(true, Ordering::Relaxed);
            changing.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
            result
        })
    }

    pub(crate) fn close(mut self) -> Result<()> {
        self.crowd.settle()?;
        self.crowd.must_have_no_strays()?;
        self.crowd.leave()?;
        if self.load == Load::Wired { Ok(()) } else { self.daemon.end().map(drop) }
    }
}

/// One change of the rules and networks, and every question.
fn change(daemon: &Daemon, changes: &AtomicU16) -> Result<()> {
    let number = changes.fetch_add(1, Ordering::Relaxed);
    daemon.apply(PORTS, &Load::Changes.toml(number % 5000 + 100))?;
    for question in ["switch.stats", "port.stats", "port.list"] {
        daemon.call(question, json!({}))?;
    }
    Ok(())
}
