//! The hash of flow keys: fast, and with secret keys, so that nobody outside can choose flows that collide.
//!
//! Two universal families in a row. NH (Black, Halevi, Krawczyk, Krovetz, Rogaway, "UMAC", 1999) over words of 64 bits brings eight words to 128 bits,
//! where two different keys collide with probability 2^-64. Multilinear hashing (Carter and Wegman; Lemire and Kaser, "Strongly universal
//! string hashing is fast", 2014) brings these to 64 bits, of which any are as good as any other. Both hold for whoever does not
//! know the secret words, whatever flows they choose.
//!
//! Both are linear in parts, so flows that are numbered one after the other would lie on a grid, which can be finer or coarser than chance. A
//! mixing step at the end, which brings different values to different values and so takes nothing away, breaks that up.

use std::fmt;
use std::io;

use super::FlowKey;

/// A hash with its secret words.
#[derive(Clone)]
pub struct KeyedHash {
    words: [u64; 8],
    low: u128,
    high: u128,
    sum: u128,
}

/// Secret words that a hash takes.
const SECRETS: usize = 14;

impl KeyedHash {
    /// A hash with secret words from the kernel.
    ///
    /// # Errors
    /// When the kernel has no random bytes to give.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; SECRETS * 8];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => done += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut secrets = [0; SECRETS];
        for (secret, bytes) in secrets.iter_mut().zip(bytes.as_chunks().0) {
            *secret = u64::from_le_bytes(*bytes);
        }
        Ok(Self::with_secrets(secrets))
    }

    /// A hash with these secret words, for tests and for results that have to repeat.
    #[must_use]
    pub const fn with_secrets(secrets: [u64; SECRETS]) -> Self {
        let [a, b, c, d, e, f, g, h, low, low_top, high, high_top, sum, sum_top] = secrets;
        Self {
            words: [a, b, c, d, e, f, g, h],
            low: low as u128 | (low_top as u128) << 64,
            high: high as u128 | (high_top as u128) << 64,
            sum: sum as u128 | (sum_top as u128) << 64,
        }
    }

    /// The hash of `key`. Any of its bits are as good as any other.
    #[must_use]
    #[inline(always)]
    pub fn of(&self, key: &FlowKey) -> u64 {
        let [a, b, c, d, e, f, g, h] = self.words;
        let [k, l, m, n, o, p, q, r] = key.0;
        let product = |left: u64, right: u64| u128::from(left) * u128::from(right);
        let brought = product(a.wrapping_add(k), b.wrapping_add(l))
            .wrapping_add(product(c.wrapping_add(m), d.wrapping_add(n)))
            .wrapping_add(product(e.wrapping_add(o), f.wrapping_add(p)))
            .wrapping_add(product(g.wrapping_add(q), h.wrapping_add(r)));
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        let (low, high) = (brought as u64, (brought >> 64) as u64);
        let sum = self
            .sum
            .wrapping_add(self.low.wrapping_mul(u128::from(low)))
            .wrapping_add(self.high.wrapping_mul(u128::from(high)));
        let upper = (sum >> 64) as u64;
        // Two thirds of the finalizer of MurmurHash3 (Appleby 2011).
        let mixed = (upper ^ upper >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ mixed >> 33
    }
}

impl fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyedHash(secret)")
    }
}
