//! Flows that somebody has chosen so that they meet in the same buckets.

use super::super::*;
use super::{action, key, known_hash};

const FLOWS: u32 = 200_000;

/// Fills a table with flows of these words; gives the number of buckets that hold so many flows each, and of moves that were needed.
fn fill(words: impl Fn(u64) -> [u64; 8]) -> ([u32; 9], u64) {
    // Most places in use that there can be: moves are needed.
    let capacity = FLOWS;
    let (mut writer, _readers) = Writer::with_hash(capacity, 0, known_hash(42)).unwrap();
    for number in 0..u64::from(FLOWS) {
        writer.insert(&FlowKey(words(number)), &action(0), FlowState::Active, 0).unwrap();
    }
    let mut histogram = [0; 9];
    for occupied in writer.table.occupancy() {
        histogram[occupied] += 1;
    }
    (histogram, writer.table.moves())
}

fn random(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[test]
fn chosen_flows_fill_buckets_as_random_ones_do() {
    let (fair, fair_moves) = fill(|number| std::array::from_fn(|word| random(number * 8 + word as u64)));
    let base = key(0).words();
    // Each family collides wholly under a hash that has no secret words.
    type Family = (&'static str, Box<dyn Fn(u64) -> [u64; 8]>);
    let with = |changes: fn([u64; 8], u64) -> [u64; 8]| Box::new(move |number| changes(base, number)) as Box<_>;
    let families: [Family; 7] = [
        (
            "one port after the other",
            with(|mut words, number| {
                words[3] = number & 0xffff;
                words[4] = words[4].wrapping_add((number >> 16) << 24);
                words
            }),
        ),
        (
            "one address after the other",
            with(|mut words, number| {
                words[4] = number.swap_bytes() >> 32;
                words
            }),
        ),
        (
            "multiples of a power of two",
            with(|mut words, number| {
                words[6] = number << 40;
                words
            }),
        ),
        (
            "the same exclusive or",
            with(|mut words, number| {
                words[4] ^= random(number);
                words[6] ^= random(number);
                words
            }),
        ),
        (
            "the same sum",
            with(|mut words, number| {
                words[5] = words[5].wrapping_add(random(number));
                words[7] = words[7].wrapping_sub(random(number));
                words
            }),
        ),
        (
            "words that change places",
            with(|mut words, number| {
                (words[0], words[1]) = (number, u64::from(FLOWS) * 2 - number);
                words
            }),
        ),
        (
            "a product that stays zero where secrets are zero",
            with(|mut words, number| {
                (words[2], words[3]) = (0, random(number));
                words
            }),
        ),
    ];
    for (name, words) in families {
        let (histogram, moves) = fill(words);
        for (occupied, (got, fair)) in histogram.iter().zip(&fair).enumerate() {
            // Some hundred buckets of each kind: five standard deviations and a little.
            let allowed = 5.0 * f64::from(*fair).sqrt() + 20.0;
            let difference = (f64::from(*got) - f64::from(*fair)).abs();
            assert!(difference < allowed, "{name}: {got} buckets hold {occupied} flows, of random ones {fair}");
        }
        assert!(moves < fair_moves * 2 + 100, "{name}: {moves} moves, {fair_moves} with random flows");
    }
}

#[test]
fn every_bit_of_a_key_and_of_the_secrets_matters() {
    let base = key(0);
    let hash = known_hash(7);
    let (mut changed, mut first) = (0, 0);
    for bit in 0..512_usize {
        let mut words = base.words();
        words[bit / 64] ^= 1 << (bit % 64);
        let difference = hash.of(&base) ^ hash.of(&FlowKey(words));
        assert_ne!(difference, 0, "bit {bit}");
        changed += difference.count_ones();
        first += u32::from(difference & 0xff_ffff != 0);
    }
    // Half of the bits change on average, and nearly always one that chooses the bucket.
    assert!((14_000..19_000).contains(&changed), "{changed} of {}", 512 * 64);
    assert!(first >= 510, "{first} of 512");
    assert_ne!(hash.of(&base), known_hash(8).of(&base));
    let secrets = (KeyedHash::random().unwrap(), KeyedHash::random().unwrap());
    assert_ne!(secrets.0.of(&base), secrets.1.of(&base));
    assert_eq!(format!("{hash:?}"), "KeyedHash(secret)");
}
