//! Programs of this host that run in guests, with the libraries that they are linked with.
//!
//! The guests have no file system but the archive that they boot with, and busybox for their shell. What busybox has not,
//! or only a small form of, is taken from the host: the loader knows which libraries it would load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::run;

/// The loader of 64 bit programs, at the path that they name it by.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// Where Debian has programs.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];

/// The files that these programs need: for each path in the guest, without its first `/`, the file of this host. The
/// programs go into `folder`.
///
/// # Errors
///
/// A program or a library is missing.
pub fn files(folder: &str, programs: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    for name in programs {
        let path = FOLDERS
            .iter()
            .map(|folder| Path::new(folder).join(name))
            .find(|path| path.exists())
            .with_context(|| format!("there is no program `{name}` on this host: run `cargo xtask setup`"))?;
        for (library, path) in libraries(&path)? {
            // One of the folders in which the loader looks by itself.
            files.insert(format!("lib/{library}"), path);
        }
        files.insert(format!("{folder}/{name}"), path);
        if let Some((_, plugins)) = DPDK.iter().find(|(program, _)| program == name) {
            for (library, path) in plugin_files(plugins)? {
                // What the program is itself linked with must not be there a second time as a driver: it would be loaded twice.
                let plugin = library.rsplit('/').next().unwrap_or_default().to_owned();
                let linked = files.keys().any(|file| file.starts_with(&format!("lib/{plugin}.")));
                if !linked || library.starts_with("lib/") {
                    files.insert(library, path);
                }
            }
        }
    }
    if !programs.is_empty() {
        files.insert(LOADER.trim_start_matches('/').to_owned(), LOADER.into());
    }
    Ok(files)
}

/// DPDK's programs, and the drivers that they have in a guest: libraries that they look for in a folder of their own. Others would need
/// libraries of their own.
const DPDK: [(&str, &[&str]); 2] = [
    ("dpdk-testpmd", &["librte_bus_pci.so", "librte_bus_vdev.so", "librte_mempool_ring.so", "librte_net_virtio.so"]),
    (
        "dpdk-test",
        &[
            "librte_bus_pci.so",
            "librte_bus_vdev.so",
            "librte_mempool_ring.so",
            "librte_dma_ioat.so",
            "librte_dma_skeleton.so",
        ],
    ),
];

/// DPDK's drivers with their libraries, at the paths where they are looked for.
fn plugin_files(names: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    let missing = "DPDK has no folder with drivers on this host: run `cargo xtask setup`";
    let folders = std::fs::read_dir(LIBRARIES).with_context(|| format!("no {LIBRARIES}"))?.flatten();
    let folder = folders
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pmds-")))
        .context(missing)?;
    let mut files = Vec::new();
    // The C library loads it by itself when a thread is cancelled.
    files.push((format!("lib/{UNWINDER}"), Path::new("/lib/x86_64-linux-gnu").join(UNWINDER)));
    for name in names {
        let path = folder.join(name);
        let libraries = libraries(&path).with_context(|| format!("DPDK's driver {name}"))?;
        files.extend(libraries.into_iter().map(|(library, path)| (format!("lib/{library}"), path)));
        files.push((path.to_string_lossy().trim_start_matches('/').to_owned(), path));
    }
    Ok(files)
}

/// A library that no program names.
const UNWINDER: &str = "libgcc_s.so.1";

/// Where Debian has folders of DPDK's drivers.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu/dpdk";

/// The libraries of a program by the names that it knows them by.
fn libraries(program: &Path) -> Result<Vec<(String, PathBuf)>> {
    let printed = run(Command::new(LOADER).arg("--list").arg(program))?;
    let mut libraries = Vec::new();
    // `libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f0000000000)`; the loader and the kernel's page have no arrow.
    for line in printed.lines() {
        let Some((name, found)) = line.trim().split_once(" => ") else { continue };
        let Some((path, _)) = found.rsplit_once(" (") else {
            bail!("{} needs {name}, which this host has not: {found}", program.display());
        };
        if name != LOADER {
            libraries.push((name.to_owned(), PathBuf::from(path)));
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::path::Path;

    use super::files;

    #[test]
    fn a_program_comes_with_its_loader_and_libraries() {
        let files = files("tools", &["ls"]).unwrap();
        assert!(files.contains_key("tools/ls") && files.contains_key("lib64/ld-linux-x86-64.so.2"), "{files:?}");
        assert!(files.contains_key("lib/libc.so.6"), "{files:?}");
        assert!(files.values().all(|path| path.exists()), "{files:?}");
        assert!(files.values().any(|path| path.starts_with(Path::new("/lib"))), "{files:?}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        assert!(files("tools", &["no-such-program"]).unwrap_err().to_string().contains("no-such-program"));
    }
}
