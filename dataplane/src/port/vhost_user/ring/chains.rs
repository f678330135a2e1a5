//! Chains of descriptors as read: host memory in which they stand still.

/// Most descriptors of a chain that are kept: the header and 64 pieces of a frame, and some to see that it is too long.
pub(super) const LONGEST_CHAIN: usize = 72;
/// Most chains that are looked at in one go.
pub(in super::super) const MOST_CHAINS: usize = 256;
/// Most chains that are read beyond what was asked for.
pub(super) const AHEAD: usize = 32;
/// Descriptors of chains of several for which there is room in all.
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
    /// The element, when there is just one, as in most chains.
    only: Element,
    /// Head of a split ring's chain, identifier of a packed one.
    pub(in super::super) id: u16,
    /// Descriptors that it takes in the ring itself.
    pub(in super::super) descriptors: u16,
    /// Where its elements begin, when there are several.
    first: u16,
    /// Elements to read, and elements to write to behind these.
    counts: [u8; 2],
    /// It has more elements than are kept.
    pub(in super::super) cut: bool,
}

impl Chain {
    /// A chain of one descriptor.
    #[inline(always)]
    pub(super) fn single(id: u16, only: Element, writable: bool) -> Self {
        let counts = if writable { [0, 1] } else { [1, 0] };
        Self { only, id, descriptors: 1, first: 0, counts, cut: false }
    }

    /// What it has to read, when that is one element and there is nothing else.
    #[inline(always)]
    pub(in super::super) fn sole_readable(&self) -> Option<Element> {
        (self.counts == [1, 0]).then_some(self.only)
    }

    /// What it has to write to, when that is one element and there is nothing else.
    #[inline(always)]
    pub(in super::super) fn sole_writable(&self) -> Option<Element> {
        (self.counts == [0, 1]).then_some(self.only)
    }
}

/// A run of chains, read once from the driver's memory: those that were asked for, and behind them some that were read ahead. Allocates
/// only when it is made.
#[derive(Debug)]
pub(in super::super) struct Chains {
    chains: Box<[Chain; MOST_CHAINS + AHEAD]>,
    /// Chains in all.
    count: usize,
    /// Chains that were asked for.
    asked: usize,
    elements: Vec<Element>,
    /// Descriptors in the ring itself that the chains of several took.
    descriptors: usize,
}

impl Default for Chains {
    fn default() -> Self {
        let chains = Box::new([Chain::default(); MOST_CHAINS + AHEAD]);
        Self { chains, count: 0, asked: 0, elements: Vec::with_capacity(MOST_ELEMENTS), descriptors: 0 }
    }
}

impl Chains {
    /// Forgets all chains.
    #[inline(always)]
    pub(in super::super) fn clear(&mut self) {
        self.count = 0;
        self.asked = 0;
        self.elements.clear();
        self.descriptors = 0;
    }

    /// Forgets the first `count` chains, which were taken. Gives how many are left; chains of several are not kept.
    #[inline(always)]
    pub(super) fn advance(&mut self, count: usize) -> usize {
        if count >= self.count || !self.elements.is_empty() {
            self.clear();
        } else if count > 0 {
            self.chains.copy_within(count..self.count, 0);
            self.count -= count;
        }
        self.asked = 0;
        self.count
    }

    /// The first `limit` chains are those that were asked for.
    #[inline(always)]
    pub(super) fn show(&mut self, limit: usize) {
        self.asked = self.count.min(limit);
    }

    /// Chains, those read ahead included.
    #[inline(always)]
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Descriptors in the ring itself that chains of several took. No honest driver has more of them available than the ring has.
    #[inline(always)]
    pub(super) fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// One more chain has room, however long it is.
    #[inline(always)]
    pub(super) fn has_room(&self) -> bool {
        self.count < self.chains.len() && self.elements.len() + LONGEST_CHAIN <= MOST_ELEMENTS
    }

    /// Adds a chain of a single descriptor. Only when there is room.
    #[inline(always)]
    pub(super) fn push_single(&mut self, id: u16, element: Element, writable: bool) {
        self.push(Chain::single(id, element, writable));
    }

    #[inline(always)]
    fn push(&mut self, chain: Chain) {
        if let Some(place) = self.chains.get_mut(self.count) {
            *place = chain;
            self.count += 1;
        }
    }

    /// Begins a chain. Only when there is room.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "there are at most `MOST_ELEMENTS`")]
    pub(super) fn begin(&mut self, id: u16) -> Building<'_> {
        let first = self.elements.len() as u16;
        Building { chain: Chain { id, first, ..Chain::default() }, chains: self }
    }

    /// Adds a chain of a single descriptor for each of `ids`, as long as `read` finds one. Gives how many.
    #[inline(always)]
    pub(super) fn push_singles(&mut self, ids: &[u16], mut read: impl FnMut(u16) -> Option<(Element, bool)>) -> usize {
        let places = self.chains.get_mut(self.count..).unwrap_or_default();
        let mut added = 0;
        for (id, place) in ids.iter().zip(places) {
            let Some((element, writable)) = read(*id) else { break };
            *place = Chain::single(*id, element, writable);
            added += 1;
        }
        self.count += added;
        added
    }

    /// The chains that were asked for, in the order of the ring.
    #[inline(always)]
    pub(in super::super) fn as_slice(&self) -> &[Chain] {
        self.chains.get(..self.asked).unwrap_or_default()
    }

    /// These, and behind them what was read ahead.
    #[inline(always)]
    pub(in super::super) fn with_ahead(&self) -> &[Chain] {
        self.chains.get(..self.count).unwrap_or_default()
    }

    /// Number of chains that were asked for.
    #[inline(always)]
    pub(in super::super) fn len(&self) -> usize {
        self.asked
    }

    /// What `chain`, one of these, has to read.
    #[inline]
    pub(in super::super) fn readable<'c>(&'c self, chain: &'c Chain) -> &'c [Element] {
        self.elements(chain).get(..usize::from(chain.counts[0])).unwrap_or_default()
    }

    /// What `chain`, one of these, has to write to.
    #[inline]
    pub(in super::super) fn writable<'c>(&'c self, chain: &'c Chain) -> &'c [Element] {
        self.elements(chain).get(usize::from(chain.counts[0])..).unwrap_or_default()
    }

    fn elements<'c>(&'c self, chain: &'c Chain) -> &'c [Element] {
        let [readable, writable] = chain.counts.map(usize::from);
        let count = readable + writable;
        if count == 1 {
            return std::slice::from_ref(&chain.only);
        }
        let first = usize::from(chain.first);
        self.elements.get(first..first + count).unwrap_or_default()
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
        let chain = &mut self.chain;
        let [readable, writable_before] = chain.counts;
        if !writable && writable_before > 0 {
            return false;
        }
        let elements = &mut self.chains.elements;
        if usize::from(readable) + usize::from(writable_before) == LONGEST_CHAIN
            || elements.len() == elements.capacity()
        {
            chain.cut = true;
            return true;
        }
        chain.only = element;
        elements.push(element);
        chain.counts = if writable { [readable, writable_before + 1] } else { [readable + 1, 0] };
        true
    }

    /// It has more elements than are kept.
    #[inline(always)]
    pub(super) fn is_cut(&self) -> bool {
        self.chain.cut
    }

    /// What the chain goes by, when that shows only at its end.
    #[inline(always)]
    pub(super) fn identify(&mut self, id: u16) {
        self.chain.id = id;
    }

    /// The chain is complete and takes `descriptors` in the ring itself.
    #[inline(always)]
    pub(super) fn finish(mut self, descriptors: u16) {
        self.chain.descriptors = descriptors;
        self.chains.descriptors += usize::from(descriptors);
        self.chains.push(self.chain);
    }
}
