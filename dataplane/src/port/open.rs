//! Opens ports, all of a forwarder together or one more while it runs.
//!
//! A packet that one port received leaves through its partner, or through any other port when it is switched, so a network card must reach the buffers
//! of those ports, at the same addresses. Hence three phases: open the devices and ask where their IOMMUs let addresses lie
//! ([`Opening::open`]); get memory for packets at an address that suits them all, and for rings that only their device reaches
//! ([`Opener::supply`]); map it and start the devices ([`Opening::start`]). The first and the last may take as long as a device
//! or a back-end does, and do without the opener.
//!
//! Ports that are opened together share a region. One that comes later gets a region of its own, which is mapped for the port
//! that it is joined to, or for all switched ones ([`Opener::introduce`]). A region whose last buffer has come home after its ports were closed is taken away
//! from who reaches it and given back.

use hugemem::{MemoryRequest, PageChoice};

use super::{NamedSpec, Port, PortError};
use offloads::match_offloads;

pub(crate) mod names;
pub(crate) mod offloads;
mod opener;
mod opening;

pub use opener::Opener;
pub(crate) use opener::{Present, SWITCH};
pub(crate) use opening::{Card, Opening, Peer};

/// Bytes of a frame that one buffer holds behind its headroom: cards count buffers in whole KiB. Longer frames span several.
pub const BUFFER_ROOM: usize = 2048;
/// Buffers of a queue pair that receives from outside: a receive ring of 256 that is full, as many frames in the other
/// port's transmit ring, two bursts in flight, and as much again, because a frame of 64 KiB takes 35.
const RECEIVING_BUFFERS: usize = 2048;
/// Buffers of a queue pair that makes its frames: what the other port's transmit ring and two bursts hold, twice.
const MAKING_BUFFERS: usize = 1024;
/// Pieces of a region begin at multiples of this at most.
const ALIGNMENT: usize = 4096;

/// Packet memory for the ports of a forwarder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryOptions {
    /// Bytes granted for packets. As much of them is used as the ports need; rings come on top, a few hundred KiB a device.
    pub bytes: usize,
    /// Which pages to take.
    pub page: PageChoice,
    /// NUMA node to take them from; `None` leaves that to the kernel.
    pub node: Option<u32>,
}

impl Default for MemoryOptions {
    /// 64 MiB, of huge pages where there are any.
    fn default() -> Self {
        Self { bytes: 64 << 20, page: PageChoice::Auto, node: None }
    }
}

impl MemoryOptions {
    /// A request for `bytes` of such memory.
    fn request(&self, bytes: usize) -> MemoryRequest {
        MemoryRequest { bytes, page: self.page, node: self.node }
    }

    /// A request for the rings of a device, or for a port that comes later: too little for a page of 1 GiB, which would be a waste.
    fn rings(&self, bytes: usize) -> MemoryRequest {
        let page = if self.page == PageChoice::Size1G { PageChoice::Auto } else { self.page };
        MemoryRequest { page, ..self.request(bytes) }
    }
}

/// Opens ports that nothing is added to later.
#[derive(Clone, Copy, Debug)]
pub struct Ports;

impl Ports {
    /// Opens the ports that `specs` name, in that order, as [`Opener::open`] does. Each hands out only what the port that
    /// it is taken for joined to can send.
    ///
    /// # Errors
    /// The first thing that fails. What was opened before is closed again.
    pub fn open(specs: &[NamedSpec], memory: &MemoryOptions) -> Result<Vec<Port>, PortError> {
        let pairs: Vec<[usize; 2]> = (0..specs.len() / 2).map(|pair| [2 * pair, 2 * pair + 1]).collect();
        let mut ports = Opener::new(*memory).open(specs, &pairs)?;
        match join(&mut ports) {
            Ok(()) => Ok(ports),
            Err(error) => {
                close(ports);
                Err(error)
            }
        }
    }
}

fn join(ports: &mut [Port]) -> Result<(), PortError> {
    for pair in ports.chunks_exact_mut(2) {
        if let [left, right] = pair {
            let notices = match_offloads((&mut *left).into(), (&mut *right).into())?;
            left.notices.extend(notices);
        }
    }
    Ok(())
}

/// Stops ports that were started in vain.
fn close(ports: Vec<Port>) {
    for mut port in ports {
        let queues = std::mem::take(&mut port.queues);
        if let Err(error) = port.control.stop(queues) {
            tracing::warn!("{error}");
        }
    }
}

#[cfg(test)]
mod tests;
