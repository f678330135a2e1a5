//! Batches in which keys repeat.

use proptest::prelude::*;

use super::super::*;
use super::{action, key, known_hash, look};

/// Flows, of which every third is wide, and every third not in the table. 16 in a row differ in their ports alone.
const FLOWS: u32 = 96;

proptest! {
    #[test]
    fn a_batch_of_runs_is_looked_up_as_its_keys_one_by_one(
        seed in any::<u64>(), runs in proptest::collection::vec((0..FLOWS, 1..40_usize), 0..40),
    ) {
        let (mut writer, mut readers) = Writer::with_hash(FLOWS, 2, known_hash(seed)).unwrap();
        for flow in 0..FLOWS {
            let key = match flow / 16 % 3 {
                0 => key(flow),
                1 if flow % 16 == 0 => key(flow).wide(),
                _ => continue,
            };
            writer.insert(&key, &action(flow), FlowState::Active, 0).unwrap();
        }
        let keys: Vec<FlowKey> = runs.iter().flat_map(|(flow, len)| std::iter::repeat_n(key(*flow), *len)).collect();
        let [together, alone] = readers.as_mut_slice() else { panic!("two readers") };
        let mut found = vec![Some(FlowIndex(7)); keys.len()];
        together.lookup(&keys, &mut found);
        let expected: Vec<_> = keys.iter().map(|key| look(alone, key)).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(together.lookups(), alone.lookups());
    }
}
