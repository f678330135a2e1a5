//! Tenants that use the same addresses.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::tenants::{BROADCAST, Crowd, Daemon, Envelope, Host, Ports, Station, Stream, mac};

const TOML: &str = r#"
[[network]]
name = "red"
vni = 100
routers = ["10.0.0.1/24", "fd00::1/64"]
[[network]]
name = "blue"
vni = 200
routers = ["10.0.0.1/24", "fd00::1/64"]
[[port]]
name = "red0"
network = "red"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.11", "fd00::11"]
[[port]]
name = "red1"
network = "red"
macs = ["52:54:00:00:00:02"]
addresses = ["10.0.0.12", "fd00::12"]
[[port]]
name = "blue0"
network = "blue"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.11", "fd00::11"]
[[port]]
name = "blue1"
network = "blue"
macs = ["52:54:00:00:00:02"]
addresses = ["10.0.0.12", "fd00::12"]
"#;
const NAMES: [&str; 4] = ["red0", "red1", "blue0", "blue1"];
/// So long all of them talk.
const TIME: Duration = Duration::from_secs(4);

/// The tenants' datagrams have the same headers; what is in them says whose they are.
pub(crate) fn machines() -> Result<()> {
    let ports = Ports { machines: &NAMES, hosts: &[] };
    let daemon = Daemon::start(ports, TOML, &[])?;
    let macs = [mac(1), mac(2), mac(1), mac(2)];
    let stations = NAMES.iter().zip(macs).map(|(name, mac)| Station::attach(&daemon, name, mac));
    let mut crowd = Crowd::new(stations.collect::<Result<_>>()?);
    for (tenant, [first, second]) in (1_u16..).zip([[0, 1], [2, 3]]) {
        let envelopes = [
            Envelope::new((mac(1), "10.0.0.11"), (mac(2), "10.0.0.12"))?,
            Envelope::new((mac(1), "fd00::11"), (mac(2), "fd00::12"))?,
            Envelope::new((mac(1), "10.0.0.11"), (BROADCAST, "255.255.255.255"))?,
            Envelope::new((mac(1), "fd00::11"), ([0x33, 0x33, 0, 0, 0, 1], "ff02::1"))?,
        ];
        for (id, envelope) in (tenant * 100..).zip(envelopes) {
            crowd.talk(Stream::new(id, envelope, 64), first, &[second]);
        }
        let back = Envelope::new((mac(2), "10.0.0.12"), (mac(1), "10.0.0.11"))?;
        crowd.talk(Stream::new(tenant * 100 + 50, back, 64), second, &[first]);
    }
    crowd.run(TIME)?;
    crowd.settle()?;
    crowd.must_have_no_strays()?;
    for talk in &crowd.talks {
        ensure!(talk.received() > 100, "stream {} had {} datagrams", talk.stream.id, talk.received());
    }
    crowd.leave()?;
    daemon.end().map(drop)
}

/// Network stacks that find and ping each other: one tenant's answers, and nobody answers when he has none with that address.
pub(crate) fn hosts() -> Result<()> {
    let ports = Ports { machines: &[], hosts: &NAMES };
    let daemon = Daemon::start(ports, TOML, &[])?;
    let host = |name, number: u8| {
        let address = [format!("10.0.0.1{number}/24"), format!("fd00::1{number}/64")];
        Host::attach(&daemon, name, mac(number), &address.each_ref().map(String::as_str))
    };
    let [red0, _red1, blue0] = [host("red0", 1)?, host("red1", 2)?, host("blue0", 1)?];
    for host in [&red0, &blue0] {
        for router in ["10.0.0.1", "fd00::1"] {
            host.ping(router, &[])?;
        }
    }
    for address in ["10.0.0.12", "fd00::12"] {
        red0.ping(address, &["-s", "1400"])?;
        // Its own is not there yet, and the other tenant's must not answer.
        blue0.ping_in_vain(address, &[])?;
    }
    let _blue1 = host("blue1", 2)?;
    for address in ["10.0.0.12", "fd00::12"] {
        blue0.ping(address, &["-s", "1400"])?;
    }
    daemon.end().map(drop)
}
