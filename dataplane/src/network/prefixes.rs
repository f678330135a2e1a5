//! The longest prefix that holds an address.

use std::collections::HashMap;
use std::net::IpAddr;

use super::config::Prefix;

/// Values by prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prefixes<T> {
    values: HashMap<Prefix, T>,
    /// The lengths in use, longest first, of IPv4 and of IPv6.
    lengths: [Vec<u8>; 2],
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { values: HashMap::new(), lengths: [Vec::new(), Vec::new()] }
    }
}

impl<T> Prefixes<T> {
    /// Adds a value. The first one of a prefix stays.
    pub fn add(&mut self, prefix: Prefix, value: T) {
        let [ipv4, ipv6] = &mut self.lengths;
        let lengths = if prefix.address.is_ipv4() { ipv4 } else { ipv6 };
        if let Err(place) = lengths.binary_search_by(|length| prefix.length.cmp(length)) {
            lengths.insert(place, prefix.length);
        }
        self.values.entry(prefix).or_insert(value);
    }

    /// The value of the longest prefix that holds the address, and that prefix.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<(Prefix, &T)> {
        let [ipv4, ipv6] = &self.lengths;
        let lengths = if address.is_ipv4() { ipv4 } else { ipv6 };
        lengths.iter().find_map(|length| {
            let prefix = Prefix::of(address, *length);
            self.values.get(&prefix).map(|value| (prefix, value))
        })
    }

    /// The value of this one address.
    #[must_use]
    pub fn host(&self, address: IpAddr) -> Option<&T> {
        self.values.get(&Prefix::host(address))
    }
}
