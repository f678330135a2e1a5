//! Where cargo puts the binaries under test.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The target of the guests' static binaries.
const GUEST_TARGET: &str = "x86_64-unknown-linux-musl";

/// The release binary `mirach` for this host.
///
/// # Errors
///
/// It was not built.
pub fn host() -> Result<PathBuf> {
    existing(target().join("release/mirach"), "cargo build --release -p mirach")
}

/// A static release binary for the guests.
///
/// # Errors
///
/// It was not built.
pub fn guest(name: &str) -> Result<PathBuf> {
    let folder = target().join(GUEST_TARGET).join("release");
    let (path, chosen) = match name {
        "mirach" => (folder.join(name), "-p mirach".to_owned()),
        "exercise" => (folder.join("examples").join(name), "-p mirach-vfio --example exercise".to_owned()),
        other => (folder.join(other), format!("-p mirach-tests --bin {other}")),
    };
    existing(path, &format!("cargo build --release --target {GUEST_TARGET} {chosen}"))
}

/// The folder `tests/lab`, with the scripts that run in the guests.
#[must_use]
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("lab")
}

fn target() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder))
}

fn existing(path: PathBuf, build: &str) -> Result<PathBuf> {
    if !path.exists() {
        bail!("there is no {}: run `{build}`, or the whole suite by `cargo xtask test`", path.display());
    }
    Ok(path)
}
