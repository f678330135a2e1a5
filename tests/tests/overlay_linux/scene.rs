//! Two hosts: one behind our tunnel, one with a VXLAN device of the kernel.

use anyhow::{Context, Result};
use lab::namespace::Namespace;
use lab::process::{Running, run};

use crate::tunnel::Tunnel;

/// The network between hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Underlay {
    V4,
    V4WithChecksums,
    V6,
}

impl Underlay {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V4WithChecksums => "ipv4-with-checksums",
            Self::V6 => "ipv6",
        }
    }

    /// Our address, and that of the other host.
    pub(crate) const fn addresses(self) -> [&'static str; 2] {
        match self {
            Self::V4 | Self::V4WithChecksums => ["192.0.2.1", "192.0.2.2"],
            Self::V6 => ["2001:db8::1", "2001:db8::2"],
        }
    }

    /// Exactly what carries packets of 1500 bytes.
    pub(crate) const fn mtu(self) -> u16 {
        match self {
            Self::V4 | Self::V4WithChecksums => 1550,
            Self::V6 => 1570,
        }
    }
}

/// Both hosts and the tunnel between them.
pub(crate) struct Scene {
    /// The host behind our tunnel, whose interface is `lan0`.
    pub(crate) near: Namespace,
    /// The host with the kernel's tunnel: `wire0` is the network between hosts, `lan0` the one inside.
    pub(crate) far: Namespace,
    pub(crate) tunnel: Tunnel,
}

const NEAR: &str = "10.9.0.1";
const FAR: &str = "10.9.0.2";

impl Scene {
    pub(crate) fn set(underlay: Underlay) -> Result<Self> {
        let near = Namespace::new("near")?;
        let far = Namespace::new("far")?;
        if underlay == Underlay::V6 {
            let enable = "echo 0 > /proc/sys/net/ipv6/conf/default/disable_ipv6";
            run(&mut far.command(&["sh", "-c", enable])).context("this kernel has no IPv6")?;
        }
        let tunnel = Tunnel::open(underlay, &near, &far)?;
        near.ip(&["address", "add", &format!("{NEAR}/24"), "dev", "lan0"])?;
        near.ip(&["link", "set", "lan0", "mtu", "1500", "up"])?;
        let [here, there] = underlay.addresses();
        far.ip(&["link", "set", "wire0", "mtu", &underlay.mtu().to_string(), "up"])?;
        match underlay {
            Underlay::V6 => far.ip(&["address", "add", &format!("{there}/64"), "dev", "wire0", "nodad"])?,
            _ => far.ip(&["address", "add", &format!("{there}/24"), "dev", "wire0"])?,
        };
        let sums = if underlay == Underlay::V4WithChecksums { "udpcsum" } else { "noudpcsum" };
        for (name, vni) in [("lan0", "42"), ("strange0", "43")] {
            let words = ["link", "add", name, "type", "vxlan", "id", vni, "local", there, "remote", here];
            far.ip(&[&words[..], &["dev", "wire0", "dstport", "4789", sums]].concat())?;
            far.ip(&["link", "set", name, "mtu", "1500", "up"])?;
        }
        far.ip(&["address", "add", &format!("{FAR}/24"), "dev", "lan0"])?;
        far.ip(&["address", "add", "10.8.0.2/24", "dev", "strange0"])?;
        near.ip(&["address", "add", "10.8.0.1/24", "dev", "lan0"])?;
        Ok(Self { near, far, tunnel })
    }

    /// Pings from our host to the other.
    pub(crate) fn ping(&self, options: &[&str]) -> Result<String> {
        run(&mut self.near.command(&[&["ping", "-n", "-W", "10", "-w", "30"], options, &[FAR]].concat()))
    }

    /// Pings from the other host through a network that is not ours; `true` when nothing came back.
    pub(crate) fn ping_from_a_strange_network(&self) -> Result<bool> {
        let words = ["ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", "-I", "strange0", "10.8.0.1"];
        // It ends with 1 when nothing came back, and with 2 when it could not even send.
        let output = self.far.command(&words).output().context("cannot start ping")?;
        let printed = String::from_utf8_lossy(&output.stdout);
        anyhow::ensure!(printed.contains("packets transmitted"), "ping did not run: {printed}");
        Ok(output.status.code() == Some(1))
    }

    /// Passes data by TCP from our host to the other, or back with `-R`; gives how many MiB arrived.
    pub(crate) fn iperf(&self, options: &[&str]) -> Result<f64> {
        let server = self
            .far
            .command(&["iperf3", "-s", "-1", "-B", FAR, "--forceflush"])
            .stdout(std::process::Stdio::piped())
            .spawn();
        let mut server = Running(server.context("cannot start iperf3: run `cargo xtask setup`")?);
        // It says that it listens.
        let output = server.0.stdout.take().context("iperf3 has no output")?;
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
        lines.find(|line| line.as_ref().map_or(true, |line| line.contains("listening"))).context("iperf3 ended")??;
        let words = [&["timeout", "60", "iperf3", "-J", "-c", FAR][..], options].concat();
        let printed = run(&mut self.near.command(&words))?;
        let report: serde_json::Value = serde_json::from_str(&printed).context("iperf3 printed no JSON")?;
        let bytes = report.pointer("/end/sum_received/bytes").and_then(serde_json::Value::as_f64);
        Ok(bytes.with_context(|| format!("iperf3 reported nothing: {printed}"))? / f64::from(1 << 20))
    }
}
