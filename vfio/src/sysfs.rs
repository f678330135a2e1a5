//! Where the kernel's file trees are, and small reads and writes in them.
//!
//! The roots are arguments, so that everything built on this runs on a made-up tree in tests.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drivers::bus::{PciAddress, PciId};

type Writer = dyn Fn(&Path, &str) -> io::Result<()> + Send + Sync;

/// A process that has a file open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// Its id.
    pub process: u32,
    /// Its name.
    pub name: String,
    /// How many descriptors it has for the files in question.
    pub files: usize,
}

/// The kernel's file trees: `/sys`, `/dev` and `/proc`, or what stands in for them.
#[derive(Clone)]
pub struct Sysfs {
    root: PathBuf,
    devices: PathBuf,
    processes: PathBuf,
    shared: PathBuf,
    modules: PathBuf,
    writer: Arc<Writer>,
}

impl fmt::Debug for Sysfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sysfs").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::at("/sys")
    }
}

impl Sysfs {
    /// The tree at `root`; `/dev`, `/proc`, `/usr/share` and `/lib/modules` are the host's.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            devices: "/dev".into(),
            processes: "/proc".into(),
            shared: "/usr/share".into(),
            modules: "/lib/modules".into(),
            writer: Arc::new(|path, value| {
                fs::OpenOptions::new()
                    .write(true)
                    .open(path)
                    .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
            }),
        }
    }

    /// Everything below one folder: `sys`, `dev`, `proc`, `share` and `modules` in it.
    #[must_use]
    pub fn under(folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref();
        Self {
            devices: folder.join("dev"),
            processes: folder.join("proc"),
            shared: folder.join("share"),
            modules: folder.join("modules"),
            ..Self::at(folder.join("sys"))
        }
    }

    /// Replaces what happens when an attribute is written, so that a test can play the kernel.
    #[must_use]
    pub fn with_writer(mut self, writer: impl Fn(&Path, &str) -> io::Result<()> + Send + Sync + 'static) -> Self {
        self.writer = Arc::new(writer);
        self
    }

    /// A path in the tree: `path("bus/pci/devices")`.
    #[must_use]
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// A path in `/dev`.
    #[must_use]
    pub fn device_node(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.devices.join(relative)
    }

    /// A path in `/proc`.
    #[must_use]
    pub fn process_file(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.processes.join(relative)
    }

    /// A path in `/usr/share`.
    #[must_use]
    pub fn shared_file(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.shared.join(relative)
    }

    /// A path in `/lib/modules`.
    #[must_use]
    pub fn module_file(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.modules.join(relative)
    }

    /// The folder of a PCI function.
    #[must_use]
    pub fn function(&self, address: PciAddress) -> PathBuf {
        self.path(format!("bus/pci/devices/{address}"))
    }

    /// Whether the kernel knows this PCI function.
    #[must_use]
    pub fn has_function(&self, address: PciAddress) -> bool {
        self.function(address).exists()
    }

    /// Every PCI function, ascending.
    ///
    /// # Errors
    /// When the folder cannot be read, as on a machine without PCI.
    pub fn functions(&self) -> io::Result<Vec<PciAddress>> {
        let mut addresses: Vec<PciAddress> =
            names(&self.path("bus/pci/devices"))?.iter().filter_map(|name| name.parse().ok()).collect();
        addresses.sort_unstable();
        Ok(addresses)
    }

    /// What a function says it is. What the tree does not tell is zero.
    #[must_use]
    pub fn id(&self, address: PciAddress) -> PciId {
        let folder = self.function(address);
        let number = |name: &str| -> u32 {
            read(&folder.join(name))
                .and_then(|text| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok())
                .unwrap_or(0)
        };
        let half = |name: &str| u16::try_from(number(name)).unwrap_or(0);
        PciId {
            vendor: half("vendor"),
            device: half("device"),
            subsystem_vendor: half("subsystem_vendor"),
            subsystem_device: half("subsystem_device"),
            class: number("class") & 0xff_ffff,
            revision: u8::try_from(number("revision")).unwrap_or(0),
        }
    }

    /// The driver that a function is bound to.
    #[must_use]
    pub fn driver(&self, address: PciAddress) -> Option<String> {
        link_name(&self.function(address).join("driver"))
    }

    /// The number of a function's IOMMU group.
    #[must_use]
    pub fn group(&self, address: PciAddress) -> Option<u32> {
        link_name(&self.function(address).join("iommu_group"))?.parse().ok()
    }

    /// The functions in an IOMMU group, ascending.
    #[must_use]
    pub fn group_members(&self, group: u32) -> Vec<PciAddress> {
        let folder = self.path(format!("kernel/iommu_groups/{group}/devices"));
        let mut members: Vec<PciAddress> =
            names(&folder).unwrap_or_default().iter().filter_map(|name| name.parse().ok()).collect();
        members.sort_unstable();
        members
    }

    /// Whether the group is one that VFIO made up for a device without IOMMU.
    #[must_use]
    pub fn group_lacks_iommu(&self, group: u32) -> bool {
        read(&self.path(format!("kernel/iommu_groups/{group}/name"))).as_deref() == Some("vfio-noiommu")
    }

    /// The members of a group that a kernel driver holds, with that driver's name: while there is one, VFIO refuses the group.
    #[must_use]
    pub fn group_blockers(&self, group: u32) -> Vec<(PciAddress, String)> {
        self.group_members(group)
            .into_iter()
            .filter_map(|member| Some((member, self.driver(member)?)))
            .filter(|(_, driver)| !is_harmless(driver))
            .collect()
    }

    /// The character device of a function that is bound to VFIO: `/dev/vfio/devices/vfio0`.
    #[must_use]
    pub fn vfio_device(&self, address: PciAddress) -> Option<PathBuf> {
        let names = names(&self.function(address).join("vfio-dev")).ok()?;
        let name = names.into_iter().find(|name| name.starts_with("vfio"))?;
        Some(self.device_node("vfio/devices").join(name))
    }

    /// The group file of a group: `/dev/vfio/12`.
    #[must_use]
    pub fn group_node(&self, group: u32) -> PathBuf {
        self.device_node(format!("vfio/{group}"))
    }

    /// Every file through which a device or another one of its IOMMU group can be open: while one is, no other process and
    /// no kernel driver can have any of them.
    #[must_use]
    pub fn vfio_files(&self, address: PciAddress) -> Vec<PathBuf> {
        match self.group(address) {
            Some(group) => {
                let members = self.group_members(group);
                let devices = members.into_iter().filter_map(|member| self.vfio_device(member));
                std::iter::once(self.group_node(group)).chain(devices).collect()
            }
            None => self.vfio_device(address).into_iter().collect(),
        }
    }

    /// Processes that have one of `paths` open, as far as this process may know.
    #[must_use]
    pub fn users(&self, paths: &[PathBuf]) -> Vec<User> {
        let mut users: Vec<User> = names(&self.processes)
            .unwrap_or_default()
            .iter()
            .filter_map(|name| name.parse::<u32>().ok())
            .filter_map(|process| {
                let folder = self.process_file(format!("{process}/fd"));
                let files = names(&folder)
                    .ok()?
                    .iter()
                    .filter_map(|descriptor| fs::read_link(folder.join(descriptor)).ok())
                    .filter(|target| paths.contains(target))
                    .count();
                let name = || read(&self.process_file(format!("{process}/comm"))).unwrap_or_else(|| "?".into());
                (files > 0).then(|| User { process, name: name(), files })
            })
            .collect();
        users.sort_unstable_by_key(|user| user.process);
        users
    }

    /// Writes an attribute.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        (self.writer)(path, value)
    }
}

/// Drivers beside which VFIO accepts a group: they never make their device do DMA for the kernel.
fn is_harmless(driver: &str) -> bool {
    is_vfio(driver) || driver == "pci-stub" || driver == "pcieport"
}

/// `vfio-pci` and its relatives such as `mlx5_vfio_pci`.
pub(crate) fn is_vfio(driver: &str) -> bool {
    driver.replace('_', "-").contains("vfio-pci")
}

/// A small text file without the space around it; `None` when it cannot be read or is empty.
pub(crate) fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The names in a folder, in order.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> =
        fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

/// The last part of what a link points to.
pub(crate) fn link_name(path: &Path) -> Option<String> {
    fs::read_link(path).ok()?.file_name()?.to_str().map(str::to_owned)
}
