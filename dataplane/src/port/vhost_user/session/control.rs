//! The port's control side.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use drivers::nic::{LinkStatus, Offloads, RxQueue};
use hugemem::{Iova, PacketPool, Region};
use vhost::vhost_user::message::VhostUserProtocolFeatures;

use super::announce::Announcer;
use super::device::{Device, attention};
use super::endpoint::Endpoint;
use super::{features, thread};
use crate::copy::{CopyCounts, CopyDesk, Copying};
use crate::guest::MapOptions;
use crate::port::vhost_user::notify::{Kick, Notifier};
use crate::port::vhost_user::queue::{PIECES, SLOT_ROOM, SLOTS, receive_queue, transmit_queue};
use crate::port::{Port, PortControl, PortError, PortKind, PortQueue, VhostUserSpec, state_word};

/// Largest payload of a frame that a VMM is told which asks for it, unless the port says otherwise.
const MTU: u16 = 1500;

/// Opens a VM's port. It returns at once: peers are waited for by the port's own thread.
///
/// # Errors
/// When the system refuses a socket, thread, eventfd or memory, with what to do about it.
pub fn open(name: &str, spec: &VhostUserSpec) -> Result<Port, PortError> {
    open_with(name, spec, None)
}

/// As [`open`]; large copies to the VM are left to `copying`, if that is there and `spec` does not forbid it.
///
/// # Errors
/// When the system refuses a socket, thread, eventfd or memory, with what to do about it.
pub fn open_with(name: &str, spec: &VhostUserSpec, copying: Option<&Copying>) -> Result<Port, PortError> {
    let failed = |reason: String| PortError::VhostUser { port: name.into(), reason };
    let endpoint = Endpoint::open(&spec.socket, spec.client).map_err(failed)?;
    let attention = attention().map_err(|errno| failed(format!("cannot make an eventfd: {errno}")))?;
    let notifier = Notifier::new().map_err(|error| failed(error.to_string()))?;
    let memory = |source| PortError::Pool { port: name.into(), source };
    let (mut halves, mut vrings, mut kicks, mut desks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..spec.queues.max(1) {
        let (rx, from_vm) = receive_queue(pool().map_err(memory)?, Arc::clone(&attention));
        let desk = copying.and_then(|copying| copying.desk(spec.dma_threshold));
        let (tx, to_vm) = transmit_queue(Arc::clone(&attention), desk.clone());
        let kick = Kick::new().map_err(|error| failed(error.to_string()))?;
        halves.push((rx, tx, kick.wake(), desk.clone()));
        desks.extend(desk);
        vrings.extend([to_vm, from_vm]);
        kicks.push(kick);
    }
    let mtu = spec.mtu.unwrap_or(MTU);
    // Also a VM that nothing is copied to by a device may send to one that is.
    let reach = copying.map(Copying::reach);
    let options = MapOptions { prefault: spec.prefault, wake: Some(Arc::clone(&attention)), reach };
    let device = Arc::new(Device::new(name, vrings, kicks, notifier, attention, options, mtu));

    let mut queues = Vec::with_capacity(halves.len());
    for (rx, tx, wake, desk) in halves {
        let rx: Box<dyn RxQueue> = if queues.is_empty() {
            Box::new(Announcer::new(rx, Arc::clone(&device.announcement)).map_err(memory)?)
        } else {
            Box::new(rx)
        };
        queues.push(PortQueue { rx, tx: Box::new(tx), wake: Some(wake), desk });
    }
    let mut control = VhostUserControl { device, spec: spec.clone(), desks, thread: None };
    control.start(endpoint)?;
    Ok(Port {
        name: name.into(),
        kind: PortKind::VhostUser,
        mac: None,
        queues,
        control: Box::new(control),
        notices: Vec::new(),
    })
}

/// A pool for one queue from a VM. No card reaches it: what goes to one is copied.
fn pool() -> Result<PacketPool, hugemem::OutOfMemory> {
    let bytes = SLOTS * (SLOT_ROOM + hugemem::HEADROOM + 64) + (1 << 16);
    Region::on_heap(bytes, Iova::new(0))?.packets_with_foreign(SLOTS, SLOT_ROOM, PIECES)
}

/// Control side of a VM's port.
#[derive(Debug)]
pub(super) struct VhostUserControl {
    device: Arc<Device>,
    spec: VhostUserSpec,
    /// Where its queues leave copies for a device.
    desks: Vec<Arc<CopyDesk>>,
    /// There until the port is stopped.
    thread: Option<JoinHandle<()>>,
}

impl VhostUserControl {
    fn start(&mut self, endpoint: Endpoint) -> Result<(), PortError> {
        let spawned = thread::spawn(Arc::clone(&self.device), endpoint);
        let thread = spawned.map_err(|error| self.failed(format!("cannot start its thread: {error}")))?;
        self.thread = Some(thread);
        Ok(())
    }

    fn failed(&self, reason: String) -> PortError {
        PortError::VhostUser { port: self.device.name.clone(), reason }
    }

    /// Ends the session and its thread. When that does not end in time it stays told to: it ends by itself as soon as it can.
    fn halt(&mut self) -> Result<(), PortError> {
        let Some(thread) = &self.thread else { return Ok(()) };
        // Nobody waits twice.
        let limit = if self.device.is_stopping() { Duration::ZERO } else { HALT_LIMIT };
        self.device.set_stopping(true);
        let deadline = Instant::now() + limit;
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                return Err(self.failed(STUCK.into()));
            }
            std::thread::sleep(GLANCE);
        }
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let ended = thread.join();
        self.device.set_stopping(false);
        self.device.consume();
        ended.map_err(|_| self.failed(DIED.into()))
    }
}

/// How long ending may take: getting the pages of a VM's memory takes ten seconds at most.
const HALT_LIMIT: Duration = Duration::from_secs(12);
const GLANCE: Duration = Duration::from_millis(1);
const STUCK: &str =
    "its session thread does not end: the VM passed a file whose file system does not answer; end the VM";
const DIED: &str = "its session thread died; this is an error in mirach, please report it";

impl PortControl for VhostUserControl {
    fn link(&mut self) -> LinkStatus {
        let up = self.device.status().active.chunks_exact(2).any(|pair| pair == [true, true]);
        LinkStatus { up, ..LinkStatus::default() }
    }

    fn offloads(&self) -> Offloads {
        // What a VM does not take is done for it by the engine.
        let sends = Offloads::TX_CHECKSUM | Offloads::TSO4 | Offloads::TSO6 | Offloads::TSO_ECN | Offloads::USO;
        sends | Offloads::RX_CHECKSUM | Offloads::LRO4 | Offloads::LRO6 | Offloads::URO
    }

    fn mtu(&mut self) -> Option<u16> {
        self.spec.mtu
    }

    fn describe(&mut self) -> String {
        let link = self.link();
        let status = self.device.status().clone();
        let VhostUserSpec { socket, client, .. } = &self.spec;
        let path: PathBuf = socket.clone();
        let mut text = format!(
            "mtu {} state {} vhost-user {} mode {}",
            status.mtu.unwrap_or(self.device.mtu),
            state_word(link),
            path.display(),
            if *client { "client" } else { "server" },
        );
        let active = status.active.chunks_exact(2).filter(|pair| **pair == [true, true]).count();
        let pairs = self.device.pairs();
        text += &format!(" numrxqueues {pairs} numtxqueues {pairs}");
        if let Some(peer) = status.peer {
            text += &format!(" peer {} active {active} regions {}", peer.pid, status.regions);
        }
        if status.features != 0 {
            let is_packed = features::is_packed(status.features);
            text += &format!(" ring {}", if is_packed { "packed" } else { "split" });
            text += &format!(" features {}", features::words(status.features));
            let protocol = VhostUserProtocolFeatures::from_bits_truncate(status.protocol);
            let words: Vec<String> = protocol.iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect();
            text += &format!(" protocol {}", words.join(" "));
        }
        if let Some(desk) = self.desks.first() {
            text += &format!(" dma {}", desk.threshold().map_or_else(|| "off".to_owned(), |bytes| bytes.to_string()));
        }
        if let (None, Some(ended)) = (status.peer, status.ended) {
            text += &format!(" last \"{ended}\"");
        }
        text
    }

    fn check(&mut self) -> Result<(), PortError> {
        self.device.sweep();
        let died = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        if died { Err(self.failed(DIED.into())) } else { Ok(()) }
    }

    fn statistics(&mut self) -> Vec<(&'static str, u64)> {
        let counters = &self.device.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let regions = self.device.status().regions as u64;
        let copies = self.desks.iter().map(|desk| desk.counts()).fold(CopyCounts::default(), CopyCounts::plus);
        vec![
            ("vm_connects", read(&counters.connects)),
            ("vm_disconnects_closed", read(&counters.closed)),
            ("vm_disconnects_breach", read(&counters.breaches)),
            ("vm_disconnects_stalled", read(&counters.stalls)),
            ("vm_disconnects_memory_lost", read(&counters.memory_losses)),
            ("vm_messages", read(&counters.messages)),
            ("vm_refused_requests", read(&counters.refusals)),
            ("vm_ring_faults", read(&counters.ring_faults)),
            ("vm_iotlb_misses", read(&counters.misses)),
            ("vm_announcements", read(&counters.announcements)),
            ("vm_leaked_mappings", read(&counters.leaks)),
            ("vm_memory_regions", regions),
            ("vm_dma_regions", self.device.status().reached as u64),
            ("vm_dma_copies", copies.copies),
            ("vm_dma_bytes", copies.bytes),
            ("vm_dma_failed_copies", copies.failed),
            ("vm_dma_crowded_frames", copies.crowded),
        ]
    }

    fn stop(&mut self, queues: Vec<PortQueue>) -> Result<(), PortError> {
        let halted = self.halt();
        drop(queues);
        halted
    }

    fn restart(&mut self, queues: Vec<PortQueue>, reason: PortError) -> Result<Vec<PortQueue>, PortError> {
        tracing::warn!("{reason}");
        // It may be dead, which is why this is called.
        if let Err(error) = self.halt()
            && self.thread.is_some()
        {
            return Err(error);
        }
        let endpoint = Endpoint::open(&self.spec.socket, self.spec.client).map_err(|reason| self.failed(reason))?;
        self.start(endpoint)?;
        Ok(queues)
    }
}

impl Drop for VhostUserControl {
    fn drop(&mut self) {
        if let Err(error) = self.halt() {
            tracing::warn!("{error}");
        }
    }
}
