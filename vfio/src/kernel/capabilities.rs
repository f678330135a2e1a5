//! Reads the capability lists that the kernel appends to its answers (`struct vfio_info_cap_header`).

use hugemem::IovaRange;

use crate::bar::Stretch;

/// `VFIO_REGION_INFO_CAP_SPARSE_MMAP` and `VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE` share this shape and number.
const PAIRS: u16 = 1;
const HEADER: usize = 8;
/// Longer lists than this do not exist; it ends a list that points back to itself.
const MOST: usize = 64;

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let raw = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(raw.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let raw = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_ne_bytes(raw.try_into().ok()?))
}

/// The body of the capability with `id` in the answer `bytes`, whose list begins at `first` (0: no list).
fn find(bytes: &[u8], first: u32, id: u16) -> Option<&[u8]> {
    let mut at = first as usize;
    for _ in 0..MOST {
        if at == 0 {
            return None;
        }
        let header = bytes.get(at..)?;
        let found = u16::from_ne_bytes(header.get(..2)?.try_into().ok()?);
        if found == id {
            return header.get(HEADER..);
        }
        at = word(header, 4)? as usize;
    }
    None
}

/// Pairs of 64-bit numbers behind a count.
fn pairs(body: &[u8]) -> Vec<(u64, u64)> {
    let count = word(body, 0).unwrap_or(0) as usize;
    let room = body.len().saturating_sub(HEADER) / 16;
    (0..count.min(room))
        .filter_map(|index| Some((long(body, HEADER + 16 * index)?, long(body, HEADER + 16 * index + 8)?)))
        .collect()
}

/// The areas of a region that can be mapped, or `None` when the answer has no such list (then all of it can).
pub(crate) fn sparse_areas(bytes: &[u8], first: u32) -> Option<Vec<Stretch>> {
    let body = find(bytes, first, PAIRS)?;
    Some(
        pairs(body)
            .into_iter()
            .filter(|(_, length)| *length > 0)
            .map(|(offset, length)| Stretch { offset, length })
            .collect(),
    )
}

/// The usable IOVA ranges in the answer of a type1 container, or `None` when the kernel does not say.
pub(crate) fn iova_ranges(bytes: &[u8], first: u32) -> Option<Vec<IovaRange>> {
    let body = find(bytes, first, PAIRS)?;
    Some(pairs(body).into_iter().map(|(first, last)| IovaRange { first, last }).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn capability(id: u16, next: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = id.to_ne_bytes().to_vec();
        bytes.extend(1_u16.to_ne_bytes());
        bytes.extend(next.to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    fn list(count: u32, numbers: &[u64]) -> Vec<u8> {
        let mut body = count.to_ne_bytes().to_vec();
        body.extend([0; 4]);
        body.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
        body
    }

    fn answer(parts: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0; 32];
        parts.iter().for_each(|part| bytes.extend(part));
        bytes
    }

    #[test]
    fn areas_are_found_behind_other_capabilities() {
        let bytes = answer(&[capability(3, 40, &[]), capability(1, 0, &list(2, &[0, 0x1000, 0x3000, 0x2000]))]);
        let areas = sparse_areas(&bytes, 32).unwrap();
        assert_eq!(areas, [Stretch { offset: 0, length: 0x1000 }, Stretch { offset: 0x3000, length: 0x2000 }]);
    }

    #[test]
    fn a_region_without_a_list_has_none() {
        assert_eq!(sparse_areas(&answer(&[capability(3, 0, &[])]), 32), None);
        assert_eq!(sparse_areas(&answer(&[]), 0), None);
    }

    #[test]
    fn broken_lists_end() {
        assert_eq!(sparse_areas(&answer(&[capability(3, 32, &[])]), 32), None, "it points to itself");
        assert_eq!(sparse_areas(&answer(&[]), 4000), None, "it points outside");
        let short = answer(&[capability(1, 0, &list(1000, &[0, 4096]))]);
        assert_eq!(sparse_areas(&short, 32).unwrap().len(), 1, "fewer than it claims");
    }

    #[test]
    fn ranges_keep_both_ends() {
        let bytes = answer(&[capability(1, 0, &list(2, &[0, 0xfedf_ffff, 0xfef0_0000, 0xffff_ffff_ffff]))]);
        let ranges = iova_ranges(&bytes, 32).unwrap();
        assert_eq!((ranges[0].first, ranges[0].last), (0, 0xfedf_ffff));
        assert_eq!((ranges[1].first, ranges[1].last), (0xfef0_0000, 0xffff_ffff_ffff));
    }
}
