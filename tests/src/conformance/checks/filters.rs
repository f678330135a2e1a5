//! Which frames a card passes to its driver.

use anyhow::{Context, Result, ensure};
use drivers::nic::{MacAddress, Nic, NicError, ReceiveFilter};

use super::super::bench::{BROADCAST, Bench, Plan, STRANGER, same_frames};
use super::super::frame::experiment;
use super::super::{Outcome, Rig};

/// Groups whose last two bytes, which cards choose by, have nothing in common.
const GROUPS: [[u8; 6]; 4] = [
    [1, 0, 0x5e, 0, 0, 1],
    [0x33, 0x33, 0, 0, 0x21, 0x52],
    [1, 0, 0x5e, 0x7f, 0xff, 0xfa],
    [1, 0x80, 0xc2, 0, 0x43, 0xa8],
];

/// Unicast addresses that differ in all places a card might look at.
fn address(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [0x02, high, low, high ^ 0x5a, low.rotate_left(3), low]
}

fn filtered(filter: ReceiveFilter) -> Plan {
    Plan::with(|plan| plan.config.filter = filter)
}

/// Which of the addresses frames arrive for, in order.
fn arriving<R: Rig>(bench: &mut Bench<'_, R>, targets: &[[u8; 6]]) -> Result<Vec<[u8; 6]>> {
    let mut arrived = Vec::new();
    for chunk in targets.chunks(64) {
        let frames: Vec<_> = chunk.iter().map(|target| experiment(*target, STRANGER, 1, 100)).collect();
        let part = bench.deliver_frames(0, &frames)?;
        arrived.extend(part.iter().filter_map(|frame| frame.bytes.first_chunk::<6>().copied()));
    }
    Ok(arrived)
}

/// With neither mode nor list.
pub(super) fn own<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::with(rig, Plan::default(), filtered(ReceiveFilter::default()))?;
    let own = bench.side(1).mac();
    let mut neighbour = own;
    neighbour[5] ^= 1;
    let targets = [STRANGER, own, neighbour, BROADCAST, GROUPS[0], own, GROUPS[1], BROADCAST];
    let arrived = arriving(&mut bench, &targets)?;
    bench.close()?;
    if arrived.len() == targets.len() {
        return Ok(Outcome::NotOffered);
    }
    ensure!(arrived == [own, BROADCAST, own, BROADCAST], "frames for {arrived:02x?} arrived");
    Ok(Outcome::Passed)
}

/// Switched on and off while it runs.
pub(super) fn promiscuous<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::with(rig, Plan::default(), filtered(ReceiveFilter::everything()))?;
    let own = bench.side(1).mac();
    let targets = [STRANGER, own, address(7), GROUPS[2], BROADCAST];
    for promiscuous in [true, false, true, true, false, true] {
        match bench.side(1).nic.set_filter(&ReceiveFilter { promiscuous, ..ReceiveFilter::default() }) {
            Ok(()) => {}
            Err(NicError::Request { .. }) => {
                bench.close()?;
                return Ok(Outcome::NotOffered);
            }
            Err(error) => return Err(error.into()),
        }
        let expected = if promiscuous { targets.to_vec() } else { vec![own, BROADCAST] };
        let arrived = arriving(&mut bench, &targets)?;
        if !promiscuous && arrived == targets {
            bench.close()?;
            return Ok(Outcome::NotOffered);
        }
        ensure!(arrived == expected, "promiscuous {promiscuous}: frames for {arrived:02x?} arrived");
    }
    bench.close()?;
    Ok(Outcome::Passed)
}

/// Groups by list, all groups, and none again.
pub(super) fn groups<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::with(rig, Plan::default(), filtered(ReceiveFilter::default()))?;
    let own = bench.side(1).mac();
    let targets = [GROUPS[0], GROUPS[1], own, GROUPS[2], STRANGER, GROUPS[3]];
    let list = |numbers: &[usize]| numbers.iter().map(|number| MacAddress(GROUPS[*number])).collect::<Vec<_>>();
    let steps = [
        (ReceiveFilter { multicast: list(&[0, 3]), ..ReceiveFilter::default() }, vec![GROUPS[0], own, GROUPS[3]]),
        (ReceiveFilter { multicast: list(&[1]), ..ReceiveFilter::default() }, vec![GROUPS[1], own]),
        (ReceiveFilter::host(), vec![GROUPS[0], GROUPS[1], own, GROUPS[2], GROUPS[3]]),
        (ReceiveFilter::default(), vec![own]),
    ];
    for (filter, expected) in steps {
        match bench.side(1).nic.set_filter(&filter) {
            Ok(()) => {}
            Err(NicError::Request { .. }) => {
                bench.close()?;
                return Ok(Outcome::NotOffered);
            }
            Err(error) => return Err(error.into()),
        }
        let arrived = arriving(&mut bench, &targets)?;
        if arrived == targets {
            bench.close()?;
            return Ok(Outcome::NotOffered);
        }
        ensure!(arrived == expected, "with {filter:?} frames for {arrived:02x?} arrived");
    }
    bench.close()?;
    Ok(Outcome::Passed)
}

/// Addresses beside the card's own.
pub(super) fn further_addresses<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let unicast = [3, 9, 12].map(|number| MacAddress(address(number))).to_vec();
    let filter = ReceiveFilter { unicast, ..ReceiveFilter::default() };
    let mut bench = Bench::with(rig, Plan::default(), filtered(filter))?;
    let own = bench.side(1).mac();
    let targets = [1, 3, 4, 9, 10, 12, 13].map(address);
    let targets = [&targets[..], &[own, BROADCAST]].concat();
    let arrived = arriving(&mut bench, &targets)?;
    if arrived == targets {
        bench.close()?;
        return Ok(Outcome::NotOffered);
    }
    ensure!(arrived == [address(3), address(9), address(12), own, BROADCAST], "frames for {arrived:02x?} arrived");
    // What is taken off the list does not arrive any more.
    bench
        .side(1)
        .nic
        .set_filter(&ReceiveFilter { unicast: vec![MacAddress(address(9))], ..ReceiveFilter::default() })?;
    let arrived = arriving(&mut bench, &targets)?;
    ensure!(arrived == [address(9), own, BROADCAST], "with a shorter list frames for {arrived:02x?} arrived");
    bench.close()?;
    Ok(Outcome::Passed)
}

/// A list longer than any card's loses nothing.
pub(super) fn many_addresses<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let numbers: Vec<u16> = (1..=300).collect();
    let groups =
        numbers.iter().map(|number| [1, 0, 0x5e, 1, address(*number)[1], address(*number)[2]]).collect::<Vec<_>>();
    let addresses: Vec<_> = numbers.iter().map(|number| address(*number)).collect();
    let as_list = |addresses: &[[u8; 6]]| addresses.iter().map(|address| MacAddress(*address)).collect::<Vec<_>>();
    let filter =
        ReceiveFilter { unicast: as_list(&addresses), multicast: as_list(&groups), ..ReceiveFilter::default() };
    let mut bench = Bench::with(rig, Plan::default(), filtered(filter))?;
    for wanted in [addresses, groups] {
        let arrived = arriving(&mut bench, &wanted)?;
        let missing = wanted.iter().filter(|address| !arrived.contains(address)).count();
        ensure!(missing == 0, "frames for {missing} of 300 addresses do not arrive");
    }
    bench.close()?;
    Ok(Outcome::Passed)
}

/// The filter that was set last holds after a stop and a start.
pub(super) fn outlives_restart<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::with(rig, Plan::default(), filtered(ReceiveFilter::everything()))?;
    let own = bench.side(1).mac();
    let filter = ReceiveFilter { unicast: vec![MacAddress(address(5))], ..ReceiveFilter::default() };
    match bench.side(1).nic.set_filter(&filter) {
        Ok(()) => {}
        Err(NicError::Request { .. }) => {
            bench.close()?;
            return Ok(Outcome::NotOffered);
        }
        Err(error) => return Err(error.into()),
    }
    let targets = [STRANGER, own, address(5), BROADCAST];
    if arriving(&mut bench, &targets)? == targets {
        bench.close()?;
        return Ok(Outcome::NotOffered);
    }
    bench.side(1).stop()?;
    bench.side(1).start()?;
    bench.await_link(true)?;
    let arrived = arriving(&mut bench, &targets)?;
    ensure!(arrived == [own, address(5), BROADCAST], "frames for {arrived:02x?} arrived after a restart");
    // And one that is set while it stands still.
    bench.side(1).stop()?;
    bench.side(1).nic.set_filter(&ReceiveFilter::default()).context("set a filter while it is stopped")?;
    bench.side(1).start()?;
    bench.await_link(true)?;
    let arrived = arriving(&mut bench, &targets)?;
    ensure!(arrived == [own, BROADCAST], "frames for {arrived:02x?} arrived after a restart with another filter");
    bench.close()?;
    Ok(Outcome::Passed)
}

/// The card takes the address that it is given.
pub(super) fn own_address<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mac = MacAddress([0x02, 0x10, 0x20, 0x30, 0x40, 0x50]);
    let mut plan = filtered(ReceiveFilter::default());
    plan.config.mac = Some(mac);
    let mut bench = Bench::with(rig, Plan::default(), plan)?;
    ensure!(bench.side(1).nic.mac() == mac, "it has {} instead", bench.side(1).nic.mac());
    let frames = [experiment(STRANGER, STRANGER, 1, 90), experiment(mac.0, STRANGER, 2, 90)];
    let arrived = bench.deliver_frames(0, &frames)?;
    if arrived.len() == frames.len() {
        // It does not filter; that it goes by the address is then seen by nobody.
        same_frames(&arrived, &frames)?;
        bench.close()?;
        return Ok(Outcome::NotOffered);
    }
    same_frames(&arrived, &frames[1..])?;
    bench.close()?;
    Ok(Outcome::Passed)
}
