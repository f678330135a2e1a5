//! The card's own counters against what the namespace at its other end counts.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::ethtool;
use lab::namespace::Namespace;
use lab::pair::{INTERFACE, Pair};
use lab::process::run;
use lab::site::{Booted, Site};
use lab::suite::Suite;
use lab::traffic::{Direction, ping, tcp_to_guest};
use lab::wait;

use crate::offloads::ping_from_guest;
use crate::{CARD, addressed};

/// Bytes of a frame's check sequence, which the card counts and nobody else does (82599 datasheet, 8.2.3.23.22).
const CHECK_SEQUENCE: u64 = 4;

pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
    suite.check("counters::pings-are-counted-exactly", || {
        agree(site.up()?, |site| {
            ping(&site.pair.left, Pair::GUEST, 100)?;
            ping_from_guest(site, "-c 100 -s 1000", Pair::LEFT)
        })
    });
    suite.check("counters::tcp-is-counted-exactly", || {
        agree(site.up()?, |site| {
            for direction in [Direction::Forward, Direction::Reverse] {
                tcp_to_guest(&site.pair.left, &mut site.guest, Pair::GUEST, direction, 1, 1)?;
            }
            Ok(())
        })
    });
}

/// Packets and bytes in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    packets: u64,
    bytes: u64,
}

/// What passes while `work` runs is counted alike by the card, by the driver for each of its queues, and by the namespace.
fn agree(site: &mut Booted, work: impl FnOnce(&mut Booted) -> Result<()>) -> Result<()> {
    addressed(site)?;
    // Counted since before: what is on its way between two readings is counted by one side only at first.
    let start = wait::until("counters at rest", Duration::from_secs(60), || {
        let before = snapshot(site)?;
        Ok((before == snapshot(site)?).then_some(before))
    })?;
    work(site)?;
    let mut last = None;
    let agreed = wait::until("counters that agree", Duration::from_secs(30), || {
        let grown = snapshot(site)?.since(&start);
        let result = grown.agrees().then_some(());
        last = Some(grown);
        Ok(result)
    });
    agreed.with_context(|| format!("{last:#?}"))?;
    match last {
        Some(grown) if grown.far_sent.packets >= 200 && grown.far_received.packets >= 200 => Ok(()),
        other => bail!("too few packets: {other:?}"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Snapshot {
    /// By the card's registers.
    card_received: Count,
    card_sent: Count,
    /// By the driver, from descriptors.
    driver_received: Count,
    driver_sent: Count,
    /// By the namespace at the other end.
    far_received: Count,
    far_sent: Count,
}

fn snapshot(site: &mut Booted) -> Result<Snapshot> {
    let near = ethtool::counters(&mut site.guest, CARD)?;
    let count = |packets: &str, bytes: &str| -> Result<Count> {
        Ok(Count { packets: near.get(packets)?, bytes: near.get(bytes)? })
    };
    let of_queues = |direction: &str| -> Result<Count> {
        let mut sum = Count::default();
        for queue in 0..u32::MAX {
            let name = |what: &str| format!("{direction}_queue_{queue}_{what}");
            let Ok(packets) = near.get(&name("packets")) else { break };
            sum.packets += packets;
            sum.bytes += near.get(&name("bytes"))?;
        }
        Ok(sum)
    };
    Ok(Snapshot {
        card_received: count("rx_pkts_nic", "rx_bytes_nic")?,
        card_sent: count("tx_pkts_nic", "tx_bytes_nic")?,
        driver_received: of_queues("rx")?,
        driver_sent: of_queues("tx")?,
        far_received: far(&site.pair.left, "rx")?,
        far_sent: far(&site.pair.left, "tx")?,
    })
}

fn far(namespace: &Namespace, direction: &str) -> Result<Count> {
    let read = |what: &str| -> Result<u64> {
        let path = format!("/sys/class/net/{INTERFACE}/statistics/{direction}_{what}");
        run(&mut namespace.command(&["cat", &path]))?.trim().parse().with_context(|| format!("no number in {path}"))
    };
    Ok(Count { packets: read("packets")?, bytes: read("bytes")? })
}

impl Snapshot {
    fn since(&self, before: &Self) -> Self {
        let grown = |after: Count, before: Count| Count {
            packets: after.packets.wrapping_sub(before.packets),
            bytes: after.bytes.wrapping_sub(before.bytes),
        };
        Self {
            card_received: grown(self.card_received, before.card_received),
            card_sent: grown(self.card_sent, before.card_sent),
            driver_received: grown(self.driver_received, before.driver_received),
            driver_sent: grown(self.driver_sent, before.driver_sent),
            far_received: grown(self.far_received, before.far_received),
            far_sent: grown(self.far_sent, before.far_sent),
        }
    }

    /// Packets are the same everywhere. Bytes are, but for check sequences and the padding of short frames (ARP), which
    /// come to less than 64 bytes a packet.
    fn agrees(&self) -> bool {
        let same = |card: Count, driver: Count, far: Count| {
            let bytes = card.bytes.wrapping_sub(card.packets.wrapping_mul(CHECK_SEQUENCE));
            let short = |count: Count| bytes.wrapping_sub(count.bytes) <= 64 * 20;
            card.packets == driver.packets && card.packets == far.packets && short(driver) && short(far)
        };
        same(self.card_received, self.driver_received, self.far_sent)
            && same(self.card_sent, self.driver_sent, self.far_received)
    }
}
