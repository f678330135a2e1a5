//! What the pipeline knows about the world around it: ports, tunnels, sets of destinations. Made by control, never changed, replaced as a whole.

use std::sync::Arc;

use super::nat::NatTable;
use super::outputs::PortSlot;
use crate::flow::{Domain, VlanRewrite};
use crate::overlay::{Template, Terminations};

/// Ports that packets can be mirrored to have numbers below this.
pub const MOST_MIRRORS: usize = 16;

/// What the pipeline knows about a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortFacts {
    /// Domain of the frames that come from it.
    pub domain: Domain,
    /// Frames in tunnels come from it, and control gets the others.
    pub underlay: bool,
    /// Bytes of the longest IP packet that is routed to it; 0 when it has no limit.
    pub mtu: u16,
    /// Packets of it that may be with control at a time, and as many may wait for their flow.
    pub upcalls: u16,
    /// Its share of engine time, beside others'. 1 is the normal one.
    pub share: u16,
}

/// A tunnel to another host.
#[derive(Debug)]
pub struct TunnelTo {
    /// What is put in front of frames.
    pub template: Template,
    /// The underlay port that they leave by.
    pub port: PortSlot,
    /// Bytes of the longest frame that fits through, Ethernet header included.
    pub longest: u16,
}

/// Where a copy goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// To a port.
    Port(PortSlot),
    /// Into the tunnel of this number.
    Tunnel(u16),
}

/// A member of a set of destinations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Where its copy goes.
    pub target: Target,
    /// What happens to the VLAN tags of its copy.
    pub vlan: VlanRewrite,
}

/// What the pipeline knows about the world around it.
#[derive(Debug)]
pub struct Layout {
    /// Ports by slot. `None` where there is none.
    pub ports: Vec<Option<PortFacts>>,
    /// Tunnels by number.
    pub tunnels: Vec<TunnelTo>,
    /// Sets of destinations by number. A packet never goes back to the port it came from.
    pub sets: Vec<Box<[Member]>>,
    /// The tunnels that end here.
    pub terminations: Terminations,
    /// Where mirrored packets are copied to, by the number of the bit in their action.
    pub mirrors: [Option<PortSlot>; MOST_MIRRORS],
    /// New addresses of flows that are translated.
    pub translations: Arc<NatTable>,
}

impl Layout {
    /// The ports that packets with these bits are copied to, as far as they are there.
    #[inline]
    pub fn mirrors(&self, bits: u16) -> impl Iterator<Item = PortSlot> + '_ {
        self.mirrors.iter().enumerate().filter(move |(number, _)| bits >> number & 1 == 1).filter_map(|(_, port)| *port)
    }

    /// What is known about the port in this slot.
    #[inline]
    #[must_use]
    pub fn port(&self, slot: PortSlot) -> Option<&PortFacts> {
        self.ports.get(usize::from(slot.0)).and_then(Option::as_ref)
    }
}
