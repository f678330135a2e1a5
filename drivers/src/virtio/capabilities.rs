//! Finding a device's structures among its PCI capabilities (virtio 1.3, section 4.1.4).

use crate::bus::{BusError, Width};

/// Command and status; capabilities exist when bit 20 is set (PCI 3.0, section 6.2.3).
const STATUS: u16 = 4;
const HAS_CAPABILITIES: u32 = 1 << 20;
/// Offset of the first capability.
const FIRST: u16 = 0x34;
/// Capability identifier: vendor specific, which is what virtio uses.
const VENDOR: u8 = 9;
/// More capabilities do not fit into 256 bytes; a longer list runs in a circle.
const MOST: usize = 48;
/// Smallest `cap_len`, and that of a notification capability.
const LENGTH: u8 = 16;
const NOTIFY_LENGTH: u8 = 20;

/// Where a structure lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Base address register, 0 to 5.
    pub(super) bar: u8,
    /// First byte.
    pub(super) offset: u32,
    /// Length in bytes.
    pub(super) length: u32,
}

/// What the walk found: the first usable capability of each type. Nothing is known of the BARs yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Found {
    /// Common configuration (4.1.4.3).
    pub(super) common: Option<Place>,
    /// Notifications (4.1.4.4).
    pub(super) notify: Option<Place>,
    /// Distance of two doorbells.
    pub(super) notify_multiplier: u32,
    /// Device configuration (4.1.4.6).
    pub(super) device: Option<Place>,
}

/// Walks the list of capabilities with `read`, which gives the aligned 32-bit word at an offset of configuration space.
pub(super) fn walk(read: impl Fn(u16) -> Result<u32, BusError>) -> Result<Found, BusError> {
    let mut found = Found::default();
    if read(STATUS)? & HAS_CAPABILITIES == 0 {
        return Ok(found);
    }
    let mut next = pointer(read(FIRST)?);
    for _ in 0..MOST {
        // The standard header fills the first 64 bytes.
        if next < 0x40 {
            break;
        }
        let [identifier, following, length, kind] = read(next)?.to_le_bytes();
        if identifier == VENDOR && length >= LENGTH && next + u16::from(length) <= 256 {
            let place =
                Place { bar: u8::narrow(read(next + 4)?.into()), offset: read(next + 8)?, length: read(next + 12)? };
            // Other values of `bar` are reserved (4.1.4): such a capability is to be ignored.
            let place = (place.bar <= 5 && place.length > 0).then_some(place);
            match kind {
                1 => found.common = found.common.or(place),
                2 if found.notify.is_none() && length >= NOTIFY_LENGTH && place.is_some() => {
                    found.notify = place;
                    found.notify_multiplier = read(next + 16)?;
                }
                4 => found.device = found.device.or(place),
                _ => {}
            }
        }
        next = pointer(following.into());
    }
    Ok(found)
}

/// An offset in the list: eight bits, the lowest two of which are reserved (PCI 3.0, section 6.7).
fn pointer(word: u32) -> u16 {
    u16::narrow(u64::from(word & 0xfc))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn word(space: &[u8; 256], offset: u16) -> Result<u32, BusError> {
        let offset = usize::from(offset);
        assert!(offset.is_multiple_of(4) && offset < 256, "an aligned word of the space, not {offset:#x}");
        Ok(u32::from_le_bytes(space[offset..offset + 4].try_into().unwrap()))
    }

    /// A configuration space with these capabilities: where, where the next is, length, type, BAR, offset, length,
    /// multiplier.
    fn space(capabilities: &[[u32; 8]]) -> [u8; 256] {
        let mut space = [0; 256];
        space[6] = 0x10;
        space[0x34] = capabilities.first().map_or(0, |capability| u8::narrow(capability[0].into()));
        for [at, next, length, kind, bar, offset, size, multiplier] in capabilities.iter().copied() {
            let first = u32::from(VENDOR) | next << 8 | length << 16 | kind << 24;
            let bytes: Vec<u8> =
                [first, bar, offset, size, multiplier].into_iter().flat_map(u32::to_le_bytes).collect();
            let room = &mut space[at as usize..];
            let length = room.len().min(length.min(20) as usize);
            room[..length].copy_from_slice(&bytes[..length]);
        }
        space
    }

    fn place(bar: u8, offset: u32, length: u32) -> Option<Place> {
        Some(Place { bar, offset, length })
    }

    #[test]
    fn the_usual_list_is_found() {
        let space = space(&[
            [0x84, 0x70, 20, 5, 0, 0, 0, 0],
            [0x70, 0x60, 20, 2, 4, 0x3000, 0x1000, 4],
            [0x60, 0x50, 16, 4, 4, 0x2000, 0x1000, 0],
            [0x50, 0x40, 16, 3, 4, 0x1000, 0x1000, 0],
            [0x40, 0, 16, 1, 4, 0, 0x1000, 0],
        ]);
        let found = walk(|offset| word(&space, offset)).unwrap();
        let expected = Found {
            common: place(4, 0, 0x1000),
            notify: place(4, 0x3000, 0x1000),
            notify_multiplier: 4,
            device: place(4, 0x2000, 0x1000),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn the_first_usable_capability_of_a_type_counts() {
        let space = space(&[
            [0x40, 0x50, 16, 1, 6, 0, 0x1000, 0],
            [0x50, 0x60, 15, 1, 0, 0, 0x1000, 0],
            [0x60, 0x70, 16, 2, 0, 0, 0x1000, 0],
            [0x70, 0x80, 16, 1, 2, 64, 64, 0],
            [0x80, 0x00, 16, 1, 3, 0, 64, 0],
        ]);
        let found = walk(|offset| word(&space, offset)).unwrap();
        assert_eq!(found, Found { common: place(2, 64, 64), ..Found::default() });
    }

    #[test]
    fn a_capability_that_reaches_past_the_space_is_ignored() {
        let space = space(&[[0xf4, 0, 16, 1, 0, 0, 64, 0]]);
        assert_eq!(walk(|offset| word(&space, offset)).unwrap(), Found::default());
    }

    #[test]
    fn a_list_that_runs_in_a_circle_ends() {
        let space = space(&[[0x40, 0x50, 16, 1, 0, 0, 64, 0], [0x50, 0x40, 16, 4, 0, 64, 64, 0]]);
        let found = walk(|offset| word(&space, offset)).unwrap();
        assert!(found.common.is_some() && found.device.is_some() && found.notify.is_none());
    }

    #[test]
    fn without_a_list_nothing_is_found_and_a_failing_bus_is_reported() {
        assert_eq!(walk(|_| Ok(0)).unwrap(), Found::default());
        assert_eq!(walk(|_| Ok(u32::MAX)).unwrap(), Found::default());
        let failure = BusError::Gone { device: "it".into(), reason: "gone".into() };
        assert_eq!(walk(|_| Err(failure.clone())), Err(failure));
    }

    proptest! {
        #[test]
        fn any_configuration_space_is_walked_inside_its_bounds(bytes in prop::collection::vec(any::<u8>(), 256)) {
            let mut space: [u8; 256] = bytes.try_into().unwrap();
            space[6] |= 0x10;
            let reads = core::cell::Cell::new(0);
            let found = walk(|offset| {
                reads.set(reads.get() + 1);
                word(&space, offset)
            });
            prop_assert!(reads.get() <= 2 + 5 * MOST);
            for place in [found.clone().unwrap().common, found.unwrap().device].into_iter().flatten() {
                prop_assert!(place.bar <= 5 && place.length > 0);
            }
        }
    }
}
