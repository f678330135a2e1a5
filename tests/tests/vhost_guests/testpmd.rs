//! A guest in which DPDK drives the devices: what comes in on one goes out on the other.
//!
//! The other ends of its links are in two namespaces of the right guest, which reach each other through it alone.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::guest_traffic::{ping, wait_for_path};
use lab::suite::Suite;
use lab::wait;

use crate::network::{Lazy, Network, TESTPMD, Who};

/// The namespaces of the right guest, and how to run a command there.
const NAMESPACES: [&str; 2] = ["a", "b"];
const WITHIN: [&str; 2] = ["/tools/ip netns exec a", "/tools/ip netns exec b"];
const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn all(suite: &mut Suite, network: &mut Lazy) {
    suite.check("testpmd::starts", || starts(network.up()?));
    suite.check("testpmd::ping-through-it-loses-nothing", || {
        let network = network.up()?;
        let path = wait_for_path(&mut network.node(Who::Right)?.guest, WITHIN[0], ADDRESSES[1]);
        if path.is_err() {
            return path.context(network.node(Who::Dpdk)?.guest.must("cat /tmp/testpmd.log; dmesg | tail -n 20")?);
        }
        let right = &mut network.node(Who::Right)?.guest;
        ping(right, WITHIN[0], ADDRESSES[1], 100)?;
        ping(right, WITHIN[1], ADDRESSES[0], 100)
    });
    suite.check("testpmd::full-frames-through-it", || {
        let right = &mut network.up()?.node(Who::Right)?.guest;
        let command = "/tools/ping -n -q -i 0.01 -W 20 -c 200 -s 1472 -M do -p 5aa5c33c";
        let printed = right.must(&format!("{} {command} {}", WITHIN[0], ADDRESSES[1]))?;
        anyhow::ensure!(printed.contains(" 0% packet loss"), "{printed}");
        Ok(())
    });
    suite.check("testpmd::is-killed-and-starts-again", || {
        let network = network.up()?;
        // Nobody resets the devices, but the kernel when it takes them back.
        network
            .node(Who::Dpdk)?
            .guest
            .must("killall -KILL dpdk-testpmd; while pidof dpdk-testpmd; do usleep 10000; done")?;
        launch(network)?;
        let right = &mut network.node(Who::Right)?.guest;
        wait_for_path(right, WITHIN[0], ADDRESSES[1])?;
        ping(right, WITHIN[0], ADDRESSES[1], 100)
    });
    suite.check("testpmd::leaves", || {
        let network = network.up()?;
        network.nodes.remove(&Who::Dpdk);
        network.switch.must_run()
    });
}

fn starts(network: &mut Network) -> Result<()> {
    network.boot(&[Who::Dpdk])?;
    let node = network.node(Who::Dpdk)?;
    for link in TESTPMD {
        let device = node.pci(link)?;
        let folder = format!("/sys/bus/pci/devices/{device}");
        node.guest.must(&format!(
            "echo {device} > {folder}/driver/unbind && echo vfio-pci > {folder}/driver_override && \
             echo {device} > /sys/bus/pci/drivers_probe && test -e {folder}/driver && \
             readlink {folder}/driver | grep -q vfio-pci"
        ))?;
    }
    node.guest.must("mkdir -p /var/run")?;
    node.guest.must("echo 96 > /proc/sys/vm/nr_hugepages && grep -q 'HugePages_Free: *96' /proc/meminfo")?;
    launch(network)?;

    let right = network.node(Who::Right)?;
    right.look()?;
    right.guest.must("mkdir -p /var/run/netns")?;
    for (end, link) in TESTPMD.into_iter().enumerate() {
        let (name, address) = (NAMESPACES[end], ADDRESSES[end]);
        let interface = right.interface(link)?;
        right.guest.must(&format!(
            "/tools/ip netns add {name} && /tools/ip link set {interface} netns {name} && \
             /tools/ip -n {name} address add {address}/24 dev {interface} && /tools/ip -n {name} link set {interface} up"
        ))?;
    }
    Ok(())
}

fn launch(network: &mut Network) -> Result<()> {
    let node = network.node(Who::Dpdk)?;
    let devices: Vec<String> = TESTPMD.into_iter().map(|link| node.pci(link)).collect::<Result<_>>()?;
    // Physical addresses are right for both: one device is not behind the IOMMU, the other one's maps are made with them.
    // What is behind is told apart by the virtio feature alone. The input has to stay open. With its statistics it writes out all that it
    // has printed before.
    let command = format!(
        "start testpmd sh -c 'sleep 100000 | exec /tools/dpdk-testpmd --iova-mode=pa --no-telemetry -l 0,1 -a {} -a {} -- \
         --auto-start --forward-mode=io --port-topology=paired --nb-cores=1 --total-num-mbufs=8192 --rxd=256 --txd=256 \
         --stats-period=2'",
        devices[0], devices[1]
    );
    node.guest.must(&command)?;
    let says = ["io packet forwarding - ports=2", "NIC statistics for port 0", "NIC statistics for port 1"];
    wait::until("testpmd", LIMIT, || {
        let log = node.guest.must("head -c 20000 /tmp/testpmd.log")?;
        anyhow::ensure!(node.guest.run("pidof dpdk-testpmd", LIMIT)?.status == 0 || log.is_empty(), "it ended");
        Ok(says.iter().all(|words| log.contains(words)).then_some(()))
    })
    .with_context(|| node.guest.must("head -c 20000 /tmp/testpmd.log").unwrap_or_default())
}
