//! `cargo xtask setup`: what the suites need, installed once.
//!
//! Every step looks first whether its result is there, so that a second run takes no time and an interrupted one goes
//! on with the step that it was in. What is big is an entry of the cache folder, made by a script in
//! `tests/lab/setup`, and made again when the script or one of its inputs changes.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, hash};
use crate::command::{logged_with, root, target};
use crate::host;

/// Something that a suite needs installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The Rust targets beside the host's own.
    Targets,
    /// Packages on the host, QEMU and the guests' kernels.
    Guests,
    /// DPDK, as a peer.
    Dpdk,
    /// What looks on as the binary runs, and hosts that talk through it.
    Watch,
    /// Open vSwitch with DPDK, as a peer. Its package starts a daemon of its own on the host, so it is installed only when it is asked for.
    Ovs,
}

impl Need {
    /// All that the suites need.
    pub(crate) const ALL: [Self; 4] = [Self::Targets, Self::Guests, Self::Dpdk, Self::Watch];
}

/// One entry of the cache folder.
struct Recipe {
    name: &'static str,
    about: &'static str,
    script: &'static str,
    /// Files in `tests/lab` that are given to the script, and belong to the recipe.
    inputs: &'static [&'static str],
    /// The entries that are given to the script before the inputs.
    entries: &'static [&'static str],
}

const RECIPES: [Recipe; 4] = [
    Recipe {
        name: "qemu",
        about: "a Debian 13 tree with QEMU 10.1 or later (about 1 minute)",
        script: "qemu.sh",
        inputs: &[],
        entries: &[],
    },
    Recipe {
        name: "stock-kernel",
        about: "the stock Debian 13 kernel and its modules (about 20 seconds)",
        script: "stock-kernel.sh",
        inputs: &[],
        entries: &["qemu"],
    },
    Recipe {
        name: "dma-test",
        about: "modules for the stock kernel: its test of copy engines, and a missing instruction (about 2 minutes)",
        script: "dma-test.sh",
        // They are modules for that kernel and no other.
        inputs: &["setup/stock-kernel.sh", "direct-store.c"],
        entries: &["qemu", "stock-kernel"],
    },
    Recipe {
        name: "iommufd-kernel",
        about: "a small 6.12 kernel with IOMMUFD, from source (5 to 20 minutes)",
        script: "iommufd-kernel.sh",
        inputs: &["kernel.config"],
        entries: &["qemu"],
    },
];

/// Installs what is missing of `needs`, and says so.
pub(crate) fn run(needs: &[Need]) -> Result<()> {
    let started = Instant::now();
    let log = Log::new()?;
    if needs.contains(&Need::Targets) {
        let missing = host::missing_targets()?;
        if !missing.is_empty() {
            log.step(&format!("Rust targets {}", missing.join(" ")), |file| host::add_targets(&missing, file))?;
        }
    }
    let mut packages = Vec::new();
    if needs.contains(&Need::Guests) {
        packages.extend(host::PACKAGES);
    }
    if needs.contains(&Need::Dpdk) {
        packages.extend(host::DPDK);
    }
    if needs.contains(&Need::Ovs) {
        packages.extend(host::OVS);
    }
    if needs.contains(&Need::Watch) {
        packages.extend(host::WATCH);
    }
    packages.sort_unstable();
    packages.dedup();
    let missing = host::missing_packages(&packages)?;
    if !missing.is_empty() {
        as_root(&format!("installing {}", missing.join(" ")))?;
        log.step(&format!("packages {}", missing.join(" ")), |file| host::install(&missing, file))?;
    }
    if needs.contains(&Need::Guests) {
        let cache = Cache::open()?;
        for recipe in &RECIPES {
            make(recipe, &cache, &log)?;
        }
    }
    eprintln!("setup: ready ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}

fn make(recipe: &Recipe, cache: &Cache, log: &Log) -> Result<()> {
    let lab = root().join("tests/lab");
    let script = lab.join("setup").join(recipe.script);
    let inputs: Vec<PathBuf> = recipe.inputs.iter().map(|name| lab.join(name)).collect();
    let mut parts = Vec::new();
    for path in std::iter::once(&script).chain(&inputs) {
        parts.push(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let stamp = hash(parts.iter().map(Vec::as_slice));
    if cache.has(recipe.name, &stamp) {
        return Ok(());
    }
    as_root(&format!("making {}", recipe.about))?;
    log.step(recipe.about, |file| {
        cache.make(recipe.name, &stamp, |work| {
            let mut command = Command::new("bash");
            command.arg(&script).arg(work);
            command.args(recipe.entries.iter().map(|name| cache.entry(name)));
            command.args(&inputs).env("MIRROR", host::mirror());
            if !logged_with(cache.lock()?.into(), &mut command, file)? {
                bail!("{} failed", recipe.script);
            }
            Ok(())
        })
    })
}

fn as_root(doing: &str) -> Result<()> {
    if !host::is_root() {
        bail!(
            "{doing} needs root: run `sudo cargo xtask setup` (with MIRACH_CACHE set to the same folder for both users)"
        );
    }
    Ok(())
}

/// The log file of a setup, and the lines on the terminal that stand for it.
struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    fn new() -> Result<Self> {
        let folder = target().join("xtask");
        fs::create_dir_all(&folder)?;
        let path = folder.join("setup.log");
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path, file })
    }

    fn step(&self, about: &str, work: impl FnOnce(&File) -> Result<()>) -> Result<()> {
        eprintln!("setup: {about}");
        let started = Instant::now();
        if let Err(error) = work(&self.file) {
            let text = fs::read_to_string(&self.path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(30)..] {
                eprintln!("    {line}");
            }
            return Err(error.context(format!("setup failed, its output is in {}", self.path.display())));
        }
        eprintln!("setup: done in {:.1} s", started.elapsed().as_secs_f64());
        Ok(())
    }
}
