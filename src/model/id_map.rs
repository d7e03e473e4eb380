//! Maps by ids and hashes, which are random bytes already: mixing them once more with a secret of the process is enough
//! to keep strangers from choosing where theirs go, and takes a quarter of the time of the usual hash.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// A map whose keys are ids or hashes.
pub type IdMap<K, V> = HashMap<K, V, IdHashing>;

/// The secret of one map.
#[derive(Debug, Clone)]
pub struct IdHashing {
    start: u64,
    factor: u64,
}

impl Default for IdHashing {
    fn default() -> Self {
        let random = RandomState::new();
        Self { start: random.hash_one(0), factor: random.hash_one(1) | 1 }
    }
}

impl BuildHasher for IdHashing {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { at: self.start, factor: self.factor }
    }
}

/// Takes in a key.
#[derive(Debug)]
pub struct IdHasher {
    at: u64,
    factor: u64,
}

impl IdHasher {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.at ^ word) * u128::from(self.factor);
        let half = |part: u128| u64::try_from(part & u128::from(u64::MAX)).unwrap_or(0);
        self.at = half(product) ^ half(product >> 64);
    }
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((word, tail)) = rest.split_first_chunk::<8>() {
            self.mix(u64::from_le_bytes(*word));
            rest = tail;
        }
        let word = rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        if !rest.is_empty() {
            self.mix(word);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_i64(&mut self, word: i64) {
        self.mix(word.cast_unsigned());
    }

    /// The number of bytes of an id, or which variant something is: of little use, and cheap.
    fn write_usize(&mut self, number: usize) {
        self.at = self.at.rotate_left(5) ^ u64::try_from(number).unwrap_or(0);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_usize(number.cast_unsigned());
    }

    fn finish(&self) -> u64 {
        // Maps use the front and the end of it.
        self.at ^ self.at.rotate_left(32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeId;
    use std::collections::HashSet;

    #[test]
    fn keys_that_are_alike_are_spread_and_every_key_is_found() {
        let mut map: IdMap<NodeId, u32> = IdMap::default();
        let ids: Vec<NodeId> = (0..20_000u128).map(|n| NodeId::from_bytes((n << 40).to_le_bytes())).collect();
        for (n, id) in (0..).zip(&ids) {
            map.insert(*id, n);
        }
        assert!((0..).zip(&ids).all(|(n, id)| map.get(id) == Some(&n)));
        let fronts: HashSet<u64> = ids.iter().map(|id| map.hasher().hash_one(id) >> 48).collect();
        let ends: HashSet<u64> = ids.iter().map(|id| map.hasher().hash_one(id) & 0xffff).collect();
        // Of 65,536 places 17,243 are hit when all are as likely.
        assert!(fronts.len() > 16_500 && ends.len() > 16_500, "{} {}", fronts.len(), ends.len());
    }

    /// Whoever knew how one map places keys could fill one place of it. In every other map, and in the next process, the
    /// same keys are spread.
    #[test]
    fn keys_crafted_to_collide_in_one_map_are_spread_in_another() {
        let (known, other) = (IdHashing::default(), IdHashing::default());
        let place = |map: &IdHashing, id: &NodeId| map.hash_one(id) & 0xff;
        let ids = (0..200_000u128).map(|n| NodeId::from_bytes((n | n << 77).to_le_bytes()));
        let crafted: Vec<NodeId> = ids.filter(|id| place(&known, id) == 7).collect();
        assert!(crafted.len() > 400, "{}", crafted.len());
        let mut places = [0u32; 256];
        for id in &crafted {
            places[usize::try_from(place(&other, id)).unwrap()] += 1;
        }
        // About three in each; by chance a dozen is already rare.
        assert!(places.iter().all(|keys| *keys < 30), "{places:?}");
        let taken = places.iter().filter(|keys| **keys > 0).count();
        assert!(taken > 200, "{taken}");
    }
}
