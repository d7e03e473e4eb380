//! A machine's clocks: one that people set, one that only goes forward. Both follow the simulated time.

use dropblock::folder::memory::Clock;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

const START_NS: i64 = 1_750_000_000_000_000_000;
/// The grain of file times on Linux without fine timestamps.
const COARSE_NS: i64 = 4_000_000;

/// See the module.
#[derive(Debug)]
pub struct SimClock {
    start: Instant,
    set: Mutex<Set>,
}

#[derive(Debug)]
struct Set {
    ahead_ns: i64,
    frozen: Option<i64>,
    coarse: bool,
    /// A fine clock never shows the same time twice.
    shown: i64,
}

impl SimClock {
    pub fn new(ahead_ns: i64, coarse: bool) -> Self {
        let set = Set { ahead_ns, frozen: None, coarse, shown: 0 };
        Self { start: Instant::now(), set: Mutex::new(set) }
    }

    pub fn jump(&self, by_ns: i64) {
        self.set.lock().unwrap().ahead_ns += by_ns;
    }

    pub fn freeze(&self) {
        let now = self.wall_ns();
        self.set.lock().unwrap().frozen = Some(now);
    }

    pub fn thaw(&self) {
        self.set.lock().unwrap().frozen = None;
    }

    pub fn label(&self) -> String {
        format!("{}", self.wall_ns() / 1_000_000_000)
    }
}

impl Clock for SimClock {
    fn wall_ns(&self) -> i64 {
        let mut set = self.set.lock().unwrap();
        if let Some(frozen) = set.frozen {
            return frozen;
        }
        let since = i64::try_from(self.start.elapsed().as_nanos()).unwrap();
        let now = START_NS + since + set.ahead_ns;
        if set.coarse {
            return now - now.rem_euclid(COARSE_NS);
        }
        let near = set.shown >= now && set.shown < now + 1_000_000;
        set.shown = if near { set.shown + 1 } else { now };
        set.shown
    }

    fn instant(&self) -> std::time::Instant {
        // Some time after the start of the machine, so that a wait can lie before it.
        (Instant::now() + Duration::from_secs(3600)).into_std()
    }
}
