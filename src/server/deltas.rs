//! Blocks as they came or went against a base, kept for a while: what one client sends as a delta goes on to the others as
//! the same bytes, and what was encoded for one is not encoded again for the next.
//!
//! A cache: bounded in bytes, the oldest leaves first, and nothing depends on what is in it. Kept per share, so that a delta
//! never names a base of another share. Every receiver checks what comes out.

use crate::block::SealedBlock;
use crate::model::BlockHash;
use crate::storage::ShareId;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Payloads kept, bytes.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// What an entry costs besides its payload, about.
const ENTRY_BYTES: usize = 200;

/// The cache of one server.
#[derive(Debug, Default)]
pub struct Deltas(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    by_hash: HashMap<(ShareId, BlockHash), SealedBlock>,
    order: VecDeque<(ShareId, BlockHash)>,
    bytes: usize,
}

impl Deltas {
    /// Keeps a block that opens with its bases; the first form of a block stays.
    pub fn keep(&self, share: ShareId, hash: BlockHash, sealed: &SealedBlock) {
        let mut state = self.lock();
        let key = (share, hash);
        if state.by_hash.contains_key(&key) {
            return;
        }
        // A copy: the payload is a slice of a whole frame.
        let payload = Bytes::copy_from_slice(&sealed.payload);
        state.bytes += payload.len() + ENTRY_BYTES;
        state.by_hash.insert(key, SealedBlock { payload, ..sealed.clone() });
        state.order.push_back(key);
        while state.bytes > BYTES_MAX
            && let Some(oldest) = state.order.pop_front()
        {
            let gone = state.by_hash.remove(&oldest).map_or(0, |gone| gone.payload.len() + ENTRY_BYTES);
            state.bytes = state.bytes.saturating_sub(gone);
        }
    }

    /// A block as a delta.
    pub fn get(&self, share: ShareId, hash: BlockHash) -> Option<SealedBlock> {
        self.lock().by_hash.get(&(share, hash)).cloned()
    }

    /// Held for a map operation, never across an await. A panic while holding it leaves a cache that is still true.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Codec;

    #[test]
    fn the_oldest_leaves_first_and_shares_do_not_mix() {
        let deltas = Deltas::default();
        let (one, other) = (ShareId::from_bytes([1; 16]), ShareId::from_bytes([2; 16]));
        let sealed = |len: usize| SealedBlock {
            codec: Codec::Patch,
            plain_len: 262_144,
            base: None,
            payload: Bytes::from(vec![0; len]),
        };
        let hash = |i: u32| BlockHash::of(&i.to_le_bytes());
        deltas.keep(one, hash(0), &sealed(10));
        deltas.keep(one, hash(0), &sealed(11));
        assert_eq!(deltas.get(one, hash(0)).unwrap().payload.len(), 10);
        assert!(deltas.get(other, hash(0)).is_none());
        for i in 1..400 {
            deltas.keep(one, hash(i), &sealed(100_000));
        }
        assert!(deltas.get(one, hash(0)).is_none() && deltas.get(one, hash(399)).is_some());
        assert!(deltas.lock().bytes <= BYTES_MAX);
    }
}
