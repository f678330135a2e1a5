#![allow(clippy::unwrap_used, reason = "tests")]
use super::frame::{Identity, Verdict, Writer, pattern, read};
use super::*;
use crate::port::PortSpec;
use drivers::nic::DropReason;
use hugemem::{Batch, Checksum, Iova, Region};
use proptest::prelude::*;

/// The frame of `identity` with `len` bytes.
fn frame(identity: Identity, len: u16) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..usize::from(len)).map(pattern).collect();
    Writer::new(len).write(bytes.first_chunk_mut().unwrap(), identity, len);
    bytes
}

fn port(spec: &str, queues: usize, buffers: usize) -> (Vec<PortQueue>, GeneratorControl) {
    let PortSpec::Generator(spec) = spec.parse().unwrap() else { panic!("a generator") };
    let region = Region::on_heap(queues * (buffers * 2048 + 4096), Iova::new(0)).unwrap();
    let pools = (0..queues).map(|_| region.packets(buffers, 1920).unwrap()).collect();
    open(&spec, CycleClock::calibrate(), pools)
}

#[test]
fn a_frame_is_a_valid_datagram_to_the_letter() {
    let identity = Identity { flow: 0x1234, sequence: 0x0102_0304_0506_0708, stamp: 9 };
    let bytes = frame(identity, 64);
    assert_eq!(bytes[..14], [2, 0x6d, 0x69, 0, 0, 2, 2, 0x6d, 0x69, 0, 0, 1, 8, 0]);
    assert_eq!(bytes[14..24], [0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17]);
    assert_eq!(bytes[26..34], [198, 18, 0x12, 0x34, 198, 19, 0x12, 0x34]);
    assert_eq!(bytes[34..40], [0xd2, 0x34, 0, 9, 0, 30]);
    // Checksums by the book: 16-bit words, most significant byte first.
    let words = |bytes: &[u8]| -> u32 { bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum() };
    let fold = |sum: u32| (sum >> 16) + (sum & 0xffff);
    assert_eq!(fold(words(&bytes[14..34])), 0xffff);
    assert_eq!(fold(fold(words(&bytes[26..]) + 17 + 30)), 0xffff);
    assert_eq!(read(&bytes), Verdict::Intact(identity));
}

proptest! {
    #[test]
    fn every_frame_reads_back(flow: u16, sequence: u64, stamp: u64, len in 60_u16..=1514) {
        let identity = Identity { flow, sequence, stamp };
        prop_assert_eq!(read(&frame(identity, len)), Verdict::Intact(identity));
    }

    #[test]
    fn a_changed_byte_never_passes(sequence: u64, len in 60_u16..=1514, at: prop::sample::Index, flip in 1_u8..) {
        let mut bytes = frame(Identity { flow: 3, sequence, stamp: 5 }, len);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(!matches!(read(&bytes), Verdict::Intact(_)));
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..100), len in 0_usize..200) {
        let _ = read(&bytes);
        let mut bytes = frame(Identity { flow: 1, sequence: 2, stamp: 3 }, 128);
        bytes.resize(len, 0);
        prop_assert_eq!(matches!(read(&bytes), Verdict::Intact(_)), len == 128);
    }
}

#[test]
fn all_frames_of_two_ports_arrive_at_each_other() {
    let (mut left, left_control) = port("gen=max,size=60-1514,count=10000,flows=7", 1, 300);
    let (mut right, right_control) = port("gen=max,count=5000", 1, 300);
    let mut batch = Batch::new(128);
    while left_control.supply() == Supply::Remaining || right_control.supply() == Supply::Remaining {
        left[0].rx.receive(&mut batch);
        right[0].tx.transmit(&mut batch);
        right[0].rx.receive(&mut batch);
        left[0].tx.transmit(&mut batch);
        assert!(batch.is_empty());
    }
    let (left, right) = (left_control.generator().unwrap(), right_control.generator().unwrap());
    assert_eq!((left.sent, left.received, right.sent, right.received), (10_000, 5_000, 5_000, 10_000));
    assert_eq!(right.sent_bytes, 5_000 * 64);
    for report in [&left, &right] {
        let GeneratorReport { lost, reordered, duplicates, corrupt, foreign, missed, .. } = report;
        assert_eq!([lost, reordered, duplicates, corrupt, foreign, missed], [&0; 6]);
        assert_eq!(report.latency.count(), report.received);
    }
}

#[test]
fn the_sink_tells_loss_from_delay_and_damage() {
    let (mut queues, control) = port("gen=max,size=100,count=8", 1, 16);
    let mut batch = Batch::new(16);
    assert_eq!(queues[0].rx.receive(&mut batch), 8);
    assert_eq!(queues[0].rx.receive(&mut batch), 0, "the count is reached");
    let mut frames: Vec<_> = batch.drain_front(8).collect();
    drop(frames.remove(6));
    frames.swap(2, 4);
    frames[5].bytes_mut()[90] ^= 1;
    let copy = frames[0].bytes().to_vec();
    let region = Region::on_heap(1 << 16, Iova::new(0)).unwrap();
    let mut pool = region.packets(8, 64).unwrap();
    let mut twin = pool.take().unwrap();
    twin.write(&copy[..64]).unwrap();
    let mut tail = pool.take().unwrap();
    tail.write(&copy[64..]).unwrap();
    twin.append(tail).unwrap();
    let mut other = pool.take().unwrap();
    other.write(&[0xff; 60]).unwrap();
    let mut empty = pool.take().unwrap();
    empty.metadata_mut().checksum = Checksum::Partial { start: 60_000, offset: 60_000 };
    for packet in frames.into_iter().chain([twin, other, empty]) {
        batch.push(packet).unwrap();
    }
    assert_eq!(queues[0].tx.transmit(&mut batch), 10);
    let report = control.generator().unwrap();
    // 0 1 4 3 2 (5 corrupt) (6 lost) 7, then a copy of 0 in two pieces and two strangers.
    assert_eq!((report.received, report.lost, report.reordered), (6, 2, 2));
    assert_eq!((report.duplicates, report.corrupt, report.foreign), (1, 1, 2));
    assert_eq!(report.latency.count(), 6);
    assert_eq!(queues[0].tx.counters().packets, 10);
}

#[test]
fn queues_share_rate_count_and_flows() {
    let (mut queues, control) = port("gen=max,count=10,flows=5", 3, 16);
    let mut batch = Batch::new(32);
    let made: Vec<usize> = queues.iter_mut().map(|queue| queue.rx.receive(&mut batch)).collect();
    assert_eq!(made, [4, 3, 3]);
    let identities: Vec<(u16, u64)> = batch
        .iter()
        .map(|packet| match read(packet.bytes()) {
            Verdict::Intact(identity) => (identity.flow, identity.sequence),
            verdict => panic!("{verdict:?}"),
        })
        .collect();
    assert_eq!(identities, [(0, 0), (3, 0), (0, 1), (3, 1), (1, 0), (4, 0), (1, 1), (2, 0), (2, 1), (2, 2)]);
    // Whatever queue they arrive at.
    queues[2].tx.transmit(&mut batch);
    let report = control.generator().unwrap();
    assert_eq!((report.received, report.lost, control.supply()), (10, 0, Supply::Exhausted));
}

#[test]
fn without_buffers_nothing_is_made_and_nothing_is_lost() {
    let (mut queues, control) = port("gen=max", 1, 4);
    let mut batch = Batch::new(16);
    assert_eq!(queues[0].rx.receive(&mut batch), 4);
    assert_eq!(queues[0].rx.receive(&mut batch), 0);
    batch.clear();
    assert_eq!(queues[0].rx.receive(&mut batch), 4);
    assert_eq!(queues[0].rx.counters().dropped(DropReason::NoBuffer), 0);
    assert_eq!((control.generator().unwrap().sent, control.supply()), (8, Supply::Endless));
}

#[test]
fn a_rate_is_kept_on_average() {
    let (mut queues, control) = port("gen=1M", 1, 512);
    let mut batch = Batch::new(64);
    let start = std::time::Instant::now();
    queues[0].rx.receive(&mut batch);
    while start.elapsed() < std::time::Duration::from_millis(50) {
        queues[0].rx.receive(&mut batch);
        batch.clear();
    }
    let report = control.generator().unwrap();
    let due = start.elapsed().as_micros();
    // Never early (but for the clock's calibration); what came late is counted.
    let made = u128::from(report.sent + report.missed);
    assert!(made <= due + due / 100 + 1, "{made} of {due}");
    assert!(report.sent > 0);
}

#[test]
fn a_port_describes_itself() {
    let (_, mut control) = port("gen=1.5M,size=64-128,count=9,flows=3", 2, 4);
    assert_eq!(control.describe(), "gen state UP rate 1500k packets/s size 64 to 128 bytes flows 3 count 9 queues 2");
}
