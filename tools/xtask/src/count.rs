//! Counting tests: the sum of libtest's closing lines.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Count {
    pub(crate) const ONE_PASSED: Self = Self { passed: 1, failed: 0 };
    pub(crate) const ONE_FAILED: Self = Self { passed: 0, failed: 1 };

    /// Sums the lines `test result: ok. 3 passed; 1 failed; ..` of a test run's output.
    pub(crate) fn of_libtest(output: &str) -> Self {
        let mut sum = Self::default();
        for line in output.lines().filter_map(|line| line.trim().strip_prefix("test result: ")) {
            for part in line.split([';', '.']) {
                match part.split_whitespace().collect::<Vec<_>>()[..] {
                    [number, "passed"] => sum.passed += number.parse().unwrap_or(0),
                    [number, "failed"] => sum.failed += number.parse().unwrap_or(0),
                    _ => {}
                }
            }
        }
        sum
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn sums_the_closing_lines_of_several_test_binaries() {
        let output = "\
running 2 tests
test a ... ok
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

test result: FAILED. 40 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.25s
";
        assert_eq!(Count::of_libtest(output), Count { passed: 42, failed: 3 });
    }

    #[test]
    fn counts_nothing_in_other_output() {
        assert_eq!(Count::of_libtest("error: 7 passed; 1 failed\nok. 1 passed"), Count::default());
    }
}
