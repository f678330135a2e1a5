//! A made-up machine for tests: folders that look like the kernel's, and a kernel that answers writes to them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::network::{Address, Network, Route};
use crate::sysfs::{Sysfs, link_name, read};

pub(crate) struct Machine {
    folder: TempDir,
}

impl Machine {
    /// A machine with vfio-pci loaded and no devices.
    pub(crate) fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["sys/bus/pci/devices", "sys/bus/pci/drivers/vfio-pci", "sys/class/net", "dev/vfio", "proc"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        machine
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub(crate) fn file(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn remove(&self, relative: &str) {
        fs::remove_dir_all(self.path(relative)).unwrap();
    }

    pub(crate) fn link(&self, relative: &str, target: &Path) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// A work queue of idxd's.
    pub(crate) fn work_queue(&self, name: &str, state: &str, owner: &str, mode: &str) {
        for (attribute, value) in [
            ("state", state),
            ("type", owner),
            ("mode", mode),
            ("size", "16"),
            ("max_batch_size", "1024"),
            ("max_transfer_size", "2147483648"),
        ] {
            self.file(&format!("sys/bus/dsa/devices/{name}/{attribute}"), &format!("{value}\n"));
        }
    }

    /// A PCI function. Its driver is also the one that the kernel gives it when nothing else is asked for.
    pub(crate) fn function(
        &self,
        address: &str,
        vendor: u16,
        device: u16,
        class: u32,
        group: Option<u32>,
        driver: Option<&str>,
    ) {
        let folder = format!("sys/devices/pci0000:00/{address}");
        self.file(&format!("{folder}/vendor"), &format!("{vendor:#06x}\n"));
        self.file(&format!("{folder}/device"), &format!("{device:#06x}\n"));
        self.file(&format!("{folder}/class"), &format!("{class:#08x}\n"));
        self.file(&format!("{folder}/driver_override"), "(null)\n");
        self.link(&format!("sys/bus/pci/devices/{address}"), &self.path(&folder));
        if let Some(group) = group {
            let group = format!("sys/kernel/iommu_groups/{group}");
            fs::create_dir_all(self.path(&format!("{group}/devices"))).unwrap();
            self.link(&format!("{folder}/iommu_group"), &self.path(&group));
            self.link(&format!("{group}/devices/{address}"), &self.path(&folder));
        }
        if let Some(driver) = driver {
            let driver_folder = self.path(&format!("sys/bus/pci/drivers/{driver}"));
            fs::create_dir_all(&driver_folder).unwrap();
            self.link(&format!("{folder}/driver"), &driver_folder);
            if driver != "vfio-pci" {
                self.file(&format!("{folder}/native"), driver);
            }
        }
    }

    fn interface_folder(address: &str, virtio: Option<&str>, name: &str) -> String {
        let parent = virtio.map_or(String::new(), |virtio| format!("{virtio}/"));
        format!("sys/devices/pci0000:00/{address}/{parent}net/{name}")
    }

    /// A network interface that is up, on a function or on its virtio device.
    pub(crate) fn interface(&self, address: &str, virtio: Option<&str>, name: &str, index: u32) {
        let folder = Self::interface_folder(address, virtio, name);
        self.file(&format!("{folder}/ifindex"), &index.to_string());
        self.file(&format!("{folder}/operstate"), "up\n");
        self.file(&format!("{folder}/flags"), "0x1003\n");
        self.file(&format!("{folder}/address"), "52:54:00:00:00:01\n");
        self.file(&format!("{folder}/mtu"), "1500\n");
        self.link(&format!("{folder}/device"), self.path(&folder).parent().unwrap().parent().unwrap());
        self.link(&format!("sys/class/net/{name}"), &self.path(&folder));
    }

    pub(crate) fn enslave(&self, address: &str, virtio: Option<&str>, name: &str, master: &str) {
        let folder = Self::interface_folder(address, virtio, name);
        self.file(&format!("sys/devices/virtual/net/{master}/ifindex"), "99");
        let target = self.path(&format!("sys/devices/virtual/net/{master}"));
        self.link(&format!("{folder}/master"), &target);
        self.link(&format!("{folder}/upper_{master}"), &target);
    }

    /// An address and a default route on the interface with this number.
    pub(crate) fn network_of(&self, interface: u32) -> Network {
        Network {
            addresses: vec![Address { interface, address: [10, 0, 0, 2].into(), prefix: 24 }],
            routes: vec![Route { interface, destination: None, gateway: Some([10, 0, 0, 1].into()) }],
        }
    }

    pub(crate) fn sysfs(&self) -> Sysfs {
        let root = self.path("sys");
        Sysfs::under(self.folder.path()).with_writer(move |path, value| kernel(&root, path, value))
    }
}

/// What the kernel does when an attribute is written. A file `refuse` beside a function makes every driver's probe fail
/// but its native one's.
fn kernel(root: &Path, path: &Path, value: &str) -> io::Result<()> {
    let value = value.trim();
    let function = |address: &str| root.join("bus/pci/devices").join(address);
    let name = path.file_name().unwrap().to_str().unwrap();
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    match name {
        "driver_override" => fs::write(path, if value.is_empty() { "(null)" } else { value }),
        "unbind" => fs::remove_file(function(value).join("driver")).map_err(|_| io::ErrorKind::NotFound.into()),
        "drivers_probe" | "bind" => {
            let folder = function(value);
            if folder.join("driver").exists() {
                return Ok(());
            }
            let native = read(&folder.join("native"));
            let driver = if name == "bind" {
                link_name(path.parent().unwrap()).or_else(|| path.parent()?.file_name()?.to_str().map(str::to_owned))
            } else {
                read(&folder.join("driver_override")).filter(|text| text != "(null)").or_else(|| native.clone())
            };
            let Some(driver) = driver else { return Ok(()) };
            if folder.join("refuse").exists() && Some(&driver) != native.as_ref() {
                return Err(invalid());
            }
            symlink(root.join("bus/pci/drivers").join(driver), folder.join("driver"))
        }
        _ => Err(invalid()),
    }
}
