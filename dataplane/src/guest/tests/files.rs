//! What is taken for memory, and what is not.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};

use crate::guest::testing::{file, handle, memory, spec};
use crate::guest::*;

fn refused(file: impl Into<OwnedFd>, spec: RegionSpec) -> String {
    let before = mappings();
    let error = Memory::empty().with(spec, file.into(), &MapOptions::default()).unwrap_err();
    assert!(mappings() <= before, "nothing stays mapped");
    error.to_string()
}

/// Mappings of files named `memfd:guest-refused`, which only this module makes.
fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("guest-refused")).count()
}

fn memfd(len: u64, flags: MemfdFlags) -> File {
    let file = File::from(rustix::fs::memfd_create("guest-refused", MemfdFlags::CLOEXEC | flags).unwrap());
    file.set_len(len).unwrap();
    file
}

#[test]
fn what_is_not_memory_is_refused_and_says_what_it_is() {
    let page = spec(0, 4096);
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    for (file, what) in [
        (File::options().read(true).write(true).open("/dev/zero").unwrap().into(), "\"/dev/zero\""),
        (File::open("/dev").unwrap().into(), "\"/dev\""),
        (OwnedFd::from(socket), "socket:"),
        (pipe, "pipe:"),
        (eventfd, "[eventfd]"),
        (File::open("/proc/self/status").unwrap().into(), "/status"),
    ] {
        let error = refused(file, page);
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_file_on_a_disk_is_refused() {
    // The build folder lies on a disk, or on what a container has for one.
    let file = File::open(std::env::current_exe().unwrap()).unwrap();
    let kind = rustix::fs::fstatfs(&file).unwrap().f_type;
    assert_ne!(kind, 0x0102_1994, "this test needs its executable on something else than a tmpfs");
    let error = refused(file, spec(0, 4096));
    assert!(error.contains("memfd, tmpfs and hugetlbfs"), "{error}");
}

/// Files of any size cost nothing: they must not take all addresses of this process.
#[test]
fn a_vm_has_so_much_memory_and_no_more() {
    const MOST: u64 = 1 << 42;
    let file = memfd(4 * MOST, MemfdFlags::empty());
    assert!(refused(handle(&file), spec(0, MOST + 1)).contains("4096 GiB at most"));
    let log = DirtyLog::new(handle(&file), 0, MOST + 1, &MapOptions::default()).unwrap_err();
    assert!(log.to_string().contains("4096 GiB at most"), "{log}");
    let memory = Memory::empty().with(spec(0, MOST / 2), handle(&file), &MapOptions::default()).unwrap();
    let memory = memory.with(spec(MOST, MOST / 2), handle(&file), &MapOptions::default()).unwrap();
    let error = memory.with(spec(2 * MOST, 4096), handle(&file), &MapOptions::default()).unwrap_err();
    assert!(error.to_string().contains("4096 GiB at most"), "{error}");
}

#[test]
fn a_file_that_ends_early_is_refused() {
    let page = spec(0, 8192);
    assert!(refused(memfd(8191, MemfdFlags::empty()), page).contains("0x2000 bytes of its file, which has 0x1fff"));
    assert!(refused(memfd(8192, MemfdFlags::empty()), RegionSpec { offset: 1, ..page }).contains("has 0x2000"));
    assert!(refused(memfd(0, MemfdFlags::empty()), page).contains("has 0x0"));
}

#[test]
fn a_file_that_cannot_be_written_is_refused_with_what_to_do() {
    let sealed = memfd(4096, MemfdFlags::ALLOW_SEALING);
    rustix::fs::fcntl_add_seals(&sealed, SealFlags::WRITE).unwrap();
    let error = refused(sealed, spec(0, 4096));
    assert!(error.contains("write seal"), "{error}");
}

#[test]
fn a_region_may_start_and_end_inside_of_pages() {
    let file = file(5000);
    std::os::unix::fs::FileExt::write_all_at(&file, b"inside", 4990).unwrap();
    let spec = RegionSpec { offset: 4990, ..spec(0x100_0000, 10) };
    let memory = Memory::empty().with(spec, handle(&file), &MapOptions::default()).unwrap();
    let mut got = [0; 6];
    memory.pieces(GuestAddress(0x100_0000), 6, Access::Read, |piece| assert_eq!(piece.copy_in(&mut got), 6)).unwrap();
    assert_eq!(&got, b"inside");
    assert!(memory.pieces(GuestAddress(0x100_0000), 11, Access::Read, |_| ()).is_err());
}

#[test]
fn prefaulting_gets_all_pages_and_changes_none() {
    let file = file(3 << 20);
    std::os::unix::fs::FileExt::write_all_at(&file, &[7], 5000).unwrap();
    let options = MapOptions { prefault: true, wake: None, reach: None };
    let memory = Memory::empty().with(spec(0, 3 << 20), handle(&file), &options).unwrap();
    assert_eq!(rustix::fs::fstat(&file).unwrap().st_blocks, (3 << 20) / 512);
    memory
        .pieces(GuestAddress(5000), 1, Access::Read, |piece| {
            let mut byte = [0];
            piece.copy_in(&mut byte);
            assert_eq!(byte, [7]);
        })
        .unwrap();
}

#[test]
fn a_mapping_goes_with_its_last_table() {
    let count = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains("memfd:one-of-a-kind")).count()
    };
    let file = File::from(rustix::fs::memfd_create("one-of-a-kind", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(4096).unwrap();
    let one = Memory::empty().with(spec(0, 4096), handle(&file), &MapOptions::default()).unwrap();
    let two = one.with_iotlb(None);
    let words = two.words::<std::sync::atomic::AtomicU8>(GuestAddress(0), 1, Access::Read).unwrap();
    drop((one, two));
    assert_eq!(count(), 1);
    drop(words);
    assert_eq!(count(), 0);
    let _ = memory(4096);
}
