//! The files that this process has open: memory, devices, sockets and interrupts are files too.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// The files that were open at some time.
#[derive(Clone, Debug)]
pub struct OpenFiles(BTreeMap<String, usize>);

impl OpenFiles {
    /// What is open now.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn now() -> Result<Self> {
        let mut files = BTreeMap::new();
        for entry in Path::new("/proc/self/fd").read_dir().context("read /proc/self/fd")? {
            // The folder itself is open while it is read, and gone when its link is.
            let Ok(target) = entry?.path().read_link() else { continue };
            let name = target.to_string_lossy();
            // Sockets and pipes have a number each; what they are is what counts.
            let kind = name.split(':').next().filter(|_| name.contains(":[")).unwrap_or(&name);
            *files.entry(kind.to_owned()).or_insert(0) += 1;
        }
        Ok(Self(files))
    }

    /// What is open now and was not then.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn opened_since(&self) -> Result<Vec<String>> {
        let now = Self::now()?;
        let more = now.0.iter().filter_map(|(name, count)| {
            let more = count.saturating_sub(self.0.get(name).copied().unwrap_or(0));
            (more > 0).then(|| format!("{more} open of {name}"))
        });
        Ok(more.collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_file_that_stays_open_is_named() {
        let before = OpenFiles::now().unwrap();
        let folder = std::fs::File::open("/usr").unwrap();
        assert!(before.opened_since().unwrap().contains(&"1 open of /usr".to_owned()));
        drop(folder);
    }
}
