//! Whether one more base of a request is worth a try. Bases may be guesses (a file of like name or size), and a wrong one costs as
//! much work as a right one: after some in a row that saved little, only one in so many is tried, until one proves good.

/// Bases in a row that saved little.
const MISSES_MAX: u32 = 8;

/// See the module. One for each request: what another one guessed says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Luck {
    misses: u32,
    passed: u32,
}

impl Luck {
    /// True when the next base is tried.
    pub const fn tries(&mut self) -> bool {
        if self.misses < MISSES_MAX {
            return true;
        }
        self.passed += 1;
        self.passed.is_multiple_of(MISSES_MAX)
    }

    /// What came of the last one that was tried.
    pub const fn learn(&mut self, saved_half: bool) {
        self.misses = if saved_half { 0 } else { self.misses + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_guesses_are_tried_now_and_then_until_one_is_good() {
        let mut luck = Luck::default();
        let mut tried = |good: bool| {
            let tries = luck.tries();
            if tries {
                luck.learn(good);
            }
            usize::from(tries)
        };
        assert_eq!((0..100).map(|_| tried(false)).sum::<usize>(), 8 + 92 / 8);
        let until_good = (0..).position(|_| tried(true) == 1).unwrap();
        assert!(until_good < 8);
        assert_eq!((0..50).map(|_| tried(true)).sum::<usize>(), 50);
    }
}
