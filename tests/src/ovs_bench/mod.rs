//! `cargo xtask bench ovs`: mirach's switch beside Open vSwitch with DPDK, with one flow and with a hundred thousand.
//!
//! Two ports, one network, UDP both ways between two stations; each frame's flow is chosen at random among as many conversations as the case says, so no run of
//! packets of one flow helps anybody. How both are measured is in [`peer_bench`](crate::peer_bench). A case begins with new processes, so that a table holds the
//! flows of that case alone, and each flow passes once before anything counts.
//!
//! [`mirach`] decides on every conversation by itself: neither station may send from an address that is not its own, and a security group allows UDP between
//! unprivileged ports, so that a flow is a 5-tuple. After each run it is asked whether its table had one flow of each direction of each conversation.
//! [`ovs`] has the action NORMAL, which learns and compares Ethernet addresses, or, to be told the same as mirach, rules on addresses and ports ([`ovs::Rules`]).
//! Its caches are as it makes them.

pub mod cases;
pub mod mirach;
pub mod ovs;
