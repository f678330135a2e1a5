//! Networks of tenants on top of the network between hosts: frames travel in UDP datagrams, as VXLAN (RFC 7348) or Geneve (RFC 8926), over IPv4 or IPv6.
//!
//! - [`Encapsulation`] says what a tunnel looks like. Control makes a [`Template`] of it once: all bytes of the outer headers. For each packet
//!   [`encapsulate`] puts them in front and fills in what differs: lengths, checksums, traffic class, the UDP source port.
//! - [`decapsulate`] checks a datagram and takes its outer headers off. [`Terminations`] says which tunnels end here, and what for.
//! - [`neighbour`] reads and answers ARP and neighbour discovery; [`mtu`] tells a sender that its packet is too big, and one whose sender
//!   allows it is cut into fragments.
//!
//! Payload is never touched: it may lie in a virtual machine's memory. What is still to be done for the inner frame (a partial checksum, cutting) stays to be
//! done, by the port or in software for it, and the outer checksum is made such that it will be right afterwards.
//!
//! Outer datagrams are never fragmented (RFC 7348, section 4.3): they say so, and carry no identification. ECN is handled as in RFC 6040.
//!
//! Nothing here allocates but what makes templates and terminations, and nothing keeps state. Room in front of a frame is the pool's
//! [`HEADROOM`](hugemem::HEADROOM) of 128 bytes, which holds the longest outer headers ([`LONGEST`]), a VLAN tag and the header of a virtio device.

mod decapsulate;
mod ecn;
mod encapsulate;
pub(crate) mod fragment;
pub mod mtu;
pub mod neighbour;
mod reason;
mod template;
#[cfg(test)]
mod tests;

pub use crate::headers::TunnelKind;
pub use decapsulate::{Arrival, Termination, Terminations, decapsulate};
pub(crate) use encapsulate::completed_sum;
pub use encapsulate::encapsulate;
pub use reason::Reason;
pub use template::{Addresses, BadEncapsulation, Encapsulation, LONGEST, Template};
