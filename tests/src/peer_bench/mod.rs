//! mirach beside a peer: packets a second from one vhost-user port to another, in one run.
//!
//! The device under test forwards between two vhost-user ports on one core; [`generator`], our own virtio-user ports, runs on another and sends,
//! receives and counts. mirach and its peer are measured in turn, several times each ([`rounds`]), so that what disturbs the machine disturbs both, and
//! the one that is not measured stands still. What comes of it is medians and ratios ([`outcome`]), and how far the runs lie apart.
//!
//! Which devices, and between which frames: [`vhost_bench`](crate::vhost_bench), [`ovs_bench`](crate::ovs_bench).

pub mod device;
pub mod flows;
pub mod frame;
pub mod generator;
pub mod histogram;
pub mod machine;
pub mod options;
pub mod outcome;
pub mod rounds;
pub mod scheduling;
