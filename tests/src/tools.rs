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
    }
    if !programs.is_empty() {
        files.insert(LOADER.trim_start_matches('/').to_owned(), LOADER.into());
    }
    Ok(files)
}

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
