//! What is measured: two sizes of frames, and four numbers of flows.

use crate::peer_bench::outcome::Case;

/// Conversations, their names, and what mirach's rate should be at least, as a multiple of the peer's.
const FLOWS: [(u32, &str, Option<f64>); 4] =
    [(1, "1", Some(1.4)), (1_000, "1k", None), (10_000, "10k", Some(2.0)), (100_000, "100k", Some(2.0))];
/// Bytes of a frame, without its check sequence.
const SIZES: [usize; 2] = [64, 1518];
/// Milliseconds before the first window: caches that are filled at random have to be full.
const WARM: u32 = 500;
/// Clean windows that are wanted, and windows after which it is enough.
const WINDOWS: [u32; 2] = [20, 60];

/// All cases with rings of this format whose name has `filter` in it.
#[must_use]
pub fn cases(ring: &str, filter: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for size in SIZES {
        for (flows, name, aim) in FLOWS {
            let [clean, most] = WINDOWS;
            let mut arguments = vec![format!("ring={ring}"), format!("size={size}"), format!("flows={flows}")];
            arguments.extend([format!("warm={WARM}"), format!("clean={clean}"), format!("most={most}")]);
            arguments.push("ways=2".into());
            let name = format!("{size}-{ring}-{name}");
            cases.push(Case { name, arguments, round_trip: false, size, flows, aim });
        }
    }
    cases.retain(|case| case.name.contains(filter));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cases_cover_both_sizes_and_all_numbers_of_flows() {
        let names: Vec<String> = cases("split", "").into_iter().map(|case| case.name).collect();
        assert_eq!(names.len(), 8);
        for name in ["64-split-1", "64-split-100k", "1518-split-1k", "1518-split-10k"] {
            assert!(names.iter().any(|other| other == name), "{name}");
        }
        assert_eq!(cases("packed", "64-packed-100k").len(), 1);
    }
}
