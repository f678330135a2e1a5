//! Waiting for something, with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks `ready` again and again until it has an answer; an error naming `what` when `limit` has passed without one.
///
/// # Errors
///
/// The deadline passed, or `ready` itself failed.
pub fn until<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ready()? {
            return Ok(answer);
        }
        if started.elapsed() > limit {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::until;

    #[test]
    fn the_deadline_is_an_error_that_names_what_was_awaited() {
        let error = until::<()>("a miracle", Duration::ZERO, || Ok(None)).expect_err("it never comes");
        assert!(error.to_string().starts_with("a miracle"));
    }

    #[test]
    fn an_answer_ends_the_wait() {
        let mut calls = 0;
        let answer = until("two calls", Duration::from_secs(60), || {
            calls += 1;
            Ok((calls == 2).then_some(calls))
        });
        assert_eq!(answer.expect("it comes"), 2);
    }
}
