//! A script to read numbers from.

/// Bytes of which numbers are taken one after the other. Zeroes follow the end.
#[derive(Debug)]
pub(in super::super) struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    /// Reads `bytes` from their start on.
    pub(in super::super) fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// Nothing is left.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `count` bytes, or as many as are left.
    pub(in super::super) fn bytes(&mut self, count: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        for (to, from) in array.iter_mut().zip(self.bytes(N)) {
            *to = *from;
        }
        array
    }

    /// The next byte.
    pub(in super::super) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    /// The next two bytes.
    pub(in super::super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// The next four bytes.
    pub(in super::super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// The next eight bytes.
    pub(in super::super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}
