//! The device side of a virtqueue (virtio 1.3, sections 2.7 and 2.8), over memory that a hostile driver changes at any time.
//!
//! A [`Ring`] is polled in four steps, the same for both formats: [`Ring::look`] reads the chains that the driver made
//! available into [`Chains`], host memory in which they stand still; [`Ring::take`] says how many of them are taken;
//! [`Ring::give_back`] stages used chains, in the order in which they were taken; [`Ring::publish`] shows them to the driver. What is looked
//! at and not taken is there at the next look, or is read anew.
//!
//! Every word of the driver's is read once and checked as it was read. Positions are our own counters. The work of one
//! call is bounded by the size of the ring. What breaks the rules is a [`RingFault`]: it stops this queue and nothing else.
//!
//! What lies in the buffers is none of this folder's business; `queue` knows.

mod chains;
mod fault;
pub(super) mod inflight;
mod packed;
mod split;
mod table;
#[cfg(test)]
pub(super) mod testing;

use std::sync::Arc;

use hugemem::SharedWord;

use crate::guest::{Access, GuestAddress, Memory, Words};

pub(super) use chains::{Chain, Chains, Element, MOST_CHAINS};
pub(crate) use fault::RingFault;
pub(super) use packed::Packed;
pub(super) use split::Split;

/// Format of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) enum Format {
    /// Three areas (2.7).
    Split,
    /// One area (2.8).
    Packed,
}

/// Where the parts of a ring lie, as the frontend says it in `VHOST_USER_SET_VRING_ADDR`: user addresses of the frontend,
/// or I/O virtual addresses when the device is behind an IOMMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Addresses {
    /// Descriptor table, or the packed ring itself.
    pub(crate) descriptors: u64,
    /// What the driver writes: available ring, or the driver's event suppression.
    pub(crate) driver: u64,
    /// What the device writes: used ring, or the device's event suppression.
    pub(crate) device: u64,
}

/// Where a ring stands, as in `VHOST_USER_SET_VRING_BASE` and `GET_VRING_BASE`: split, the next available index; packed, the
/// next available place in bits 0-14 and its wrap counter in bit 15, and the same for used in bits 16-31.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Base(pub(crate) u32);

/// What a ring is made from. All of it stays as it is for as long as the ring runs, but for the memory
/// ([`Ring::set_memory`]).
#[derive(Debug)]
pub(super) struct Layout {
    /// Descriptors in it; split: a power of two up to 32768, packed: 1 to 32768.
    pub(super) size: u16,
    /// Where it lies.
    pub(super) addresses: Addresses,
    /// Where it begins.
    pub(super) base: Base,
    /// `VIRTIO_F_EVENT_IDX` was negotiated.
    pub(super) event_index: bool,
    /// `VIRTIO_F_INDIRECT_DESC` was negotiated.
    pub(super) indirect: bool,
    /// `VIRTIO_F_IN_ORDER` was negotiated and the device writes nothing into the buffers of this ring, so that one used
    /// entry may stand for a whole run of chains.
    pub(super) skip_used: bool,
    /// The device writes nothing into the buffers of this ring.
    pub(super) reads_only: bool,
    /// Where the state of taken chains is kept for the time after a crash.
    pub(super) inflight: Option<inflight::Inflight>,
}

/// The device side of a virtqueue.
pub(super) trait Ring: Sized + Send {
    /// Maps the ring in `memory`. Notifications by the driver are off until [`Ring::arm`].
    ///
    /// Since chains are given back in the order in which they were taken, those that an in-flight region says were taken before a crash are
    /// simply the next ones.
    ///
    /// # Errors
    /// When it does not lie in memory, or its state cannot be.
    fn new(memory: &Arc<Memory>, layout: Layout) -> Result<Self, RingFault>;

    /// Moves over to a new memory table, in which the addresses may lead elsewhere. Positions stay.
    ///
    /// # Errors
    /// When the ring does not lie in it; the ring is as before then.
    fn set_memory(&mut self, memory: &Arc<Memory>) -> Result<(), RingFault>;

    /// Descriptors in the ring.
    fn size(&self) -> u16;

    /// Puts up to `limit` chains into `chains` that are available and not taken yet. Fewer when no more are there, or `chains` has no
    /// room for more. Reads in groups, so that cache misses overlap; and ahead, where it is known that the driver is far ahead,
    /// so that nothing has to be waited for at the next look: then `chains` has to be the same, or empty.
    ///
    /// # Errors
    /// When the driver broke a rule. The chains before the broken one are in `chains` and good.
    fn look(&mut self, memory: &Memory, limit: usize, chains: &mut Chains) -> Result<(), RingFault>;

    /// Takes the first `count` of the chains that the last [`Ring::look`] gave.
    fn take(&mut self, chains: &Chains, count: usize);

    /// Stages a taken chain as used: `id` and `descriptors` are those of its [`Chain`], `written` the bytes that were
    /// written into it. Called in the order in which chains were taken, for each exactly once.
    fn give_back(&mut self, id: u16, descriptors: u16, written: u32);

    /// Shows the staged chains to the driver, at once. `true` when it is to be signalled.
    ///
    /// There is no full fence between the store and the look at the driver's wish; so a wish made at this very moment
    /// may go unseen, and then [`Ring::settle`] or the next call sees it.
    fn publish(&mut self) -> bool;

    /// Whether [`Ring::settle`] has something to do: chains were published since the last certain look at the driver's
    /// wish.
    fn is_unsettled(&self) -> bool;

    /// Looks at the driver's wish again, behind a full fence, for what was published so far: for a moment of rest. `true`
    /// when the driver is to be signalled.
    fn settle(&mut self) -> bool;

    /// Asks for a kick when something becomes available. `false` when something is available already; it is asked for then all
    /// the same.
    fn arm(&mut self) -> bool;

    /// Asks for no kicks.
    fn disarm(&mut self);

    /// Where the ring stands: behind the last chain that was given back. What was taken and not given back comes again
    /// after a start from there.
    fn base(&self) -> Base;

    /// Tells what [`Ring::publish`] wrote since the last call, as offset and length in bytes from the start of the used
    /// ring (packed: of the ring): for the log of dirty pages. A length may be zero.
    fn take_written(&mut self, each: impl FnMut(u64, u32));
}

/// Whether an event that the peer asked for lies among those between `old` and `new`, counters that run freely (virtio 1.3, section
/// 2.7.7.1: `vring_need_event`).
#[inline(always)]
fn event_passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Words of a ring at `address`, which is one of its [`Addresses`] or counted from there.
fn words<W: SharedWord>(memory: &Memory, address: u64, count: usize, access: Access) -> Result<Words<W>, RingFault> {
    let len = u32::try_from(count * size_of::<W>()).unwrap_or(u32::MAX);
    let nowhere = RingFault::BadAddress { address, len };
    let at = if memory.has_iotlb() { GuestAddress(address) } else { memory.user_address(address).ok_or(nowhere)? };
    memory.words(at, count, access).map_err(|reason| RingFault::address(reason, address, len))
}
