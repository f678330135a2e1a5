//! Configuration files that cannot be: what is said of them, and that nothing happens.

use anyhow::{Context, Result, ensure};
use lab::tenants::Daemon;

use crate::scene::{PORTS, TOML, close, set, state};

/// What is replaced in the configuration, by what, a word of the reason, and the text at whose line the error has to be.
const BAD: &[(&str, &str, &str, &str)] = &[
    // No TOML.
    ("name = \"gold\"", "name = \"gold", "", "name = \"gold"),
    ("[[slice]]", "[[slice]", "", "[[slice]"),
    ("flows = 5000", "flows = 5000\nflows = 6000", "duplicate", "flows = 6000"),
    // No configuration.
    ("flows = 5000", "flow = 5000", "flow", "flow = 5000"),
    ("[[route]]", "[[rout]]", "rout", "[[rout]]"),
    ("[[slice]]", "colour = \"red\"\n[[slice]]", "colour", "colour"),
    ("flows = 5000", "flows = \"many\"", "", "flows = \"many\""),
    ("vni = 100", "vni = -1", "", "vni = -1"),
    ("direction = \"out\"", "direction = \"up\"", "up", "direction = \"up\""),
    ("52:54:00:00:00:00", "52:54:00:00:00", "52:54:00:00:00", "macs = "),
    ("10.0.0.1/24", "10.0.0.1/33", "10.0.0.1/33", "10.0.0.1/33"),
    ("protocol = \"udp\"", "protocol = \"icmp\"", "", "protocol = \"icmp\""),
    ("ports = \"9-20\"", "ports = \"20-9\"", "20-9", "ports = \"20-9\""),
    // What does not fit together.
    ("vni = 200", "vni = 100", "100", "vni = 100\nvlan"),
    ("slice = \"gold\"", "slice = \"silver\"", "silver", "slice = \"silver\""),
    ("network = \"blue\"", "network = \"green\"", "green", "network = \"green\""),
    ("groups = [\"some\"]", "groups = [\"none\"]", "none", "groups = [\"none\"]"),
    ("52:54:00:00:00:01", "52:54:00:00:00:00", "vm0", "macs = [\"52:54:00:00:00:00\"]\naddresses = [\"10.0.0.11\"]"),
    ("10.0.0.11", "10.0.0.10", "vm0", "addresses = [\"10.0.0.10\"]\ngroups = [\"some\"]\n\n[[port]]\nname = \"host0\""),
    ("name = \"host0\"", "name = \"vm1\"", "vm1", "name = \"vm1\"\nnetwork = \"blue\""),
    ("to = \"blue\"", "to = \"nowhere\"", "nowhere", "to = \"nowhere\""),
    ("routers = [\"10.1.0.1/24\"]", "", "router", "to = \"blue\""),
    (
        "[[route]]",
        "[[tunnel]]\nnetwork = \"red\"\nremote = \"192.0.2.2\"\n[[route]]",
        "underlay",
        "[[tunnel]]\nnetwork = \"red\"\nremote = \"192.0.2.2\"",
    ),
    // What cannot be changed while it runs, or cannot be at all.
    ("[[slice]]", "cores = \"999\"\n[[slice]]", "", "cores = \"999\""),
    ("[[slice]]", "burst = 1000\n[[slice]]", "burst", "burst = 1000"),
    ("[[slice]]", "memory = \"1K\"\n[[slice]]", "", "memory = \"1K\""),
    ("[[slice]]", "burst = 7\n[[slice]]", "", "burst = 7"),
];

/// The numbers of the lines that the text `place` of a file stands on.
fn lines(text: &str, place: &str) -> Result<std::ops::RangeInclusive<usize>> {
    let start = text.find(place).with_context(|| format!("there is no `{place}`"))?;
    let first = 1 + text.get(..start).unwrap_or_default().matches('\n').count();
    Ok(first..=first + place.trim_end().matches('\n').count())
}

/// What is said of a bad file is one sentence with its name, the line and the reason.
fn must_name(said: &str, daemon: &Daemon, word: &str, place: &str) -> Result<()> {
    let file = daemon.file();
    let text = std::fs::read_to_string(&file)?;
    let start = format!("{}:", file.display());
    let rest = said.split_once(&start).with_context(|| format!("it does not name the file: {said}"))?.1;
    let (line, reason) = rest.split_once(": ").with_context(|| format!("no line and reason: {said}"))?;
    let line: usize = line.parse().with_context(|| format!("`{line}` is no line: {said}"))?;
    let expected = lines(&text, place)?;
    ensure!(expected.contains(&line), "line {line} is blamed and not {expected:?}: {said}");
    ensure!(reason.contains(word), "the reason does not say `{word}`: {said}");
    Ok(())
}

pub(crate) fn refused() -> Result<()> {
    let (daemon, mut crowd) = set(&[])?;
    let before = state(&daemon)?;
    for (old, new, word, place) in BAD {
        let what = || format!("`{new}` instead of `{old}`");
        ensure!(TOML.contains(old), "{}", what());
        daemon.write(PORTS, &TOML.replacen(old, new, 1))?;
        let file = daemon.file().display().to_string();
        for words in [&["apply", &file][..], &["apply", &file, "--json"]] {
            let output = crowd.busy(|| daemon.command(words)).with_context(what)?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(!output.status.success(), "{}: it was taken: {}", what(), String::from_utf8_lossy(&output.stdout));
            must_name(&said, &daemon, word, place).with_context(what)?;
        }
        crowd.settle()?;
        let after = state(&daemon)?;
        ensure!(after == before, "{}: something changed: {after} was {before}", what());
    }
    // One that is not there.
    std::fs::remove_file(daemon.file())?;
    let file = daemon.file().display().to_string();
    let output = daemon.command(&["apply", &file])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains(&file), "a file that is not there: {said}");
    close(daemon, crowd)
}

pub(crate) fn at_start() -> Result<()> {
    for (old, new, word, _) in BAD.iter().take(24) {
        let failed = Daemon::start(PORTS, &TOML.replacen(old, new, 1), &[]);
        let Err(error) = failed else { anyhow::bail!("it started with `{new}` instead of `{old}`") };
        let said = format!("{error:#}");
        ensure!(said.contains("mirach.toml:") && said.contains(word), "`{new}` instead of `{old}`: {said}");
    }
    Ok(())
}
