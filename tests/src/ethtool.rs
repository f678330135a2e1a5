//! What `ethtool` in a guest says of an interface.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::guest::Guest;

/// The counters of an interface (`ethtool -S`) by name.
///
/// # Errors
///
/// There are none.
pub fn counters(guest: &mut Guest, interface: &str) -> Result<Counters> {
    let printed = guest.must(&format!("/tools/ethtool -S {interface}"))?;
    let counters = Counters::parse(&printed);
    if counters.0.is_empty() {
        bail!("{interface} has no counters: {printed}");
    }
    Ok(counters)
}

/// Whether an offload (`ethtool -k`) is on.
///
/// # Errors
///
/// There is none of that name.
pub fn is_on(guest: &mut Guest, interface: &str, offload: &str) -> Result<bool> {
    let printed = guest.must(&format!("/tools/ethtool -k {interface}"))?;
    let line = printed.lines().find_map(|line| line.trim().strip_prefix(offload)?.strip_prefix(": "));
    let state = line.with_context(|| format!("{interface} has no offload {offload}: {printed}"))?;
    Ok(state.starts_with("on"))
}

/// Counters by name.
#[derive(Clone, Debug)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    fn parse(printed: &str) -> Self {
        let lines = printed.lines().filter_map(|line| line.trim().split_once(": "));
        Self(lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// One counter.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn get(&self, name: &str) -> Result<u64> {
        self.0.get(name).copied().with_context(|| format!("there is no counter {name} among {:?}", self.0.keys()))
    }

    /// How far each counter has grown since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let grown = |(name, value): (&String, &u64)| {
            (name.clone(), value.wrapping_sub(before.0.get(name).copied().unwrap_or(0)))
        };
        Self(self.0.iter().map(grown).collect())
    }

    /// Those above zero whose names contain one of these words.
    #[must_use]
    pub fn raised(&self, words: &[&str]) -> Vec<(&str, u64)> {
        let wanted = |name: &str| words.iter().any(|word| name.contains(word));
        self.0
            .iter()
            .filter(|(name, value)| **value > 0 && wanted(name))
            .map(|(name, value)| (name.as_str(), *value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::Counters;

    #[test]
    fn counters_are_read_by_name_and_compared() {
        let before = Counters::parse("NIC statistics:\n     rx_packets: 3\n     rx_missed_errors: 0\n");
        let after = Counters::parse("NIC statistics:\n     rx_packets: 10\n     rx_missed_errors: 1\n");
        assert_eq!(before.get("rx_packets").unwrap(), 3);
        assert!(before.get("tx_packets").is_err());
        assert_eq!(after.since(&before).get("rx_packets").unwrap(), 7);
        assert_eq!(after.raised(&["error", "drop"]), [("rx_missed_errors", 1)]);
        assert!(before.raised(&["error"]).is_empty());
    }
}
