//! A Linux tap interface as a port: the kernel's own network stack on the far side.
//!
//! Frames carry a virtio-net header, so that segments of up to 64 KiB and partial checksums pass in both directions without
//! being cut or summed here. Every frame costs a system call; that is inherent to tap interfaces, and why this port is for
//! joining the kernel's stack and for tests rather than for speed.
//!
//! An interface of the name that exists and is free is used and left behind, any other is created and goes with
//! the port. It is brought up. Frames that are sent while it is down are dropped and counted under [`DropReason::System`].
//!
//! [`DropReason::System`]: drivers::nic::DropReason::System

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use drivers::nic::{LinkStatus, MacAddress, Offloads};
use drivers::virtio::header::PLAIN;
use hugemem::PacketPool;

use super::nic::offload_words;
use super::{PortControl, PortError, PortQueue, TapSpec, Wake, state_word};

mod queue;
mod system;

pub use queue::{TapRx, TapTx};
use system::{Interface, reader};

/// A tap interface with its queues open, not yet receiving.
#[derive(Debug)]
pub struct Tap {
    name: String,
    interface: Interface,
    files: Vec<Arc<File>>,
    multi_queue: bool,
    created: bool,
    /// The kernel can cut UDP.
    cuts_udp: bool,
}

impl Tap {
    /// Opens the interface, creating it unless it exists, and brings it up.
    ///
    /// # Errors
    /// When the system refuses, with what to do about it.
    pub fn open(name: &str, spec: &TapSpec) -> Result<Self, PortError> {
        let failed = |action: &'static str, source: io::Error| {
            let remedy = remedy(action, &source, spec);
            PortError::Tap { port: name.into(), action, source, remedy }
        };
        let existing = system::existing_flags(&spec.name);
        let was_multi_queue = existing.is_some_and(|flags| flags & libc::IFF_MULTI_QUEUE.unsigned_abs() != 0);
        let multi_queue = spec.queues > 1 || was_multi_queue;
        let mut files = Vec::with_capacity(spec.queues.into());
        for _ in 0..spec.queues {
            let file = system::open_device().map_err(|error| failed(OPEN, error))?;
            system::attach(&file, &spec.name, multi_queue).map_err(|error| failed(ATTACH, error))?;
            system::set_header_len(&file, PLAIN).map_err(|error| failed(SET_UP, error))?;
            files.push(Arc::new(file));
        }
        let interface = Interface::new(&spec.name).map_err(|error| failed(SET_UP, error))?;
        let cuts_udp = match files.first() {
            Some(file) => set_all_offloads(file).map_err(|error| failed(SET_UP, error))?,
            None => false,
        };
        interface.set_up(true).map_err(|error| failed(BRING_UP, error))?;
        let created = existing.is_none();
        Ok(Self { name: name.into(), interface, files, multi_queue, created, cuts_udp })
    }

    /// The Ethernet address of the kernel's side.
    #[must_use]
    pub fn mac(&self) -> Option<MacAddress> {
        self.interface.mac().ok()
    }

    /// Makes the queue pairs, each with one of `pools` for the frames it receives.
    #[must_use]
    pub fn start(self, pools: Vec<PacketPool>) -> (Vec<PortQueue>, TapControl) {
        let failure = Arc::new(AtomicI32::new(0));
        let queues = self.files.iter().zip(pools).map(|(file, pool)| PortQueue {
            rx: Box::new(TapRx::new(Arc::clone(file), pool, Arc::clone(&failure))),
            tx: Box::new(TapTx::new(Arc::clone(file), self.cuts_udp)),
            wake: Some(Wake::level(Arc::clone(file))),
            desk: None,
        });
        let queues = queues.collect();
        (queues, TapControl { tap: self, failure })
    }
}

const OPEN: &str = "open /dev/net/tun";
const ATTACH: &str = "attach to the tap interface";
const SET_UP: &str = "set the tap interface up";
const BRING_UP: &str = "bring the tap interface up";

/// What mends `error` in `action`.
fn remedy(action: &'static str, error: &io::Error, spec: &TapSpec) -> String {
    let TapSpec { name, queues } = spec;
    let create = format!(
        "sudo ip tuntap add dev {name} mode tap user $USER vnet_hdr{} && sudo ip link set dev {name} up",
        if *queues > 1 { " multi_queue" } else { "" }
    );
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) if action == OPEN => {
            "this kernel offers no tap interfaces now; load them with: sudo modprobe tun".into()
        }
        Some(libc::EACCES | libc::EPERM) if action == OPEN => "run it as root, or: sudo chmod 666 /dev/net/tun".into(),
        Some(libc::EPERM) if action == BRING_UP => {
            format!("have it up beforehand with: sudo ip link set dev {name} up")
        }
        Some(libc::EPERM) => format!("run it as root, or make the interface for your user beforehand with: {create}"),
        Some(libc::EBUSY) => {
            format!("another process uses `{name}`; stop it (fuser -v /dev/net/tun shows it), or choose another name")
        }
        Some(libc::EINVAL) if action == ATTACH => format!(
            "an interface `{name}` exists that is no tap, or has {}; choose another name, or remove it with: sudo ip link \
             del {name}",
            if *queues > 1 { "no multiple queues (multi_queue)" } else { "other options" }
        ),
        Some(libc::E2BIG) => "the kernel allows fewer queues; lower queues=N".into(),
        _ => format!("look for the cause with: ip -d link show {name}; dmesg"),
    }
}

/// Lets the kernel hand out whatever it can; `true` when that includes large UDP.
fn set_all_offloads(file: &File) -> io::Result<bool> {
    let most = reader::CSUM | reader::TSO4 | reader::TSO6 | reader::TSO_ECN;
    // Large UDP came with Linux 6.2; older kernels refuse what they do not know.
    if system::set_offloads(file, most | reader::USO).is_ok() {
        return Ok(true);
    }
    system::set_offloads(file, most).map(|()| false)
}

/// Control side of a tap port.
#[derive(Debug)]
pub struct TapControl {
    tap: Tap,
    /// Error number of a receive queue that failed for good, 0 for none.
    failure: Arc<AtomicI32>,
}

impl PortControl for TapControl {
    fn link(&mut self) -> LinkStatus {
        let up = self.tap.interface.running().unwrap_or(false);
        LinkStatus { up, ..LinkStatus::default() }
    }

    fn offloads(&self) -> Offloads {
        let all = Offloads::TX_CHECKSUM
            | Offloads::RX_CHECKSUM
            | Offloads::TSO4
            | Offloads::TSO6
            | Offloads::TSO_ECN
            | Offloads::LRO4
            | Offloads::LRO6;
        if self.tap.cuts_udp { all | Offloads::USO | Offloads::URO } else { all }
    }

    fn mtu(&mut self) -> Option<u16> {
        self.tap.interface.mtu().ok().and_then(|mtu| u16::try_from(mtu).ok())
    }

    fn describe(&mut self) -> String {
        let link = self.link();
        let Tap { interface, files, multi_queue, created, .. } = &self.tap;
        let mtu = interface.mtu().map_or_else(|_| "unknown".into(), |mtu| mtu.to_string());
        let mac = interface.mac().map(|mac| format!(" link/ether {mac}")).unwrap_or_default();
        let on = |on: bool| if on { "on" } else { "off" };
        let queues = files.len();
        format!(
            "mtu {mtu} state {}{mac} tun type tap pi off vnet_hdr on multi_queue {} persist {} numrxqueues {queues} \
             numtxqueues {queues}{}",
            state_word(link),
            on(*multi_queue),
            on(!created),
            offload_words(self.offloads())
        )
    }

    fn limit_offloads(&mut self, peer: Offloads) -> Result<(), PortError> {
        let Some(file) = self.tap.files.first() else { return Ok(()) };
        let mut bits = 0;
        // Nothing can be cut whose checksum cannot be completed.
        if peer.contains(Offloads::TX_CHECKSUM) {
            bits |= reader::CSUM;
            let kinds = [
                (Offloads::TSO4, reader::TSO4),
                (Offloads::TSO6, reader::TSO6),
                (Offloads::TSO_ECN, reader::TSO_ECN),
                (Offloads::USO, if self.tap.cuts_udp { reader::USO } else { 0 }),
            ];
            for (needed, bit) in kinds {
                bits |= if peer.contains(needed) { bit } else { 0 };
            }
        }
        system::set_offloads(file, bits).map_err(|source| PortError::Tap {
            port: self.tap.name.clone(),
            action: SET_UP,
            source,
            remedy: "choose a tap that no other process has set up".into(),
        })
    }

    fn check(&mut self) -> Result<(), PortError> {
        match self.failure.load(Ordering::Relaxed) {
            0 => Ok(()),
            number => Err(PortError::Tap {
                port: self.tap.name.clone(),
                action: "receive from the tap interface",
                source: io::Error::from_raw_os_error(number),
                remedy: "it was removed; start the forwarder again to create it anew".into(),
            }),
        }
    }

    fn stop(&mut self, queues: Vec<PortQueue>) -> Result<(), PortError> {
        drop(queues);
        // The last of its files takes a tap away that was created here.
        self.tap.files.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
