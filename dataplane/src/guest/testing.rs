//! Guest memory for tests: what a VMM would pass.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::MemfdFlags;

use super::{MapOptions, Memory, RegionSpec};

/// A memfd of `len` bytes.
pub(crate) fn file(len: u64) -> File {
    let file = File::from(rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap());
    file.set_len(len).unwrap();
    file
}

/// Another descriptor of the same file, to hand over.
pub(crate) fn handle(file: &File) -> OwnedFd {
    file.try_clone().unwrap().into()
}

/// A region of `size` bytes at guest address `guest`, whose user address is 4 GiB above, from the start of its file.
pub(crate) fn spec(guest: u64, size: u64) -> RegionSpec {
    RegionSpec { guest, user: guest + (4 << 30), size, offset: 0 }
}

/// One region of `size` bytes at guest address 0, and its file: what is written to the file the guest has written.
pub(crate) fn memory(size: u64) -> (Arc<Memory>, File) {
    let file = file(size);
    let memory = Memory::empty().with(spec(0, size), handle(&file), &MapOptions::default()).unwrap();
    (memory, file)
}
