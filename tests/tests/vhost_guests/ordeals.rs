//! What happens to guests while packets flow: offloads that come and go, drivers that leave, resets, pulled devices, memory
//! that is added. On the busy link runs a TCP stream; the bystander, a link between the same guests, has to lose nothing for
//! as long as its ends are not themselves concerned.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::guest::NicKind;
use lab::guest_traffic::{Pings, Protocol, ROOT, Stream, load, pass, ping, unload, wait_for_bytes, wait_for_path};
use lab::suite::Suite;
use lab::traffic::Direction;
use lab::wait;
use serde_json::json;

use crate::matrix::connect;
use crate::network::{BUSY, BYSTANDER, Lazy, Network, Node, PACKED_PAIRS, Who, address};

/// What a stream has to carry to count as going on.
const GOING_ON: u64 = 1 << 20;

const LIMIT: Duration = Duration::from_secs(60);

/// Offloads by the names of `ethtool -K`.
const OFFLOADS: [&str; 6] = ["tx", "sg", "tso", "gso", "gro", "rx"];

pub(crate) fn all(suite: &mut Suite, network: &mut Lazy) {
    let mut check = |name: &str, check: fn(&mut Network) -> Result<()>| {
        suite.check(&format!("under-load::{name}"), || {
            connect(network, BYSTANDER)?;
            connect(network, BUSY)?;
            let network = network.up()?;
            let result = under_load(network, check);
            for node in network.both()? {
                unload(&mut node.guest)?;
            }
            network.switch.must_run()?;
            result
        });
    };
    check("offloads-are-switched-off-and-on", offloads);
    check("the-driver-is-unbound-and-bound", rebind);
    check("memory-is-added", memory);
    check("the-device-is-pulled-and-plugged", unplug);
    check("the-driver-is-unloaded-and-loaded", reload);
    check("the-guest-restarts", restart);
    check("the-guest-is-reset", reset);
    check("the-switch-is-killed", killed);
}

/// Runs a check while a stream flows on the busy link, which has to pass packets again afterwards, as the bystander.
fn under_load(network: &mut Network, check: fn(&mut Network) -> Result<()>) -> Result<()> {
    let [left, right] = network.both()?;
    load(&mut left.guest, &mut right.guest, &address(BUSY, Who::Right))?;
    let interface = right.interface(BUSY)?;
    wait_for_bytes(&mut right.guest, &interface, GOING_ON)?;
    check(network)?;
    for link in [BUSY, BYSTANDER] {
        let [left, _] = network.both()?;
        wait_for_path(&mut left.guest, ROOT, &address(link, Who::Right))?;
        ping(&mut left.guest, ROOT, &address(link, Who::Right), 30)?;
    }
    // Not only pings: full frames, and many of them.
    let [left, right] = network.both()?;
    load(&mut left.guest, &mut right.guest, &address(BUSY, Who::Right))?;
    let interface = right.interface(BUSY)?;
    wait_for_bytes(&mut right.guest, &interface, GOING_ON)
}

/// Does something while the bystander pings, which may lose nothing.
fn watched(network: &mut Network, work: impl FnOnce(&mut Network) -> Result<()>) -> Result<()> {
    let [left, _] = network.both()?;
    let pings = Pings::start(&mut left.guest, "bystander", &address(BYSTANDER, Who::Right))?;
    let done = work(network);
    let [left, _] = network.both()?;
    let answered = pings.end(&mut left.guest);
    done.and(answered)
}

fn offloads(network: &mut Network) -> Result<()> {
    watched(network, |network| {
        for end in 0..2 {
            for state in ["off", "on"] {
                for offload in OFFLOADS {
                    let nodes = network.both()?;
                    let node = nodes.into_iter().nth(end).context("two ends")?;
                    let interface = node.interface(BUSY)?;
                    // Not every device can do without each of them.
                    node.guest.run(&format!("/tools/ethtool -K {interface} {offload} {state}"), LIMIT)?;
                }
                let [_, right] = network.both()?;
                let interface = right.interface(BUSY)?;
                wait_for_bytes(&mut right.guest, &interface, GOING_ON)
                    .with_context(|| format!("after offloads were switched {state} at end {end}"))?;
            }
        }
        Ok(())
    })
}

fn rebind(network: &mut Network) -> Result<()> {
    watched(network, |network| {
        for _ in 0..3 {
            let [left, _] = network.both()?;
            let device = left.pci(BUSY)?;
            let driver = "/sys/bus/pci/drivers/virtio-pci";
            left.guest.must(&format!("echo {device} > {driver}/unbind; sleep 0.1; echo {device} > {driver}/bind"))?;
            back(network)?;
        }
        Ok(())
    })
}

/// The left guest has its interface again: the link passes packets.
fn back(network: &mut Network) -> Result<()> {
    let [left, _] = network.both()?;
    wait::until("the interface", LIMIT, || {
        left.look()?;
        Ok(left.interface(BUSY).ok())
    })?;
    left.configure(BUSY)?;
    wait_for_path(&mut left.guest, ROOT, &address(BUSY, Who::Right))
}

/// Memory that is added while the device runs is one more region for its peer, and becomes buffers.
fn memory(network: &mut Network) -> Result<()> {
    watched(network, |network| {
        let [left, _] = network.both()?;
        let total = |node: &mut Node| -> Result<u64> {
            let printed = node.guest.must("grep MemTotal /proc/meminfo")?;
            printed.split_whitespace().nth(1).context("no number")?.parse().context("no number")
        };
        let before = total(left)?;
        let size: u64 = 128 << 20;
        let backend = json!({ "qom-type": "memory-backend-memfd", "id": "more", "size": size, "share": true });
        left.guest.monitor().run("object-add", backend)?;
        left.guest.monitor().run("device_add", json!({ "driver": "pc-dimm", "id": "dimm", "memdev": "more" }))?;
        wait::until("the memory that was added", LIMIT, || {
            left.guest.must("for block in /sys/devices/system/memory/memory*; do echo online 2> /dev/null > $block/state; done; true")?;
            Ok((total(left)? >= before + (size >> 10) / 2).then_some(()))
        })?;
        // Filled once, so that what is allocated next lies there.
        left.guest.must("dd if=/dev/zero of=/dev/shm/fill bs=1M count=100 2> /dev/null; rm /dev/shm/fill")?;
        let [_, right] = network.both()?;
        let interface = right.interface(BUSY)?;
        wait_for_bytes(&mut right.guest, &interface, 4 * GOING_ON)
    })
}

fn unplug(network: &mut Network) -> Result<()> {
    watched(network, |network| {
        let machine = network.machine(Who::Left);
        let slot = Node::slot(BUSY);
        let [left, _] = network.both()?;
        left.guest.monitor().run("device_del", json!({ "id": format!("nic{slot}") }))?;
        wait::until("the device to go", LIMIT, || {
            left.look()?;
            Ok(left.interface(BUSY).is_err().then_some(()))
        })?;
        let device = machine.nics.iter().find_map(|nic| match &nic.kind {
            NicKind::VhostUser(device) if nic.slot == slot => Some(device.properties(machine.number, slot)),
            _ => None,
        });
        let device = device.context("no such device")?;
        wait::until("the device to come back", LIMIT, || {
            // Until the guest has let go of the old one, QEMU says that there is one.
            Ok(left.guest.monitor().run("device_add", device.clone()).ok())
        })?;
        back(network)
    })
}

fn reload(network: &mut Network) -> Result<()> {
    for _ in 0..2 {
        let [left, _] = network.both()?;
        left.guest.must("rmmod virtio_net; insmod /modules/virtio_net.ko")?;
        back(network)?;
        left_again(network)?;
    }
    Ok(())
}

/// The left guest has lost all of its addresses.
fn left_again(network: &mut Network) -> Result<()> {
    for link in [BYSTANDER, BUSY] {
        let [left, _] = network.both()?;
        left.configure(link)?;
        wait_for_path(&mut left.guest, ROOT, &address(link, Who::Right))?;
    }
    Ok(())
}

/// The guest's own restart: its kernel resets the devices.
fn restart(network: &mut Network) -> Result<()> {
    let [left, _] = network.both()?;
    left.guest.must("(sleep 0.2; reboot -f) > /dev/null 2>&1 &")?;
    left.guest.booted_again()?;
    left_again(network)
}

/// A reset from outside, which the guest does not see coming.
fn reset(network: &mut Network) -> Result<()> {
    for _ in 0..2 {
        let [left, right] = network.both()?;
        left.guest.reset()?;
        let uptime = left.guest.must("cat /proc/uptime")?;
        let seconds: f64 = uptime.split(' ').next().context("no time")?.parse()?;
        ensure!(seconds < 120.0, "the guest was not reset: {uptime}");
        let interface = right.interface(BUSY)?;
        if right.guest.must(&format!("cat /sys/class/net/{interface}/carrier"))?.trim() != "1" {
            bail!("the other guest lost its link");
        }
        left_again(network)?;
        let [left, right] = network.both()?;
        load(&mut left.guest, &mut right.guest, &address(BUSY, Who::Right))?;
    }
    Ok(())
}

/// The switch dies and another one takes its place. QEMU keeps no in-flight region for network devices, and of a packed ring it only knows where
/// it began: where to go on the switch has to find in the ring itself. Frames that were on their way are lost; no queue may be stuck.
fn killed(network: &mut Network) -> Result<()> {
    const LINKS: [usize; 4] = [BYSTANDER, PACKED_PAIRS[0], PACKED_PAIRS[1], BUSY];
    for link in PACKED_PAIRS {
        for node in network.both()? {
            node.configure(link)?;
        }
    }
    for _ in 0..4 {
        let [left, right] = network.both()?;
        load(&mut left.guest, &mut right.guest, &address(BUSY, Who::Right))?;
        let interface = right.interface(BUSY)?;
        wait_for_bytes(&mut right.guest, &interface, GOING_ON)?;
        network.replace_switch()?;
        let [left, right] = network.both()?;
        for link in LINKS {
            wait_for_path(&mut left.guest, ROOT, &address(link, Who::Right))?;
            ping(&mut left.guest, ROOT, &address(link, Who::Right), 30)?;
            ping(&mut right.guest, ROOT, &address(link, Who::Left), 30)?;
        }
        // The stream has survived.
        wait_for_bytes(&mut right.guest, &interface, GOING_ON)?;
    }
    // On all queues, both ways.
    for direction in [Direction::Forward, Direction::Reverse] {
        let [left, right] = network.both()?;
        let stream = Stream { protocol: Protocol::Tcp, direction, seconds: 6, parallel: 8 };
        pass(&mut left.guest, &mut right.guest, &address(BUSY, Who::Right), stream)?;
    }
    for node in network.both()? {
        let stuck = node.guest.run("dmesg | grep -i 'tx timeout\\|timed out'", LIMIT)?;
        ensure!(stuck.status != 0, "a queue is stuck: {}", stuck.output);
    }
    Ok(())
}
