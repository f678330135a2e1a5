//! What instructions of a process are of: functions, with those that were built into them, and where these were written.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A part of a file in memory.
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    file: PathBuf,
}

/// The instructions of each file: their addresses as the file has them.
pub(crate) fn by_file(process: u32, addresses: &BTreeSet<u64>) -> Result<BTreeMap<PathBuf, BTreeSet<u64>>> {
    let text = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
    let mappings: Vec<Mapping> = text.lines().filter_map(mapping).collect();
    let mut files: BTreeMap<PathBuf, BTreeSet<u64>> = BTreeMap::new();
    for address in addresses {
        let of = mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(address));
        let of = of.with_context(|| format!("nothing is known of the instruction at {address:#x}"))?;
        // Where the file begins: shared objects count from there.
        let first = mappings.iter().find(|mapping| mapping.file == of.file && mapping.offset == 0);
        let base = first.map_or(of.start, |first| first.start);
        files.entry(of.file.clone()).or_default().insert(address - base);
    }
    Ok(files)
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let offset = words.nth(1)?;
    let file = words.nth(2)?.into();
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(Mapping { start: number(start)?, end: number(end)?, offset: number(offset)?, file })
}

/// Functions that instructions of a program are of, each as `NAME at FILE`.
pub(crate) fn functions(program: &Path, addresses: &BTreeSet<u64>) -> Result<BTreeSet<String>> {
    let mut command = Command::new("addr2line");
    command.args(["--functions", "--inlines", "--demangle", "--exe"]).arg(program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut reader = command.spawn().context("cannot start addr2line: run `cargo xtask setup`")?;
    let mut input = reader.stdin.take().context("no input")?;
    let lines: String = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
    // It answers while it reads.
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = reader.wait_with_output()?;
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(output.status.success(), "addr2line ended with {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    let pairs = lines.as_chunks::<2>().0;
    Ok(pairs.iter().map(|[name, place]| format!("{name} at {}", place.split(':').next().unwrap_or(place))).collect())
}

/// Those of `names` that a library has, and of which the first instruction is among `addresses`.
pub(crate) fn entered<'a>(library: &Path, addresses: &BTreeSet<u64>, names: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut command = Command::new("nm");
    let output = command.args(["--dynamic", "--defined-only"]).arg(library).output().context("cannot start nm")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let known: Vec<(&str, u64)> = text.lines().filter_map(symbol).collect();
    let was = |name: &&str| known.iter().any(|(other, address)| other == name && addresses.contains(address));
    Ok(names.iter().copied().filter(was).collect())
}

fn symbol(line: &str) -> Option<(&str, u64)> {
    let (address, rest) = line.split_once(' ')?;
    let (_, name) = rest.split_once(' ')?;
    Some((name.split('@').next()?, u64::from_str_radix(address, 16).ok()?))
}
