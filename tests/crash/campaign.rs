//! A campaign: one check at many points, each named by a seed; a fixed number of them, or as many as some seconds allow.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// One point of a campaign.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Names it: the same seed does the same.
    pub seed: u64,
    state: u64,
}

impl Point {
    fn new(seed: u64) -> Self {
        Self { seed, state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D }
    }

    /// A number from this point's own chance (splitmix64), below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end.max(1)
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// A time below `ms`, down to the microsecond.
    pub fn wait(&mut self, ms: u64) -> Duration {
        Duration::from_micros(self.below(ms * 1000))
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{variable}={value}?")))
}

/// True in the long run, where sizes may be what the promises say.
pub fn is_long() -> bool {
    number("DROPBLOCK_CRASH_SECONDS").is_some()
}

/// Runs `check` at `gate` points. The long run goes on after a point that fails, and counts; a campaign's own world is made
/// anew then, so `check` has to keep it in an `Option` that it takes at the start and gives back at the end.
///
/// The last line is for programs: `table: name | runs | violations | worst seed`.
pub fn campaign(name: &str, gate: u64, mut check: impl FnMut(Point)) {
    let seconds = number("DROPBLOCK_CRASH_SECONDS");
    let first = number("DROPBLOCK_CRASH_SEED").unwrap_or(1);
    let points = number("DROPBLOCK_CRASH_POINTS").unwrap_or(if seconds.is_some() { u64::MAX } else { gate });
    let (start, end) = (Instant::now(), Duration::from_secs(seconds.unwrap_or(u64::MAX / 4)));
    let (mut runs, mut violations, mut worst) = (0, 0, None);
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    while runs < points && (runs == 0 || start.elapsed() < end) {
        let seed = first + runs;
        runs += 1;
        if catch_unwind(AssertUnwindSafe(|| check(Point::new(seed)))).is_err() {
            violations += 1;
            worst.get_or_insert(seed);
            eprintln!(
                "again: DROPBLOCK_CRASH_SEED={seed} DROPBLOCK_CRASH_POINTS=1 cargo test --test crash {test}"
            );
            if seconds.is_none() {
                break;
            }
        }
    }
    let took = start.elapsed().as_secs_f32();
    let worst = worst.map_or_else(|| "-".to_owned(), |seed| seed.to_string());
    eprintln!("{name}: {runs} points in {took:.1} s");
    eprintln!("table: {name} | {runs} | {violations} | {worst}");
    assert_eq!(violations, 0, "{name}");
}
