//! Memory files of another process, mapped into this one.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::fstat;

/// A file of memory, mapped as a whole.
#[derive(Debug)]
pub(crate) struct FileMemory {
    map: MmapRaw,
    writable: bool,
}

impl FileMemory {
    /// Where `len` bytes at `offset` are; `None` when the file has no such bytes, or they cannot be written and `write` says that they are to be.
    pub(super) fn place(&self, offset: u64, len: u64, write: bool) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        if end > self.map.len() as u64 || write && !self.writable {
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

impl Files {
    /// Maps `file`, unless it is mapped already. It must not be able to shrink: the bytes would be gone under our feet.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub(crate) fn open(&mut self, file: OwnedFd) -> io::Result<Arc<FileMemory>> {
        let status = fstat(&file)?;
        let key = (status.st_dev, status.st_ino);
        if let Some(memory) = self.known.get(&key).and_then(Weak::upgrade)
            && memory.writable
            && i64::try_from(memory.map.len()).is_ok_and(|len| len >= status.st_size)
        {
            return Ok(memory);
        }
        let len = usize::try_from(status.st_size).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let file = File::from(file);
        let (map, writable) = match MmapOptions::new().len(len).map_raw(&file) {
            Ok(map) => (map, true),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                (MmapOptions::new().len(len).map_raw_read_only(&file)?, false)
            }
            Err(error) => return Err(error),
        };
        let memory = Arc::new(FileMemory { map, writable });
        self.known.retain(|_, memory| memory.strong_count() > 0);
        self.known.insert(key, Arc::downgrade(&memory));
        Ok(memory)
    }
}
