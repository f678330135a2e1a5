#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use hugemem::{Iova, PacketPool, Region};

fn pool(count: usize) -> PacketPool {
    Region::on_heap(count * 2304 + 4096, Iova::new(0)).unwrap().packets(count, 2048).unwrap()
}

fn packets(lengths: &[usize]) -> Vec<Handed> {
    let mut pool = pool(lengths.len());
    let packet = |len: &usize| {
        let mut packet = pool.take().unwrap();
        packet.write(&vec![0; *len]).unwrap();
        Handed::of(packet)
    };
    lengths.iter().map(packet).collect()
}

/// When each packet leaves, of those that all come at 0.
fn leaves(shape: Shape, lengths: &[usize]) -> (Vec<(usize, u64)>, usize) {
    let mut shaper = Shaper::new(Some(shape));
    let mut left = Vec::new();
    let refused =
        packets(lengths).into_iter().enumerate().filter_map(|(number, handed)| shaper.push(number, handed).err());
    let refused = refused.count();
    let mut now = 0;
    while let Some(wait) = shaper.wait(now) {
        now += wait;
        let (number, _) = shaper.pop(now).unwrap();
        left.push((number, now));
        assert!(left.len() <= lengths.len());
    }
    (left, refused)
}

#[test]
fn packets_that_come_too_fast_wait_and_those_beyond_the_queue_are_dropped() {
    // A byte a microsecond.
    let shape = Shape { bits_per_second: 8_000_000, burst: 1000, queue: 10_000 };
    let (left, refused) = leaves(shape, &[500; 8]);
    let times: Vec<u64> = left.iter().map(|(_, time)| time / 1000).collect();
    assert_eq!((times, refused), (vec![0, 0, 500, 1000, 1500, 2000, 2500, 3000], 0));
    assert!(left.iter().map(|(number, _)| *number).eq(0..8), "in order");
    // The first goes at once and makes room; what is longer than the bucket goes, too.
    let (left, refused) = leaves(Shape { queue: 2000, ..shape }, &[1500, 1500, 400, 600]);
    assert_eq!((left.len(), refused), (2, 2), "{left:?}");
    let shaper = Shaper::new(None);
    assert_eq!((shaper.len(), shaper.wait(0)), (0, None));
}

#[test]
fn a_rate_that_changes_lets_what_waits_go() {
    let mut shaper = Shaper::new(Some(Shape { bits_per_second: 8, burst: 1, queue: 10_000 }));
    for handed in packets(&[1000; 3]) {
        shaper.push(0, handed).unwrap();
    }
    assert!(shaper.pop(0).is_some());
    assert!(shaper.wait(0).unwrap() >= 900_000_000_000);
    shaper.set(None);
    assert!(shaper.pop(0).is_some() && shaper.pop(0).is_some() && shaper.pop(0).is_none());
}
