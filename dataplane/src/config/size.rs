//! Sizes of memory: `64M`, `1G`.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::number::NumberOrText;

/// A number of bytes. Reads and prints with the binary suffixes `K`, `M` and `G`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(pub usize);

/// The text was no size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected a size such as 64M or 1G")]
pub struct NotByteSize;

impl FromStr for ByteSize {
    type Err = NotByteSize;

    fn from_str(text: &str) -> Result<Self, NotByteSize> {
        let (digits, unit) = match text.as_bytes().last() {
            Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
            Some(b'M' | b'm') => (&text[..text.len() - 1], 1 << 20),
            Some(b'G' | b'g') => (&text[..text.len() - 1], 1 << 30),
            _ => (text, 1),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotByteSize);
        }
        let number: usize = digits.parse().map_err(|_| NotByteSize)?;
        number.checked_mul(unit).map(Self).ok_or(NotByteSize)
    }
}

impl TryFrom<u64> for ByteSize {
    type Error = NotByteSize;

    fn try_from(bytes: u64) -> Result<Self, NotByteSize> {
        usize::try_from(bytes).map(Self).map_err(|_| NotByteSize)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, suffix) in [(1_usize << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K')] {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{suffix}", self.0 / unit);
            }
        }
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText("a size such as \"64M\" or \"1G\"", PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_what_they_print() {
        for (text, bytes) in [("64M", 64 << 20), ("1G", 1 << 30), ("3K", 3072), ("1500", 1500), ("0", 0)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
        assert_eq!("2m".parse(), Ok(ByteSize(2 << 20)));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "M", "-1M", "+1M", "1.5G", "64 M", "64MB", "99999999999999999999", "99999999999999G"] {
            assert_eq!(text.parse::<ByteSize>(), Err(NotByteSize), "{text}");
        }
    }
}
