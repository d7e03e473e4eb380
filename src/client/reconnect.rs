//! Waiting between attempts to connect: quickly at first, then twice as long each time, spread out so that a thousand
//! clients do not come back at the same moment. Pure.

use std::time::Duration;

/// First wait.
const WAIT_MS_MIN: u64 = 100;
/// Longest wait.
const WAIT_MS_MAX: u64 = 10_000;

/// How long to wait next.
#[derive(Debug)]
pub struct Backoff {
    wait_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { wait_ms: WAIT_MS_MIN }
    }
}

impl Backoff {
    /// A session was established: the next failure is a first one.
    pub const fn reset(&mut self) {
        self.wait_ms = WAIT_MS_MIN;
    }

    /// The next wait: half of it fixed, half of it by `dice` (any number).
    pub fn next(&mut self, dice: u64) -> Duration {
        let half = self.wait_ms / 2;
        let wait = half + dice % (half + 1);
        self.wait_ms = (self.wait_ms * 2).min(WAIT_MS_MAX);
        Duration::from_millis(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_start_over() {
        let mut backoff = Backoff::default();
        let longest: Vec<u64> =
            (0..10).map(|_| u64::try_from(backoff.next(u64::MAX - 1).as_millis()).unwrap()).collect();
        assert!(longest.windows(2).all(|w| w[1] + 5_000 >= w[0]));
        assert!(longest.iter().all(|ms| *ms <= WAIT_MS_MAX));
        backoff.reset();
        assert!(backoff.next(0) <= Duration::from_millis(WAIT_MS_MIN));
    }
}
