//! New addresses and ports of flows that are translated, by number.
//!
//! Control writes an entry before it publishes the flow whose action names it, and uses the number again when no engine can know that flow any
//! more. Engines read.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// A new address and port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The address, of the packet's own family.
    pub address: IpAddr,
    /// The port, or an echo request's identifier; 0 leaves it as it is.
    pub port: u16,
}

/// What becomes of a packet's addresses and ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Translation {
    /// The new source.
    pub source: Option<Endpoint>,
    /// The new destination.
    pub destination: Option<Endpoint>,
}

/// Words of an endpoint: the address in two, and kind and port in one.
const WORDS: usize = 3;

/// The entries.
pub struct NatTable {
    words: Box<[[AtomicU64; 2 * WORDS]]>,
}

impl NatTable {
    /// Room for `capacity` entries.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self { words: (0..capacity).map(|_| [const { AtomicU64::new(0) }; 2 * WORDS]).collect() }
    }

    /// Number of entries.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.words.len()
    }

    /// Writes an entry that no published flow names. `false` when there is no such number.
    pub fn set(&self, number: u32, translation: &Translation) -> bool {
        let Some(words) = self.words.get(number as usize) else { return false };
        let values = pack(translation.source).into_iter().chain(pack(translation.destination));
        for (word, value) in words.iter().zip(values) {
            // What publishes the flow makes this visible, too.
            word.store(value, Ordering::Relaxed);
        }
        true
    }

    /// Reads an entry; an empty one when there is no such number.
    #[inline]
    #[must_use]
    pub fn get(&self, number: u32) -> Translation {
        let Some([a, b, c, d, e, f]) = self.words.get(number as usize) else { return Translation::default() };
        let load = |words: [&AtomicU64; WORDS]| unpack(words.map(|word| word.load(Ordering::Relaxed)));
        Translation { source: load([a, b, c]), destination: load([d, e, f]) }
    }
}

fn pack(endpoint: Option<Endpoint>) -> [u64; WORDS] {
    let Some(Endpoint { address, port }) = endpoint else { return [0; WORDS] };
    let (kind, bits) = match address {
        IpAddr::V4(address) => (1, u128::from(address.to_bits())),
        IpAddr::V6(address) => (2, address.to_bits()),
    };
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
    [half(bits >> 64), half(bits), kind << 16 | u64::from(port)]
}

#[inline]
fn unpack([high, low, last]: [u64; WORDS]) -> Option<Endpoint> {
    let [.., port_high, port_low] = last.to_be_bytes();
    let port = u16::from_be_bytes([port_high, port_low]);
    let address = match last >> 16 {
        1 => IpAddr::from(<[u8; 4]>::try_from(&low.to_be_bytes()[4..]).unwrap_or_default()),
        2 => IpAddr::from((u128::from(high) << 64 | u128::from(low)).to_be_bytes()),
        _ => return None,
    };
    Some(Endpoint { address, port })
}

impl fmt::Debug for NatTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatTable").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_entry_reads_as_it_was_written(
            source in prop::option::of((any::<IpAddr>(), any::<u16>())),
            destination in prop::option::of((any::<IpAddr>(), any::<u16>())),
        ) {
            let table = NatTable::new(2);
            let endpoint = |(address, port)| Endpoint { address, port };
            let translation = Translation { source: source.map(endpoint), destination: destination.map(endpoint) };
            prop_assert!(table.set(1, &translation));
            prop_assert_eq!(table.get(1), translation);
            prop_assert_eq!(table.get(0), Translation::default());
            prop_assert_eq!(table.get(2), Translation::default());
            prop_assert!(!table.set(2, &translation));
        }
    }
}
