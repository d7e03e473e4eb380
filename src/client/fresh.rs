//! Chunks of the large files that a plan has fetched so far. A later file of the plan that has some of them too takes them from
//! there: they come over the network once.

use crate::folder::fs::File;
use crate::manifest::ChunkRef;
use crate::model::BlockHash;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files kept open.
const FILES_MAX: usize = 64;
/// Chunks known; with more it begins anew.
const CHUNKS_MAX: usize = 1 << 18;

/// See the module.
#[derive(Debug, Default)]
pub struct Fresh(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    files: VecDeque<Arc<File>>,
    /// Files that were closed again: the number of the first one that is open.
    closed: usize,
    /// Hash -> number of a file, which may be closed, and offset.
    chunks: HashMap<BlockHash, (usize, u64)>,
}

impl Fresh {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when nothing is known yet.
    pub fn is_empty(&self) -> bool {
        self.state().files.is_empty()
    }

    /// A file is whole: hash and length of its chunks, in order.
    pub fn add(&self, file: Arc<File>, chunks: &[(BlockHash, u64)]) {
        let mut state = self.state();
        if state.chunks.len() + chunks.len() > CHUNKS_MAX {
            *state = State::default();
        }
        state.files.push_back(file);
        if state.files.len() > FILES_MAX {
            state.files.pop_front();
            state.closed += 1;
        }
        let number = state.closed + state.files.len() - 1;
        let mut offset = 0;
        for (hash, len) in chunks.iter().take(CHUNKS_MAX) {
            state.chunks.insert(*hash, (number, offset));
            offset += len;
        }
    }

    /// The bytes of a chunk, if a file still holds them: it may be in its place by now, where anybody can write to it.
    pub fn read<'a>(&self, chunk: &ChunkRef, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let (file, offset) = {
            let state = self.state();
            let (number, offset) = *state.chunks.get(&chunk.hash)?;
            (state.files.get(number.checked_sub(state.closed)?)?.clone(), offset)
        };
        buffer.resize(usize::try_from(chunk.len).ok()?, 0);
        file.read_exact_at(buffer, offset).ok()?;
        (BlockHash::of(buffer) == chunk.hash).then_some(&**buffer)
    }
}
