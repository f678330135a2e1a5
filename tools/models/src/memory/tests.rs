//! Tests of maps and accesses.
#![allow(clippy::unwrap_used, reason = "tests")]
use std::sync::atomic::AtomicU64;

use hugemem::Iova;

use super::*;

fn region(iova: u64) -> Region {
    Region::on_heap(4096, Iova::new(iova)).unwrap()
}

#[test]
fn only_mapped_memory_is_reached_to_the_byte() {
    let (a, b) = (region(0x10_0000), region(0x10_1000));
    let mut memory = Memory::default();
    assert!(memory.map(&a) && memory.map(&b) && memory.map(&a));
    assert!(memory.span(0x10_0000, 4096, Access::Write).unwrap().write(4095, &[7]));
    let mut byte = [0];
    assert!(memory.span(0x10_0fff, 1, Access::Read).unwrap().read(0, &mut byte));
    assert_eq!(byte, [7]);
    assert!(!memory.span(0x10_0000, 16, Access::Write).unwrap().write(9, &[0; 8]));
    assert_eq!(memory.fault_count(), 0);
    // A span across two maps is two translations for an IOMMU, but no driver here has a reason for it.
    for (address, bytes) in [(0x0f_ffff, 1), (0x10_0fff, 2), (0x10_2000, 1), (u64::MAX, 2), (0, 1)] {
        assert!(memory.span(address, bytes, Access::Read).is_none(), "{address:#x}");
    }
    assert_eq!(memory.fault_count(), 5);
    assert_eq!(memory.faults()[0], DmaFault { address: 0x0f_ffff, bytes: 1, access: Access::Read });
}

#[test]
fn an_access_after_unmap_is_a_fault() {
    let a = region(0x10_0000);
    let mut memory = Memory::default();
    assert!(memory.map(&a));
    assert!(memory.unmap(&a) && !memory.unmap(&a));
    assert!(memory.words(0x10_0000, 2, Access::Read).is_none());
    assert_eq!(memory.fault_count(), 1);
}

#[test]
fn the_end_of_a_watched_region_shows() {
    let (region, watch) = watched_region(5000, Iova::new(0x10_0000));
    let words = region.array::<AtomicU64>(1, 8).unwrap();
    drop(region);
    assert!(watch.upgrade().is_some());
    drop(words);
    assert!(watch.upgrade().is_none());
}

#[test]
fn overlapping_maps_are_refused() {
    let mut memory = Memory::default();
    assert!(memory.map(&region(0x10_0000)));
    assert!(!memory.map(&region(0x10_0000)));
}

#[test]
fn words_outside_or_misaligned_are_not_touched() {
    let a = region(0x10_0000);
    let mut memory = Memory::default();
    assert!(memory.map(&a));
    let words = memory.words(0x10_0000, 8, Access::Write).unwrap();
    words.store64(0, 0x1122_3344_5566_7788);
    words.store32(8, 9);
    words.store16(1, 9);
    assert_eq!((words.load16(6), words.load32(8), words.load64(0)), (0x1122, 0, 0x1122_3344_5566_7788));
}

#[test]
fn thousands_of_pieces_of_one_file_are_found_and_taken_away() {
    let file = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, 4096 * 4096).unwrap();
    let (mut files, mut memory) = (Files::default(), Memory::default());
    // Neighbours in the address space are far from each other in the file.
    for piece in (0..4096_u64).rev() {
        let open = files.open(file.try_clone().unwrap()).unwrap();
        let at = (piece * 1021 % 4096) * 4096;
        assert!(memory.map_file(piece * 8192, 4096, Permission::ALL, open, at));
    }
    let mut hint = Hint::default();
    for piece in 0..4096_u64 {
        memory.here(&mut hint, piece * 8192 + 8, 8, Access::Write).unwrap().write(&piece.to_le_bytes());
        assert!(memory.here(&mut hint, piece * 8192 + 4096, 1, Access::Read).is_none());
    }
    for piece in [0, 17, 4095_u64] {
        let mut bytes = [0; 8];
        rustix::io::pread(&file, &mut bytes, (piece * 1021 % 4096) * 4096 + 8).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), piece);
    }
    assert!(!memory.remove(8192 + 1, 8192), "it would cut a map");
    assert!(memory.remove(4096, 4096), "nothing is mapped there");
    assert!(memory.remove(8192, 3 * 8192));
    assert_eq!(memory.mapped(), 4093);
    // A hint that is out of date leads nowhere wrong.
    assert!(memory.here(&mut hint, 8192, 8, Access::Read).is_none());
    assert!(memory.here(&mut hint, 0, 8, Access::Read).is_some());
}

#[test]
fn a_map_can_be_read_only_and_reach_the_last_address() {
    let mut memory = Memory::default();
    let file = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, 8192).unwrap();
    let open = Files::default().open(file).unwrap();
    let (first, read_only) = (u64::MAX - 4095, Permission { read: true, write: false });
    assert!(!memory.map_file(0, 4096, read_only, Arc::clone(&open), 4097), "beyond the file");
    assert!(memory.map_file(first, 4096, read_only, open, 4096));
    assert!(!memory.map_messages(u64::MAX, 1, Permission::ALL));
    let hint = &mut Hint::default();
    assert!(memory.here(hint, u64::MAX - 7, 8, Access::Read).is_some());
    assert!(memory.here(hint, u64::MAX - 7, 8, Access::Write).is_none());
    assert!(memory.here(hint, u64::MAX - 7, 9, Access::Read).is_none());
    assert!(!memory.remove(0, u64::MAX), "all but the last byte");
    assert!(memory.remove(first, 4096) && memory.mapped() == 0);
}
