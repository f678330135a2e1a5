//! Network namespaces: the hosts at the two ends of a guest.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::leftovers::unique;
use crate::process::run_words;

/// A network namespace that is removed on drop, with all interfaces in it.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace whose name ends with `label`.
    ///
    /// # Errors
    ///
    /// Not root, or no `ip` command.
    pub fn new(label: &str) -> Result<Self> {
        let name = unique(label);
        run_words(&["ip", "netns", "add", &name]).context("cannot make a network namespace (it needs root)")?;
        let namespace = Self { name };
        // Router solicitations and the like would be frames that no test sent.
        let sysctl = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6";
        // A kernel without IPv6 has no such file, and sends none of those frames either.
        let _ = crate::process::run(&mut namespace.command(&["sh", "-c", sysctl]));
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, for `ip netns exec`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` with these arguments inside.
    ///
    /// # Errors
    ///
    /// As [`crate::process::run`].
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        run_words(&[&["ip", "-n", &self.name], arguments].concat())
    }

    /// A command that runs inside, and dies with the thread that starts it.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = crate::process::bound_to_us(Path::new("ip"));
        command.args(["netns", "exec", &self.name]).args(words);
        command
    }

    /// Calls `work` on a thread inside. Sockets and taps that it opens stay inside when they are used elsewhere.
    ///
    /// # Errors
    ///
    /// The namespace cannot be entered, or `work` failed.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = Path::new("/run/netns").join(&self.name);
        let handle = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        // A thread of its own, so that the caller's thread stays where it is.
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("cannot enter the namespace {}", self.name))?;
                work()
            });
            inside.join().map_err(|_| anyhow!("the thread in {} panicked", self.name))?
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // When it is already gone there is nothing left to do.
        let _ = run_words(&["ip", "netns", "delete", &self.name]);
    }
}
