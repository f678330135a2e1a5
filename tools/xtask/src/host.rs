//! What is installed on the host itself: Debian packages and Rust targets.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{logged, output, root};

/// The targets that the pinned toolchain needs: the guests' static binary, and the check that drivers need no OS.
pub(crate) const TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "x86_64-unknown-none"];

/// What the guests' suites use: namespaces and traffic, the initramfs's shell, and what makes a Debian tree and a kernel.
pub(crate) const PACKAGES: [&str; 15] = [
    "accel-config",
    "bc",
    "bison",
    "busybox-static",
    "debootstrap",
    "ethtool",
    "flex",
    "gcc",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libelf-dev",
    "make",
    "xz-utils",
];

/// What the suites with DPDK as a peer use: its tests with its drivers for vhost-user, virtio and copy engines, and what makes them print line by
/// line.
pub(crate) const DPDK: [&str; 5] =
    ["coreutils", "dpdk-dev", "librte-meta-dma", "librte-meta-mempool", "librte-meta-net"];

/// What `bench ovs` compares with.
pub(crate) const OVS: [&str; 1] = ["openvswitch-switch-dpdk"];

/// What looks on as the binary runs: its system calls, and traffic through it.
pub(crate) const WATCH: [&str; 5] = ["binutils", "iperf3", "iproute2", "iputils-ping", "strace"];

/// Those of `packages` that are not installed.
pub(crate) fn missing_packages(packages: &[&'static str]) -> Result<Vec<&'static str>> {
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    // dpkg-query fails when it does not know one of the names; what it knows is still printed.
    let known = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(packages)
        .output()
        .context("cannot run dpkg-query: the lab needs a Debian or Ubuntu host")?;
    let known = String::from_utf8_lossy(&known.stdout).into_owned();
    let installed = |name: &str| known.lines().any(|line| line == format!("{name} installed"));
    Ok(packages.iter().copied().filter(|name| !installed(name)).collect())
}

/// Installs Debian packages.
pub(crate) fn install(packages: &[&str], log: &File) -> Result<()> {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
        command
    };
    // A source that is out of reach is no error as long as the packages can be had from another one.
    logged(&mut apt(&["update"]), log)?;
    if !logged(apt(&["install", "-y", "--no-install-recommends"]).args(packages), log)? {
        bail!("apt-get could not install {}", packages.join(" "));
    }
    Ok(())
}

/// The targets of `TARGETS` that the pinned toolchain does not have.
pub(crate) fn missing_targets() -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    for target in TARGETS {
        let mut rustc = Command::new("rustc");
        let folder = output(rustc.current_dir(root()).args(["--print", "target-libdir", "--target", target]))?;
        if !Path::new(folder.trim()).exists() {
            missing.push(target);
        }
    }
    Ok(missing)
}

/// Installs Rust targets for the pinned toolchain.
pub(crate) fn add_targets(targets: &[&str], log: &File) -> Result<()> {
    if !logged(Command::new("rustup").current_dir(root()).args(["target", "add"]).args(targets), log)? {
        bail!("rustup could not add the targets {}", targets.join(" "));
    }
    Ok(())
}

/// The Debian mirror that this host's apt uses, so that the lab asks no other one.
pub(crate) fn mirror() -> String {
    let sources = output(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]));
    sources
        .unwrap_or_default()
        .lines()
        .map(|line| line.trim_end_matches('/'))
        .find(|line| line.starts_with("http") && line.ends_with("/debian"))
        .unwrap_or("http://deb.debian.org/debian")
        .to_owned()
}

/// True when this process runs as root.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|user| user.trim() == "0")
}
