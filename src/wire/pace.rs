//! Pace: how fast the other side takes what is sent to it, counted only while something is on its way.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Fewer bytes than this say nothing: buffers on the way take them at once.
const BYTES_MIN: u64 = 512 * 1024;
/// What is older than this many bytes counts half, and so on: a network may change.
const WINDOW_BYTES: u64 = 8 * 1024 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Requests on their way, and up to when their time is counted.
    under_way: u32,
    counted: Option<Instant>,
    busy: Duration,
    bytes: u64,
}

impl State {
    fn count(&mut self) {
        let now = Instant::now();
        if let Some(counted) = self.counted.replace(now) {
            self.busy += now.saturating_duration_since(counted);
        }
    }
}

impl Pace {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many bytes go out. They are there when what is returned is dropped.
    pub fn begin(&self, bytes: u64) -> UnderWay<'_> {
        let mut state = self.state();
        if state.under_way > 0 {
            state.count();
        } else {
            state.counted = Some(Instant::now());
        }
        state.under_way += 1;
        UnderWay { pace: self, bytes }
    }

    /// `None` as long as too little was sent to tell.
    pub fn bytes_per_second(&self) -> Option<u64> {
        let state = self.state();
        if state.bytes < BYTES_MIN {
            return None;
        }
        let micros = state.busy.as_micros().max(1);
        Some(u64::try_from(u128::from(state.bytes) * 1_000_000 / micros).unwrap_or(u64::MAX))
    }
}

/// Bytes on their way.
#[derive(Debug)]
pub struct UnderWay<'a> {
    pace: &'a Pace,
    bytes: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.pace.state();
        state.count();
        state.under_way = state.under_way.saturating_sub(1);
        state.bytes += self.bytes;
        if state.bytes > WINDOW_BYTES {
            state.bytes /= 2;
            state.busy /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn only_time_in_which_something_is_on_its_way_counts() {
        let pace = Pace::default();
        assert_eq!(pace.bytes_per_second(), None);
        for _ in 0..3 {
            // Two side by side, one second together; then nothing for a while.
            let (first, second) = (pace.begin(1_000_000), pace.begin(1_000_000));
            sleep(Duration::from_millis(500)).await;
            drop(first);
            sleep(Duration::from_millis(500)).await;
            drop(second);
            assert_eq!(pace.bytes_per_second(), Some(2_000_000));
            sleep(Duration::from_secs(9)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_that_gets_faster_is_noticed() {
        let pace = Pace::default();
        let second = Duration::from_secs(1);
        for _ in 0..20 {
            let _sent = pace.begin(1_000_000);
            sleep(second).await;
        }
        assert_eq!(pace.bytes_per_second(), Some(1_000_000));
        for _ in 0..20 {
            let _sent = pace.begin(1_000_000);
            sleep(second / 100).await;
        }
        assert!(pace.bytes_per_second().unwrap() > 10_000_000);
    }
}
