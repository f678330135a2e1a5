//! The guests' only file system: an archive in the format that the kernel unpacks at boot (cpio "newc").
//!
//! Kernel documentation: `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::{self, Kernel};
use crate::{binaries, tools};

/// Where Debian's package `busybox-static` puts its binary.
const BUSYBOX: &str = "/bin/busybox";

/// The modules that are not in the stock kernel's package.
const OWN: [&str; 2] = ["dmatest", "direct-store"];

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const DATA: u32 = 0o100_644;

/// Where the host's own programs go in a guest: not among busybox's, whose shell prefers its own by name.
const TOOLS: &str = "tools";

/// The archive for a guest with this kernel: these modules, static binaries in `/bin`, and programs of this host, with
/// the libraries that they need, in `/tools`.
///
/// # Errors
///
/// busybox, a kernel module, a binary or a program is missing.
pub fn build(kernel: Kernel, modules: &[&str], programs: &[&str], tools: &[&str]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "etc", "home", "lib", "lib64", "modules", "proc", "run", "sys", "tmp", TOOLS] {
        archive.add(folder, FOLDER, &[]);
    }
    let scripts = binaries::scripts();
    archive.add_file("init", PROGRAM, &scripts.join("init"))?;
    for script in ["agent", "start"] {
        archive.add_file(&format!("bin/{script}"), PROGRAM, &scripts.join(script))?;
    }
    archive
        .add_file("bin/busybox", PROGRAM, Path::new(BUSYBOX))
        .context("the guests' shell is missing: run `cargo xtask setup`")?;
    archive.add("etc/passwd", DATA, b"root:x:0:0::/:/bin/sh\nplain:x:1000:1000::/home:/bin/sh\n");
    archive.add("etc/group", DATA, b"root:x:0:\nplain:x:1000:\n");
    for name in programs {
        archive.add_file(&format!("bin/{name}"), PROGRAM, &binaries::guest(name)?)?;
    }
    let files = tools::files(TOOLS, tools)?;
    for folder in folders(files.keys()) {
        archive.add(&folder, FOLDER, &[]);
    }
    for (name, path) in files {
        archive.add_file(&name, PROGRAM, &path)?;
    }
    let mut order = String::new();
    for (file, path) in module_files(kernel, modules)? {
        archive.add_file(&format!("modules/{file}"), DATA, &path)?;
        order.push_str(&file);
        order.push('\n');
    }
    archive.add("modules/order", DATA, order.as_bytes());
    Ok(archive.finish())
}

/// The folders of these files below the archive's own, each after the one that it is in.
fn folders<'a>(files: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    files
        .flat_map(|name| Path::new(name).ancestors().skip(1))
        .filter(|folder| folder.components().count() > 1 || folder.starts_with("usr"))
        .map(|folder| folder.to_string_lossy().into_owned())
        .collect()
}

/// The files to load for these modules, each once and with its path, what they depend on first.
fn module_files(kernel: Kernel, modules: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    if kernel == Kernel::Iommufd {
        return Ok(Vec::new());
    }
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for module in modules {
        let folder = cache::entry(if OWN.contains(module) { "dma-test" } else { kernel.entry() })?.join("modules");
        let path = folder.join("order");
        let order = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let line = order
            .lines()
            .find_map(|line| line.strip_prefix(module)?.strip_prefix(':'))
            .with_context(|| format!("the kernel's modules have no {module}: run `cargo xtask setup`"))?;
        let new = line.split_whitespace().filter(|file| seen.insert((*file).to_owned()));
        files.extend(new.map(|file| (file.to_owned(), folder.join(file))));
    }
    Ok(files)
}

/// An archive that is being written.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add_file(&mut self, name: &str, mode: u32, path: &Path) -> Result<()> {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        self.add(name, mode, &content);
        Ok(())
    }

    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let links = if mode == FOLDER { 2 } else { 1 };
        let header: [u64; 13] = [
            self.entries.into(),
            mode.into(),
            0,
            0,
            links,
            0,
            content.len() as u64,
            0,
            0,
            0,
            0,
            name.len() as u64 + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in header {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::{Archive, DATA};

    #[test]
    fn names_and_contents_start_at_multiples_of_four() {
        let mut archive = Archive::default();
        archive.add("a", DATA, b"12345");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"07070100000001000081A4"));
        // The header has 110 bytes, the name with its end 2: the content follows at 112.
        assert_eq!(bytes.get(110..117), Some(&b"a\x0012345"[..]));
        assert_eq!(bytes.get(120..126), Some(&b"070701"[..]));
    }
}
