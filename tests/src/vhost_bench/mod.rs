//! `cargo xtask bench vhost`: how fast packets pass through mirach from one vhost-user port to another, beside a peer.
//!
//! The device under test forwards between two vhost-user ports on core 0; [`generator`], our own virtio-user ports, runs on core 1 and sends,
//! receives and counts. mirach and its peer are measured in turn, several times each, so that what disturbs the machine disturbs both.
//! [`floor`] measures in the same run what crossing from core to core costs at least.

pub mod compare;
pub mod device;
pub mod floor;
pub mod frame;
pub mod generator;
pub mod histogram;
pub mod scheduling;
