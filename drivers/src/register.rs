//! Registers as a table: name, offset, width and access of each, so that a driver reads like its datasheet.

use core::marker::PhantomData;

use crate::bus::{Bar, Width};

/// Access marker: the register may be read and written.
#[derive(Debug)]
pub enum ReadWrite {}
/// Access marker: writing the register does not compile.
#[derive(Debug)]
pub enum ReadOnly {}
/// Access marker: reading the register does not compile.
#[derive(Debug)]
pub enum WriteOnly {}

/// Access markers that allow reading.
pub trait Readable {}
impl Readable for ReadWrite {}
impl Readable for ReadOnly {}

/// Access markers that allow writing.
pub trait Writable {}
impl Writable for ReadWrite {}
impl Writable for WriteOnly {}

/// One register: an offset in a window, the width of a transaction, and what may be done with it.
#[derive(Debug)]
pub struct Reg<W, Access = ReadWrite> {
    offset: u32,
    kind: PhantomData<(W, Access)>,
}

impl<W: Width, Access> Reg<W, Access> {
    /// The register at `offset` bytes.
    #[must_use]
    pub const fn at(offset: u32) -> Self {
        Self { offset, kind: PhantomData }
    }

    /// Its offset in bytes.
    #[must_use]
    pub const fn offset(&self) -> u32 {
        self.offset
    }

    /// Reads it, `base` bytes into the window.
    pub fn load(&self, bar: &impl Bar, base: u32) -> W
    where
        Access: Readable,
    {
        bar.load(base.wrapping_add(self.offset))
    }

    /// Writes it, `base` bytes into the window.
    pub fn store(&self, bar: &impl Bar, base: u32, value: W)
    where
        Access: Writable,
    {
        bar.store(base.wrapping_add(self.offset), value);
    }
}

/// Registers of one kind at equal distances: those of the queues, the entries of a table.
#[derive(Debug)]
pub struct RegArray<W, Access = ReadWrite> {
    first: u32,
    stride: u32,
    count: u32,
    kind: PhantomData<(W, Access)>,
}

impl<W: Width, Access> RegArray<W, Access> {
    /// `count` registers from `first` on, each `stride` bytes behind the one before.
    #[must_use]
    pub const fn at(first: u32, stride: u32, count: u32) -> Self {
        Self { first, stride, count, kind: PhantomData }
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Register `index`; `None` when there are not so many.
    #[must_use]
    pub const fn get(&self, index: u32) -> Option<Reg<W, Access>> {
        if index >= self.count {
            return None;
        }
        Some(Reg::at(self.first.wrapping_add(self.stride.wrapping_mul(index))))
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Reg<W, Access>> {
        let Self { first, stride, count, .. } = *self;
        (0..count).map(move |index| Reg::at(first.wrapping_add(stride.wrapping_mul(index))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_has_its_registers_and_no_others() {
        const QUEUES: RegArray<u32> = RegArray::at(0x1000, 0x40, 64);
        assert_eq!(QUEUES.get(0).map(|register| register.offset()), Some(0x1000));
        assert_eq!(QUEUES.get(63).map(|register| register.offset()), Some(0x1fc0));
        assert!(QUEUES.get(64).is_none());
        assert!(QUEUES.iter().map(|register| register.offset()).eq((0x1000..0x2000).step_by(0x40)));
    }
}
