//! Memory tables, pieces and words together.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::FileExt;

use super::testing::{memory, spec};
use super::*;

#[test]
fn what_the_guest_writes_is_read_and_the_other_way_round() {
    let (memory, file) = memory(8192);
    file.write_all_at(b"from the guest", 4090).unwrap();
    let mut got = [0; 14];
    memory
        .pieces(GuestAddress(4090), 14, Access::Read, |piece| {
            assert_eq!(piece.copy_in(&mut got), 14);
            assert_eq!(piece.guest(), GuestAddress(4090));
        })
        .unwrap();
    assert_eq!(&got, b"from the guest");
    memory.pieces(GuestAddress(100), 4, Access::Write, |piece| assert_eq!(piece.copy_out(b"back"), 4)).unwrap();
    let mut back = [0; 4];
    file.read_exact_at(&mut back, 100).unwrap();
    assert_eq!(&back, b"back");
    assert_eq!(memory.user_address(spec(0, 0).user + 5), Some(GuestAddress(5)));
}
