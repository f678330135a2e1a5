//! Where descriptors go.

use super::registers::{LIMITED_PORTAL, PORTAL};
use crate::bus::Bar;

/// The way into a work queue.
pub trait Portal {
    /// Offers descriptors of 64 bytes, after all earlier writes to memory, and returns how many of them the queue took: the first ones. What it did not
    /// take can be offered again later.
    fn offer(&mut self, descriptors: &[[u64; 8]]) -> usize;
}

impl<P: Portal + ?Sized> Portal for alloc::boxed::Box<P> {
    #[inline]
    fn offer(&mut self, descriptors: &[[u64; 8]]) -> usize {
        (**self).offer(descriptors)
    }
}

/// A page of a register window.
#[derive(Debug)]
pub(super) struct Page<B> {
    bar: B,
    start: u32,
    /// Where the next one goes. Any place is as good; taking turns keeps one store from waiting for the other.
    next: u32,
    shared: bool,
}

impl<B: Bar> Page<B> {
    /// That of work queue `queue`.
    pub(super) fn new(bar: B, queue: u8, shared: bool) -> Self {
        let start = u32::from(queue) * PORTAL + if shared { LIMITED_PORTAL } else { 0 };
        Self { bar, start, next: 0, shared }
    }
}

impl<B: Bar> Portal for Page<B> {
    #[inline]
    fn offer(&mut self, descriptors: &[[u64; 8]]) -> usize {
        for (index, descriptor) in descriptors.iter().enumerate() {
            let place = self.start + self.next;
            self.next = (self.next + 64) % 0x1000;
            if !self.shared {
                self.bar.store_block(place, descriptor);
            } else if !self.bar.enqueue_block(place, descriptor) {
                return index;
            }
        }
        descriptors.len()
    }
}
