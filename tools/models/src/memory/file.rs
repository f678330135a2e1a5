//! Memory files of another process, mapped into this one.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FileType, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs};

/// A file of memory, mapped as a whole.
#[derive(Debug)]
pub(crate) struct FileMemory {
    map: MmapRaw,
}

impl FileMemory {
    /// Where `len` bytes at `offset` are; `None` when the file has no such bytes.
    pub(super) fn place(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        if end > self.map.len() as u64 {
            return None;
        }
        NonNull::new(self.map.as_mut_ptr().wrapping_add(usize::try_from(offset).ok()?))
    }
}

/// The files that are mapped now: guests map thousands of pieces of the same one.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// By device and inode.
    known: HashMap<(u64, u64), Weak<FileMemory>>,
}

/// File systems that are memory (statfs(2)).
const TMPFS: u64 = 0x0102_1994;
const HUGETLBFS: u64 = 0x9584_58f6;

impl Files {
    /// Maps `file`, unless it is mapped already, so that `bytes` bytes of it are there.
    ///
    /// # Errors
    /// When it is not a memory file, too short, or cannot be mapped.
    pub(crate) fn open(&mut self, file: OwnedFd, bytes: u64) -> io::Result<Arc<FileMemory>> {
        let status = fstat(&file)?;
        let key = (status.st_dev, status.st_ino);
        if let Some(memory) = self.known.get(&key).and_then(Weak::upgrade)
            && memory.map.len() as u64 >= bytes
        {
            return Ok(memory);
        }
        let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned());
        let kind = u64::try_from(fstatfs(&file)?.f_type).unwrap_or(0);
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile || kind != TMPFS && kind != HUGETLBFS {
            return Err(invalid("not a memory file (memfd, tmpfs or hugetlbfs)"));
        }
        // A file that shrinks under a mapping takes the process with it. Where the file can be kept from that, it is.
        if !fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK)) {
            let _unsealable = fcntl_add_seals(&file, SealFlags::SHRINK);
        }
        let len = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        if len < bytes {
            return Err(invalid("the file is shorter than what is to be mapped of it"));
        }
        let len = usize::try_from(len).map_err(|_| invalid("the file is too long"))?;
        let file = File::from(file);
        let map = MmapOptions::new().len(len).map_raw(&file).or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => MmapOptions::new().len(len).map_raw_read_only(&file),
            _ => Err(error),
        })?;
        let memory = Arc::new(FileMemory { map });
        self.known.retain(|_, memory| memory.strong_count() > 0);
        self.known.insert(key, Arc::downgrade(&memory));
        Ok(memory)
    }
}
