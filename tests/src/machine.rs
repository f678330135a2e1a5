//! What a guest is made of, and QEMU's arguments for it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use anyhow::Result;
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::{Value, json};

use crate::cache::Kernel;

/// A network device of a guest.
pub struct Nic {
    /// Its slot on the PCI bus: slot 3 is `0000:00:03.0`.
    pub slot: u8,
    /// What it is.
    pub kind: NicKind,
}

/// What a network device is and what is behind it.
pub enum NicKind {
    /// QEMU's virtio-net device on a tap.
    VirtioTap {
        /// The queues of the tap; as many queue pairs has the device.
        queues: Vec<File>,
        /// Whether it offers packed rings.
        packed: bool,
    },
    /// QEMU's virtio-net device on a hub of QEMU, with all other such devices of this guest, and with an MTU of 9000.
    VirtioHub,
    /// A device that another process serves at this socket by the vfio-user protocol.
    VfioUser(PathBuf),
    /// QEMU's virtio-net device whose rings another process serves by the vhost-user protocol.
    VhostUser(VhostUser),
}

/// A virtio-net device whose rings are served by vhost-user. It is behind a PCI Express port of its own, in the slot of
/// the [`Nic`], so that it can be pulled out.
#[derive(Clone, Debug)]
pub struct VhostUser {
    /// The socket.
    pub socket: PathBuf,
    /// QEMU makes the socket and listens; otherwise it connects to it, again and again.
    pub listens: bool,
    /// Packed rings instead of split ones.
    pub packed: bool,
    /// Queue pairs.
    pub pairs: u16,
    /// Checksums, segmentation and mergeable buffers, both ways.
    pub offloads: bool,
    /// Buffers are used in order.
    pub in_order: bool,
    /// The device is behind the guest's IOMMU, and has a translation cache of its own.
    pub translated: bool,
}

impl VhostUser {
    /// A device with everything but packed rings, order and translation.
    #[must_use]
    pub fn new(socket: PathBuf, listens: bool) -> Self {
        Self { socket, listens, packed: false, pairs: 1, offloads: true, in_order: false, translated: false }
    }

    /// The address of the device in this slot: the lab's own, so that it can be found in the guest.
    #[must_use]
    pub fn mac(guest: u8, slot: u8) -> String {
        format!("52:54:00:76:{guest:02x}:{slot:02x}")
    }

    /// The device as QEMU's `device_add` takes it: one that is behind the port of this slot.
    #[must_use]
    pub fn properties(&self, guest: u8, slot: u8) -> Value {
        let mut device = json!({
            "driver": "virtio-net-pci",
            "id": format!("nic{slot}"),
            "netdev": format!("net{slot}"),
            "bus": format!("port{slot}"),
            "mac": Self::mac(guest, slot),
            "romfile": "",
            "disable-legacy": "on",
            "packed": self.packed,
            "in_order": self.in_order,
            "mq": self.pairs > 1,
            // One vector for each queue, one for configuration changes, one for the control queue.
            "vectors": 2 * self.pairs + 2,
        });
        if !self.offloads {
            OFFLOADS.iter().for_each(|&name| device[name] = false.into());
        }
        if self.translated {
            device["iommu_platform"] = true.into();
            device["ats"] = true.into();
        }
        device
    }

    fn arguments(&self, guest: u8, slot: u8) -> Vec<String> {
        let mode = if self.listens { "server=on,wait=off" } else { "reconnect-ms=100" };
        [
            "-chardev".to_owned(),
            format!("socket,id=char{slot},path={},{mode}", self.socket.display()),
            "-netdev".to_owned(),
            format!("vhost-user,id=net{slot},chardev=char{slot},queues={}", self.pairs),
            "-device".to_owned(),
            format!("pcie-root-port,id=port{slot},bus=pcie.0,addr={slot:#x},chassis={slot},slot={slot}"),
            "-device".to_owned(),
            self.properties(guest, slot).to_string(),
        ]
        .into()
    }
}

/// The properties of QEMU's virtio-net for what spares copies and sums.
const OFFLOADS: [&str; 15] = [
    "csum",
    "gso",
    "host_tso4",
    "host_tso6",
    "host_ecn",
    "host_ufo",
    "host_uso",
    "guest_csum",
    "guest_tso4",
    "guest_tso6",
    "guest_ecn",
    "guest_ufo",
    "guest_uso4",
    "guest_uso6",
    "mrg_rxbuf",
];

/// How much memory can be plugged into a guest.
const MORE_MIB: u32 = 1024;

/// What a guest is made of.
pub struct Machine<'a> {
    /// Tells the guests of a network apart: it is in the addresses of their vhost-user devices.
    pub number: u8,
    /// The kernel that it boots.
    pub kernel: Kernel,
    /// The modules that are loaded when the kernel has modules.
    pub modules: &'a [&'a str],
    /// The static binaries in its `/bin`, beside busybox.
    pub programs: &'a [&'a str],
    /// Programs of this host in its `/tools`.
    pub tools: &'a [&'a str],
    /// Its network devices.
    pub nics: Vec<Nic>,
    /// How many processors it has.
    pub processors: u32,
    /// Its memory; of the host's it takes what the guest touches.
    pub memory_mib: u32,
    /// Parameters for its kernel, beside those that every guest has.
    pub parameters: &'a str,
    /// Whether it has the NVMe controller [`CONTROLLER`]. A guest that has it cannot be moved to another QEMU.
    pub controller: bool,
    /// A restart of the guest is no end of QEMU.
    pub reboots: bool,
}

/// The MTU of the devices on a hub, which no tap limits.
const JUMBO: u16 = 9000;

/// The PCI address of the NVMe controller that a guest may have: no network card, and with a function reset. It has no
/// storage.
pub const CONTROLLER: &str = "0000:00:05.0";

impl Machine<'_> {
    /// QEMU's arguments for the machine: everything but kernel, serial ports and what it boots from.
    pub(crate) fn arguments(&self) -> Result<Vec<String>> {
        let memory = self.memory_mib;
        let mut arguments: Vec<String> = [
            "-machine",
            "q35,accel=tcg,kernel-irqchip=split,memory-backend=ram",
            "-cpu",
            "max",
            "-smp",
            &self.processors.to_string(),
            "-m",
            &format!("{memory}M,slots=2,maxmem={}M", memory + MORE_MIB),
            "-object",
            &format!("memory-backend-memfd,id=ram,size={memory}M,share=on"),
            "-nodefaults",
            "-display",
            "none",
            "-monitor",
            "none",
            "-device",
            &format!("intel-iommu,intremap=on,caching-mode=on,device-iotlb={}", on(self.is_translated())),
        ]
        .map(str::to_owned)
        .into();
        if self.controller {
            arguments.extend(["-device", "nvme,serial=lab,addr=0x5"].map(str::to_owned));
        }
        if !self.reboots {
            arguments.push("-no-reboot".to_owned());
        }
        for nic in &self.nics {
            arguments.extend(self.device(nic)?);
        }
        Ok(arguments)
    }

    fn is_translated(&self) -> bool {
        self.nics.iter().any(|nic| matches!(&nic.kind, NicKind::VhostUser(device) if device.translated))
    }

    fn device(&self, nic: &Nic) -> Result<Vec<String>> {
        let slot = nic.slot;
        match &nic.kind {
            NicKind::VirtioTap { queues, packed } => {
                let mut descriptors = Vec::new();
                for queue in queues {
                    // QEMU inherits the queue under the number that it has here.
                    fcntl_setfd(queue, FdFlags::empty())?;
                    descriptors.push(queue.as_raw_fd().to_string());
                }
                let key = if queues.len() > 1 { "fds" } else { "fd" };
                let backend = format!("tap,id=net{slot},{key}={}", descriptors.join(":"));
                Ok(virtio(slot, backend, queues.len(), *packed, None))
            }
            NicKind::VirtioHub => Ok(virtio(slot, format!("hubport,id=net{slot},hubid=0"), 1, true, Some(JUMBO))),
            NicKind::VfioUser(socket) => {
                let address = format!("{slot:#x}");
                let socket = json!({ "type": "unix", "path": socket });
                // The older form of the option has no way to say what a socket is.
                let device = json!({ "driver": "vfio-user-pci", "addr": address, "socket": socket });
                Ok(vec!["-device".to_owned(), device.to_string()])
            }
            NicKind::VhostUser(device) => Ok(device.arguments(self.number, slot)),
        }
    }
}

fn on(yes: bool) -> &'static str {
    if yes { "on" } else { "off" }
}

fn virtio(slot: u8, backend: String, pairs: usize, packed: bool, mtu: Option<u16>) -> Vec<String> {
    let mtu = mtu.map_or_else(String::new, |mtu| format!(",host_mtu={mtu}"));
    // One vector for each queue, one for configuration changes, one for the control queue.
    let device = format!(
        "virtio-net-pci,netdev=net{slot},addr={slot:#x},mac=52:54:00:00:00:{slot:02x},romfile=,disable-legacy=on,\
         iommu_platform=on,packed={},mq={},vectors={}{mtu}",
        on(packed),
        on(pairs > 1),
        2 * pairs + 2,
    );
    vec!["-netdev".to_owned(), backend, "-device".to_owned(), device]
}
