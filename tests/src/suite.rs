//! A test harness for suites whose checks share a guest.
//!
//! libtest gives each test a thread of its own and drops no statics, so that a guest for many tests would never be torn
//! down. Here the checks run in order on the main thread, and the guest is a value of that thread. What is printed is
//! libtest's: a line for each check, and its closing line.
//!
//! Arguments: parts of names choose the checks; `--list` prints the names.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};

/// The checks of one test binary.
pub struct Suite {
    filters: Vec<String>,
    list: bool,
    passed: u32,
    left_out: u32,
    failures: Vec<(String, String)>,
}

impl Suite {
    /// A suite that runs what the command line says.
    #[must_use]
    pub fn from_arguments() -> Self {
        Self::from(std::env::args().skip(1))
    }

    /// A suite that runs what these arguments say.
    #[must_use]
    pub fn from(arguments: impl Iterator<Item = String>) -> Self {
        let arguments: Vec<String> = arguments.collect();
        Self::new(
            arguments.iter().filter(|argument| !argument.starts_with('-')).cloned().collect(),
            arguments.iter().any(|argument| argument == "--list"),
        )
    }

    fn new(filters: Vec<String>, list: bool) -> Self {
        Self { filters, list, passed: 0, left_out: 0, failures: Vec::new() }
    }

    /// Runs a check, unless the command line leaves it out. A panic is a failure of that check alone.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        if !self.filters.is_empty() && !self.filters.iter().any(|filter| name.contains(filter.as_str())) {
            self.left_out += 1;
            return;
        }
        if self.list {
            println!("{name}: test");
            return;
        }
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| Err(anyhow!("it panicked")));
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                println!("test {name} ... ok ({seconds:.1} s)");
                self.passed += 1;
            }
            Err(error) => {
                println!("test {name} ... FAILED ({seconds:.1} s)");
                self.failures.push((name.to_owned(), format!("{error:#}")));
            }
        }
    }

    /// Runs another suite, such as one in a guest, and counts its checks as our own. `run` returns what it printed, which
    /// has a line `test NAME ... ok` or `test NAME ... FAILED` for each of them, and libtest's closing line.
    pub fn adopt(&mut self, name: &str, run: impl FnOnce() -> Result<String>) {
        let mut printed = String::new();
        let before = (self.passed, self.failures.len());
        self.check(name, || {
            printed = run()?;
            if !printed.lines().any(|line| line.starts_with("test result: ")) {
                bail!("it did not come to its end: {printed}");
            }
            Ok(())
        });
        if (self.passed, self.failures.len()) != (before.0 + 1, before.1) {
            return;
        }
        for line in printed.lines() {
            let Some((other, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) else {
                continue;
            };
            println!("test {name}::{other} ... {result}");
            if result.starts_with("ok") {
                self.passed += 1;
            } else {
                let reason = reason(&printed, other).unwrap_or("it gave no reason").to_owned();
                self.failures.push((format!("{name}::{other}"), reason));
            }
        }
    }

    /// Prints the failures again and the closing line.
    #[must_use]
    pub fn finish(self) -> ExitCode {
        if self.list {
            return ExitCode::SUCCESS;
        }
        for (name, error) in &self.failures {
            println!("\n---- {name} ----\n{error}");
        }
        let verdict = if self.failures.is_empty() { "ok" } else { "FAILED" };
        println!(
            "\ntest result: {verdict}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out",
            self.passed,
            self.failures.len(),
            self.left_out
        );
        if self.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// What a suite printed at its end about a check that failed: see [`Suite::finish`].
fn reason<'a>(printed: &'a str, check: &str) -> Option<&'a str> {
    let (_, rest) = printed.split_once(&format!("\n---- {check} ----\n"))?;
    let end = ["\n---- ", "\n\ntest result: "].into_iter().filter_map(|next| rest.find(next)).min();
    rest.get(..end.unwrap_or(rest.len())).map(str::trim)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::Suite;

    #[test]
    fn failures_and_panics_are_counted_and_the_next_check_runs() {
        let mut suite = Suite::new(Vec::new(), false);
        suite.check("good", || Ok(()));
        suite.check("bad", || bail!("no"));
        suite.check("worse", || panic!("on purpose"));
        suite.check("good again", || Ok(()));
        assert_eq!((suite.passed, suite.failures.len()), (2, 2));
    }

    #[test]
    fn checks_made_elsewhere_count_here_and_keep_their_reasons() {
        let mut suite = Suite::new(Vec::new(), false);
        let printed = "test a ... ok\ntest b ... FAILED (0.1 s)\ntest c ... FAILED\n\n---- b ----\nwhy\nnot\n\n---- c ----\nno\n\n\
                       test result: FAILED. 1 passed";
        suite.adopt("guest", || Ok(printed.to_owned()));
        assert_eq!(suite.passed, 2, "the run itself and one of its checks");
        let failures = [("guest::b", "why\nnot"), ("guest::c", "no")];
        assert_eq!(suite.failures, failures.map(|(name, reason)| (name.to_owned(), reason.to_owned())));
        suite.adopt("dead", || Ok("test a ... ok".to_owned()));
        assert_eq!((suite.passed, suite.failures.len()), (2, 3), "it has no closing line");
    }

    #[test]
    fn a_filter_leaves_out_what_it_does_not_name() {
        let mut suite = Suite::new(vec!["one".to_owned()], false);
        suite.check("part::one", || Ok(()));
        suite.check("part::two", || panic!("it was left out"));
        assert_eq!((suite.passed, suite.left_out, suite.failures.len()), (1, 1, 0));
    }
}
