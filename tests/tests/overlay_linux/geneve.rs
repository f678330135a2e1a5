//! Geneve, with a guest's kernel as the other host: its only network device is the underlay port of `mirach run`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::cache::Kernel;
use lab::guest::{Guest, Machine, Nic, NicKind, VhostUser};
use lab::suite::Suite;
use lab::tenants::{Daemon, Host, Ports, mac};
use lab::traffic::{Direction, tcp_to_guest};

const PORTS: Ports<'_> = Ports { machines: &["uplink"], hosts: &["red", "blue"] };
/// One tenant over IPv4, the other over IPv6.
const TOML: &str = r#"
[underlay]
port = "uplink"
addresses = ["192.0.2.1/24", "2001:db8::1/64"]
[[network]]
name = "red"
vni = 42
[[network]]
name = "blue"
vni = 43
[[port]]
name = "red"
network = "red"
anti-spoofing = false
[[port]]
name = "blue"
network = "blue"
anti-spoofing = false
[[tunnel]]
network = "red"
remote = "192.0.2.2"
kind = "geneve"
[[tunnel]]
network = "blue"
remote = "2001:db8::2"
kind = "geneve"
"#;
/// Names, the beginnings of addresses, and what fits: Ethernet and Geneve take 50 bytes over IPv4 and 70 over IPv6, of 1500 between the hosts.
const TENANTS: [(&str, &str, u16); 2] = [("red", "10.9.0", 1450), ("blue", "10.9.1", 1430)];
/// The guest's work, by its own processor without hardware help.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everybody. The guest goes first.
struct Site {
    guest: Guest,
    hosts: [Host; 2],
    daemon: Daemon,
}

impl Site {
    fn set() -> Result<Self> {
        let daemon = Daemon::start(PORTS, TOML, &[])?;
        let mut guest = Guest::boot(Machine {
            number: 1,
            kernel: Kernel::Stock,
            modules: &["virtio_net", "geneve"],
            programs: &[],
            tools: &["ip", "iperf3", "ping"],
            nics: vec![Nic { slot: 3, kind: NicKind::VhostUser(VhostUser::new(daemon.socket("uplink"), false)) }],
            processors: 1,
            memory_mib: 384,
            parameters: "",
            controller: false,
            reboots: false,
        })?;
        let addresses = ["192.0.2.2/24 dev eth0", "2001:db8::2/64 dev eth0 nodad"];
        guest.must("ip link set eth0 up")?;
        for address in addresses {
            guest.must(&format!("/tools/ip address add {address}"))?;
        }
        for ((name, net, mtu), (vni, remote)) in TENANTS.into_iter().zip([(42, "192.0.2.1"), (43, "2001:db8::1")]) {
            guest.must(&format!(
                "/tools/ip link add {name} type geneve id {vni} remote {remote} && \
                 /tools/ip address add {net}.2/24 dev {name} && /tools/ip link set {name} mtu {mtu} up"
            ))?;
        }
        let host = |(name, net, mtu): (&str, &str, u16)| -> Result<Host> {
            let host = Host::attach(&daemon, name, mac(1), &[&format!("{net}.1/24")])?;
            host.namespace.ip(&["link", "set", "lan0", "mtu", &mtu.to_string()])?;
            Ok(host)
        };
        let [red, blue] = TENANTS.map(host);
        Ok(Self { guest, hosts: [red?, blue?], daemon })
    }
}

/// Adds the checks, which share a guest.
pub(crate) fn all(suite: &mut Suite) {
    let mut site = None;
    suite.check("geneve-guest-boots", || {
        site = Some(Site::set()?);
        Ok(())
    });
    let mut with = |name: &str, check: fn(&mut Site) -> Result<()>| {
        suite.check(&format!("geneve-{name}"), || {
            check(site.as_mut().context("there is no guest: see geneve-guest-boots")?)
        });
    };
    with("answers-pings", pings);
    with("tells-the-path-mtu", path_mtu);
    with("carries-tcp", streams);
    suite.check("geneve-switch-ends-well", || {
        let Site { guest, hosts, daemon } = site.context("there is no guest: see geneve-guest-boots")?;
        drop((guest, hosts));
        daemon.end().map(drop)
    });
}

fn pings(site: &mut Site) -> Result<()> {
    for (host, (name, net, mtu)) in site.hosts.iter().zip(TENANTS) {
        host.ping_until_answered(&format!("{net}.2")).with_context(|| format!("{name}: {}", state(&site.daemon)))?;
        // The longest that fits, and more in fragments of the inner packet.
        host.ping(&format!("{net}.2"), &["-M", "do", "-s", &(mtu - 28).to_string()])?;
        host.ping(&format!("{net}.2"), &["-s", "5000"])?;
        let words = format!("/tools/ping -n -q -c 3 -i 0.2 -W 10 -s 1300 {net}.1");
        let answer = site.guest.run(&words, PATIENCE)?;
        ensure!(answer.output.contains(" 0% packet loss"), "from the guest: {}", answer.output);
    }
    Ok(())
}

fn path_mtu(site: &mut Site) -> Result<()> {
    for (host, (name, net, mtu)) in site.hosts.iter().zip(TENANTS) {
        // Our host believes that more fits than does.
        host.namespace.ip(&["link", "set", "lan0", "mtu", "1500"])?;
        let refused = host.ping(&format!("{net}.2"), &["-M", "do", "-s", &(mtu - 27).to_string()]);
        let text = refused.err().context("a packet that is too big went through")?.to_string();
        let told = [format!("mtu = {mtu}"), format!("mtu={mtu}")];
        ensure!(told.iter().any(|told| text.contains(told)), "{name}: the sender was not told: {text}");
        host.ping(&format!("{net}.2"), &["-s", "3000"])?;
    }
    Ok(())
}

/// The guest's interface takes segments whole, in the tunnel and out of it.
fn streams(site: &mut Site) -> Result<()> {
    for (host, (name, net, _)) in site.hosts.iter().zip(TENANTS) {
        for direction in [Direction::Forward, Direction::Reverse] {
            let bytes = tcp_to_guest(&host.namespace, &mut site.guest, &format!("{net}.2"), direction, 3, 1)?;
            println!("  {name}, {direction:?}: {} KiB a second", bytes / 3 / 1024);
            ensure!(bytes > 1 << 20, "{name}: only {bytes} bytes of TCP arrived, {direction:?}");
        }
    }
    Ok(())
}

fn state(daemon: &Daemon) -> String {
    daemon
        .statistics()
        .map_or_else(|error| format!("{error:#}"), |all| format!("{} {}", all["tunnels"], all["sums"]["drops"]))
}
