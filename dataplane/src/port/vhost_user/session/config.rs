//! The device's configuration space (virtio 1.3, section 5.1.4), for frontends that read it here instead of making it up.

use super::wire::MAX_CONFIG;

/// What the configuration says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Config {
    /// Frames can pass.
    pub(super) up: bool,
    /// Queue pairs that there are at most.
    pub(super) pairs: u16,
    /// Largest payload of a frame.
    pub(super) mtu: u16,
}

impl Config {
    /// The `size` bytes from `offset` on; `None` beyond the end. Behind the known fields there are zeroes. There is no Ethernet address: the
    /// feature that would make it valid is not offered.
    pub(super) fn read(self, offset: u32, size: u32) -> Option<Vec<u8>> {
        let mut space = Vec::with_capacity(MAX_CONFIG);
        space.extend([0; 6]);
        space.extend(u16::from(self.up).to_le_bytes());
        space.extend(self.pairs.to_le_bytes());
        space.extend(self.mtu.to_le_bytes());
        // Speed and duplex are unknown.
        space.extend([0xff; 5]);
        space.resize(MAX_CONFIG, 0);
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        space.get(start..end).map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn fields_lie_where_the_specification_says() {
        let config = Config { up: true, pairs: 4, mtu: 9000 };
        assert_eq!(config.read(6, 6).unwrap(), [1, 0, 4, 0, 0x28, 0x23]);
        assert_eq!(config.read(0, 256).unwrap().len(), 256);
        assert_eq!(config.read(1, 256), None);
        assert_eq!(config.read(u32::MAX, u32::MAX), None);
    }
}
