//! The network of the suite: guests, and one switch between them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use lab::cache::Kernel;
use lab::guest::{Booting, Guest, Machine, Nic, NicKind, VhostUser};
use lab::leftovers;
use lab::switch::{Port, Program, Switch};
use tempfile::TempDir;

/// The slot of the first device of a guest.
const FIRST: u8 = 3;

/// Programs of the host in the guests; the last one only where it is used.
const TOOLS: [&str; 5] = ["ethtool", "ip", "iperf3", "ping", "dpdk-testpmd"];

/// Modules of the guests.
const MODULES: [&str; 4] = ["virtio_net", "bridge", "vfio_iommu_type1", "vfio-pci"];

/// The guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// At the left end of most links.
    Left,
    /// At the right end of all links.
    Right,
    /// Runs testpmd.
    Dpdk,
    /// Is moved to another QEMU.
    Mover,
}

impl Who {
    fn number(self) -> u8 {
        match self {
            Self::Left => 1,
            Self::Right => 2,
            Self::Dpdk => 3,
            Self::Mover => 4,
        }
    }
}

/// A device at one end of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// Packed rings.
    pub(crate) packed: bool,
    /// Queue pairs.
    pub(crate) pairs: u16,
    /// Checksums, segmentation and mergeable buffers.
    pub(crate) offloads: bool,
    /// Buffers in order.
    pub(crate) in_order: bool,
    /// Behind the guest's IOMMU.
    pub(crate) translated: bool,
}

impl End {
    const PLAIN: Self = Self { packed: false, pairs: 1, offloads: true, in_order: false, translated: false };
}

/// A link through the switch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) name: &'static str,
    /// Who is at the left end; at the right end is [`Who::Right`].
    pub(crate) left: Who,
    /// The left and the right end.
    pub(crate) ends: [End; 2],
    /// QEMU listens, and the switch connects to it.
    pub(crate) switch_is_client: bool,
}

impl Link {
    const fn same(name: &'static str, end: End, switch_is_client: bool) -> Self {
        Self { name, left: Who::Left, ends: [end, end], switch_is_client }
    }
}

const SPLIT: End = End::PLAIN;
const PACKED: End = End { packed: true, ..End::PLAIN };
const BARE_SPLIT: End = End { offloads: false, ..SPLIT };
const BARE_PACKED: End = End { offloads: false, ..PACKED };
const FOUR: u16 = 4;

/// The links: the matrix, what it leaves out, and those of testpmd and of the guest that moves.
pub(crate) const LINKS: [Link; 14] = [
    Link::same("split::1-pair::offloads::client", SPLIT, true),
    Link::same("split::1-pair::no-offloads::server", BARE_SPLIT, false),
    Link::same("split::4-pairs::offloads::server", End { pairs: FOUR, ..SPLIT }, false),
    Link::same("split::4-pairs::no-offloads::client", End { pairs: FOUR, ..BARE_SPLIT }, true),
    Link::same("packed::1-pair::offloads::server", PACKED, false),
    Link::same("packed::1-pair::no-offloads::client", BARE_PACKED, true),
    Link::same("packed::4-pairs::offloads::client", End { pairs: FOUR, ..PACKED }, true),
    Link::same("packed::4-pairs::no-offloads::server", End { pairs: FOUR, ..BARE_PACKED }, false),
    Link { ends: [End { in_order: true, ..SPLIT }, BARE_PACKED], ..Link::same("in-order-to-bare-packed", SPLIT, true) },
    Link { ends: [End { translated: true, ..PACKED }, SPLIT], ..Link::same("behind-an-iommu", SPLIT, true) },
    Link { left: Who::Dpdk, ..Link::same("testpmd-0", SPLIT, true) },
    Link {
        left: Who::Dpdk,
        ends: [End { translated: true, ..PACKED }, PACKED],
        ..Link::same("testpmd-1", PACKED, true)
    },
    Link { left: Who::Mover, ..Link::same("mover-before", SPLIT, true) },
    Link { left: Who::Mover, ..Link::same("mover-after", SPLIT, true) },
];

/// The links between the first two guests, by their number.
pub(crate) const PAIRED: std::ops::Range<usize> = 0..10;
/// A link with four queue pairs and every offload, on which things are done to guests.
pub(crate) const BUSY: usize = 6;
/// The links with one pair of packed rings.
pub(crate) const PACKED_PAIRS: [usize; 2] = [4, 5];
/// A link that looks on meanwhile.
pub(crate) const BYSTANDER: usize = 0;
/// The links of the guest with testpmd.
pub(crate) const TESTPMD: [usize; 2] = [10, 11];
/// The links of the guest that moves: before and after.
pub(crate) const MOVER: [usize; 2] = [12, 13];

/// A guest and its interfaces.
pub(crate) struct Node {
    pub(crate) guest: Guest,
    who: Who,
    interfaces: BTreeMap<usize, String>,
}

impl Node {
    /// The slot of the device of this link.
    pub(crate) fn slot(link: usize) -> u8 {
        FIRST + u8::try_from(link).unwrap_or(0)
    }

    /// The kernel's name of the interface of this link.
    pub(crate) fn interface(&self, link: usize) -> Result<String> {
        self.interfaces.get(&link).cloned().with_context(|| format!("{:?} has no interface of link {link}", self.who))
    }

    /// Learns the names of the interfaces; a device that comes back may have another one.
    pub(crate) fn look(&mut self) -> Result<()> {
        let printed = self.guest.must("grep . /sys/class/net/*/address")?;
        self.interfaces.clear();
        for link in 0..LINKS.len() {
            let mac = VhostUser::mac(self.who.number(), Self::slot(link));
            let line = printed.lines().find_map(|line| line.strip_suffix(&format!("/address:{mac}")));
            if let Some(name) = line.and_then(|line| line.rsplit('/').next()) {
                self.interfaces.insert(link, name.to_owned());
            }
        }
        Ok(())
    }

    /// Looks for the interface of a link, gives it its address and sets it up.
    pub(crate) fn configure(&mut self, link: usize) -> Result<()> {
        self.look()?;
        let name = self.interface(link)?;
        let pairs = LINKS[link].ends[usize::from(self.who == Who::Right)].pairs;
        if pairs > 1 {
            // The kernel uses as many as it has processors.
            self.guest.must(&format!("/tools/ethtool -L {name} combined {pairs}"))?;
        }
        let address = address(link, self.who);
        self.guest.must(&format!("ip address replace {address}/24 dev {name}; ip link set {name} up"))?;
        Ok(())
    }

    /// The PCI address of the device of a link.
    pub(crate) fn pci(&mut self, link: usize) -> Result<String> {
        let slot = Self::slot(link);
        let printed = self.guest.must(&format!("ls /sys/bus/pci/devices/0000:00:{slot:02x}.0"))?;
        let found = printed.split_whitespace().find(|name| name.starts_with("0000:") && !name.contains("pcie"));
        found.map(str::to_owned).with_context(|| format!("there is no device behind port {slot:02x}: {printed}"))
    }
}

/// The address of a guest on a link.
pub(crate) fn address(link: usize, who: Who) -> String {
    let last = if who == Who::Right { 2 } else { 1 };
    format!("10.76.{link}.{last}")
}

/// The running network. Guests are dropped before the switch.
pub(crate) struct Network {
    pub(crate) nodes: BTreeMap<Who, Node>,
    pub(crate) switch: Switch,
    ports: Vec<Port>,
    folder: TempDir,
}

fn start_switch(ports: &[Port]) -> Result<Switch> {
    // Each port holds some for its queues.
    Switch::start(Program::chosen(), ports, &["--memory", "256M"])
}

impl Network {
    /// Starts the switch and these guests.
    pub(crate) fn start(who: &[Who]) -> Result<Self> {
        let folder = leftovers::folder("vhost")?;
        let ports: Vec<Port> = (0..LINKS.len())
            .flat_map(|link| [0, 1].map(|end| (link, end)))
            .map(|(link, end)| Port {
                socket: folder.path().join(format!("{link}-{end}")),
                listens: !LINKS[link].switch_is_client,
                pairs: LINKS[link].ends[end].pairs,
                mtu: None,
            })
            .collect();
        let mut network = Self { nodes: BTreeMap::new(), switch: start_switch(&ports)?, ports, folder };
        network.boot(who)?;
        Ok(network)
    }

    /// Kills the switch and starts another one, as a service manager would.
    pub(crate) fn replace_switch(&mut self) -> Result<()> {
        self.switch.must_run()?;
        self.switch.kill()?;
        self.switch = start_switch(&self.ports)?;
        Ok(())
    }

    /// Boots guests, at the same time.
    pub(crate) fn boot(&mut self, who: &[Who]) -> Result<()> {
        let booting: Vec<(Who, Booting)> =
            who.iter().map(|&who| Ok((who, Booting::start(self.machine(who))?))).collect::<Result<_>>()?;
        for (who, booting) in booting {
            let guest = booting.finish().with_context(|| self.switch.last_words())?;
            self.nodes.insert(who, Node { guest, who, interfaces: BTreeMap::new() });
        }
        Ok(())
    }

    /// How a guest is made.
    pub(crate) fn machine(&self, who: Who) -> Machine<'static> {
        let links = (0..LINKS.len()).filter(|&link| who == Who::Right || LINKS[link].left == who);
        let mut nics: Vec<Nic> =
            links.map(|link| Nic { slot: Node::slot(link), kind: self.device(link, who) }).collect();
        if who == Who::Mover {
            // The second link is for the QEMU that it is moved to.
            nics.truncate(1);
        }
        let (processors, memory_mib) = match who {
            Who::Left | Who::Right => (2, 768),
            Who::Dpdk => (2, 1024),
            Who::Mover => (1, 512),
        };
        Machine {
            number: who.number(),
            kernel: Kernel::Stock,
            modules: &MODULES,
            programs: &[],
            tools: if who == Who::Dpdk { &TOOLS } else { &TOOLS[..4] },
            nics,
            processors,
            memory_mib,
            parameters: "",
            controller: false,
            reboots: true,
        }
    }

    /// The machine that the guest that moves is moved to: the same device, at another port of the switch.
    pub(crate) fn destination(&self) -> Machine<'static> {
        let nics = vec![Nic { slot: Node::slot(MOVER[0]), kind: self.device(MOVER[1], Who::Mover) }];
        Machine { nics, ..self.machine(Who::Mover) }
    }

    fn device(&self, link: usize, who: Who) -> NicKind {
        let end = usize::from(who == Who::Right);
        let End { packed, pairs, offloads, in_order, translated } = LINKS[link].ends[end];
        NicKind::VhostUser(VhostUser {
            packed,
            pairs,
            offloads,
            in_order,
            translated,
            ..VhostUser::new(self.socket(link, end), LINKS[link].switch_is_client)
        })
    }

    fn socket(&self, link: usize, end: usize) -> PathBuf {
        self.folder.path().join(format!("{link}-{end}"))
    }

    /// The two guests of most links.
    pub(crate) fn both(&mut self) -> Result<[&mut Node; 2]> {
        let mut nodes = self.nodes.iter_mut().filter(|(who, _)| matches!(who, Who::Left | Who::Right));
        match (nodes.next(), nodes.next()) {
            (Some((_, left)), Some((_, right))) => Ok([left, right]),
            _ => bail!("the two guests are not up"),
        }
    }

    /// A guest.
    pub(crate) fn node(&mut self, who: Who) -> Result<&mut Node> {
        self.nodes.get_mut(&who).with_context(|| format!("the guest {who:?} is not up"))
    }
}

/// The network, started when the first check asks for it.
#[derive(Default)]
pub(crate) struct Lazy(Option<Result<Network, String>>);

impl Lazy {
    /// The running network.
    pub(crate) fn up(&mut self) -> Result<&mut Network> {
        let start = || Network::start(&[Who::Left, Who::Right]).map_err(|error| format!("{error:#}"));
        let network = self.0.get_or_insert_with(start).as_mut().map_err(|error| anyhow!("{error}"))?;
        network.switch.must_run()?;
        Ok(network)
    }

    /// Ends the switch, and then the guests.
    pub(crate) fn end(&mut self) -> Result<()> {
        let network = self.0.take().context("nothing was started")?.map_err(|error| anyhow!("{error}"))?;
        let Network { nodes, switch, folder, .. } = network;
        let summary = switch.end()?;
        drop((nodes, folder));
        if !summary.is_null() {
            println!("    {summary}");
        }
        Ok(())
    }
}
