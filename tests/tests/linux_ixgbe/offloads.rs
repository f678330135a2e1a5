//! Pings and TCP streams between the guest and a namespace, with what the driver leaves to the card by itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use lab::ethtool;
use lab::packet_socket::PacketSocket;
use lab::pair::{INTERFACE, Pair};
use lab::site::{Booted, Site};
use lab::suite::Suite;
use lab::traffic::{Direction, ping, tcp_to_guest};

use crate::probe::{SHORT, nothing_lost};
use crate::{CARD, PROCESSORS, addressed};

/// How long TCP streams run.
const SECONDS: u32 = 3;

/// Streams at a time.
const STREAMS: u32 = 16;
/// Most rounds of streams until every queue was used.
const ROUNDS: u32 = 16;

/// What the driver turns on by itself.
const ON: [&str; 9] = [
    "rx-checksumming",
    "tx-checksumming",
    "scatter-gather",
    "tcp-segmentation-offload",
    "generic-receive-offload",
    "receive-hashing",
    "rx-vlan-offload",
    "tx-vlan-offload",
    "rx-vlan-filter",
];

/// The largest frame that a link with an MTU of 1500 carries, without its check sum.
const LARGEST_FRAME: usize = 1514;

pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
    suite.check("offloads::are-on", || {
        let guest = &mut site.up()?.guest;
        for offload in ON {
            if !ethtool::is_on(guest, CARD, offload)? {
                bail!("{offload} is off");
            }
        }
        Ok(())
    });
    suite.check("traffic::ping-both-ways", || {
        let site = site.up()?;
        addressed(site)?;
        ping(&site.pair.left, Pair::GUEST, 50)?;
        ping_from_guest(site, "-c 50", Pair::LEFT)
    });
    suite.check("traffic::ping-of-every-size", || {
        let site = site.up()?;
        addressed(site)?;
        // 1 to 1500 bytes of payload in the frame: the shortest are padded by the card.
        for size in [0, 1, 17, 18, 19, 63, 64, 65, 500, 1000, 1471, 1472, 4000] {
            ping_from_guest(site, &format!("-c 5 -s {size}"), Pair::LEFT)?;
        }
        Ok(())
    });
    suite.check("traffic::tcp-to-the-guest-with-checksums-by-the-card", || {
        let site = site.up()?;
        let before = done(site)?;
        stream(site, Direction::Forward)?;
        let [_, inserted, checked] = since(done(site)?, before);
        // The guest only acknowledges.
        if inserted == 0 || checked == 0 {
            bail!("the card inserted {inserted} checksums and checked {checked}");
        }
        Ok(())
    });
    suite.check("traffic::tcp-from-the-guest-is-segmented-by-the-card", || segmented(site.up()?));
    suite.check("traffic::tcp-with-all-offloads-off", || {
        let site = site.up()?;
        switch(site, "off")?;
        let before = done(site)?;
        let results = [Direction::Forward, Direction::Reverse].map(|direction| stream(site, direction));
        let after = done(site)?;
        switch(site, "on")?;
        results.into_iter().collect::<Result<()>>()?;
        match since(after, before) {
            [0, 0, _] => Ok(()),
            [segmented, inserted, _] => {
                bail!("the card segmented {segmented} packets and inserted {inserted} checksums")
            }
        }
    });
    suite.check("queues::a-receive-queue-for-each-processor-is-used", || spread(site.up()?, PROCESSORS));
    suite.check("queues::fewer-receive-queues-are-used", || {
        let site = site.up()?;
        site.guest.must(&format!("/tools/ethtool -L {CARD} combined 2"))?;
        let result = spread(site, 2);
        site.guest.must(&format!("/tools/ethtool -L {CARD} combined {PROCESSORS}"))?;
        result
    });
}

/// Sends echo requests from the guest, with these options; every one has to be answered.
pub(crate) fn ping_from_guest(site: &mut Booted, options: &str, address: &str) -> Result<()> {
    let answer = site.guest.run(&format!("/tools/ping -n -q -i 0.02 -W 10 {options} {address}"), SHORT)?;
    if answer.status != 0 || !answer.output.contains(" 0% packet loss") {
        bail!("ping {options} lost packets: {}", answer.output.trim());
    }
    Ok(())
}

/// What TCP gives to the card in pieces of up to 64 KiB comes out of it in frames that the link carries.
fn segmented(site: &mut Booted) -> Result<()> {
    let [before, ..] = done(site)?;
    let watcher = PacketSocket::open(&site.pair.left, INTERFACE, Duration::from_millis(100))?;
    let over = AtomicBool::new(false);
    let (result, largest) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| largest_frame(&watcher, &over));
        let result = stream(site, Direction::Reverse);
        over.store(true, Ordering::Relaxed);
        (result, watching.join())
    });
    result?;
    let largest = largest.map_err(|_| anyhow!("the watching thread panicked"))??;
    if largest != LARGEST_FRAME {
        bail!("the largest frame out of the card had {largest} bytes");
    }
    let [after, ..] = done(site)?;
    if after == before {
        bail!("the card had nothing to segment");
    }
    Ok(())
}

/// What the left card did so far: packets segmented, checksums inserted, checksums checked.
fn done(site: &mut Booted) -> Result<[u64; 3]> {
    let card = site.cards.first_mut().context("no card")?;
    let mut done = [0; 3];
    for (count, name) in done.iter_mut().zip(["tx_segmentations", "tx_checksums", "rx_checksums"]) {
        *count = card.counter(name)?.into_iter().sum();
    }
    Ok(done)
}

fn since(after: [u64; 3], before: [u64; 3]) -> [u64; 3] {
    let [a, b, c] = after;
    let [x, y, z] = before;
    [a - x, b - y, c - z]
}

fn largest_frame(watcher: &PacketSocket, over: &AtomicBool) -> Result<usize> {
    let mut buffer = vec![0; 1 << 16];
    let mut largest = 0;
    while !over.load(Ordering::Relaxed) {
        largest = largest.max(watcher.receive(&mut buffer)?.unwrap_or(0));
    }
    Ok(largest)
}

/// Turns the offloads of data on or off; those of VLANs have checks of their own.
fn switch(site: &mut Booted, state: &str) -> Result<()> {
    let offloads = ["rx", "tx", "sg", "tso", "gso", "gro", "rxhash"].map(|name| format!("{name} {state}")).join(" ");
    site.guest.must(&format!("/tools/ethtool -K {CARD} {offloads}")).map(drop)
}

fn stream(site: &mut Booted, direction: Direction) -> Result<()> {
    addressed(site)?;
    let before = ethtool::counters(&mut site.guest, CARD)?;
    let bytes = tcp_to_guest(&site.pair.left, &mut site.guest, Pair::GUEST, direction, SECONDS, 1)?;
    println!("    {:.0} Mbit/s", bytes as f64 * 8e-6 / f64::from(SECONDS));
    nothing_lost(site, &before)
}

/// TCP streams use all of so many receive queues. The hash is linear and its key is random, so that the few bits in
/// which the ports of one round differ may not reach every queue: rounds go on until they have.
fn spread(site: &mut Booted, queues: u32) -> Result<()> {
    addressed(site)?;
    let before = ethtool::counters(&mut site.guest, CARD)?;
    let mut received = Vec::new();
    for _ in 0..ROUNDS {
        tcp_to_guest(&site.pair.left, &mut site.guest, Pair::GUEST, Direction::Forward, 1, STREAMS)?;
        let grown = ethtool::counters(&mut site.guest, CARD)?.since(&before);
        received = (0..queues).map(|queue| grown.get(&format!("rx_queue_{queue}_packets"))).collect::<Result<_>>()?;
        if !received.contains(&0) {
            println!("    {received:?} packets");
            return Ok(());
        }
    }
    bail!("after {ROUNDS} rounds of {STREAMS} streams the receive queues got {received:?} packets");
}
