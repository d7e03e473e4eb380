//! Waiting between attempts to connect: quickly at first, then twice as long each time, spread out so that a thousand
//! clients do not come back at the same moment. A server that restarts is met within two seconds; one that stays away for
//! minutes is asked less often. Pure.

use std::time::Duration;

/// First wait.
const WAIT_MS_MIN: u64 = 100;
/// Longest wait while the outage is short.
const WAIT_MS_MAX: u64 = 2_000;
/// An outage is long when the waits of it come to this.
const LONG_MS: u64 = 5 * 60_000;
/// Longest wait from then on.
const WAIT_LONG_MS_MAX: u64 = 10_000;

/// How long to wait next.
#[derive(Debug)]
pub struct Backoff {
    wait_ms: u64,
    /// All waits since the last session.
    waited_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { wait_ms: WAIT_MS_MIN, waited_ms: 0 }
    }
}

impl Backoff {
    /// A session was established: the next failure is a first one.
    pub const fn reset(&mut self) {
        *self = Self { wait_ms: WAIT_MS_MIN, waited_ms: 0 };
    }

    /// The next wait: half of it fixed, half of it by `dice` (any number).
    pub fn next(&mut self, dice: u64) -> Duration {
        let half = self.wait_ms / 2;
        let wait = half + dice % (half + 1);
        self.waited_ms = self.waited_ms.saturating_add(wait);
        let wait_ms_max = if self.waited_ms < LONG_MS { WAIT_MS_MAX } else { WAIT_LONG_MS_MAX };
        self.wait_ms = (self.wait_ms * 2).min(wait_ms_max);
        Duration::from_millis(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(wait: Duration) -> u64 {
        u64::try_from(wait.as_millis()).unwrap()
    }

    #[test]
    fn waits_grow_to_a_bound_and_start_over() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..10).map(|_| millis(backoff.next(u64::MAX - 1))).collect();
        assert!(waits.windows(2).all(|w| w[1] + WAIT_MS_MAX / 2 >= w[0]), "{waits:?}");
        assert!(waits.iter().all(|ms| *ms <= WAIT_MS_MAX), "{waits:?}");
        backoff.reset();
        assert!(millis(backoff.next(0)) <= WAIT_MS_MIN);
    }

    #[test]
    fn a_server_that_was_away_for_seconds_is_met_within_two_and_a_long_outage_is_spared() {
        let mut backoff = Backoff::default();
        let (mut away_ms, mut longest) = (0, [0; 2]);
        for dice in 0..1000 {
            let wait = millis(backoff.next(dice * 7919));
            let long = usize::from(away_ms >= LONG_MS);
            longest[long] = wait.max(longest[long]);
            away_ms += wait;
        }
        assert!((WAIT_MS_MAX / 2..=WAIT_MS_MAX).contains(&longest[0]), "{longest:?}");
        assert!((WAIT_LONG_MS_MAX / 2..=WAIT_LONG_MS_MAX).contains(&longest[1]), "{longest:?}");
    }

    #[test]
    fn clients_that_lost_a_server_together_come_back_spread_out() {
        let mut first: Vec<u64> = (0..100)
            .map(|client: u64| {
                let mut backoff = Backoff::default();
                (0..8)
                    .map(|n| millis(backoff.next(client.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(n))))
                    .sum()
            })
            .collect();
        first.sort_unstable();
        assert!(first[99] - first[0] > 1_000, "{first:?}");
    }
}
