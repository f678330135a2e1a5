//! A guest moves to another QEMU, and to another port of the switch, while packets flow.
//!
//! The other ends of its two links are ports of a bridge in the right guest: wherever it is, it is reached.

use anyhow::{Context, Result};
use lab::guest_traffic::{ROOT, load, ping, unload, wait_for_bytes, wait_for_path};
use lab::suite::Suite;

use crate::network::{Lazy, MOVER, Network, Who};

const HERE: &str = "10.78.0.1";
const BRIDGE: &str = "10.78.0.2";

pub(crate) fn all(suite: &mut Suite, network: &mut Lazy) {
    suite.check("migration::the-guest-is-reached", || prepare(network.up()?));
    suite.check("migration::the-guest-moves-under-load", || moves(network.up()?));
}

fn prepare(network: &mut Network) -> Result<()> {
    network.boot(&[Who::Mover])?;
    let right = network.node(Who::Right)?;
    right.look()?;
    right.guest.must("/tools/ip link add bridge0 type bridge && ip link set bridge0 up")?;
    for link in MOVER {
        let interface = right.interface(link)?;
        right.guest.must(&format!("/tools/ip link set {interface} master bridge0 && ip link set {interface} up"))?;
    }
    right.guest.must(&format!("ip address add {BRIDGE}/24 dev bridge0"))?;
    let mover = network.node(Who::Mover)?;
    // It is small, so that there is little to move, and needs no huge pages.
    mover.guest.must("echo 0 > /proc/sys/vm/nr_hugepages")?;
    mover.look()?;
    let interface = mover.interface(MOVER[0])?;
    mover.guest.must(&format!("ip address add {HERE}/24 dev {interface}; ip link set {interface} up"))?;
    wait_for_path(&mut mover.guest, ROOT, BRIDGE)?;
    ping(&mut mover.guest, ROOT, BRIDGE, 30)
}

fn moves(network: &mut Network) -> Result<()> {
    let destination = network.destination();
    let mut mover = network.nodes.remove(&Who::Mover).context("the guest is not up")?;
    let interface = mover.interface(MOVER[0])?;
    let right = &mut network.node(Who::Right)?.guest;
    // It receives: every page that a frame comes to has to be sent once more.
    load(right, &mut mover.guest, HERE)?;
    wait_for_bytes(&mut mover.guest, &interface, 1 << 20)?;
    mover.guest = mover.guest.migrate(&destination)?;
    network.switch.must_run()?;
    wait_for_path(&mut mover.guest, ROOT, BRIDGE)?;
    // The same stream goes on: what was on its way is sent again by TCP.
    wait_for_bytes(&mut mover.guest, &interface, 1 << 20)?;
    let sum = mover.guest.must("cat /proc/sys/kernel/tainted")?;
    anyhow::ensure!(sum.trim() == "0", "the guest's kernel has complaints: {}", mover.guest.console());
    let right = &mut network.node(Who::Right)?.guest;
    unload(right)?;
    unload(&mut mover.guest)?;
    ping(&mut mover.guest, ROOT, BRIDGE, 30)?;
    network.nodes.insert(Who::Mover, mover);
    Ok(())
}
