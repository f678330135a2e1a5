//! The ways into a work queue of the kernel's.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use drivers::bus::Bar as _;
use drivers::dsa::Portal;
use vfio::Bar;

/// How descriptors get into a work queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// By a store to a mapped page.
    Mapped,
    /// By a system call.
    Written,
}

/// A work queue that is open. Dropping the portal closes it, for which the kernel waits until the queue is drained.
pub struct Opened {
    /// The way in.
    pub portal: Box<dyn Portal + Send>,
    /// Which one it is.
    pub way: Way,
}

/// Opens a work queue, as often as it is asked to.
pub trait Opener: Send {
    /// Opens it by its mapped page where that can be, else (and when `written`) for system calls.
    ///
    /// # Errors
    /// The kernel's.
    fn open(&mut self, written: bool) -> io::Result<Opened>;
}

/// The file of a work queue.
pub(super) struct Node {
    pub(super) path: PathBuf,
    pub(super) shared: bool,
}

impl Opener for Node {
    fn open(&mut self, written: bool) -> io::Result<Opened> {
        let file = File::options().read(true).write(true).open(&self.path)?;
        if !written
            && let Ok(bar) = Bar::of_portal(file.try_clone()?)
            && (if self.shared { bar.can_enqueue() } else { bar.stores_blocks_whole() })
        {
            let portal = Box::new(Mapped { bar, shared: self.shared, next: 0 });
            return Ok(Opened { portal, way: Way::Mapped });
        }
        Ok(Opened { portal: Box::new(Written(file)), way: Way::Written })
    }
}

/// A mapped page.
struct Mapped {
    bar: Bar,
    shared: bool,
    /// Where the next one goes: taking turns keeps one store from waiting for the other.
    next: u32,
}

impl Portal for Mapped {
    #[inline]
    fn offer(&mut self, descriptors: &[[u64; 8]]) -> usize {
        for (index, descriptor) in descriptors.iter().enumerate() {
            let place = self.next;
            self.next = (self.next + 64) % 4096;
            if !self.shared {
                self.bar.store_block(place, descriptor);
            } else if !self.bar.enqueue_block(place, descriptor) {
                return index;
            }
        }
        descriptors.len()
    }
}

/// A file that takes descriptors of 64 bytes. Also for whatever else takes them: the kernel's answers are those of a file.
pub(super) struct Written<W>(pub(super) W);

/// Descriptors in one system call, at most.
const TOGETHER: usize = 16;

impl<W: Write> Portal for Written<W> {
    fn offer(&mut self, descriptors: &[[u64; 8]]) -> usize {
        let mut bytes = [0_u8; 64 * TOGETHER];
        let words = descriptors.iter().take(TOGETHER).flatten();
        let mut length = 0;
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
            length += 8;
        }
        // An error means that it took none: the queue was full too often (EAGAIN), or it never takes any, which is found out at the start.
        let written = bytes.get(..length).map_or(0, |bytes| self.0.write(bytes).unwrap_or(0));
        written / 64
    }
}
