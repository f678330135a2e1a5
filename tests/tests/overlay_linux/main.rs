//! Our tunnels against the kernel's: a host whose VXLAN device knows nothing of us, and one that reaches it through our encapsulation.
//!
//! Frames pass from one TAP to the other through an engine, which cuts and sums what the TAPs leave undone. What is carried are the kernel's own packets, both ways.

mod binary;
mod geneve;
mod scene;
mod site;
mod tunnel;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use lab::frames::Series;
use lab::suite::Suite;

use scene::{Scene, Underlay};

fn main() -> ExitCode {
    lab::leftovers::remove();
    if let Err(error) = lab::process::end_with_parent() {
        eprintln!("{error:#}: interrupted, this run would go on without its parent");
    }
    let mut suite = Suite::from_arguments();
    for underlay in [Underlay::V4, Underlay::V4WithChecksums, Underlay::V6] {
        let name = |check: &str| format!("vxlan-over-{}-{check}", underlay.name());
        suite.check(&name("answers-pings"), || pings(underlay));
        suite.check(&name("tells-the-path-mtu"), || path_mtu(underlay));
        suite.check(&name("carries-tcp"), || tcp(underlay));
        suite.check(&name("carries-every-frame"), || frames(underlay));
        suite.check(&name("keeps-networks-apart"), || strangers(underlay));
        let name = |check: &str| name(&format!("switch-{check}"));
        suite.check(&name("answers-pings"), || binary::pings(underlay));
        suite.check(&name("tells-the-path-mtu"), || binary::path_mtu(underlay));
        suite.check(&name("carries-tcp"), || binary::streams(underlay));
        suite.check(&name("carries-every-frame"), || binary::frames(underlay));
        suite.check(&name("keeps-tenants-apart"), || binary::tenants(underlay));
        suite.check(&name("finds-the-other-host-anew"), || binary::neighbour(underlay));
        suite.check(&name("changes-tunnels"), || binary::changes(underlay));
    }
    geneve::all(&mut suite);
    suite.finish()
}

/// Short and long ones; the addresses on both levels are found by asking for them.
fn pings(underlay: Underlay) -> Result<()> {
    let scene = Scene::set(underlay)?;
    scene.ping(&["-c", "5", "-i", "0.1"])?;
    // The longest that fits.
    scene.ping(&["-c", "3", "-i", "0.1", "-M", "do", "-s", "1472"])?;
    // In fragments of the inner packet.
    scene.ping(&["-c", "3", "-i", "0.1", "-s", "5000"])?;
    Ok(())
}

/// One byte more is answered with the MTU, and the sender makes its packets smaller then.
fn path_mtu(underlay: Underlay) -> Result<()> {
    let scene = Scene::set(underlay)?;
    // Our host believes that more fits than does.
    scene.near.ip(&["link", "set", "lan0", "mtu", "1600"])?;
    let refused = scene.ping(&["-c", "2", "-i", "0.1", "-M", "do", "-s", "1473"]);
    let text = refused.err().context("a packet that is too big went through")?.to_string();
    ensure!(text.contains("mtu = 1500") || text.contains("mtu=1500"), "the sender was not told: {text}");
    scene.ping(&["-c", "3", "-i", "0.1", "-s", "3000"])?;
    Ok(())
}

/// Segments of up to 64 KiB leave the sender, and are cut inside the tunnel.
fn tcp(underlay: Underlay) -> Result<()> {
    let scene = Scene::set(underlay)?;
    for direction in [&[][..], &["-R"]] {
        let megabytes = scene.iperf(&[&["-n", "32M"], direction].concat())?;
        // The report is made when all is sent; a little may still be on its way.
        ensure!(megabytes >= 16.0, "{megabytes} of 32 MiB arrived");
    }
    let cut = scene.tunnel.cut();
    ensure!(cut > 0, "nothing was cut: the sender gave no large segments, and this shows little");
    Ok(())
}

/// Numbered frames of all sizes, in order, byte for byte.
fn frames(underlay: Underlay) -> Result<()> {
    let scene = Scene::set(underlay)?;
    // Who is who is known before; else the kernel would drop some of what waits for that.
    scene.ping(&["-c", "1"])?;
    let series = Series { count: 5000, flows: 7, window: 64, run: 1 };
    series.pass(&scene.near, &scene.far).context("from us to the kernel")?;
    Series { run: 2, ..series }.pass(&scene.far, &scene.near).context("from the kernel to us")?;
    Ok(())
}

/// Another network of the same hosts is not ours.
fn strangers(underlay: Underlay) -> Result<()> {
    let scene = Scene::set(underlay)?;
    scene.ping(&["-c", "1"])?;
    let before = scene.tunnel.unknown();
    let lost = scene.ping_from_a_strange_network()?;
    ensure!(lost, "a packet of another network was answered");
    let refused = scene.tunnel.unknown() - before;
    ensure!(refused > 0, "packets of another network never came");
    Ok(())
}
