//! What the machine did meanwhile that neither device is to blame for.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::scheduling::{Thread, pin};

/// Turns of a cache line between two cores in a sample, and samples.
const TURNS: u64 = 2000;
const SAMPLES: usize = 9;
/// How long all samples may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Time that the hypervisor gave to others, since it was made.
#[derive(Clone, Copy, Debug)]
pub struct Theft {
    stolen: u64,
    all: u64,
}

impl Theft {
    /// From now on.
    #[must_use]
    pub fn from_now() -> Self {
        Self::read(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// The first line: user, nice, system, idle, iowait, irq, softirq, steal, in ticks of all cores.
    fn read(text: &str) -> Self {
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect();
        Self { stolen: ticks.get(7).copied().unwrap_or(0), all: ticks.iter().sum() }
    }

    /// Percent of the time of all cores that was stolen until now.
    #[must_use]
    pub fn percent(self) -> f64 {
        self.until(Self::from_now())
    }

    #[expect(clippy::cast_precision_loss, reason = "a percentage")]
    fn until(self, now: Self) -> f64 {
        let (stolen, all) = (now.stolen.saturating_sub(self.stolen), now.all.saturating_sub(self.all));
        stolen as f64 * 100.0 / all.max(1) as f64
    }
}

/// Nanoseconds that a cache line takes from one core to another and back, the median of some samples. A hypervisor moves its processors about: when they lie on
/// parts of the chip that do not share a cache, this grows by a factor of six, and packets take twice as long through any device.
///
/// # Errors
/// There are no such cores, or one of them does not get to run.
pub fn round_trip([near, far]: [usize; 2]) -> Result<f64> {
    let turn = AtomicU64::new(0);
    let end = Instant::now() + LIMIT;
    // Waits until it is this one's turn, and passes it on.
    let play = |core: usize, first: u64| -> Result<Vec<Duration>> {
        pin(core)?;
        Thread::current().prefer(true);
        let mut samples = Vec::with_capacity(SAMPLES);
        let mut mine = first;
        for _ in 0..SAMPLES {
            let start = Instant::now();
            for _ in 0..TURNS {
                let mut spins = 0_u32;
                while turn.load(Ordering::Acquire) != mine {
                    spins += 1;
                    ensure!(!spins.is_multiple_of(1 << 20) || Instant::now() < end, "core {core} waits for the other");
                    std::hint::spin_loop();
                }
                turn.store(mine + 1, Ordering::Release);
                mine += 2;
            }
            samples.push(start.elapsed());
        }
        Ok(samples)
    };
    let mut samples = std::thread::scope(|scope| {
        let [near, far] = [(near, 0), (far, 1)].map(|(core, first)| scope.spawn(move || play(core, first)));
        far.join().ok().context("a thread has panicked")??;
        near.join().ok().context("a thread has panicked")?
    })?;
    samples.sort();
    let median = samples.get(SAMPLES / 2).copied().unwrap_or_default();
    let turns = u32::try_from(TURNS).unwrap_or(1);
    Ok(median.as_secs_f64() * 1e9 / f64::from(turns))
}

/// How the kernel chooses the clock rate of a core: the governor's name, or that it cannot.
#[must_use]
pub fn governor(core: usize) -> String {
    let path = format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
    fs::read_to_string(path).map_or_else(|_| "none".into(), |name| name.trim().into())
}

/// Huge pages of 2 MiB that nobody uses.
#[must_use]
pub fn free_huge_pages() -> u64 {
    let text = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Whether so many huge pages are free; says on standard error what it means that they are not.
#[must_use]
pub fn has_huge_pages(wanted: u64) -> bool {
    let free = free_huge_pages();
    if free < wanted {
        eprintln!(
            "note: {free} huge pages of 2 MiB are free and {wanted} are needed, so everything runs on 4 KiB pages, which is slower for all; \
             reserve them with: echo 512 | sudo tee /proc/sys/vm/nr_hugepages"
        );
    }
    free >= wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_from_core_to_core_and_back() {
        let time = round_trip([0, 1]).expect("there are two cores");
        assert!((1.0..1e9).contains(&time), "{time}");
        assert!(round_trip([100_000, 100_001]).is_err());
    }

    #[test]
    fn stolen_time_is_the_eighth_number_of_the_first_line() {
        let before = Theft::read("cpu  100 0 100 700 0 0 0 100 0 0\ncpu0 1 2 3\n");
        let after = Theft::read("cpu  150 0 100 720 0 0 0 130 0 0\n");
        assert!((before.until(after) - 30.0).abs() < 1e-9);
        assert!(Theft::read("").until(Theft::read("")).abs() < 1e-9);
    }
}
