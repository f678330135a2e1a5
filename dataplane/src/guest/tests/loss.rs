//! Memory that is taken away while it is used.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hugemem::{Iova, Region};
use rustix::event::EventfdFlags;

use crate::guest::testing::{handle, memory, spec};
use crate::guest::*;

const SIZE: u32 = 1 << 20;

/// Reads all of `memory`; gives whether every byte is `value`.
fn all_are(memory: &Memory, value: u8) -> bool {
    let mut bytes = vec![!value; SIZE as usize];
    let read = memory.pieces(GuestAddress(0), SIZE, Access::Read, |piece| {
        piece.copy_in(&mut bytes);
    });
    read.is_ok() && bytes.iter().all(|byte| *byte == value)
}

fn filled(value: u8) -> (Arc<Memory>, File) {
    let (memory, file) = memory(SIZE.into());
    file.write_all_at(&vec![value; SIZE as usize], 0).unwrap();
    (memory, file)
}

#[test]
fn a_file_cut_off_under_copying_threads_costs_its_own_guest_only() {
    let ((victim, victim_file), (bystander, _file)) = (filled(1), filled(2));
    let before = faults();
    let (stop, wrong, rounds) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let goes_on = || !stop.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while goes_on() {
                    // What was read is right, or it is known not to be.
                    let right = all_are(&victim, 1) || (faults() > before && lost() > 0 && victim.is_lost());
                    wrong.fetch_or(!right, Ordering::Relaxed);
                    let write = |piece: Piece<'_>| assert_eq!(piece.copy_out(&[1; 9000]), 9000);
                    victim.pieces(GuestAddress(4096), 9000, Access::Write, write).unwrap();
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            while goes_on() {
                wrong.fetch_or(!all_are(&bystander, 2), Ordering::Relaxed);
            }
        });
        let pass = |count: u64| {
            let goal = rounds.load(Ordering::Relaxed) + count;
            while rounds.load(Ordering::Relaxed) < goal {
                std::thread::yield_now();
            }
        };
        pass(5);
        victim_file.set_len(0).unwrap();
        pass(5);
        stop.store(true, Ordering::Relaxed);
    });
    assert!(!wrong.load(Ordering::Relaxed));
    assert!(victim.is_lost() && faults() > before && lost() > 0);
    assert!(!bystander.is_lost() && all_are(&bystander, 2));
}

#[test]
fn two_guests_lose_their_memory_at_once() {
    let guests: Vec<_> = (3..7).map(filled).collect();
    std::thread::scope(|scope| {
        for (memory, file) in &guests {
            scope.spawn(move || {
                file.set_len(0).unwrap();
                assert!(all_are(memory, 0));
            });
        }
    });
    assert!(guests.iter().all(|(memory, _)| memory.is_lost()));
}

#[test]
fn part_of_a_file_that_goes_takes_the_whole_mapping_and_wakes_the_session() {
    let file = crate::guest::testing::file(SIZE.into());
    file.write_all_at(&[5; 4096], 0).unwrap();
    let wake = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
    let options = MapOptions { prefault: true, wake: Some(Arc::clone(&wake)), reach: None };
    let memory = Memory::empty().with(spec(0, SIZE.into()), handle(&file), &options).unwrap();
    let words = memory.words::<AtomicU64>(GuestAddress(0), 512, Access::Write).unwrap();
    let last = memory.words::<AtomicU64>(GuestAddress(u64::from(SIZE) - 8), 1, Access::Write).unwrap();
    assert_eq!(words[3].load(Ordering::Relaxed), 0x0505_0505_0505_0505);
    file.set_len(u64::from(SIZE) - 4096).unwrap();
    assert_eq!(last[0].fetch_add(1, Ordering::Relaxed), 0, "an access that reads and writes is contained, too");
    assert_eq!(last[0].load(Ordering::Relaxed), 1);
    assert!(words.is_lost() && last.is_lost() && memory.is_lost());
    assert_eq!(words[3].load(Ordering::Relaxed), 0, "the part of the file that is still there is out of reach");
    let mut counter = [0; 8];
    assert_eq!(rustix::io::read(&wake, &mut counter), Ok(8), "the session is awake");
    let table = memory.without(spec(0, SIZE.into())).unwrap();
    assert!(!table.is_lost());
}

#[test]
#[expect(unsafe_code, reason = "payload is borrowed from a guest that stays to the end")]
fn payload_that_is_borrowed_is_known_to_be_lost() {
    let ((from, file), (to, _file)) = (filled(9), memory(4096));
    let region = Region::on_heap(4096, Iova::new(0)).unwrap();
    let mut pool = region.packets_with_foreign(1, 128, 1).unwrap();
    let mut packet = pool.take().unwrap();
    from.pieces(GuestAddress(100), 1000, Access::Read, |piece| {
        // SAFETY: `from` is dropped behind the packet.
        assert!(packet.attach(unsafe { piece.foreign() }));
    })
    .unwrap();
    let payload = &packet.foreign()[0];
    assert!(!is_lost(payload));
    file.set_len(0).unwrap();
    to.pieces(GuestAddress(0), 1000, Access::Write, |piece| assert_eq!(copy_foreign(payload, 0, piece), 1000)).unwrap();
    assert!(is_lost(payload) && !to.is_lost());
}

#[test]
fn a_log_that_goes_is_contained() {
    let file = crate::guest::testing::file(4096);
    let log = DirtyLog::new(handle(&file), 0, 4096, &MapOptions::default()).unwrap();
    file.set_len(0).unwrap();
    log.mark(GuestAddress(0), 4096);
    assert!(log.is_lost());
}

/// Many mappings come, are lost, and go, while other threads do the same: the table of the handler has no leftovers.
#[test]
fn lost_mappings_leave_nothing_behind() {
    std::thread::scope(|scope| {
        for value in 1..4 {
            scope.spawn(move || {
                for round in 0..200 {
                    let (memory, file) = memory(8192);
                    file.write_all_at(&[value; 8192], 0).unwrap();
                    let cut = round % 2 == 0;
                    file.set_len(if cut { 0 } else { 8192 }).unwrap();
                    memory
                        .pieces(GuestAddress(4096), 1, Access::Read, |piece| {
                            let mut byte = [0xff];
                            piece.copy_in(&mut byte);
                            assert_eq!(byte, [if cut { 0 } else { value }]);
                        })
                        .unwrap();
                    assert_eq!(memory.is_lost(), cut);
                }
            });
        }
    });
}

/// Set in children: what one of these tests does in place of its own work.
const VICTIM: &str = "MIRACH_TEST_FAULT";

/// Has the handler set up for a guest, and then what no guest is to blame for.
#[expect(unsafe_code, reason = "a fault on purpose")]
fn be_victim(what: &str) {
    let (_guest, _file) = memory(4096);
    if what == "fault" {
        let file = crate::guest::testing::file(4096);
        let map = unwatched(&file);
        file.set_len(0).unwrap();
        // SAFETY: mapped, though nothing is behind it any more.
        let byte = unsafe { map.read_volatile() };
        println!("survived and read {byte}");
    } else {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::BUS).unwrap();
        println!("survived");
    }
}

/// A page of `file`, mapped for good and registered nowhere.
#[expect(unsafe_code, reason = "a mapping that nobody watches")]
fn unwatched(file: &File) -> *const u8 {
    use rustix::mm::{MapFlags, ProtFlags};
    // SAFETY: a fresh mapping at an address of the kernel's choice takes nobody's memory.
    let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, ProtFlags::READ, MapFlags::SHARED, file, 0) };
    base.unwrap().cast()
}

/// Runs `test` of this module in a child that does `what`; gives how it ended and what it said.
fn child(test: &str, what: &str) -> (std::process::ExitStatus, String) {
    let name = format!("guest::tests::loss::{test}");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(VICTIM, what);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("running 1 test"), "{text}");
    (output.status, text)
}

#[test]
fn a_fault_elsewhere_still_ends_the_process() {
    if let Ok(what) = std::env::var(VICTIM) {
        return be_victim(&what);
    }
    let (status, text) = child("a_fault_elsewhere_still_ends_the_process", "fault");
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{text}");
    assert!(!text.contains("survived"), "{text}");
}

/// The handler of Rust's library, which was there before, takes it: it lets go of the signal and goes on.
#[test]
fn a_signal_from_somebody_is_passed_on() {
    if let Ok(what) = std::env::var(VICTIM) {
        return be_victim(&what);
    }
    let (status, text) = child("a_signal_from_somebody_is_passed_on", "signal");
    assert!(status.success() && text.contains("survived"), "{text}");
}

#[test]
fn a_descriptor_to_wake_with_stays_open_as_long_as_it_may_be_used() {
    let wake: Arc<OwnedFd> =
        Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
    let (_, file) = memory(4096);
    let options = MapOptions { prefault: false, wake: Some(Arc::clone(&wake)), reach: None };
    let memory = Memory::empty().with(spec(0, 4096), handle(&file), &options).unwrap();
    drop(options);
    assert_eq!(Arc::strong_count(&wake), 2);
    drop(memory);
    assert_eq!(Arc::strong_count(&wake), 1);
}
