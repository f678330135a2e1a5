//! Flows: frames that differ in addresses and ports, each computed from its number, so that a hundred thousand of them cost the generator no memory.
//!
//! A flow is a conversation of a client behind the first port with the server behind the second. Clients are 256 addresses, each with as many ports as are
//! needed, so that what looks at addresses alone sees few flows and what looks at ports sees all.

use super::frame::{NETWORK, SHORTEST};

/// The port of the server.
pub const SERVER: u16 = 5001;
/// The first port of a client.
const FIRST: u16 = 10_000;
/// Most flows that differ.
pub const MOST: u32 = (u16::MAX - FIRST) as u32 * 256;

/// The prefix of all addresses behind port 1 or 2.
#[must_use]
pub fn prefix(station: u8) -> String {
    format!("10.{station}.0.0/16")
}

/// The address of a station, when its last byte is this.
pub(super) const fn address(station: u8, last: u8) -> [u8; 4] {
    [10, station, 0, last]
}

/// The flows of one direction.
#[derive(Clone, Copy, Debug)]
pub struct Flows {
    count: u32,
    /// Where the last byte of the client's address, and its port, are in a frame.
    address: usize,
    port: usize,
    /// Sum of the IPv4 header's words without that byte.
    sum: u32,
}

impl Flows {
    /// `count` flows of the direction from station `from`, whose frames begin with `head` but for the client's address and port.
    #[must_use]
    pub fn new(count: u32, from: u8, head: &[u8; SHORTEST]) -> Self {
        let (address, port) = if from == 1 { (29, NETWORK) } else { (33, NETWORK + 2) };
        let words = head[14..NETWORK].as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word)));
        let left_out = u32::from(u16::from_be_bytes([head[24], head[25]])) + u32::from(head[address]);
        Self { count, address, port, sum: words.sum::<u32>() - left_out }
    }

    /// The same, so many.
    #[must_use]
    pub fn counting(self, count: u32) -> Self {
        Self { count: count.clamp(1, MOST), ..self }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Makes the head of a frame that of flow number `flow`.
    #[inline]
    pub fn write(&self, head: &mut [u8; SHORTEST], flow: u32) {
        let [_, high, low, last] = flow.to_be_bytes();
        let port = FIRST.wrapping_add(u16::from_be_bytes([high, low])).to_be_bytes();
        if let Some(place) = head.get_mut(self.address) {
            *place = last;
        }
        if let Some(place) = head.get_mut(self.port..).and_then(<[u8]>::first_chunk_mut) {
            *place = port;
        }
        let sum = self.sum + u32::from(last);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(0);
        [head[24], head[25]] = sum.to_be_bytes();
    }
}

/// Numbers below a bound, each as likely as the others, in no order (xorshift, Marsaglia 2003).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each `seed`.
    #[must_use]
    pub fn new(seed: u8) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ u64::from(seed))
    }

    /// The next number.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(((self.0 >> 32) * u64::from(bound)) >> 32).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_reach_every_flow_and_none_beyond() {
        let mut random = Random::new(1);
        let mut seen = [0; 100];
        for _ in 0..10_000 {
            seen[random.below(100) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (50..200).contains(count)), "{seen:?}");
        assert_eq!(random.below(1), 0);
    }
}
