//! The checks of the lab's own frames: a check that cannot fail shows nothing.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::{Check, NUMBERS, Series, checksum};

const SERIES: Series = Series { count: 4, flows: 2, window: 4, run: 7 };

fn frame(number: u64) -> Vec<u8> {
    let mut frame = Vec::new();
    SERIES.frame(number, &mut frame);
    frame
}

#[test]
fn frames_have_the_sizes_from_60_to_1514_and_a_valid_header() {
    let sizes: Vec<usize> = (0..20_000).map(|number| frame(number).len()).collect();
    assert_eq!(sizes.iter().min(), Some(&60));
    assert_eq!(sizes.iter().max(), Some(&1514));
    for number in 0..100 {
        let frame = frame(number);
        assert_eq!(checksum(&frame[14..34]), 0, "a header with its sum in it sums up to 0");
        assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), frame.len() - 14);
    }
}

#[test]
fn a_whole_series_is_accepted_with_flows_in_any_mix() {
    let mut check = Check::new(SERIES);
    for number in [1, 0, 3, 2] {
        assert!(check.accept(&frame(number)).unwrap());
    }
    assert_eq!(check.received, SERIES.count);
}

#[test]
fn a_missing_a_repeated_and_a_late_frame_are_errors() {
    for numbers in [[0, 4], [0, 0], [2, 0]] {
        let mut check = Check::new(SERIES);
        let results: Vec<bool> = numbers.iter().map(|&number| check.accept(&frame(number)).is_ok()).collect();
        assert!(results.contains(&false), "{numbers:?}");
    }
}

#[test]
fn a_frame_with_one_other_bit_or_another_length_is_an_error() {
    for at in [12, 30, NUMBERS + 12, frame(0).len() - 1] {
        let mut changed = frame(0);
        changed[at] ^= 1;
        assert!(Check::new(SERIES).accept(&changed).is_err(), "byte {at}");
    }
    let mut longer = frame(0);
    longer.push(0);
    assert!(Check::new(SERIES).accept(&longer).is_err());
}

#[test]
fn frames_of_others_are_passed_over() {
    let mut other = Vec::new();
    Series { run: 8, ..SERIES }.frame(0, &mut other);
    for frame in [other, vec![0; 60], vec![0; 3], Vec::new()] {
        assert!(!Check::new(SERIES).accept(&frame).unwrap());
    }
}
