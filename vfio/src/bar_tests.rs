//! A window over an ordinary file: half of it mapped, half of it by system calls.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use drivers::bus::Bar as _;

const SIZE: u64 = 0x3000;
const START: u64 = 0x2000;

fn window() -> (Arc<File>, Bar) {
    let file = Arc::new(tempfile::tempfile().unwrap());
    file.set_len(START + SIZE).unwrap();
    // Page 1 of the window cannot be mapped.
    let stretches = [Stretch { offset: 0, length: 0x1000 }, Stretch { offset: 0x2000, length: 0x1000 }];
    let bar = Bar::in_file(Arc::clone(&file), START, SIZE, &stretches).unwrap();
    (file, bar)
}

#[test]
fn every_width_reads_back_in_mapped_and_in_unmapped_areas() {
    let (file, bar) = window();
    for base in [0, 0x1000, 0x2ff0] {
        bar.store(base, 0x11_u8);
        bar.store(base + 2, 0x2233_u16);
        bar.store(base + 4, 0x4455_6677_u32);
        bar.publish(base + 8, 0x8899_aabb_ccdd_eeff_u64);
        assert_eq!(bar.load::<u8>(base), 0x11);
        assert_eq!(bar.load::<u16>(base + 2), 0x2233);
        assert_eq!(bar.load::<u32>(base + 4), 0x4455_6677);
        assert_eq!(bar.load::<u64>(base + 8), 0x8899_aabb_ccdd_eeff);
        let mut raw = [0; 16];
        file.read_exact_at(&mut raw, START + u64::from(base)).unwrap();
        assert_eq!(raw, [0x11, 0, 0x33, 0x22, 0x77, 0x66, 0x55, 0x44, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88]);
    }
}

#[test]
fn nobody_answers_outside_the_window() {
    let (file, bar) = window();
    for offset in [0x3000, 0x2ffd, 0x2fff, u32::MAX, u32::MAX - 3] {
        bar.store(offset, 0_u32);
        assert_eq!(bar.load::<u32>(offset), u32::MAX, "{offset:#x}");
        bar.store_block(offset, &[0; 8]);
    }
    assert_eq!(bar.load::<u64>(0x2ffc), u64::MAX, "not aligned");
    assert_eq!(file.metadata().unwrap().len(), START + SIZE, "nothing was written behind the window");
}

#[test]
fn a_block_arrives_whole_in_every_area_and_by_every_way() {
    let (file, mut bar) = window();
    let block = [1, 2, 3, 4, 5, 6, 7, u64::MAX];
    let bytes: Vec<u8> = block.iter().flat_map(|word| word.to_le_bytes()).collect();
    for direct in [false, has_direct_store()] {
        Arc::get_mut(&mut bar.window).unwrap().direct_store = direct;
        for offset in [0x40_u32, 0x1040, 0x2fc0] {
            bar.store_block(offset, &[0; 8]);
            bar.store_block(offset, &block);
            let mut raw = [0; 64];
            file.read_exact_at(&mut raw, START + u64::from(offset)).unwrap();
            assert_eq!(raw.as_slice(), bytes);
        }
        bar.store_block(0x48, &[0; 8]);
        assert_eq!(bar.load::<u64>(0x48), 2, "a block that is not aligned is lost");
    }
}

#[test]
fn a_revoked_window_shows_all_ones_and_reaches_the_device_no_more() {
    let (file, bar) = window();
    let left = bar.clone();
    bar.store(0x10, 7_u32);
    bar.revoke().unwrap();
    assert_eq!(Arc::strong_count(&file), 1, "the window let go of the device");
    for offset in [0x10, 0x1010, 0x2ffc] {
        assert_eq!(left.load::<u32>(offset), u32::MAX, "{offset:#x}");
        left.store(offset, 9_u32);
    }
    let mut raw = [0; 4];
    file.read_exact_at(&mut raw, START + 0x10).unwrap();
    assert_eq!(raw, 7_u32.to_le_bytes());
}

#[test]
fn areas_that_do_not_fit_the_window_are_refused() {
    for stretch in [
        Stretch { offset: 0, length: SIZE + 1 },
        Stretch { offset: 0x800, length: 0x800 },
        Stretch { offset: !0xfff, length: 0x2000 },
        Stretch { offset: 0, length: 0 },
    ] {
        let file = Arc::new(tempfile::tempfile().unwrap());
        assert!(Bar::in_file(file, 0, SIZE, &[stretch]).is_err(), "{stretch:?}");
    }
}

#[test]
fn a_portal_is_one_page_and_only_a_processor_with_the_instruction_can_enqueue() {
    let (file, bar) = window();
    // Over VFIO there is no PASID, whatever the processor has: trying would kill the process.
    assert!(!bar.can_enqueue() && !bar.enqueue_block(0x40, &[1; 8]));
    let portal = Bar::of_portal(file.try_clone().unwrap()).unwrap();
    assert_eq!((portal.size(), portal.can_enqueue()), (0x1000, has_enqueue()));
    portal.store_block(0x40, &[7; 8]);
    portal.store_block(0x1000, &[9; 8]);
    let mut raw = [0; 0x3000];
    file.read_exact_at(&mut raw, 0).unwrap();
    assert!(raw[0x40..0x80].chunks(8).all(|word| word == 7_u64.to_le_bytes()));
    assert!(raw[..0x40].iter().chain(&raw[0x80..]).all(|byte| *byte == 0));
    assert!(!portal.enqueue_block(0x1000, &[1; 8]), "outside");
}
