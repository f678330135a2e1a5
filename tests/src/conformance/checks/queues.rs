//! Several queue pairs: how flows are spread over them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use super::super::bench::{Arrived, Bench, Plan, STRANGER, same_bytes};
use super::super::frame::{Flow, KINDS, Transport, experiment, tagged};
use super::super::toeplitz::hash;
use super::super::{Outcome, Rig};

/// Queue pairs that are asked for.
const QUEUES: u16 = 4;
/// Another key than the usual one, without any symmetry.
const KEY: [u8; 40] = {
    let mut key = [0; 40];
    let mut state = 0x2545_f491_u32;
    let mut index = 0;
    while index < key.len() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        key[index] = state.to_le_bytes()[3];
        index += 1;
    }
    key
};

fn several(queues: u16) -> Plan {
    Plan::with(|plan| plan.config.queue_pairs = queues)
}

/// Sends each flow's frames with `per_flow` frames each, and gives what arrived.
fn pass<R: Rig>(bench: &mut Bench<'_, R>, flows: &[Flow], per_flow: usize) -> Result<Vec<Arrived>> {
    let mut arrived = Vec::new();
    for chunk in flows.chunks(32) {
        for round in 0..per_flow {
            let frames =
                chunk.iter().map(|flow| flow.frame(STRANGER, STRANGER, &[u8::try_from(round).unwrap_or(0); 40]));
            let packets = frames.map(|frame| bench.side(0).packet(&frame)).collect::<Result<Vec<_>>>()?;
            let count = packets.len();
            arrived.extend(bench.spread(0, 0, packets, count)?);
        }
    }
    Ok(arrived)
}

/// Where the frames of each flow arrived.
fn by_flow(flows: &[Flow], arrived: &[Arrived]) -> Result<BTreeMap<usize, Vec<Arrived>>> {
    let mut found: BTreeMap<usize, Vec<Arrived>> = BTreeMap::new();
    let start = |flow: &Flow| {
        let frame = flow.frame(STRANGER, STRANGER, &[]);
        frame.get(26..38).map(<[u8]>::to_vec).unwrap_or_default()
    };
    let starts: Vec<_> = flows.iter().map(start).collect();
    for one in arrived {
        let key = one.bytes.get(26..38).unwrap_or_default();
        let ports = one.bytes.get(54..56).unwrap_or_default();
        let place = starts.iter().zip(flows).position(|(start, flow)| {
            start == key
                && (!matches!(flow.ends, super::super::frame::Ends::V6(..)) || flow.ports.0.to_be_bytes() == *ports)
        });
        found.entry(place.context("a frame of no flow arrived")?).or_default().push(one.clone());
    }
    Ok(found)
}

/// Many flows reach every queue, and all frames of a flow the same one.
pub(super) fn spread<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::with(rig, Plan::default(), several(QUEUES))?;
    if bench.side(1).queues.len() < 2 {
        bench.close()?;
        return Ok(Outcome::NotOffered);
    }
    let queues = bench.side(1).queues.len();
    ensure!(queues == usize::from(QUEUES), "{queues} queue pairs instead of {QUEUES}");
    for (v6, transport) in KINDS {
        let flows: Vec<Flow> = (0..64).map(|number| Flow::numbered(number, v6, transport)).collect();
        let arrived = pass(&mut bench, &flows, 3)?;
        let mut used = BTreeSet::new();
        for (flow, frames) in by_flow(&flows, &arrived)? {
            let here: BTreeSet<usize> = frames.iter().map(|frame| frame.queue).collect();
            ensure!(here.len() == 1, "{transport:?}, v6 {v6}: flow {flow} came on queues {here:?}");
            used.extend(here);
        }
        ensure!(used.len() == queues, "{transport:?}, v6 {v6}: 64 flows came on queues {used:?} of {queues}");
    }
    bench.close()?;
    Ok(Outcome::Passed)
}

/// With the usual, symmetric key what belongs together meets on one queue.
pub(super) fn symmetric<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::with(rig, Plan::default(), several(QUEUES))?;
    if bench.side(1).queues.len() < 2 {
        bench.close()?;
        return Ok(Outcome::NotOffered);
    }
    for (v6, transport) in KINDS {
        let flows: Vec<Flow> = (0..32).map(|number| Flow::numbered(number, v6, transport)).collect();
        let back: Vec<Flow> = flows.iter().map(|flow| flow.reversed()).collect();
        for (flow, back) in flows.iter().zip(&back) {
            let there = pass(&mut bench, &[*flow], 1)?;
            let again = pass(&mut bench, &[*back], 1)?;
            let place = |arrived: &[Arrived]| arrived.first().map(|frame| (frame.queue, frame.metadata.hash));
            ensure!(place(&there) == place(&again), "{flow:?}: {:?} there, {:?} back", place(&there), place(&again));
        }
    }
    bench.close()?;
    Ok(Outcome::Passed)
}

/// The hash in the metadata is the one of Microsoft's specification, with either key, and it alone chooses the queue.
pub(super) fn toeplitz<R: Rig>(rig: &mut R) -> Result<Outcome> {
    for key in [KEY, drivers::nic::SYMMETRIC_RSS_KEY] {
        let receiver = Plan::with(|plan| (plan.config.queue_pairs, plan.config.rss_key) = (QUEUES, key));
        let mut bench = Bench::with(&mut *rig, Plan::default(), receiver)?;
        let mut hashed = 0;
        let mut queues: BTreeMap<u32, usize> = BTreeMap::new();
        for (v6, transport) in KINDS {
            for number in 0..32 {
                let flow = Flow::numbered(number * 257, v6, transport);
                for (tag, frame) in [
                    (false, flow.frame(STRANGER, STRANGER, &[1; 30])),
                    (true, tagged(&flow.frame(STRANGER, STRANGER, &[1; 30]), 100)),
                ] {
                    let packet = bench.side(0).packet(&frame)?;
                    let arrived = bench.spread(0, 0, vec![packet], 1)?;
                    same_bytes(&[arrived[0].bytes.clone()], &[frame])?;
                    let Some(found) = arrived[0].metadata.hash else { continue };
                    hashed += 1;
                    let full = hash(&flow, &key, true);
                    // A card may leave the ports of datagrams out, because fragments have none.
                    let fits = found == full || (transport == Transport::Udp && found == hash(&flow, &key, false));
                    ensure!(fits, "{flow:?}, tagged {tag}: hash {found:#010x} instead of {full:#010x}");
                    let queue = *queues.entry(found & 0x7f).or_insert(arrived[0].queue);
                    ensure!(
                        queue == arrived[0].queue,
                        "hash {found:#010x} came on queues {queue} and {}",
                        arrived[0].queue
                    );
                }
            }
        }
        // What has no addresses has no hash, or always the same.
        let packet = bench.side(0).packet(&experiment(STRANGER, STRANGER, 1, 80))?;
        let arrived = bench.spread(0, 0, vec![packet], 1)?;
        ensure!(arrived[0].metadata.hash.is_none_or(|hash| hash == 0), "a frame without addresses has a hash");
        bench.close()?;
        if hashed == 0 {
            return Ok(Outcome::NotOffered);
        }
        ensure!(hashed == 4 * 32 * 2, "only {hashed} of 256 frames had a hash");
    }
    Ok(Outcome::Passed)
}

/// Frames leave on each queue.
pub(super) fn every_queue_sends<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::with(rig, several(QUEUES), Plan::default())?;
    let queues = bench.side(0).queues.len();
    if queues < 2 {
        bench.close()?;
        return Ok(Outcome::NotOffered);
    }
    for queue in 0..queues {
        let frames: Vec<_> =
            (0..100).map(|number| experiment(STRANGER, STRANGER, number, 60 + number as usize)).collect();
        let packets = frames.iter().map(|frame| bench.side(0).packet(frame)).collect::<Result<Vec<_>>>()?;
        let arrived = bench.spread(0, queue, packets, frames.len())?;
        same_bytes(&arrived.into_iter().map(|frame| frame.bytes).collect::<Vec<_>>(), &frames)?;
    }
    bench.close()?;
    Ok(Outcome::Passed)
}
