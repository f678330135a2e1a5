//! Chains of descriptors as read: host memory in which they stand still.

/// Most descriptors of a chain that are kept: the header and 64 pieces of a frame, and some to see that it is too long.
pub(super) const LONGEST_CHAIN: usize = 72;
/// Most chains that are looked at in one go.
pub(in super::super) const MOST_CHAINS: usize = 256;
/// Descriptors for which there is room in all.
const MOST_ELEMENTS: usize = 1024;

/// One descriptor: a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in super::super) struct Element {
    /// Guest-physical address, or I/O virtual behind an IOMMU.
    pub(in super::super) address: u64,
    /// Length in bytes.
    pub(in super::super) len: u32,
}

/// One chain of descriptors: a buffer in pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in super::super) struct Chain {
    /// Head of a split ring's chain, identifier of a packed one.
    pub(in super::super) id: u16,
    /// Descriptors that it takes in the ring itself.
    pub(in super::super) descriptors: u16,
    /// The first of its elements.
    first: u16,
    /// Elements to read.
    readable: u16,
    /// Elements to write to, behind these.
    writable: u16,
    /// It has more elements than are kept.
    pub(in super::super) cut: bool,
}

/// A run of chains, read once from the driver's memory. Allocates only when it is made.
#[derive(Debug)]
pub(in super::super) struct Chains {
    chains: Vec<Chain>,
    elements: Vec<Element>,
}

impl Default for Chains {
    fn default() -> Self {
        Self { chains: Vec::with_capacity(MOST_CHAINS), elements: Vec::with_capacity(MOST_ELEMENTS) }
    }
}

impl Chains {
    /// Forgets all chains.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.chains.clear();
        self.elements.clear();
    }

    /// One more chain has room, however long it is.
    #[inline(always)]
    pub(super) fn has_room(&self) -> bool {
        self.chains.len() < MOST_CHAINS && self.elements.len() + LONGEST_CHAIN <= MOST_ELEMENTS
    }

    /// Adds a chain of a single descriptor. Only when there is room.
    #[inline(always)]
    pub(super) fn push_single(&mut self, id: u16, element: Element, writable: bool) {
        let mut building = self.begin(id);
        building.push(element, writable);
        building.finish(1);
    }

    /// Begins a chain. Only when there is room.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "there are at most `MOST_ELEMENTS`")]
    pub(super) fn begin(&mut self, id: u16) -> Building<'_> {
        let first = self.elements.len() as u16;
        Building { chain: Chain { id, first, ..Chain::default() }, chains: self }
    }

    /// The chains, in the order of the ring.
    #[inline]
    pub(in super::super) fn as_slice(&self) -> &[Chain] {
        &self.chains
    }

    /// Number of chains.
    #[inline]
    pub(in super::super) fn len(&self) -> usize {
        self.chains.len()
    }

    /// What `chain`, one of these, has to read.
    #[inline(always)]
    pub(in super::super) fn readable(&self, chain: &Chain) -> &[Element] {
        let first = usize::from(chain.first);
        self.elements.get(first..first + usize::from(chain.readable)).unwrap_or_default()
    }

    /// What `chain`, one of these, has to write to.
    #[inline(always)]
    pub(in super::super) fn writable(&self, chain: &Chain) -> &[Element] {
        let first = usize::from(chain.first) + usize::from(chain.readable);
        self.elements.get(first..first + usize::from(chain.writable)).unwrap_or_default()
    }
}

/// A chain that is being added. Forgotten unless finished.
#[derive(Debug)]
pub(super) struct Building<'c> {
    chains: &'c mut Chains,
    chain: Chain,
}

impl Building<'_> {
    /// Adds an element. `false` when it is one to read behind one to write to (2.7.4.2, 2.8.17).
    #[inline(always)]
    pub(super) fn push(&mut self, element: Element, writable: bool) -> bool {
        if !writable && self.chain.writable > 0 {
            return false;
        }
        let elements = &mut self.chains.elements;
        if usize::from(self.chain.readable + self.chain.writable) == LONGEST_CHAIN
            || elements.len() == elements.capacity()
        {
            self.chain.cut = true;
            return true;
        }
        elements.push(element);
        if writable {
            self.chain.writable += 1;
        } else {
            self.chain.readable += 1;
        }
        true
    }

    /// Gives the chain its identifier, which a packed ring has in the last descriptor only.
    #[inline(always)]
    pub(super) fn identify(&mut self, id: u16) {
        self.chain.id = id;
    }

    /// The chain is complete and takes `descriptors` in the ring itself.
    #[inline(always)]
    pub(super) fn finish(mut self, descriptors: u16) {
        self.chain.descriptors = descriptors;
        let chains = &mut self.chains.chains;
        if chains.len() < chains.capacity() {
            chains.push(self.chain);
        }
    }
}
