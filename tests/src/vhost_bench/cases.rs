//! What is measured: both ring formats, all sizes and directions, and the round trip.

use crate::peer_bench::outcome::Case;

/// Bytes of a large segment.
const LARGE: usize = 65_000;

/// All cases whose name has `filter` in it.
#[must_use]
pub fn cases(filter: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for ring in ["split", "packed"] {
        for (name, size, large) in [("64", 64, "off"), ("256", 256, "off"), ("1518", 1518, "off"), ("gso", LARGE, "on")]
        {
            for (ways, direction) in [(1, "uni"), (2, "bi")] {
                let arguments =
                    [format!("ring={ring}"), format!("size={size}"), format!("large={large}"), format!("ways={ways}")];
                let name = format!("{name}-{ring}-{direction}");
                cases.push(Case { name, arguments: arguments.into(), round_trip: false, size, flows: 1, aim: None });
            }
        }
        let arguments = [format!("ring={ring}"), "size=64".into(), "inflight=1".into()].into();
        let name = format!("rtt-{ring}");
        cases.push(Case { name, arguments, round_trip: true, size: 64, flows: 1, aim: None });
    }
    cases.retain(|case| case.name.contains(filter));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cases_cover_both_rings_all_sizes_and_directions_and_the_round_trip() {
        let names: Vec<String> = cases("").into_iter().map(|case| case.name).collect();
        assert_eq!(names.len(), 18);
        for name in ["64-split-uni", "256-packed-bi", "1518-split-bi", "gso-packed-uni", "rtt-split", "rtt-packed"] {
            assert!(names.iter().any(|other| other == name), "{name}");
        }
        assert_eq!(cases("rtt").len(), 2);
    }
}
