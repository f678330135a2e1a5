//! A host with `mirach run --config`, and another one with VXLAN devices of the kernel; two tenants with the same addresses on both.

use anyhow::{Context, Result};
use lab::namespace::Namespace;
use lab::process::run;
use lab::tenants::{Daemon, Host, Mac, Ports, mac, text};
use lab::wait;
use std::time::Duration;

use crate::scene::Underlay;

pub(crate) const NEAR: &str = "10.9.0.1";
pub(crate) const FAR: &str = "10.9.0.2";
pub(crate) const NEAR_V6: &str = "fd09::1";
pub(crate) const FAR_V6: &str = "fd09::2";
/// The other host's interface towards ours.
pub(crate) const WIRE: Mac = mac(0x77);
/// The tenants, with the identifiers of their networks.
const TENANTS: [(&str, u32); 2] = [("red", 42), ("blue", 43)];
/// For what takes milliseconds on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both hosts. `lan0` is the interface of each tenant's part; `red` and `blue` are behind mirach.
pub(crate) struct Site {
    pub(crate) daemon: Daemon,
    pub(crate) red: Host,
    pub(crate) blue: Host,
    /// The other host, whose `lan0` is the network between hosts.
    pub(crate) far: Host,
    /// The tenants' parts there.
    pub(crate) far_red: Namespace,
    pub(crate) far_blue: Namespace,
}

pub(crate) const PORTS: Ports<'_> = Ports { machines: &[], hosts: &["uplink", "red", "blue"] };

/// The configuration, with tunnels of these tenants.
pub(crate) fn toml(underlay: Underlay, tunnels: &[&str]) -> String {
    let [here, there] = underlay.addresses();
    let length = if underlay == Underlay::V6 { 64 } else { 24 };
    let mut toml =
        format!("[underlay]\nport = \"uplink\"\naddresses = [\"{here}/{length}\"]\nmtu = {}\n", underlay.mtu());
    for (name, vni) in TENANTS {
        toml += &format!("[[network]]\nname = \"{name}\"\nvni = {vni}\n");
        toml += &format!("[[port]]\nname = \"{name}\"\nnetwork = \"{name}\"\nanti-spoofing = false\n");
        if tunnels.contains(&name) {
            toml += &format!("[[tunnel]]\nnetwork = \"{name}\"\nremote = \"{there}\"\n");
        }
    }
    toml
}

impl Site {
    pub(crate) fn set(underlay: Underlay) -> Result<Self> {
        let daemon = Daemon::start(PORTS, &toml(underlay, &["red", "blue"]), &[])?;
        let near = [format!("{NEAR}/24"), format!("{NEAR_V6}/64")];
        let near = near.each_ref().map(String::as_str);
        let red = Host::attach(&daemon, "red", mac(1), &near)?;
        let blue = Host::attach(&daemon, "blue", mac(1), &near)?;
        let [here, there] = underlay.addresses();
        let length = if underlay == Underlay::V6 { 64 } else { 24 };
        let far = Host::attach(&daemon, "uplink", WIRE, &[&format!("{there}/{length}")])?;
        far.namespace.ip(&["link", "set", "lan0", "mtu", &underlay.mtu().to_string()])?;
        // Who has a new Ethernet address says so.
        for notify in ["ipv4/conf/lan0/arp_notify", "ipv6/conf/lan0/ndisc_notify"] {
            let script = format!("test ! -e /proc/sys/net/{notify} || echo 1 > /proc/sys/net/{notify}");
            run(&mut far.namespace.command(&["sh", "-c", &script]))?;
        }
        let sums = if underlay == Underlay::V4WithChecksums { "udpcsum" } else { "noudpcsum" };
        let tenant = |(name, vni): (&str, u32)| -> Result<Namespace> {
            let namespace = Namespace::new(&format!("far-{name}"))?;
            let enable = "echo 0 > /proc/sys/net/ipv6/conf/default/disable_ipv6";
            run(&mut namespace.command(&["sh", "-c", enable])).context("this kernel has no IPv6")?;
            let vni = vni.to_string();
            let words = ["link", "add", name, "type", "vxlan", "id", &vni, "local", there, "remote", here];
            far.namespace.ip(&[&words[..], &["dev", "lan0", "dstport", "4789", sums]].concat())?;
            far.namespace.ip(&["link", "set", name, "netns", namespace.name(), "name", "lan0"])?;
            let address = text(mac(2));
            namespace.ip(&["link", "set", "lan0", "mtu", "1500", "address", &address, "addrgenmode", "none"])?;
            namespace.ip(&["link", "set", "lan0", "up"])?;
            namespace.ip(&["address", "add", &format!("{FAR}/24"), "dev", "lan0"])?;
            namespace.ip(&["address", "add", &format!("{FAR_V6}/64"), "dev", "lan0", "nodad"])?;
            Ok(namespace)
        };
        let [far_red, far_blue] = [tenant(TENANTS[0])?, tenant(TENANTS[1])?];
        Ok(Self { daemon, red, blue, far, far_red, far_blue })
    }

    /// Waits until pings pass: the hosts have to find each other first.
    pub(crate) fn wait(&self) -> Result<()> {
        self.red.ping_until_answered(FAR).with_context(|| self.state())?;
        self.blue.ping_until_answered(FAR).with_context(|| self.state())
    }

    /// What the switch says of its tunnels.
    pub(crate) fn state(&self) -> String {
        self.daemon
            .statistics()
            .map_or_else(|error| format!("{error:#}"), |all| format!("{} {}", all["tunnels"], all["sums"]["drops"]))
    }

    /// Waits until a tenant's tunnel is in this state; `None`: there is none.
    pub(crate) fn wait_for_state(&self, tenant: &str, state: Option<&str>) -> Result<()> {
        wait::until(&format!("the tunnel of {tenant} being {state:?}"), PATIENCE, || {
            let statistics = self.daemon.statistics()?;
            let tunnels = statistics["tunnels"].as_array().context("no tunnels")?;
            let seen = tunnels.iter().find(|tunnel| tunnel["network"] == tenant);
            Ok((seen.and_then(|tunnel| tunnel["state"].as_str()) == state).then_some(()))
        })
        .with_context(|| self.state())
    }
}
