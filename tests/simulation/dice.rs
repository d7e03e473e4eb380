//! Chance that a seed decides, and the running hash of everything that happened.

use std::sync::{Arc, Mutex};

/// Random numbers (SplitMix64, Steele et al. 2014). The same seed rolls the same.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x5dee_ce66_d1ce_4e5b)
    }

    /// Dice that no roll of these ones influences.
    pub fn split(&mut self) -> Self {
        Self(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `sides`.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.next() % sides.max(1)
    }

    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Which of the weighted choices.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut at = self.below(weights.iter().sum());
        for (n, weight) in weights.iter().enumerate() {
            if at < *weight {
                return n;
            }
            at -= weight;
        }
        unreachable!("the sum of the weights is the bound")
    }

    pub fn bytes32(&mut self) -> [u8; 32] {
        std::array::from_fn(|_| self.next() as u8)
    }
}

/// FNV-1a. Not for enemies.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |at, byte| (at ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What happened: a hash, and lines for people when they are wanted.
#[derive(Debug, Clone, Default)]
pub struct Trace(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    hash: u64,
    lines: Vec<String>,
    aloud: bool,
}

impl Trace {
    pub fn new(aloud: bool) -> Self {
        Self(Arc::new(Mutex::new(Told { aloud, ..Told::default() })))
    }

    pub fn mix(&self, value: u64) {
        let mut told = self.0.lock().unwrap();
        told.hash = (told.hash.rotate_left(7) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// A step of the story.
    pub fn say(&self, line: &str) {
        self.mix(hash(line.as_bytes()));
        let mut told = self.0.lock().unwrap();
        if told.aloud {
            eprintln!("{line}");
        }
        told.lines.push(line.to_owned());
    }

    pub fn hash(&self) -> u64 {
        self.0.lock().unwrap().hash
    }

    /// The story so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().lines.clone()
    }
}
