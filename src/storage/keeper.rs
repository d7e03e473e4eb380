//! The keeper: a thread that brings things to disk before anybody has to wait for them.
//!
//! - Packs: a sync every 64 MiB, so that the sync of a commit after a large upload has little left to do.
//! - Index: blocks that have become durable move from memory into the index; every few seconds, and after a lot of
//!   packs, the index is flushed with a checkpoint. A crash costs reading what came after it once more.

use super::Result;
use super::shared::Shared;
use super::sled::{Checkpoint, Index};
use super::{StorageError, packs};
use crate::model::{BlockHash, StoreId};
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Packs are synced when this much is not, bytes.
const SYNC_BYTES: u64 = 64 * 1024 * 1024;
/// And when this many blocks wait for the index.
const SYNC_BLOCKS: usize = 16 * 1024;
/// The index is flushed at the latest after this much went into packs, bytes: what a start may have to read again.
const FLUSH_BYTES: u64 = 256 * 1024 * 1024;

/// How the storage thread tells the keeper that there is something to do.
#[derive(Debug, Default)]
pub struct Signal {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Something is not in the flushed index, since then.
    dirty: Option<Instant>,
    /// Packs should be synced now.
    urgent: bool,
    stop: bool,
}

enum Next {
    Settle,
    Flush,
    Stop,
}

impl Signal {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks were appended.
    pub fn wrote(&self, unsynced_bytes: u64, waiting_blocks: usize) {
        let mut state = self.state();
        let was_clean = state.dirty.is_none();
        state.dirty.get_or_insert_with(Instant::now);
        let urgent = unsynced_bytes >= SYNC_BYTES || waiting_blocks >= SYNC_BLOCKS;
        if was_clean || (urgent && !state.urgent) {
            state.urgent |= urgent;
            self.wake.notify_one();
        }
    }

    /// A group of commits went into the index.
    pub fn committed(&self) {
        self.wrote(0, 0);
    }

    /// The keeper flushes once more and ends.
    pub fn stop(&self) {
        self.state().stop = true;
        self.wake.notify_one();
    }

    fn next(&self, flush_after: Duration) -> Next {
        let mut state = self.state();
        loop {
            if state.stop {
                return Next::Stop;
            }
            if std::mem::take(&mut state.urgent) {
                return Next::Settle;
            }
            state = match state.dirty {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(since) => {
                    let left = flush_after.saturating_sub(since.elapsed());
                    if left.is_zero() {
                        state.dirty = None;
                        return Next::Flush;
                    }
                    self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Keeper {
    pub shared: Arc<Shared>,
    pub index: Index,
    pub store: StoreId,
    pub signal: Arc<Signal>,
}

impl Keeper {
    /// Works until it is told to stop.
    pub fn run(self) {
        let flush_after = Duration::from_millis(self.shared.options.flush_ms);
        let mut settled_bytes = 0;
        loop {
            let next = self.signal.next(flush_after);
            let stop = matches!(next, Next::Stop);
            let flush = !matches!(next, Next::Settle);
            let done = settle(&self.shared, &self.index).and_then(|bytes| {
                settled_bytes += bytes;
                if flush || settled_bytes >= FLUSH_BYTES {
                    settled_bytes = 0;
                    self::flush(&self.shared, &self.index, self.store)?;
                }
                Ok(())
            });
            if let Err(error) = done {
                self.shared.fail(error);
                self.index.abandon();
                return;
            }
            if stop {
                return;
            }
        }
    }
}

/// Syncs the packs and moves blocks that are durable into the index; returns the bytes of their payloads.
pub fn settle(shared: &Shared, index: &Index) -> Result<u64> {
    let durable = shared.packs.sync(&shared.failure)?;
    let _settling = shared.settling.lock().unwrap_or_else(PoisonError::into_inner);
    let (moved, tags): (Vec<(BlockHash, _)>, HashMap<BlockHash, _>) = {
        let recent = shared.recent.read().unwrap_or_else(PoisonError::into_inner);
        let durable = |hash: &BlockHash| recent.blocks.get(hash).is_none_or(|at| at.place < durable);
        let tags = recent.tags.iter().filter(|(hash, _)| durable(hash));
        let blocks = recent.blocks.iter().filter(|(hash, _)| durable(hash));
        (
            blocks.map(|(hash, at)| (*hash, *at)).collect(),
            tags.map(|(hash, tags)| (*hash, tags.clone())).collect(),
        )
    };
    if moved.is_empty() && tags.is_empty() {
        return Ok(0);
    }
    let at: HashMap<BlockHash, _> = moved.iter().copied().collect();
    let untagged = moved.iter().filter(|(hash, _)| !tags.contains_key(hash));
    let rows = tags.iter().map(|(hash, tags)| (*hash, at.get(hash).copied(), tags.as_slice()));
    index.add_rows(untagged.map(|(hash, at)| (*hash, Some(*at), [].as_slice())).chain(rows))?;
    // First in, then out: a reader looks here first.
    let mut recent = shared.recent.write().unwrap_or_else(PoisonError::into_inner);
    for (hash, location) in &moved {
        if recent.blocks.get(hash) == Some(location) {
            recent.blocks.remove(hash);
        }
    }
    for (hash, written) in &tags {
        // A block that was brought anew meanwhile goes into the index with all of its tags again.
        if recent.tags.get(hash) == Some(written) && !recent.blocks.contains_key(hash) {
            recent.tags.remove(hash);
        }
    }
    Ok(moved.iter().map(|(_, location)| u64::from(location.payload_len)).sum())
}

/// Flushes the index with a checkpoint of now.
pub fn flush(shared: &Shared, index: &Index, store: StoreId) -> Result<()> {
    let _settling = shared.settling.lock().unwrap_or_else(PoisonError::into_inner);
    index.flush(&checkpoint(shared, store)?)
}

/// What the index holds now, or a little less. Call after `settle`, or when nothing is recent.
pub fn checkpoint(shared: &Shared, store: StoreId) -> Result<Checkpoint> {
    let packs_end = {
        let recent = shared.recent.read().unwrap_or_else(PoisonError::into_inner);
        // `noted` and not the end of the packs: the storage thread writes first and notes then.
        let first_waiting = recent.blocks.values().map(|location| location.place).min();
        first_waiting.unwrap_or(recent.noted).min(recent.noted).min(shared.packs.synced())
    };
    let heads = shared.heads.read().unwrap_or_else(PoisonError::into_inner);
    let shares =
        heads.iter().map(|(share, at)| (*share, at.head.journal, at.head.seq, at.head.chain)).collect();
    let packs =
        packs::list(&shared.path.join("packs"))?.into_keys().filter(|n| *n <= packs_end.pack).collect();
    Ok(Checkpoint { store: Some(store), packs_end, packs, shares })
}

impl Shared {
    /// Records a failure. An index that failed is built anew at the next start.
    pub fn fail(&self, error: StorageError) -> StorageError {
        if matches!(error, StorageError::Index(_)) {
            // Without the mark the next start still finds out by itself in most cases.
            let _ = super::file::open_or_create(&self.path.join(super::recover::SUSPECT));
        }
        self.failure.set(error)
    }
}
