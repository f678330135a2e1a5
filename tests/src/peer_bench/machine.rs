//! What the machine did meanwhile that neither device is to blame for.

use std::fs;

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
    fn stolen_time_is_the_eighth_number_of_the_first_line() {
        let before = Theft::read("cpu  100 0 100 700 0 0 0 100 0 0\ncpu0 1 2 3\n");
        let after = Theft::read("cpu  150 0 100 720 0 0 0 130 0 0\n");
        assert!((before.until(after) - 30.0).abs() < 1e-9);
        assert!(Theft::read("").until(Theft::read("")).abs() < 1e-9);
    }
}
