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
