//! Which devices mirach's drivers know, and what devices are called.

use std::fs;

use drivers::bus::PciId;

use crate::sysfs::Sysfs;

/// Whether mirach can drive a device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Support {
    /// It can, with this driver.
    Ready(&'static str),
    /// Not yet: this driver is planned.
    Planned(&'static str),
    /// No driver is planned.
    None,
}

impl std::fmt::Display for Support {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready(driver) => f.write_str(driver),
            Self::Planned(driver) => write!(f, "not yet ({driver} is planned)"),
            Self::None => f.write_str("no"),
        }
    }
}

/// What a device is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// A network card.
    Network,
    /// An engine that copies memory.
    DmaEngine,
}

const INTEL: u16 = 0x8086;

const I40E: [u16; 12] =
    [0x1572, 0x1580, 0x1581, 0x1583, 0x1584, 0x1585, 0x1586, 0x1587, 0x1588, 0x1589, 0x158a, 0x158b];
/// Crystal Beach DMA of the Xeons from Sandy Bridge to Ice Lake: first and last id.
const IOAT: [(u16, u16); 9] = [
    (0x0b00, 0x0b00),
    (0x0c50, 0x0c53),
    (0x0e20, 0x0e2f),
    (0x2021, 0x2021),
    (0x2f20, 0x2f2f),
    (0x3430, 0x3433),
    (0x3c20, 0x3c2f),
    (0x6f20, 0x6f2f),
    (0x6f50, 0x6f53),
];

/// What kind of device this is, if it is one that mirach is about.
#[must_use]
pub fn kind(id: PciId) -> Option<Kind> {
    match id.class >> 16 {
        0x02 => Some(Kind::Network),
        _ if id.class >> 8 == 0x0801 => Some(Kind::DmaEngine),
        _ if is_ioat(id) || is_dsa(id) => Some(Kind::DmaEngine),
        _ => None,
    }
}

/// Whether mirach can drive it.
#[must_use]
pub fn support(id: PciId) -> Support {
    match (id.vendor, id.device) {
        _ if drivers::virtio::matches(id) => Support::Ready("virtio-net"),
        _ if drivers::ixgbe::matches(id) => Support::Ready("ixgbe"),
        _ if drivers::ioat::matches(id) => Support::Ready("ioat"),
        (INTEL, device) if I40E.contains(&device) => Support::Planned("i40e"),
        _ if is_dsa(id) => Support::Ready("dsa"),
        _ => Support::None,
    }
}

fn is_ioat(id: PciId) -> bool {
    id.vendor == INTEL && IOAT.iter().any(|(first, last)| (first..=last).contains(&&id.device))
}

/// Intel's Data Streaming Accelerator.
pub(crate) fn is_dsa(id: PciId) -> bool {
    drivers::dsa::matches(id)
}

/// The names of PCI devices, from the file `pci.ids` where a package has installed it.
#[derive(Clone, Debug)]
pub struct Names {
    text: String,
}

impl Names {
    /// Reads the file; without it, names are made from the class.
    #[must_use]
    pub fn load(sysfs: &Sysfs) -> Self {
        let text = ["misc/pci.ids", "hwdata/pci.ids"]
            .iter()
            .find_map(|path| fs::read(sysfs.shared_file(path)).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Self { text: text.unwrap_or_default() }
    }

    /// What the device is called: vendor and device, or the words of its class.
    #[must_use]
    pub fn of(&self, id: PciId) -> String {
        let name_in = |line: &str, number: u16| -> Option<String> {
            line.strip_prefix(&format!("{number:04x}  ")).map(|name| name.trim().to_owned())
        };
        let mut lines = self.text.lines();
        let vendor = lines.find_map(|line| name_in(line, id.vendor));
        let device = lines
            .take_while(|line| line.starts_with(['\t', '#']) || line.is_empty())
            .find_map(|line| name_in(line.strip_prefix('\t')?, id.device));
        match (vendor, device) {
            (Some(vendor), Some(device)) => format!("{vendor} {device}"),
            (Some(vendor), None) => format!("{vendor} {}", class_words(id)),
            (None, _) => class_words(id).to_owned(),
        }
    }
}

fn class_words(id: PciId) -> &'static str {
    match id.class >> 8 {
        _ if is_ioat(id) => "I/OAT DMA engine",
        _ if is_dsa(id) => "Data Streaming Accelerator",
        0x0200 => "Ethernet controller",
        0x0207 => "InfiniBand controller",
        0x0801 => "DMA controller",
        class if class >> 8 == 0x02 => "network controller",
        _ => "device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(vendor: u16, device: u16, class: u32) -> PciId {
        PciId { vendor, device, class, ..PciId::default() }
    }

    #[test]
    fn names_come_from_the_file_and_else_from_the_class() {
        let text = "# comment\n1af4  Red Hat, Inc.\n\t1041  Virtio 1.0 network device\n\t\t1af4 1100  QEMU\n\n8086  Intel Corporation\n\t10fb  82599ES\n";
        let names = Names { text: text.into() };
        assert_eq!(names.of(id(0x1af4, 0x1041, 0x02_0000)), "Red Hat, Inc. Virtio 1.0 network device");
        assert_eq!(names.of(id(0x8086, 0x10fb, 0x02_0000)), "Intel Corporation 82599ES");
        assert_eq!(
            names.of(id(0x1af4, 0x10fb, 0x02_0000)),
            "Red Hat, Inc. Ethernet controller",
            "another vendor's device"
        );
        assert_eq!(names.of(id(0x1234, 0x1041, 0x02_8000)), "network controller");
    }

    #[test]
    fn what_is_not_driven_yet_says_so() {
        assert_eq!(support(id(0x1af4, 0x1041, 0)), Support::Ready("virtio-net"));
        assert_eq!(support(id(0x8086, 0x10fb, 0)), Support::Ready("ixgbe"));
        assert_eq!(support(id(0x10ec, 0x8168, 0)), Support::None);
        assert_eq!(Support::Planned("i40e").to_string(), "not yet (i40e is planned)");
    }

    #[test]
    fn only_cards_and_copy_engines_have_a_kind() {
        assert_eq!(kind(id(0x10ec, 0x8168, 0x02_0000)), Some(Kind::Network));
        assert_eq!(kind(id(0x8086, 0x2021, 0x08_8000)), Some(Kind::DmaEngine));
        assert_eq!(kind(id(0x8086, 0x1234, 0x08_8000)), None, "a system peripheral of another sort");
        assert_eq!(kind(id(0x8086, 0x1234, 0x01_0802)), None);
    }
}
