//! Which frames the card lets through, as the kernel asks it to.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::ethtool;
use lab::packet_socket::PacketSocket;
use lab::pair::INTERFACE;
use lab::site::{Booted, Site};
use lab::suite::Suite;
use lab::wait;

use crate::{CARD, addressed};

/// Nobody's address, and a group that nobody is in at first; the kernel and other hosts use neither.
const STRANGER: &str = "02:6d:69:72:00:77";
const GROUP: &str = "01:00:5e:4d:49:52";

/// How many frames are sent at a time.
const FRAMES: u64 = 50;

/// An EtherType for experiments (IEEE 802, 9.2.4), so that no network stack answers.
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
    suite.check("filters::own-address-and-broadcast-pass", || {
        let site = site.up()?;
        let own = site.guest.must(&format!("cat /sys/class/net/{CARD}/address"))?;
        passes(site, own.trim(), true)?;
        passes(site, "ff:ff:ff:ff:ff:ff", true)
    });
    suite.check("filters::other-addresses-do-not-pass", || passes(site.up()?, STRANGER, false));
    suite.check("filters::promiscuous-lets-them-pass", || {
        let site = site.up()?;
        site.guest.must(&format!("/tools/ip link set {CARD} promisc on"))?;
        let result = passes(site, STRANGER, true);
        site.guest.must(&format!("/tools/ip link set {CARD} promisc off"))?;
        result?;
        passes(site, STRANGER, false)
    });
    suite.check("filters::a-second-address-passes", || {
        let site = site.up()?;
        site.guest.must(&format!(
            "/tools/ip link add link {CARD} name second address {STRANGER} type macvlan && ip link set second up"
        ))?;
        let result = passes(site, STRANGER, true);
        site.guest.must("/tools/ip link delete second")?;
        result?;
        passes(site, STRANGER, false)
    });
    suite.check("filters::a-group-passes-once-joined", || {
        let site = site.up()?;
        passes(site, GROUP, false)?;
        site.guest.must(&format!("/tools/ip maddress add {GROUP} dev {CARD}"))?;
        let result = passes(site, GROUP, true);
        site.guest.must(&format!("/tools/ip maddress delete {GROUP} dev {CARD}"))?;
        result?;
        passes(site, GROUP, false)
    });
    suite.check("filters::all-groups-pass-when-asked-for", || {
        let site = site.up()?;
        site.guest.must(&format!("/tools/ip link set {CARD} allmulticast on"))?;
        let result = passes(site, GROUP, true);
        site.guest.must(&format!("/tools/ip link set {CARD} allmulticast off"))?;
        result?;
        passes(site, GROUP, false)
    });
}

/// Sends frames to this address; all of them come through the card, or none.
fn passes(site: &mut Booted, address: &str, all: bool) -> Result<()> {
    addressed(site)?;
    let before = received(site)?;
    send(site, address)?;
    // Behind them, one that always passes: the card keeps the order, so that what was to come before it has.
    send(site, "ff:ff:ff:ff:ff:ff")?;
    let least = if all { 2 * FRAMES } else { FRAMES };
    let count = wait::until("frames through the card", Duration::from_secs(30), || {
        let count = received(site)? - before;
        Ok((count >= least).then_some(count))
    })
    .with_context(|| format!("frames to {address}"))?;
    // The namespace may say something of its own meanwhile, but not so often.
    if !all && count >= least + FRAMES / 2 {
        bail!("{count} frames came through, {FRAMES} of them to {address}, which was to be filtered");
    }
    Ok(())
}

/// Frames that the driver got, by its queues: the interface's own counter is only renewed now and then.
fn received(site: &mut Booted) -> Result<u64> {
    let counters = ethtool::counters(&mut site.guest, CARD)?;
    (0..)
        .map_while(|queue| counters.get(&format!("rx_queue_{queue}_packets")).ok())
        .reduce(|a, b| a + b)
        .context("no queues")
}

fn send(site: &Booted, address: &str) -> Result<()> {
    let socket = PacketSocket::open(&site.pair.left, INTERFACE, Duration::from_secs(1))?;
    let bytes: Vec<u8> = address.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>()?;
    let mut frame = bytes;
    frame.extend([0x02, 0x6d, 0x69, 0x72, 0, 1]);
    frame.extend(EXPERIMENT);
    frame.resize(64, 0);
    let mut sent = 0;
    while sent < FRAMES {
        if socket.send(&frame)? {
            sent += 1;
        } else {
            std::thread::yield_now();
        }
    }
    Ok(())
}
