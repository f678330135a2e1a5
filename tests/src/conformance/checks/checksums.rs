//! Checksums: completed on the way out, judged on the way in.

use anyhow::{Context, Result, ensure};
use drivers::nic::{Nic, Offloads};
use hugemem::{Checksum, Packet};

use super::super::bench::{Arrived, Bench, Plan, STRANGER, same_frames};
use super::super::frame::{Ends, Flow, KINDS, Layout, Transport, experiment, pattern, tagged};
use super::super::{Outcome, Rig};

/// A packet with a partial checksum arrives as the frame that software would have sent.
pub(super) fn transmit<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig, &Plan::default())?;
    for from in [0, 1] {
        for (v6, transport) in KINDS {
            let mut frames = Vec::new();
            let mut packets = Vec::new();
            for (number, len) in (0_u16..).zip([0, 1, 2, 17, 18, 19, 100, 999, 1400, 1439]) {
                let flow = Flow::numbered(number, v6, transport);
                let plain = flow.frame(STRANGER, STRANGER, &pattern(number.into(), len));
                for (frame, pieces) in [
                    (plain.clone(), vec![2048]),
                    (plain.clone(), vec![100, 33, 2048]),
                    (tagged(&plain, 42), vec![2048]),
                    (plain.clone(), vec![78, 2048]),
                ] {
                    packets.push(partial(&mut bench, from, &frame, &pieces)?);
                    frames.push(frame);
                }
            }
            let arrived = bench.deliver(from, packets)?;
            same_frames(&arrived, &frames).with_context(|| format!("{transport:?}, v6 {v6}, from {from}"))?;
        }
        let frame = sums_to_zero()?;
        let packet = partial(&mut bench, from, &frame, &[2048])?;
        let arrived = bench.deliver(from, vec![packet])?;
        same_frames(&arrived, &[frame]).context("a datagram whose sum is zero, which is sent as all ones")?;
    }
    bench.close()?;
    Ok(Outcome::Passed)
}

fn partial<R: Rig>(bench: &mut Bench<'_, R>, from: usize, frame: &[u8], pieces: &[usize]) -> Result<Packet> {
    let mut bytes = frame.to_vec();
    let checksum = Layout::of(&bytes).context("the suite's own frame")?.make_partial(&mut bytes);
    let mut packet = bench.side(from).packet_in_pieces(&bytes, pieces.iter().copied())?;
    packet.metadata_mut().checksum = checksum;
    Ok(packet)
}

/// A datagram whose right checksum would be zero.
fn sums_to_zero() -> Result<Vec<u8>> {
    let flow = Flow { ends: Ends::V4([198, 18, 0, 1], [198, 19, 0, 1]), ports: (9, 9), transport: Transport::Udp };
    let mut payload = [0; 40];
    let first = flow.frame(STRANGER, STRANGER, &payload);
    // What the sum lacks to zero goes into the payload.
    let lacking = u16::from_be_bytes([first[40], first[41]]);
    payload[..2].copy_from_slice(&lacking.to_be_bytes());
    let frame = flow.frame(STRANGER, STRANGER, &payload);
    ensure!(frame[40..42] == [0xff, 0xff], "the suite's own frame has the sum {:02x?}", &frame[40..42]);
    Ok(frame)
}

/// Frames with right, wrong and no checksums, and which of them is which.
fn judged() -> Vec<(Vec<u8>, Option<bool>)> {
    let mut frames = Vec::new();
    for (v6, transport) in KINDS {
        for len in [10, 11, 700, 1400] {
            let good = Flow::numbered(5, v6, transport).frame(STRANGER, STRANGER, &pattern(77, len));
            let mut bad = good.clone();
            if let Some(last) = bad.last_mut() {
                *last ^= 0x55;
            }
            frames.extend([(tagged(&good, 9), Some(true)), (good, Some(true)), (bad, Some(false))]);
        }
    }
    // No checksum at all, which IPv4 allows.
    let mut none = Flow::numbered(5, false, Transport::Udp).frame(STRANGER, STRANGER, &[5; 50]);
    none[40..42].fill(0);
    frames.push((none, None));
    frames.push((experiment(STRANGER, STRANGER, 5, 100), None));
    frames
}

/// What became of each judged frame; `None` when the card does not judge.
type Judgement = Option<Vec<(Arrived, Option<bool>)>>;

fn judge<R: Rig>(rig: &mut R) -> Result<Judgement> {
    let mut bench = Bench::new(rig, &Plan::default())?;
    if !bench.side(1).nic.offloads().contains(Offloads::RX_CHECKSUM) {
        bench.close()?;
        return Ok(None);
    }
    let frames = judged();
    let bytes: Vec<_> = frames.iter().map(|(bytes, _)| bytes.clone()).collect();
    let arrived = bench.deliver_frames(0, &bytes)?;
    // What is wrong is not this side's to drop: whoever forwards it must be able to pass it on.
    same_frames(&arrived, &bytes)?;
    bench.close()?;
    Ok(Some(arrived.into_iter().zip(frames.into_iter().map(|(_, good)| good)).collect()))
}

/// Nothing wrong is called right.
pub(super) fn verdicts<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let Some(judged) = judge(rig)? else { return Ok(Outcome::NotOffered) };
    for (number, (frame, good)) in judged.iter().enumerate() {
        let verdict = frame.metadata.checksum;
        let fits = match good {
            Some(true) => true,
            _ => verdict == Checksum::Unknown,
        };
        ensure!(
            fits,
            "frame {number} of {} bytes, whose checksum is right: {good:?}, has {verdict:?}",
            frame.bytes.len()
        );
    }
    Ok(Outcome::Passed)
}

/// Everything right is called right.
pub(super) fn verdicts_are_given<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let Some(judged) = judge(rig)? else { return Ok(Outcome::NotOffered) };
    let right: Vec<_> = judged.iter().filter(|(_, good)| *good == Some(true)).collect();
    let found = right.iter().filter(|(frame, _)| frame.metadata.checksum == Checksum::Verified).count();
    if found == 0 {
        return Ok(Outcome::NotOffered);
    }
    ensure!(found == right.len(), "{found} of {} frames with right checksums were found right", right.len());
    Ok(Outcome::Passed)
}
