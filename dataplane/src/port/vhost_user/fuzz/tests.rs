//! Each target on the same scripts every time: a short run of what fuzzing does for long.

use super::*;

/// Runs `target` on `count` scripts.
fn run(target: fn(&[u8]), count: u64) {
    for seed in 1..=count {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        let len = usize::from(next()) * 4;
        let script: Vec<u8> = (0..len).map(|_| next()).collect();
        target(&script);
    }
}

#[test]
fn no_split_ring_is_too_wild() {
    run(split_ring, 4000);
}

#[test]
fn no_packed_ring_is_too_wild() {
    run(packed_ring, 4000);
}

#[test]
fn no_ring_that_changes_between_reads_is_too_wild() {
    run(racing_ring, 200);
}

#[test]
fn no_session_is_too_wild() {
    run(session, 2000);
}
