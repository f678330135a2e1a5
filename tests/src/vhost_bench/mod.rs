//! `cargo xtask bench vhost`: how fast packets pass through mirach from one vhost-user port to another, beside DPDK's testpmd.
//!
//! Both send on what comes in at one port to the other, without looking at it. How they are measured is in [`peer_bench`](crate::peer_bench);
//! [`floor`] measures in the same run what crossing from core to core costs at least.

pub mod cases;
pub mod devices;
pub mod floor;
