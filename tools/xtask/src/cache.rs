//! The cache folder: entries that are whole or absent, each with the hash of the recipe that made it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The name of the file in an entry that holds the hash of its recipe; `lab` looks for it too.
const STAMP: &str = "stamp";

/// The cache folder, held by one process at a time.
pub(crate) struct Cache {
    folder: PathBuf,
    lock: File,
}

impl Cache {
    /// Opens the cache folder, waiting until another setup is done with it.
    pub(crate) fn open() -> Result<Self> {
        let folder = folder()?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make the cache folder {}", folder.display()))?;
        let path = folder.join("lock");
        let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        if lock.try_lock().is_err() {
            eprintln!("setup: waiting for another setup that uses {}", folder.display());
            lock.lock()?;
        }
        Ok(Self { folder, lock })
    }

    /// The folder of an entry, whether it exists or not.
    pub(crate) fn entry(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The lock, to be given to a child as its standard input: what a killed setup leaves running keeps it.
    pub(crate) fn lock(&self) -> Result<File> {
        self.lock.try_clone().context("cannot share the lock of the cache folder")
    }

    /// True when the entry is there and was made by this recipe.
    pub(crate) fn has(&self, name: &str, recipe: &str) -> bool {
        fs::read_to_string(self.entry(name).join(STAMP)).is_ok_and(|stamp| stamp == recipe)
    }

    /// Makes an entry: `build` fills a folder of another name, which takes the entry's name when all is in it.
    pub(crate) fn make(&self, name: &str, recipe: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let work = self.entry(&format!("{name}.work"));
        let old = self.entry(&format!("{name}.old"));
        remove(&work)?;
        remove(&old)?;
        fs::create_dir(&work).with_context(|| format!("cannot make {}", work.display()))?;
        build(&work)?;
        fs::write(work.join(STAMP), recipe)?;
        let entry = self.entry(name);
        if entry.exists() {
            fs::rename(&entry, &old)?;
        }
        fs::rename(&work, &entry)?;
        remove(&old)
    }
}

/// `$MIRACH_CACHE`, `$XDG_CACHE_HOME/mirach` or `~/.cache/mirach`.
fn folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("MIRACH_CACHE").filter(|value| !value.is_empty()) {
        return std::path::absolute(folder).context("MIRACH_CACHE");
    }
    if let Some(folder) = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        return Ok(Path::new(&folder).join("mirach"));
    }
    let home =
        std::env::var_os("HOME").context("neither MIRACH_CACHE nor HOME is set: set MIRACH_CACHE to a folder")?;
    Ok(Path::new(&home).join(".cache/mirach"))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The hash of a recipe's parts (FNV-1a, 64 bits): it tells recipes apart, it protects nothing.
pub(crate) fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for part in parts {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        part.len().to_le_bytes().into_iter().for_each(&mut add);
        part.iter().copied().for_each(&mut add);
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn recipes_that_differ_only_in_where_a_part_ends_have_different_hashes() {
        assert_ne!(hash([&b"ab"[..], b"c"]), hash([&b"a"[..], b"bc"]));
        assert_eq!(hash([&b"ab"[..]]), hash([&b"ab"[..]]));
    }
}
