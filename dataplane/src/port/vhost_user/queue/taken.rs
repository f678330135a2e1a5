//! The chains that were taken from a ring and not given back, in order.

use crate::port::vhost_user::ring::Chain;

/// In place of a buffer's number: the chain may go back.
const HOME: u32 = u32::MAX;

/// A chain that was taken.
#[derive(Clone, Copy, Debug)]
struct Taken {
    id: u16,
    descriptors: u16,
    /// Number of the buffer that its frame is in, or [`HOME`].
    slot: u32,
}

/// The chains that were taken and not given back, each with the buffer that its frame is in. A buffer may hold a frame again while the chain of
/// the one before still waits for its turn.
pub(super) struct TakenChains {
    /// A ring between the two counters.
    chains: Box<[Taken]>,
    first: u32,
    last: u32,
    /// For each buffer, the counter of the chain that it was taken for last.
    of_slot: Box<[u32]>,
}

#[expect(clippy::cast_possible_truncation, reason = "a pool has fewer than 2^32 buffers")]
impl TakenChains {
    /// Room for as many chains as a pool has buffers.
    pub(super) fn new(buffers: usize) -> Self {
        let none = Taken { id: 0, descriptors: 0, slot: HOME };
        Self {
            chains: vec![none; buffers.next_power_of_two()].into(),
            first: 0,
            last: 0,
            of_slot: vec![0; buffers].into(),
        }
    }

    #[inline(always)]
    fn index(&self, counter: u32) -> usize {
        counter as usize & (self.chains.len() - 1)
    }

    /// Chains in it.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.last.wrapping_sub(self.first) as usize
    }

    /// Chains that can be taken in addition.
    #[inline(always)]
    pub(super) fn room(&self) -> usize {
        self.chains.len() - self.len()
    }

    /// Takes note of a chain whose frame is in the buffer of that number; `None` when it was dropped.
    #[inline(always)]
    pub(super) fn push(&mut self, chain: &Chain, slot: Option<u32>) {
        let index = self.index(self.last);
        if let Some(place) = self.chains.get_mut(index) {
            *place = Taken { id: chain.id, descriptors: chain.descriptors, slot: slot.unwrap_or(HOME) };
        }
        if let Some(counter) = slot.and_then(|slot| self.of_slot.get_mut(slot as usize)) {
            *counter = self.last;
        }
        self.last = self.last.wrapping_add(1);
    }

    /// A buffer came home. `false` when no chain waits for it.
    #[inline(always)]
    pub(super) fn come_home(&mut self, slot: u32) -> bool {
        let Some(counter) = self.of_slot.get(slot as usize).copied() else { return false };
        let index = self.index(counter);
        let is_in = counter.wrapping_sub(self.first) < self.last.wrapping_sub(self.first);
        match self.chains.get_mut(index).filter(|chain| is_in && chain.slot == slot) {
            Some(chain) => {
                chain.slot = HOME;
                true
            }
            None => false,
        }
    }

    /// Takes the first chain out, when its frame is in the buffer of that number: the chain's number and its descriptors.
    #[inline(always)]
    pub(super) fn pop_of(&mut self, slot: u32) -> Option<(u16, u16)> {
        let first = self.chains.get(self.index(self.first)).filter(|chain| chain.slot == slot && self.len() > 0)?;
        let popped = (first.id, first.descriptors);
        self.first = self.first.wrapping_add(1);
        Some(popped)
    }

    /// Takes the first chain out, when it may go back: its number and its descriptors.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<(u16, u16)> {
        self.pop_of(HOME)
    }

    /// Numbers of the buffers that are not home.
    pub(super) fn out(&self) -> impl Iterator<Item = u32> {
        let counters = (0..self.len() as u32).map(|count| self.first.wrapping_add(count));
        let slots = counters.filter_map(|counter| self.chains.get(self.index(counter))).map(|chain| chain.slot);
        slots.filter(|slot| *slot != HOME)
    }

    /// Forgets all chains.
    pub(super) fn clear(&mut self) {
        self.first = self.last;
    }
}
