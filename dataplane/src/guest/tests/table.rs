//! Tables of regions, and the way from addresses to bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

use hugemem::{Iova, Region};
use proptest::prelude::*;

use crate::guest::testing::{file, handle, memory, spec};
use crate::guest::*;

const OPTIONS: MapOptions = MapOptions { prefault: false, wake: None, reach: None };

/// Lengths and guest-physical addresses of the pieces of a range.
fn pieces(memory: &Memory, at: u64, len: u32, access: Access) -> Result<Vec<(u64, u32)>, BadAddress> {
    let mut found = Vec::new();
    memory.pieces(GuestAddress(at), len, access, |piece| found.push((piece.guest().0, piece.len())))?;
    Ok(found)
}

fn read(memory: &Memory, at: u64, len: u32) -> Result<Vec<u8>, BadAddress> {
    let mut bytes = Vec::new();
    memory.pieces(GuestAddress(at), len, Access::Read, |piece| {
        let start = bytes.len();
        bytes.resize(start + piece.len() as usize, 0);
        piece.copy_in(&mut bytes[start..]);
    })?;
    Ok(bytes)
}

#[test]
fn what_the_guest_writes_is_read_and_the_other_way_round() {
    let (memory, file) = memory(8192);
    file.write_all_at(b"from the guest", 4090).unwrap();
    assert_eq!(read(&memory, 4090, 14).unwrap(), b"from the guest");
    memory.pieces(GuestAddress(100), 4, Access::Write, |piece| assert_eq!(piece.copy_out(b"back"), 4)).unwrap();
    let mut back = [0; 4];
    file.read_exact_at(&mut back, 100).unwrap();
    assert_eq!(&back, b"back");
    assert_eq!(memory.user_address(spec(0, 0).user + 5), Some(GuestAddress(5)));
    assert_eq!(memory.user_address(5), None);
}

/// Two regions that touch in guest addresses, not in files, and one far away: 0..4096, 4096..12288, 1 MiB..1 MiB + 4096.
fn three_regions() -> (Arc<Memory>, [File; 3]) {
    let files = [file(4096), file(4096 + 8192), file(4096)];
    let second = RegionSpec { offset: 4096, ..spec(4096, 8192) };
    let memory = Memory::empty().with(spec(0, 4096), handle(&files[0]), &OPTIONS).unwrap();
    let memory = memory.with(second, handle(&files[1]), &OPTIONS).unwrap();
    (memory.with(spec(1 << 20, 4096), handle(&files[2]), &OPTIONS).unwrap(), files)
}

#[test]
fn a_range_is_divided_where_regions_meet_and_refused_where_they_do_not() {
    let (memory, files) = three_regions();
    files[0].write_all_at(b"one", 4093).unwrap();
    files[1].write_all_at(b"two", 4096).unwrap();
    assert_eq!(read(&memory, 4093, 6).unwrap(), b"onetwo");
    assert_eq!(pieces(&memory, 0, 12_288, Access::Read).unwrap(), [(0, 4096), (4096, 8192)]);
    assert_eq!(pieces(&memory, (1 << 20) + 4000, 96, Access::Write).unwrap(), [((1 << 20) + 4000, 96)]);
    for (at, len, missing) in [
        (12_288, 1, 12_288),
        (12_287, 2, 12_288),
        (0, u32::MAX, 12_288),
        ((1 << 20) - 1, 2, (1 << 20) - 1),
        (u64::MAX, 1, u64::MAX),
        (u64::MAX, u32::MAX, u64::MAX),
    ] {
        let refused = pieces(&memory, at, len, Access::Read).unwrap_err();
        assert_eq!(refused, BadAddress::Outside { at: GuestAddress(missing) });
    }
    assert!(pieces(&memory, 77, 0, Access::Read).unwrap().iter().all(|(_, len)| *len == 0));
    assert!(pieces(&memory, 1 << 40, 0, Access::Read).unwrap().is_empty());
    assert!(pieces(&Memory::empty(), 0, 1, Access::Read).is_err());
}

#[test]
fn a_region_at_the_end_of_all_addresses_does_not_wrap() {
    let file = file(4096);
    let top = u64::MAX - 4096;
    let memory = Memory::empty().with(
        RegionSpec { user: 0, ..RegionSpec { guest: top, ..spec(0, 4096) } },
        handle(&file),
        &OPTIONS,
    );
    let memory = memory.unwrap();
    assert_eq!(pieces(&memory, u64::MAX - 1, 1, Access::Read).unwrap(), [(u64::MAX - 1, 1)]);
    assert!(pieces(&memory, u64::MAX - 1, 2, Access::Read).is_err());
    assert!(pieces(&memory, 0, 1, Access::Read).is_err());
}

#[test]
fn regions_come_and_go_and_what_is_in_use_stays() {
    let (memory, files) = three_regions();
    let gone = spec(1 << 20, 4096);
    let words = memory.words::<AtomicU8>(GuestAddress(1 << 20), 8, Access::Read).unwrap();
    let smaller = memory.without(gone).unwrap();
    assert_eq!((memory.region_count(), smaller.region_count()), (3, 2));
    assert!(pieces(&smaller, 1 << 20, 1, Access::Read).is_err());
    assert!(pieces(&memory, 1 << 20, 1, Access::Read).is_ok(), "the old table is as it was");
    drop(memory);
    files[2].write_all_at(&[9], 7).unwrap();
    assert_eq!(words[7].load(Ordering::Relaxed), 9, "the words keep their memory");
    assert!(matches!(smaller.without(gone), Err(GuestError::NoSuchRegion { at, .. }) if at == 1 << 20));
    assert!(matches!(smaller.without(RegionSpec { size: 1, ..spec(0, 1) }), Err(GuestError::NoSuchRegion { .. })));
}

#[test]
fn regions_that_overlap_or_cannot_be_are_refused() {
    let (memory, files) = three_regions();
    let refused = |spec| memory.with(spec, handle(&files[0]), &OPTIONS).unwrap_err();
    let free = RegionSpec { guest: 2 << 20, user: 0, size: 4096, offset: 0 };
    assert!(memory.with(free, handle(&files[0]), &OPTIONS).is_ok());
    let overlapping = |spec, side| matches!(refused(spec), GuestError::Overlap { what, .. } if what == side);
    assert!(overlapping(RegionSpec { guest: 4095, size: 1, ..free }, "guest"));
    assert!(overlapping(RegionSpec { guest: (1 << 20) - 4095, ..free }, "guest"));
    assert!(overlapping(RegionSpec { user: spec(4096, 0).user + 8191, ..free }, "user"));
    for impossible in [
        RegionSpec { size: 0, ..free },
        RegionSpec { guest: u64::MAX, ..free },
        RegionSpec { user: u64::MAX - 4095, ..free },
        RegionSpec { offset: u64::MAX - 4095, ..free },
    ] {
        assert!(matches!(refused(impossible), GuestError::Geometry { .. }), "{impossible:x?}");
    }
    let mut full = Memory::empty();
    for number in 0..MAXIMUM_REGIONS as u64 {
        full = full.with(spec(number * 4096, 4096), handle(&files[0]), &OPTIONS).unwrap();
    }
    let one_more = full.with(spec(1 << 30, 4096), handle(&files[0]), &OPTIONS).unwrap_err();
    assert!(one_more.to_string().contains("128"), "{one_more}");
}

#[test]
fn words_are_aligned_inside_one_region_and_shared_with_the_guest() {
    let (memory, files) = three_regions();
    let words = memory.words::<[AtomicU64; 2]>(GuestAddress(16), 4, Access::Write).unwrap();
    words[3][1].store(0x1122_3344_5566_7788, Ordering::Release);
    let mut bytes = [0; 8];
    files[0].read_exact_at(&mut bytes, 16 + 3 * 16 + 8).unwrap();
    assert_eq!(u64::from_ne_bytes(bytes), 0x1122_3344_5566_7788);
    assert_eq!((words.len(), words.guest()), (4, GuestAddress(16)));
    words.prefetch(4);
    words.prefetch_to_write(usize::MAX);
    let refused = |at, count| memory.words::<AtomicU16>(GuestAddress(at), count, Access::Read).unwrap_err();
    assert!(matches!(refused(1, 1), BadAddress::Divided { .. }), "not aligned");
    assert!(matches!(refused(4094, 2), BadAddress::Divided { .. }), "in two regions");
    assert!(matches!(refused(0, usize::MAX), BadAddress::Divided { .. }));
    assert!(matches!(refused(20_000, 1), BadAddress::Outside { .. }));
    assert_eq!(memory.words::<AtomicU16>(GuestAddress(4094), 1, Access::Read).unwrap().len(), 1);
}

#[test]
fn a_piece_is_split_and_copied_no_further_than_both_sides_reach() {
    let (memory, file) = memory(4096);
    file.write_all_at(b"abcdef", 10).unwrap();
    memory
        .pieces(GuestAddress(10), 6, Access::Write, |piece| {
            piece.prefetch();
            piece.prefetch_to_write(1 << 30);
            let (head, rest) = piece.split_at(2);
            assert_eq!((head.len(), rest.len(), rest.guest()), (2, 4, GuestAddress(12)));
            let mut all = [0; 9];
            assert_eq!((rest.copy_in(&mut all), &all), (4, b"cdef\0\0\0\0\0"));
            assert_eq!(rest.copy_in(&mut all[..1]), 1);
            assert_eq!(head.copy_out(b"XYZ"), 2);
            assert_eq!(
                (piece.split_at(6).1.len(), piece.split_at(7).0.len(), piece.split_at(7).1.is_empty()),
                (0, 6, true)
            );
        })
        .unwrap();
    assert_eq!(read(&memory, 10, 6).unwrap(), b"XYcdef");
}

#[test]
#[expect(unsafe_code, reason = "payload is borrowed from a guest that stays to the end")]
fn payload_goes_from_guest_to_guest_in_one_copy() {
    let ((from, from_file), (to, _to_file)) = (memory(1 << 17), memory(1 << 17));
    let sent: Vec<u8> = (0..70_000_u32).map(|index| index.to_le_bytes()[1]).collect();
    from_file.write_all_at(&sent, 12).unwrap();
    let region = Region::on_heap(4096, Iova::new(0)).unwrap();
    let mut pool = region.packets_with_foreign(1, 128, 2).unwrap();
    let mut packet = pool.take().unwrap();
    from.pieces(GuestAddress(12), 70_000, Access::Read, |piece| {
        // SAFETY: `from` is dropped behind the packet.
        assert!(packet.attach(unsafe { piece.foreign() }));
    })
    .unwrap();
    let [payload] = packet.foreign() else { panic!("one piece") };
    to.pieces(GuestAddress(100), 60_000, Access::Write, |piece| assert_eq!(copy_foreign(payload, 5000, piece), 60_000))
        .unwrap();
    assert!(read(&to, 100, 60_000).unwrap() == sent[5000..65_000]);
    to.pieces(GuestAddress(0), 50, Access::Write, |piece| {
        assert_eq!(copy_foreign(payload, 69_990, piece), 10);
        assert_eq!(copy_foreign(payload, 70_001, piece), 0);
    })
    .unwrap();
    let mut host = [0; 20];
    assert_eq!(read_foreign(payload, 69_990, &mut host), 10);
    assert_eq!((&host[..10], &host[10..]), (&sent[69_990..], &[0; 10][..]));
    assert_eq!(read_foreign(payload, u32::MAX, &mut host), 0);
    assert!(!is_lost(payload));
}

fn translation(iova: u64, guest: u64, size: u64, permission: Permission) -> Translation {
    Translation { iova, user: spec(guest, 0).user, size, permission }
}

#[test]
fn behind_an_iommu_addresses_go_through_translations_page_by_page() {
    let (memory, files) = three_regions();
    let iotlb = Arc::new(Iotlb::new());
    let memory = memory.with_iotlb(Some(Arc::clone(&iotlb)));
    let miss = |iova, access| BadAddress::Miss { iova: GuestAddress(iova), access };
    assert_eq!(pieces(&memory, 0, 1, Access::Read), Err(miss(0, Access::Read)));
    assert!(iotlb.update(translation(0x10_0000, 8192, 4096, Permission::Read)));
    assert!(iotlb.update(translation(0x10_1000, 0, 4096, Permission::ReadWrite)));
    files[1].write_all_at(b"page", 4096 + 8188).unwrap();
    files[0].write_all_at(b"next", 0).unwrap();
    assert_eq!(read(&memory, 0x10_0ffc, 8).unwrap(), b"pagenext");
    assert_eq!(pieces(&memory, 0x10_0ffc, 8, Access::Write), Err(miss(0x10_0ffc, Access::Write)));
    assert_eq!(pieces(&memory, 0x10_1ffc, 8, Access::Read), Err(miss(0x10_2000, Access::Read)));
    assert!(matches!(
        memory.words::<AtomicU8>(GuestAddress(0x10_0ffc), 8, Access::Read),
        Err(BadAddress::Divided { .. })
    ));
    // The same bytes by two translations in a row are one array.
    assert!(iotlb.update(translation(0x10_2000, 4096, 4096, Permission::ReadWrite)));
    assert!(iotlb.update(translation(0x10_3000, 8192, 4096, Permission::ReadWrite)));
    let words = memory.words::<AtomicU8>(GuestAddress(0x10_2000), 8192, Access::Write).unwrap();
    assert_eq!(words.guest(), GuestAddress(4096), "guest-physical, as the log wants it");
    iotlb.invalidate(0x10_2fff, 1);
    assert_eq!(pieces(&memory, 0x10_2000, 1, Access::Read), Err(miss(0x10_2000, Access::Read)));
    assert!(pieces(&memory, 0x10_3000, 1, Access::Read).is_ok());
    iotlb.clear();
    assert!(pieces(&memory, 0x10_3000, 1, Access::Read).is_err());
    assert!(iotlb.update(Translation { user: 0, ..translation(0, 0, 4096, Permission::ReadWrite) }));
    assert_eq!(pieces(&memory, 5, 1, Access::Read), Err(BadAddress::Outside { at: GuestAddress(5) }));
}

#[test]
fn translations_that_cannot_be_are_refused_and_too_many_are_forgotten() {
    let iotlb = Iotlb::new();
    let whole = Translation { iova: 0, user: 0, size: u64::MAX, permission: Permission::Read };
    assert!(iotlb.update(whole));
    assert!(!iotlb.update(Translation { size: 0, ..whole }));
    assert!(!iotlb.update(Translation { iova: 2, ..whole }));
    assert!(!iotlb.update(Translation { user: 2, ..whole }));
    assert_eq!(iotlb.find(1 << 40, Access::Read), Some((1 << 40, u64::MAX - (1 << 40))));
    let page = |number: u64| Translation { iova: number << 12, user: 0, size: 4096, permission: Permission::Read };
    for number in 0..10_000 {
        assert!(iotlb.update(page(number)));
    }
    let known = (0..10_000).filter(|number| iotlb.find(number << 12, Access::Read).is_some()).count();
    assert_eq!(known, 4096);
    iotlb.invalidate(0, u64::MAX);
    assert_eq!(iotlb.find(9999 << 12, Access::Read), None);
}

#[test]
fn more_pieces_than_a_frame_has_are_refused() {
    let (memory, _file) = memory(1 << 20);
    let iotlb = Arc::new(Iotlb::new());
    for page in 0..100 {
        iotlb.update(translation(page << 12, (99 - page) << 12, 4096, Permission::ReadWrite));
    }
    let memory = memory.with_iotlb(Some(iotlb));
    assert_eq!(pieces(&memory, 0, 64 << 12, Access::Read).unwrap().len(), 64);
    assert!(matches!(pieces(&memory, 0, (64 << 12) + 1, Access::Read), Err(BadAddress::Scattered { most: 64, .. })));
}

#[test]
fn written_pages_are_noted_in_the_log_and_nothing_beyond_it() {
    let file = file(4096);
    let log = DirtyLog::new(handle(&file), 8, 4, &OPTIONS).unwrap();
    log.mark(GuestAddress(0), 0);
    log.mark(GuestAddress(4095), 2);
    log.mark(GuestAddress(9 << 12), 4096);
    log.mark(GuestAddress(31 << 12), u32::MAX);
    log.mark(GuestAddress(u64::MAX), u32::MAX);
    let mut bits = [0; 16];
    file.read_exact_at(&mut bits, 0).unwrap();
    assert_eq!(bits, [0, 0, 0, 0, 0, 0, 0, 0, 0b11, 0b10, 0, 0x80, 0, 0, 0, 0]);
    assert!(!log.is_lost());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a model: an array of which byte of which region stands at each guest address.
    #[test]
    fn pieces_are_what_a_byte_by_byte_look_up_says(
        sizes in prop::collection::vec((0_usize..3, 1_usize..3), 1..6), at in 0_usize..(20 << 12), len in 0_u32..(20 << 12),
    ) {
        let mut memory = Memory::empty();
        let mut model = vec![None; 64 << 12];
        let (mut next, file) = (0, file(3 << 12));
        for (number, (gap, size)) in sizes.iter().enumerate() {
            let start = (next + gap) << 12;
            memory = memory.with(spec(start as u64, (size << 12) as u64), handle(&file), &OPTIONS).unwrap();
            model[start..start + (size << 12)].fill(Some(number));
            next += gap + size;
        }
        let range = &model[at..at + len as usize];
        let expected: Option<Vec<usize>> = range.iter().copied().collect();
        match pieces(&memory, at as u64, len, Access::Read) {
            Ok(found) => {
                let runs = expected.unwrap().chunk_by(|one, other| one == other).map(<[usize]>::len).collect::<Vec<_>>();
                let lens: Vec<_> = found.iter().map(|(_, len)| *len as usize).filter(|len| *len > 0).collect();
                prop_assert_eq!(lens, runs);
                prop_assert!(found.first().is_none_or(|(start, _)| *start == at as u64));
            }
            Err(BadAddress::Outside { at: missing }) => {
                let first = range.iter().position(Option::is_none).unwrap();
                prop_assert_eq!(missing.0, (at + first) as u64);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
