//! Who gets a frame.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::tenants::{BROADCAST, Crowd, Daemon, Envelope, Ports, Stream, mac};

const FREE: &str = r#"
[[network]]
name = "red"
[[port]]
name = "vm0"
network = "red"
anti-spoofing = false
[[port]]
name = "vm1"
network = "red"
anti-spoofing = false
[[port]]
name = "vm2"
network = "red"
anti-spoofing = false
"#;
const THREE: Ports<'_> = Ports { machines: &["vm0", "vm1", "vm2"], hosts: &[] };
/// What was learned from a frame holds for frames of known flows a moment after it.
const MOMENT: Duration = Duration::from_millis(500);

pub(crate) fn learned() -> Result<()> {
    let daemon = Daemon::start(THREE, FREE, &[])?;
    let mut crowd = Crowd::attach(&daemon, THREE.machines)?;
    let to_1 = Envelope::new((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"))?;
    crowd.talk(Stream::new(1, to_1, 4), 0, &[1]);
    crowd.exchange(8)?;
    ensure!(crowd.strays_of(2).len() == 8, "what is for somebody unknown reaches everybody");
    // It speaks, and from then on is known.
    let hello = Envelope::new((mac(1), "10.0.0.11"), (BROADCAST, "10.0.0.255"))?;
    crowd.talk(Stream::new(2, hello, 1), 1, &[0, 2]);
    crowd.exchange(1)?;
    crowd.run(MOMENT)?;
    crowd.settle()?;
    crowd.strays.clear();
    crowd.exchange(2000)?;
    crowd.must_have_no_strays()?;
    // It moves to another port.
    crowd.talks.clear();
    crowd.talk(Stream::new(3, hello, 1), 2, &[0, 1]);
    crowd.exchange(1)?;
    crowd.run(MOMENT)?;
    crowd.settle()?;
    crowd.strays.clear();
    crowd.talks.clear();
    crowd.talk(Stream::new(4, to_1, 4), 0, &[2]);
    crowd.exchange(2000)?;
    crowd.must_have_no_strays()?;
    crowd.leave()?;
    daemon.end().map(drop)
}

pub(crate) fn given() -> Result<()> {
    let toml = FREE.to_owned()
        + "[[port]]\nname = \"vm3\"\nnetwork = \"red\"\nmacs = [\"52:54:00:00:00:03\"]\naddresses = [\"10.0.0.13\"]\n";
    let ports = Ports { machines: &["vm0", "vm1", "vm2", "vm3"], hosts: &[] };
    let daemon = Daemon::start(ports, &toml, &[])?;
    let mut crowd = Crowd::attach(&daemon, ports.machines)?;
    let there = Envelope::new((mac(0), "10.0.0.10"), (mac(3), "10.0.0.13"))?;
    crowd.talk(Stream::new(1, there, 16), 0, &[3]);
    crowd.exchange(1000)?;
    // What is for somebody unknown does not reach a port whose addresses are given.
    let unknown = Envelope::new((mac(0), "10.0.0.10"), (mac(77), "10.0.0.77"))?;
    crowd.talk(Stream::new(2, unknown, 16), 0, &[1, 2]);
    crowd.exchange(1000)?;
    crowd.must_have_no_strays()?;
    crowd.leave()?;
    daemon.end().map(drop)
}

pub(crate) fn for_all() -> Result<()> {
    let daemon = Daemon::start(THREE, FREE, &[])?;
    let mut crowd = Crowd::attach(&daemon, THREE.machines)?;
    for (id, (to, address)) in
        (1..).zip([(BROADCAST, "255.255.255.255"), ([1, 0, 0x5e, 1, 2, 3], "239.1.2.3"), (BROADCAST, "10.0.0.255")])
    {
        let envelope = Envelope::new((mac(0), "10.0.0.10"), (to, address))?;
        crowd.talk(Stream::new(id, envelope, 8), 0, &[1, 2]);
    }
    let v6 = Envelope::new((mac(1), "fd00::11"), ([0x33, 0x33, 0, 0, 1, 2], "ff02::102"))?;
    crowd.talk(Stream::new(9, v6, 8), 1, &[0, 2]);
    crowd.exchange(3000)?;
    crowd.must_have_no_strays()?;
    crowd.leave()?;
    daemon.end().map(drop)
}

/// A switch beside them changes nothing for those.
pub(crate) fn wired() -> Result<()> {
    let ports = Ports { machines: &["vm0", "vm1", "vm2", "left", "right"], hosts: &[] };
    let daemon = Daemon::start(ports, FREE, &[])?;
    let mut crowd = Crowd::attach(&daemon, ports.machines)?;
    // Nobody looks at what passes: it may be for anybody.
    let any = Envelope::new((mac(9), "10.0.0.10"), (mac(0), "10.0.0.11"))?;
    crowd.talk(Stream::new(1, any, 4), 3, &[4]);
    crowd.talk(Stream::new(2, any.tagged(99), 4), 4, &[3]);
    let all = Envelope::new((mac(0), "10.0.0.10"), (BROADCAST, "10.0.0.255"))?;
    crowd.talk(Stream::new(3, all, 4), 0, &[1, 2]);
    crowd.exchange(5000)?;
    crowd.must_have_no_strays()?;
    crowd.leave()?;
    daemon.end().map(drop)
}
