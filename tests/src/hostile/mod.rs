//! A front-end of vhost-user that can do what no VMM and no driver would.
//!
//! A [`Channel`] sends and receives messages as bytes, [`Memory`] is what the machine shares, and a [`Ring`] is the
//! driver's side of a split or packed ring, written with plain atomics, which breaks any rule on request. A [`Machine`] puts them together: by
//! itself it behaves well and carries traffic, so that it can be hostile under load.
//!
//! It shares no code with the back-end that it is to test, nor with mirach's own front-end.

mod channel;
mod iommu;
mod machine;
mod memory;
mod ring;

pub use channel::{Channel, HEADER, NEED_REPLY, PLAIN, header, request, words32, words64};
pub use iommu::{CHUNK, INVALIDATE, Iommu, MISS, READ, READ_WRITE, UPDATE, translation};
pub use machine::{Areas, LAYOUT_BUFFERS, Machine, SIZE, Setup, Step, feature, layout};
pub use memory::{Memory, Pages, USER, huge_pages};
pub use ring::{Descriptor, Format, INDIRECT, NEXT, Ring, WRITE};
