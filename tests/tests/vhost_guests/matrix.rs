//! Every point of the matrix: pings, TCP and UDP both ways.

use anyhow::{Result, ensure};
use lab::guest_traffic::{Protocol, ROOT, Stream, pass, ping, wait_for_path};
use lab::suite::Suite;
use lab::traffic::Direction;

use crate::network::{LINKS, Lazy, PAIRED, Who, address};

/// How long a stream runs.
const SECONDS: u32 = 2;

/// Megabits per second of UDP, in all: what guests without hardware help can take, on a host that has other things to do.
const RATE: u32 = 8;

/// The checks of all links between the two guests.
pub(crate) fn all(suite: &mut Suite, network: &mut Lazy) {
    for link in PAIRED {
        let name = LINKS[link].name;
        suite.check(&format!("{name}::ping-loses-nothing"), || pings(network, link));
        suite.check(&format!("{name}::tcp-both-ways"), || streams(network, link, Protocol::Tcp));
        suite.check(&format!("{name}::udp-both-ways"), || streams(network, link, Protocol::Udp(RATE)));
    }
}

/// Sets up both ends of a link.
pub(crate) fn connect(network: &mut Lazy, link: usize) -> Result<()> {
    let [left, right] = network.up()?.both()?;
    left.configure(link)?;
    right.configure(link)?;
    wait_for_path(&mut left.guest, ROOT, &address(link, Who::Right))
}

fn pings(network: &mut Lazy, link: usize) -> Result<()> {
    connect(network, link)?;
    let [left, right] = network.up()?.both()?;
    ping(&mut left.guest, ROOT, &address(link, Who::Right), 50)?;
    ping(&mut right.guest, ROOT, &address(link, Who::Left), 50)
}

fn streams(network: &mut Lazy, link: usize, protocol: Protocol) -> Result<()> {
    let parallel = u32::from(LINKS[link].ends[0].pairs);
    let protocol = if let Protocol::Udp(rate) = protocol { Protocol::Udp(rate / parallel) } else { protocol };
    for direction in [Direction::Forward, Direction::Reverse] {
        let [left, right] = network.up()?.both()?;
        let stream = Stream { protocol, direction, seconds: SECONDS, parallel };
        let received = pass(&mut left.guest, &mut right.guest, &address(link, Who::Right), stream)?;
        println!(
            "    {direction:?}: {:.0} Mbit/s, {} of {} datagrams lost",
            received.bytes as f64 * 8e-6 / f64::from(SECONDS),
            received.lost,
            received.packets
        );
        // The switch loses none (see what it counts at its end); a guest that is slow does.
        ensure!(received.lost * 2 <= received.packets, "more than half of the datagrams were lost: {received:?}");
    }
    Ok(())
}
