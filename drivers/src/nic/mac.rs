//! Ethernet addresses.

use core::fmt;

/// A 48-bit Ethernet address. Prints as `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text was no Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an Ethernet address (expected 52:54:00:12:34:56)")]
pub struct NotMacAddress;

impl core::str::FromStr for MacAddress {
    type Err = NotMacAddress;

    fn from_str(text: &str) -> Result<Self, NotMacAddress> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+')).ok_or(NotMacAddress)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| NotMacAddress)?;
        }
        if parts.next().is_some() { Err(NotMacAddress) } else { Ok(Self(octets)) }
    }
}
