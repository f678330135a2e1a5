//! What `cargo xtask setup` made: QEMU and the guests' kernels.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// The kernels that a guest can boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Debian 13's own, with modules; has VFIO's group interface (type1), and IOMMUFD switched off.
    Stock,
    /// A small one with nothing as a module; has VFIO's group interface and IOMMUFD with VFIO character devices.
    Iommufd,
}

impl Kernel {
    /// The name of its entry in the cache folder.
    #[must_use]
    pub fn entry(self) -> &'static str {
        match self {
            Self::Stock => "stock-kernel",
            Self::Iommufd => "iommufd-kernel",
        }
    }
}

/// The path of an entry that setup has completed.
///
/// # Errors
///
/// It is not there.
pub fn entry(name: &str) -> Result<PathBuf> {
    let path = folder()?.join(name);
    // The stamp is written last: without it the entry is not whole.
    if !path.join("stamp").exists() {
        bail!("there is no {}: run `cargo xtask setup`", path.display());
    }
    Ok(path)
}

/// A command that starts QEMU by its tree's own loader, with the tree's own libraries and firmware.
///
/// # Errors
///
/// The tree is not there.
pub fn qemu() -> Result<Command> {
    let tree = entry("qemu")?;
    let libraries = tree.join("usr/lib/x86_64-linux-gnu");
    let mut command = process::bound_to_us(&tree.join("usr/lib64/ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(&libraries).arg(tree.join("usr/bin/qemu-system-x86_64"));
    for firmware in ["usr/share/qemu", "usr/share/seabios"] {
        command.arg("-L").arg(tree.join(firmware));
    }
    command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
    Ok(command)
}

/// `$MIRACH_CACHE`, `$XDG_CACHE_HOME/mirach` or `~/.cache/mirach`, as setup has it.
fn folder() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = variable("MIRACH_CACHE") {
        return Ok(folder.into());
    }
    if let Some(folder) = variable("XDG_CACHE_HOME") {
        return Ok(Path::new(&folder).join("mirach"));
    }
    let home = variable("HOME").context("neither MIRACH_CACHE nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/mirach"))
}
