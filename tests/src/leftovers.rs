//! Names of what the lab makes, and the removal of what a killed run left behind.
//!
//! Every namespace and folder of the lab has the process id of its test in its name, so that what belongs to a
//! process that is no more can be told from what is in use.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::run_words;

const PREFIX: &str = "mirach-lab-";

/// A name that no other test uses: `mirach-lab-PID-NUMBER-LABEL`.
#[must_use]
pub fn unique(label: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}-{label}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A folder that goes when the value is dropped.
///
/// # Errors
///
/// It cannot be made.
pub fn folder(label: &str) -> Result<TempDir> {
    let prefix = format!("{}-", unique(label));
    tempfile::Builder::new().prefix(&prefix).tempdir().context("cannot make a temporary folder")
}

/// Removes the namespaces and folders of runs whose process is no more.
pub fn remove() {
    for name in abandoned(Path::new("/run/netns")) {
        // The kernel removes the taps in it too; another test that starts now may have been faster.
        let _ = run_words(&["ip", "netns", "delete", &name]);
    }
    for name in abandoned(&std::env::temp_dir()) {
        let _ = fs::remove_dir_all(std::env::temp_dir().join(name));
    }
}

fn abandoned(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_abandoned(name)).collect()
}

fn is_abandoned(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let process = rest.split('-').next().unwrap_or_default();
    process.parse::<u32>().is_ok_and(|id| !Path::new("/proc").join(id.to_string()).exists())
}

#[cfg(test)]
mod tests {
    use super::{is_abandoned, unique};

    #[test]
    fn only_names_of_processes_that_are_no_more_are_removed() {
        assert!(!is_abandoned(&unique("a")), "this process lives");
        assert!(is_abandoned("mirach-lab-4194305-0-a"), "beyond the largest process id of Linux");
        assert!(!is_abandoned("mirach-lab-somebody"));
        assert!(!is_abandoned("somebody-4194305-0-a"));
    }
}
