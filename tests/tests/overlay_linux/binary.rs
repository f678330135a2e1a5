//! The same through the program as it runs: its own threads find the other host, learn who is behind it, and answer what does not fit.

use anyhow::{Context, Result, ensure};
use lab::frames::Series;
use lab::tenants::{mac, text};
use lab::traffic::{Direction, tcp};
use serde_json::json;

use crate::scene::Underlay;
use crate::site::{FAR, FAR_V6, PORTS, Site, toml};

/// Short and long ones, over both families inside; neighbours are found through the tunnel.
pub(crate) fn pings(underlay: Underlay) -> Result<()> {
    let site = Site::set(underlay)?;
    site.wait()?;
    site.wait_for_state("red", Some("up"))?;
    for (address, longest) in [(FAR, "1472"), (FAR_V6, "1452")] {
        site.red.ping(address, &[])?;
        // The longest that fits, and more in fragments of the inner packet.
        site.red.ping(address, &["-M", "do", "-s", longest])?;
        site.red.ping(address, &["-s", "5000"])?;
    }
    site.daemon.end().map(drop)
}

/// One byte more is answered with the MTU, and the sender makes its packets smaller then.
pub(crate) fn path_mtu(underlay: Underlay) -> Result<()> {
    let site = Site::set(underlay)?;
    site.wait()?;
    // Our host believes that more fits than does.
    site.red.namespace.ip(&["link", "set", "lan0", "mtu", "1600"])?;
    for (address, payload) in [(FAR, "1473"), (FAR_V6, "1453")] {
        let refused = site.red.ping(address, &["-M", "do", "-s", payload]);
        let text = refused.err().context("a packet that is too big went through")?.to_string();
        ensure!(text.contains("mtu = 1500") || text.contains("mtu=1500"), "the sender was not told: {text}");
        site.red.ping(address, &["-s", "3000"])?;
    }
    let bytes = tcp(&site.red.namespace, &site.far_red, FAR, Direction::Forward, 1)?;
    ensure!(bytes > 1 << 20, "only {bytes} bytes of TCP arrived after the MTU was told");
    site.daemon.end().map(drop)
}

/// Segments of up to 64 KiB leave the sender, and are cut inside the tunnel.
pub(crate) fn streams(underlay: Underlay) -> Result<()> {
    let site = Site::set(underlay)?;
    site.wait()?;
    for address in [FAR, FAR_V6] {
        for direction in [Direction::Forward, Direction::Reverse] {
            let bytes = tcp(&site.red.namespace, &site.far_red, address, direction, 2)?;
            ensure!(bytes > 4 << 20, "only {bytes} bytes of TCP arrived at {address}, {direction:?}");
        }
    }
    site.daemon.end().map(drop)
}

/// Numbered frames of all sizes, in order, byte for byte.
pub(crate) fn frames(underlay: Underlay) -> Result<()> {
    let site = Site::set(underlay)?;
    site.wait()?;
    let series = Series { count: 5000, flows: 7, window: 64, run: 1 };
    series.pass(&site.red.namespace, &site.far_red).context("from us to the kernel")?;
    Series { run: 2, ..series }.pass(&site.far_red, &site.red.namespace).context("from the kernel to us")?;
    site.daemon.end().map(drop)
}

/// Two tenants have the same addresses on both hosts: who answers is one's own.
pub(crate) fn tenants(underlay: Underlay) -> Result<()> {
    let site = Site::set(underlay)?;
    site.wait()?;
    for address in [FAR, FAR_V6] {
        site.red.ping(address, &[])?;
        site.blue.ping(address, &[])?;
    }
    // One of them is not there any more: nobody answers in its place.
    site.far_blue.ip(&["link", "set", "lan0", "down"])?;
    site.blue.ping_in_vain(FAR, &[])?;
    site.red.ping(FAR, &[])?;
    site.far_blue.ip(&["link", "set", "lan0", "up"])?;
    site.blue.ping_until_answered(FAR)?;
    let before = site.daemon.dropped("unknown_tunnel")?;
    // A third one of theirs is none of ours.
    let [here, there] = underlay.addresses();
    let words = ["link", "add", "strange", "type", "vxlan", "id", "44", "local", there, "remote", here];
    site.far.namespace.ip(&[&words[..], &["dev", "lan0", "dstport", "4789"]].concat())?;
    site.far.namespace.ip(&["link", "set", "strange", "up"])?;
    site.far.namespace.ip(&["address", "add", "10.9.0.3/24", "dev", "strange"])?;
    site.far.ping_in_vain("10.9.0.1", &["-I", "strange"])?;
    ensure!(site.daemon.dropped("unknown_tunnel")? > before, "frames of another network were not counted");
    site.daemon.end().map(drop)
}

/// The other host gets another Ethernet address: frames go there.
pub(crate) fn neighbour(underlay: Underlay) -> Result<()> {
    let site = Site::set(underlay)?;
    site.wait()?;
    for number in [0x78, 0x79] {
        let address = text(mac(number));
        site.far.namespace.ip(&["link", "set", "lan0", "address", &address])?;
        site.red.ping_until_answered(FAR).with_context(|| site.state())?;
        site.red.ping(FAR_V6, &[])?;
        let statistics = site.daemon.statistics()?;
        ensure!(statistics["tunnels"][0]["mac"] == address.as_str(), "{}", site.state());
    }
    site.daemon.end().map(drop)
}

/// Tunnels come and go, by requests and by a new configuration; others do not notice.
pub(crate) fn changes(underlay: Underlay) -> Result<()> {
    let site = Site::set(underlay)?;
    site.wait()?;
    let [_, there] = underlay.addresses();
    let tunnel = json!({ "network": "blue", "remote": there });
    let request = |method: &str| site.daemon.call(method, tunnel.clone()).map(drop);
    let file = |tenants: &[&str]| site.daemon.apply(PORTS, &toml(underlay, tenants)).map(drop);
    let by_requests: [&dyn Fn() -> Result<()>; 2] = [&|| request("tunnel.del"), &|| request("tunnel.set")];
    let by_file: [&dyn Fn() -> Result<()>; 2] = [&|| file(&["red"]), &|| file(&["red", "blue"])];
    for [take, give] in [by_requests, by_file] {
        take()?;
        site.wait_for_state("blue", None)?;
        site.blue.ping_in_vain(FAR, &[])?;
        site.red.ping(FAR, &[])?;
        give()?;
        site.blue.ping_until_answered(FAR).with_context(|| site.state())?;
        site.red.ping(FAR, &[])?;
    }
    site.daemon.end().map(drop)
}
