//! As [`ChunkReader`](super::ChunkReader), but chunks share their buffer with whoever takes them: no copy per chunk, and
//! the buffers are used again. For large files of which most chunks will be kept for a while.

use super::reader::fill;
use super::{Chunker, Params};
use bytes::{Bytes, BytesMut};
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a buffer. One chunk keeps all of it alive.
const BUFFER_BYTES: usize = 2 * 1024 * 1024;
/// Buffers that are remembered; more are made when all of them are in use, and forgotten.
const BUFFERS_MAX: usize = 16;

/// Buffers that several readers use in turn: filled again when no chunk in them is left, because fresh memory costs more
/// than reading into it. Clones share them.
#[derive(Debug, Clone)]
pub struct Buffers {
    known: Arc<Mutex<Vec<Bytes>>>,
    bytes: usize,
}

impl Default for Buffers {
    fn default() -> Self {
        Self::of(BUFFER_BYTES)
    }
}

impl Buffers {
    /// Buffers of this size.
    pub fn of(bytes: usize) -> Self {
        Self { known: Arc::default(), bytes }
    }

    /// A buffer that nobody else looks at.
    pub(super) fn take(&self) -> BytesMut {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for index in 0..known.len() {
            match known.swap_remove(index).try_into_mut() {
                Ok(free) if free.len() == self.bytes => return free,
                Ok(_) => break,
                Err(used) => {
                    known.push(used);
                    let last = known.len() - 1;
                    known.swap(index, last);
                }
            }
        }
        BytesMut::zeroed(self.bytes)
    }

    pub(super) fn give_back(&self, buffer: Bytes) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < BUFFERS_MAX {
            known.push(buffer);
        }
    }
}

/// Reads files and hands out their chunks.
#[derive(Debug)]
pub struct SharedReader {
    params: Params,
    buffers: Buffers,
}

impl SharedReader {
    /// A reader that takes its buffers from `buffers`.
    pub fn new(params: &Params, buffers: Buffers) -> Self {
        Self { params: *params, buffers }
    }

    /// Reads to the end and calls `on_chunk` for each chunk in order. Returns the number of bytes read.
    ///
    /// # Errors
    /// The first error of `source` (interrupted reads are repeated) or of `on_chunk`; nothing is called after it.
    pub fn read<R, E, F>(&self, mut source: R, mut on_chunk: F) -> Result<u64, E>
    where
        R: Read,
        E: From<std::io::Error>,
        F: FnMut(Bytes) -> Result<(), E>,
    {
        let mut chunker = Chunker::new(&self.params);
        let mut offset = 0;
        let mut buffer = self.buffers.take();
        let mut filled = 0;
        loop {
            let last = fill(&mut source, &mut buffer, &mut filled)?;
            let whole = buffer.freeze();
            let mut rest = whole.slice(..filled);
            while let Some(len) = chunker.cut(&rest, last) {
                offset += len as u64;
                on_chunk(rest.split_to(len.min(rest.len())))?;
            }
            if last {
                drop(rest);
                self.buffers.give_back(whole);
                return Ok(offset);
            }
            // Less than one longest chunk remains; it moves to the front of the next buffer.
            filled = rest.len();
            buffer = self.buffers.take();
            if let Some(front) = buffer.get_mut(..filled) {
                front.copy_from_slice(&rest);
            }
            drop(rest);
            self.buffers.give_back(whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{V1, chunk_lengths};
    use crate::model::hash::expand;

    #[test]
    fn chunks_are_those_of_the_whole_and_keep_their_bytes_while_buffers_are_used_again() {
        let mut bytes = vec![0; 9_345_678];
        expand(&[3; 32], 0, &mut bytes);
        let buffers = Buffers::default();
        let reader = SharedReader::new(&V1, buffers.clone());
        for kept_max in [0, 40, 1000] {
            let mut kept = std::collections::VecDeque::new();
            let mut lengths = Vec::new();
            let mut at = 0;
            let read = reader.read(&bytes[..], |chunk| {
                lengths.push(chunk.len());
                kept.push_back((at, chunk.clone()));
                at += chunk.len();
                while kept.len() > kept_max {
                    let (at, old): (usize, Bytes) = kept.pop_front().unwrap();
                    assert!(old == bytes[at..at + old.len()]);
                }
                Ok::<(), std::io::Error>(())
            });
            assert_eq!(read.unwrap(), bytes.len() as u64);
            assert_eq!(lengths, chunk_lengths(&bytes, &V1));
            assert!(kept.iter().all(|(at, old)| old == &bytes[*at..*at + old.len()]));
        }
        assert!(buffers.known.lock().unwrap().len() <= 7, "as many as the file is long at most");
        let none = reader.read(std::io::empty(), |_| Ok::<(), std::io::Error>(()));
        assert_eq!(none.unwrap(), 0);
    }
}
