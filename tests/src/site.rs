//! A guest between two namespaces, booted when the first check asks for it.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::cache::Kernel;
use crate::card::{Card, Model};
use crate::guest::{Guest, Machine, Nic, NicKind};
use crate::pair::{INTERFACE, Pair};
use crate::wait;

/// The PCI addresses of a site's devices in its guest: left and right.
pub const DEVICES: [&str; 2] = ["0000:00:03.0", "0000:00:04.0"];

/// The slots of those addresses.
const SLOTS: [u8; 2] = [3, 4];

/// Ethernet addresses of software cards: left and right.
const LEFT: &str = "02:1b:21:00:00:03";
const RIGHT: &str = "02:1b:21:00:00:04";

/// The kernel's names for the devices while its own driver has them: left and right.
pub const INTERFACES: [&str; 2] = ["eth0", "eth1"];

/// The modules of a site's guest; the last ones are for the host's own tests of the lab, for tap ports, and for what is
/// tried with the kernel's own driver.
const MODULES: [&str; 8] = ["vfio_iommu_type1", "vfio-pci", "virtio_net", "ixgbe", "bridge", "tun", "8021q", "macvlan"];

/// What the devices of a site are, and what is behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// QEMU's virtio-net, each on the tap of a namespace.
    VirtioNet {
        /// Whether they offer packed rings.
        packed: bool,
        /// How many queue pairs they have.
        queue_pairs: usize,
    },
    /// QEMU's virtio-net, joined to each other; the namespaces are empty.
    VirtioNetJoined,
    /// Software 82599 cards, each on the tap of a namespace. The left one's doorbells are shared memory, the right one's
    /// are not.
    Ixgbe,
    /// As [`Self::Ixgbe`], with copper ports: an X540 on the left, an X550 on the right.
    IxgbeCopper,
    /// Software 82599 cards, joined to each other by a cable; the namespaces are empty.
    IxgbeJoined,
}

/// How a site's guest is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The kernel that it boots.
    pub kernel: Kernel,
    /// Its devices.
    pub devices: Devices,
    /// The static binaries in its `/bin`, beside busybox.
    pub programs: &'static [&'static str],
    /// Programs of this host in its `/tools`.
    pub tools: &'static [&'static str],
    /// How many processors it has.
    pub processors: u32,
    /// Its memory.
    pub memory_mib: u32,
    /// Parameters for its kernel, beside those that every guest has.
    pub parameters: &'static str,
}

impl Plan {
    /// A guest with this kernel and these devices, and `mirach`.
    #[must_use]
    pub fn new(kernel: Kernel, devices: Devices) -> Self {
        Self { kernel, devices, programs: &["mirach"], tools: &[], processors: 2, memory_mib: 768, parameters: "" }
    }

    /// The kernel's own driver for these devices, when it has one.
    #[must_use]
    pub fn kernel_driver(&self) -> Option<&'static str> {
        match (self.devices, self.kernel) {
            (Devices::VirtioNet { .. } | Devices::VirtioNetJoined, _) => Some("virtio-pci"),
            (Devices::Ixgbe | Devices::IxgbeCopper | Devices::IxgbeJoined, Kernel::Stock) => Some("ixgbe"),
            (Devices::Ixgbe | Devices::IxgbeCopper | Devices::IxgbeJoined, Kernel::Iommufd) => None,
        }
    }
}

/// A guest with two devices, and the namespaces behind them.
pub struct Site {
    plan: Plan,
    booted: Option<Result<Booted, String>>,
}

/// What a site is made of once its guest is up.
pub struct Booted {
    /// The guest; dropped before the cards and the namespaces.
    pub guest: Guest,
    /// The processes that play the cards: one for each card, left and right, or one for both that are joined.
    pub cards: Vec<Card>,
    /// The namespaces.
    pub pair: Pair,
}

impl Site {
    /// A site whose guest is not booted yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self { plan, booted: None }
    }

    /// How it is made.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// The running site.
    ///
    /// # Errors
    ///
    /// It cannot be made; the next calls have the same answer at once.
    pub fn up(&mut self) -> Result<&mut Booted> {
        let plan = self.plan;
        let booted = self.booted.get_or_insert_with(|| boot(plan).map_err(|error| format!("{error:#}")));
        booted.as_mut().map_err(|error| anyhow!("{error}"))
    }
}

fn boot(plan: Plan) -> Result<Booted> {
    let pair = Pair::new()?;
    let mut cards = Vec::new();
    let kinds: Vec<NicKind> = match plan.devices {
        Devices::VirtioNet { packed, queue_pairs } => {
            let taps = pair.open_taps(queue_pairs)?;
            pair.configure()?;
            taps.into_iter().map(|queues| NicKind::VirtioTap { queues, packed }).collect()
        }
        Devices::VirtioNetJoined => vec![NicKind::VirtioHub, NicKind::VirtioHub],
        Devices::Ixgbe => {
            // One of each kind: drivers must not notice.
            let right = Model { doorbells: "trapped", ..Model::x520(RIGHT) };
            on_taps(&pair, [Model::x520(LEFT), right], &mut cards)?
        }
        Devices::IxgbeCopper => {
            let copper = |chip, address| Model { chip, ..Model::x520(address) };
            on_taps(&pair, [copper("x540", LEFT), copper("x550", RIGHT)], &mut cards)?
        }
        Devices::IxgbeJoined => {
            cards.push(Card::on_cable(Model::x520(LEFT))?);
            sockets(&cards)
        }
    };
    let guest = Guest::boot(Machine {
        number: 0,
        kernel: plan.kernel,
        modules: &MODULES,
        programs: plan.programs,
        tools: plan.tools,
        processors: plan.processors,
        memory_mib: plan.memory_mib,
        parameters: plan.parameters,
        controller: true,
        reboots: false,
        nics: SLOTS.into_iter().zip(kinds).map(|(slot, kind)| Nic { slot, kind }).collect(),
    })?;
    Ok(Booted { guest, cards, pair })
}

/// Plugs a card into each namespace.
fn on_taps(pair: &Pair, models: [Model; 2], cards: &mut Vec<Card>) -> Result<Vec<NicKind>> {
    for (namespace, model) in [&pair.left, &pair.right].into_iter().zip(models) {
        cards.push(Card::on_tap(namespace, INTERFACE, model)?);
    }
    pair.configure()?;
    Ok(sockets(cards))
}

fn sockets(cards: &[Card]) -> Vec<NicKind> {
    cards.iter().flat_map(|card| card.sockets()).cloned().map(NicKind::VfioUser).collect()
}

impl Booted {
    /// The kernel's name for the interface of a device that its own driver has.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn interface(&mut self, device: &str) -> Result<String> {
        // virtio-net has one more device in between.
        let folder = format!("/sys/bus/pci/devices/{device}");
        let list = self.guest.run(&format!("ls -d {folder}/net/* {folder}/virtio*/net/* 2> /dev/null"), SHORT)?;
        let name = list.output.lines().next().and_then(|line| line.trim().rsplit('/').next());
        name.map(str::to_owned).with_context(|| format!("{device} has no interface"))
    }

    /// Sets an interface up and waits for its link.
    ///
    /// # Errors
    ///
    /// The link does not come up.
    pub fn link_up(&mut self, interface: &str) -> Result<()> {
        self.guest.must(&format!("ip link set {interface} up"))?;
        self.wait_for_link(interface, true)
    }

    /// Waits until the link of an interface that is up is there, or is gone.
    ///
    /// # Errors
    ///
    /// It did not change in time.
    pub fn wait_for_link(&mut self, interface: &str, there: bool) -> Result<()> {
        let carrier = format!("cat /sys/class/net/{interface}/carrier");
        let wanted = if there { "1" } else { "0" };
        wait::until(&format!("carrier {wanted} of {interface}"), SHORT, || {
            Ok((self.guest.must(&carrier)?.trim() == wanted).then_some(()))
        })
        .with_context(|| self.guest.console())
    }

    /// The name of the kernel driver that has a device; empty when none has.
    ///
    /// # Errors
    ///
    /// The guest did not answer.
    pub fn driver(&mut self, device: &str) -> Result<String> {
        let link = self.guest.run(&format!("readlink /sys/bus/pci/devices/{device}/driver"), SHORT)?;
        Ok(link.output.trim().rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// Fails when the guest's kernel has seen DMA outside of what was mapped.
    ///
    /// # Errors
    ///
    /// It has, or the guest did not answer.
    pub fn no_iommu_fault(&mut self) -> Result<()> {
        let faults = self.guest.iommu_faults()?;
        if !faults.is_empty() {
            bail!("the guest's IOMMU reported faults:\n{}", faults.join("\n"));
        }
        Ok(())
    }

    /// Fails when a model recorded DMA outside of what was mapped, or a rule that its driver broke.
    ///
    /// # Errors
    ///
    /// It did, or it does not answer.
    pub fn models_recorded_nothing(&mut self) -> Result<()> {
        self.cards.iter_mut().try_for_each(Card::recorded_nothing)
    }

    /// The number of a device's IOMMU group.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn iommu_group(&mut self, device: &str) -> Result<u32> {
        let link = self.guest.must(&format!("readlink /sys/bus/pci/devices/{device}/iommu_group"))?;
        link.trim().rsplit('/').next().unwrap_or_default().parse().with_context(|| format!("{device} is in no group"))
    }
}

const SHORT: Duration = Duration::from_secs(60);
