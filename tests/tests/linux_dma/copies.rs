//! Copies by the kernel's own test, which compares all bytes, those around the target too.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::suite::Suite;

use crate::{Booted, CHANNELS, Site};

/// What a run of the kernel's test is.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    /// Channels, all at the same time.
    pub(crate) channels: &'a [&'a str],
    /// Threads for each.
    pub(crate) threads: u32,
    /// Copies for each thread.
    pub(crate) copies: u32,
    /// Largest length; offsets and lengths are at random below it.
    pub(crate) bytes: u32,
    /// Seconds that a copy may take.
    pub(crate) patience: u32,
}

/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
    // Patient with a guest that has to share its processors.
    let run = |channels, threads, copies, bytes| Run { channels, threads, copies, bytes, patience: 20 };
    for (name, run) in [
        ("copies::of-any-length-and-alignment", run(&CHANNELS[..], 1, 300, 16 << 10)),
        ("copies::by-several-threads-on-a-channel", run(&CHANNELS[..2], 4, 100, 4 << 10)),
        // Above what one descriptor takes: 64 KiB on the second engine, 1 MiB on the first.
        ("copies::longer-than-a-descriptor", run(&["dma0chan1", "dma1chan0"], 1, 40, 2 << 20)),
    ] {
        suite.check(name, || {
            let site = site.up()?;
            let before = site.counters("bytes")?.iter().sum::<u64>();
            let failures = run.start(site)?;
            if failures != 0 {
                bail!("{failures} copies failed:\n{}", site.guest.must("dmesg | grep dmatest | tail -n 20")?);
            }
            let copied = site.counters("bytes")?.iter().sum::<u64>() - before;
            println!("    {} KiB copied", copied >> 10);
            site.no_iommu_fault()
        });
    }
}

impl Run<'_> {
    /// Copies; how many of them failed.
    pub(crate) fn start(self, site: &mut Booted) -> Result<u64> {
        let since = site.mark()?;
        let (threads, copies, bytes) = (self.threads, self.copies, self.bytes);
        let set: String = [
            ("threads_per_chan", threads),
            ("iterations", copies),
            ("test_buf_size", bytes),
            ("timeout", 1000 * self.patience),
        ]
        .iter()
        .map(|(name, value)| format!("echo {value} > {name} && "))
        .collect();
        let add: String = self.channels.iter().map(|channel| format!("echo {channel} > channel && ")).collect();
        // A read of `wait` ends when the test has.
        let line = format!("cd /sys/module/dmatest/parameters && {set}{add}echo 1 > run && cat wait > /dev/null");
        let answer = site.guest.run(&line, LIMIT)?;
        if answer.status != 0 {
            bail!("status {}: {}", answer.status, answer.output);
        }
        let log = site.log(since)?;
        let mut failures = 0;
        let summaries: Vec<&String> = log.iter().filter(|line| line.contains("summary")).collect();
        let threads = self.channels.len() * usize::try_from(threads)?;
        if summaries.len() != threads {
            bail!("{} summaries of {threads} threads:\n{}", summaries.len(), log.join("\n"));
        }
        for line in summaries {
            // "dmatest: dma0chan0-copy0: summary 100 tests, 0 failures 2049.51 iops 16806 KB/s (0)"
            let mut words = line.split_whitespace().skip_while(|word| *word != "summary").skip(1);
            let mut number = || words.find_map(|word| word.parse::<u64>().ok());
            let (tests, failed) = number().zip(number()).with_context(|| format!("no numbers in {line}"))?;
            if tests != u64::from(copies) {
                bail!("{tests} copies of {copies}: {line}");
            }
            failures += failed;
        }
        Ok(failures)
    }
}
