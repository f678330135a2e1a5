//! Our virtio-net driver over a vhost-user socket: the front-end's side, where a VMM would be.
//!
//! The back-end is a switch (DPDK, OVS, VPP, another mirach); this side owns the memory and the rings, and drives them with the same
//! [`VirtioNet`] as a card on a PCI bus. `endpoint` is where both meet, in either role; `channel` carries messages; `memory` describes
//! regions; `back_end` is one that has answered, `socket` the way to whichever is there, and `transport` makes a
//! [`Transport`](drivers::virtio::Transport) of it.
//!
//! Life cycle: [`Device::open`] meets the back-end and shakes hands; [`Device::start`] makes a port of it. When the back-end goes away the port's link
//! is down, and [`PortControl::check`](super::PortControl::check) waits for it to come back without a word; then it fails once, and
//! [`PortControl::restart`](super::PortControl::restart) starts everything anew over the new connection.
//!
//! The back-end reaches all memory that is mapped for the port, which is that of all packets: it is trusted as a network card behind an
//! IOMMU is, see `ARCHITECTURE.md`. It cannot make this side wait without end, nor look outside of packets.

mod back_end;
mod channel;
mod endpoint;
mod memory;
mod socket;
#[cfg(test)]
mod tests;
mod transport;

use std::sync::Arc;

use drivers::nic::{self, NicError, Offloads, ReceiveFilter};
use drivers::virtio::{self, Transport, VirtioNet};
use hugemem::{IovaRange, PacketPool, Region};
use vfio::SystemClock;

use self::endpoint::Endpoint;
use self::socket::{Socket, Wishes};
use super::nic::{self as nic_port, NicPort};
use super::{PortError, RingChoice, VirtioUserSpec};

/// Both sides know addresses of 64 bits; what lies below 1 MiB is left free, so that a cleared address is never a good one.
const IOVA: IovaRange = IovaRange { first: 1 << 20, last: (1 << 48) - 1 };

/// A back-end that was met and is not used yet.
#[derive(Debug)]
pub struct Device {
    name: String,
    identity: String,
    server: bool,
    socket: Socket,
    config: virtio::Config,
}

impl Device {
    /// Meets the back-end that `spec` names, for which it waits some seconds. Of the offloads of reception, those in
    /// `offloads` are of use to whoever gets the packets.
    pub fn open(name: &str, spec: &VirtioUserSpec, offloads: Offloads) -> Result<Self, PortError> {
        let endpoint = if spec.server {
            let listening = Endpoint::listen(&spec.socket);
            listening.map_err(|reason| PortError::Device { port: name.into(), reason })?
        } else {
            Endpoint::connect(&spec.socket)
        };
        let identity = format!("virtio-user={}", spec.socket.display());
        let wishes = Wishes { mac: spec.mac, mtu: spec.mtu };
        let socket = Socket::open(identity.clone(), endpoint, wishes).map_err(|error| failed(name, error))?;
        let nic = nic::Config {
            queue_pairs: spec.queues.unwrap_or(1),
            interrupts: true,
            mtu: spec.mtu,
            // The socket has it, as a VMM would.
            mac: None,
            filter: ReceiveFilter::everything(),
            offloads: offloads - Offloads::VLAN_STRIP,
            ..nic::Config::default()
        };
        let ring = match spec.ring {
            RingChoice::Auto => virtio::RingChoice::Auto,
            RingChoice::Split => virtio::RingChoice::Split,
            RingChoice::Packed => virtio::RingChoice::Packed,
        };
        let config = virtio::Config { nic, ring };
        Ok(Self { name: name.into(), identity, server: spec.server, socket, config })
    }

    /// What no other port may have.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Queue pairs that are asked for.
    pub fn queue_pairs(&self) -> usize {
        self.config.nic.queue_pairs.into()
    }

    /// Bytes of memory for its rings.
    pub fn ring_memory(&self) -> usize {
        self.config.ring_memory()
    }

    /// Where addresses for it may lie.
    pub fn iova_ranges(&self) -> Vec<IovaRange> {
        vec![IOVA]
    }

    /// Lets the back-end reach `region`, once it is started.
    pub fn map(&mut self, region: &Region) -> Result<(), PortError> {
        self.socket.map(region).map_err(|error| failed(&self.name, error.into()))
    }

    /// Starts it with rings in `rings` and a pool for each queue pair.
    pub fn start(self, rings: &Region, pools: Vec<PacketPool>) -> Result<NicPort, PortError> {
        let Self { name, server, socket, config, .. } = self;
        let wanted = config.nic.queue_pairs;
        let nic = VirtioNet::over(socket, Arc::new(SystemClock::new()), rings, pools, config);
        let nic = nic.map_err(|source| failed(&name, source))?;
        let summary = nic.summary().clone();
        tracing::info!("port `{name}`: {summary}");
        let role = if server { "server" } else { "client" };
        let details = format!("driver virtio-net ring {} vhost user {role}", summary.ring);
        let mut port = nic_port::open_with(&name, nic, true, details, |wake| wake)?;
        let pairs = summary.queue_pairs;
        if pairs < wanted {
            port.notices.push(format!(
                "port `{name}`: uses {pairs} queue pairs instead of {wanted}, because the back-end has {}; ask for queues={pairs}, \
                 or give it more",
                summary.device_queue_pairs
            ));
        }
        Ok(port)
    }
}

fn failed(port: &str, source: NicError) -> PortError {
    PortError::Nic { port: port.into(), source }
}
