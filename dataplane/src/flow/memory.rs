//! Arrays of atomic words on huge pages.

use super::sync::AtomicU64;

#[cfg(not(loom))]
mod real {
    use std::ops::Deref;

    use hugemem::{DmaArray, IovaSpace, MemoryError, MemoryRequest, PageChoice, Region};

    use super::AtomicU64;

    /// Below this a huge page would be mostly empty.
    const WORTH_HUGE_PAGES: usize = 1 << 20;
    /// Bytes of a cache line: what arrays are aligned to.
    const LINE: usize = 64;

    /// Memory that arrays are cut from: huge pages when there are some, and otherwise ordinary memory, of which the kernel may make some.
    pub(in super::super) struct Memory(Region);

    impl Memory {
        /// Gets `bytes` of zeroes for arrays, and for what alignment takes of it.
        pub(in super::super) fn allocate(bytes: usize) -> Result<Self, MemoryError> {
            let page = if bytes < WORTH_HUGE_PAGES { PageChoice::Size4K } else { PageChoice::Private };
            // No device ever sees it, so its addresses for devices may be any.
            let space = &mut IovaSpace::unlimited();
            Ok(Self(MemoryRequest { bytes, page, node: None }.allocate(space)?.region))
        }

        /// An array of `len` zeroed groups of words.
        pub(in super::super) fn array<const N: usize>(&self, len: usize) -> Result<Array<N>, MemoryError> {
            let array = self.0.array(len, LINE).map_err(|error| MemoryError::System {
                action: "cut an array from the flow table's memory",
                source: std::io::Error::other(error),
            })?;
            Ok(Array(array))
        }
    }

    /// Groups of `N` words, zero at first.
    pub(in super::super) struct Array<const N: usize>(DmaArray<[AtomicU64; N]>);

    impl<const N: usize> Deref for Array<N> {
        type Target = [[AtomicU64; N]];

        #[inline(always)]
        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }
}

#[cfg(loom)]
mod modelled {
    use std::ops::Deref;

    use hugemem::MemoryError;

    use super::AtomicU64;

    pub(in super::super) struct Memory;

    impl Memory {
        pub(in super::super) fn allocate(_: usize) -> Result<Self, MemoryError> {
            Ok(Self)
        }

        pub(in super::super) fn array<const N: usize>(&self, len: usize) -> Result<Array<N>, MemoryError> {
            Ok(Array((0..len).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect()))
        }
    }

    pub(in super::super) struct Array<const N: usize>(Box<[[AtomicU64; N]]>);

    impl<const N: usize> Deref for Array<N> {
        type Target = [[AtomicU64; N]];

        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }
}

#[cfg(loom)]
pub(super) use modelled::{Array, Memory};
#[cfg(not(loom))]
pub(super) use real::{Array, Memory};

impl<const N: usize> Array<N> {
    /// Fetches the start of group `index` into the processor's cache; beyond the end it does nothing.
    #[inline(always)]
    pub(super) fn prefetch(&self, index: usize) {
        if let Some(group) = self.get(index) {
            hugemem::prefetch(group);
        }
    }

    /// As [`Array::prefetch`], to be written.
    #[inline(always)]
    pub(super) fn prefetch_to_write(&self, index: usize) {
        if let Some(group) = self.get(index) {
            hugemem::prefetch_to_write(group);
        }
    }
}
