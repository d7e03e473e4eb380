//! Reading files: bytes on disk -> chunks -> blocks and a manifest. Blocking, on a few threads; what comes out is taken
//! by [`upload`](super::upload).
//!
//! A file that changes while it is read is read again. Blocks of a given-up attempt were handed out already; they do no
//! harm, because nothing names them.

use crate::block::Block;
use crate::chunk::{Buffers, ChunkReader, SharedReader, V1};
use crate::folder::{Folder, FolderError, Stamp};
use crate::manifest::{Builder, ManifestError};
use crate::model::counters::Counters;
use crate::model::{BlockHash, FileContent, NodeId, RelPath};
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Blocks that may wait between the readers and the network; at most 256 KiB each.
const WAITING_BLOCKS_MAX: usize = 64;
/// Chunks of new files from this size on share their buffers with the network, bytes. Smaller ones, and the few new chunks
/// of a file that is known, would keep more memory alive than they fill.
const SHARED_BYTES_MIN: u64 = 1024 * 1024;
/// How often a file that keeps changing is read before it is left for later.
const ATTEMPTS_MAX: u32 = 4;
/// A file that changed so shortly before it was read may have been in the middle of a write whose time stamp was taken
/// already: it is read again later, although its stamp will not differ.
pub const UNRESTED: Duration = Duration::from_millis(100);
/// Between two attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(150);

/// A file to read.
#[derive(Debug, Clone)]
pub struct Job {
    /// The node.
    pub id: NodeId,
    /// Where its file is.
    pub path: RelPath,
    /// Its bytes as last agreed: the server holds their blocks, so they are not handed out.
    pub base: Option<FileContent>,
}

/// What came of a [`Job`].
#[derive(Debug)]
pub enum Outcome {
    /// Read whole, and the file did not change meanwhile.
    Read {
        /// The bytes.
        content: FileContent,
        /// How the file looked.
        stamp: Stamp,
        /// It had changed within [`UNRESTED`] before, so it must be looked at again.
        unrested: bool,
    },
    /// No regular file is there any more.
    Gone,
    /// It changed each time it was read.
    Changing,
    /// It cannot be read.
    Unreadable(FolderError),
}

/// What readers hand out: the blocks of a file first, then its outcome.
#[derive(Debug)]
pub enum Event {
    /// A chunk or a manifest node that the server may lack.
    Block(Block),
    /// One job is done.
    Done(Job, Outcome),
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Nobody takes the blocks any more.
    #[error("stopped")]
    Stopped,
}

/// Starts reading on `threads` threads. Outcomes come in any order; the channel closes after the last.
pub fn start(
    folder: &Arc<Folder>,
    jobs: Vec<Job>,
    threads: usize,
    counters: &Arc<Counters>,
) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(WAITING_BLOCKS_MAX);
    let jobs = Arc::new((jobs, AtomicUsize::new(0)));
    let buffers = Buffers::default();
    for _ in 0..threads.clamp(1, jobs.0.len().max(1)) {
        let (folder, counters, jobs, sender) =
            (folder.clone(), counters.clone(), jobs.clone(), sender.clone());
        let shared = SharedReader::new(&V1, buffers.clone());
        tokio::task::spawn_blocking(move || {
            let mut reader = FileReader { folder, counters, sender, chunks: ChunkReader::new(&V1), shared };
            let (list, next) = &*jobs;
            while let Some(job) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
                let outcome = reader.read(job);
                if reader.sender.blocking_send(Event::Done(job.clone(), outcome)).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

struct FileReader {
    folder: Arc<Folder>,
    counters: Arc<Counters>,
    sender: mpsc::Sender<Event>,
    chunks: ChunkReader,
    shared: SharedReader,
}

impl FileReader {
    fn read(&mut self, job: &Job) -> Outcome {
        let known = job
            .base
            .as_ref()
            .and_then(|base| super::known::blocks_of(&self.folder, base))
            .unwrap_or_default();
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                std::thread::sleep(ATTEMPT_PAUSE);
            }
            match self.attempt(job, &known) {
                Ok(Some(outcome)) => return outcome,
                Ok(None) => {}
                Err(ReadError::Folder(error)) => return Outcome::Unreadable(error),
                Err(ReadError::Io(error)) => {
                    return Outcome::Unreadable(self.folder.read_error(&job.path, error));
                }
                Err(ReadError::Manifest(_) | ReadError::Stopped) => return Outcome::Changing,
            }
        }
        Outcome::Changing
    }

    /// Reads once. `None` when the file changed meanwhile.
    fn attempt(&mut self, job: &Job, known: &HashSet<BlockHash>) -> Result<Option<Outcome>, ReadError> {
        let Some((file, before)) = self.folder.open_file(&job.path)? else { return Ok(Some(Outcome::Gone)) };
        let unrested = is_unrested(&before);
        let mut builder = Builder::new(V1.id());
        let mut list = Vec::new();
        let sender = &self.sender;
        let hand_out =
            |block: Block| sender.blocking_send(Event::Block(block)).map_err(|_| ReadError::Stopped);
        let mut take = |hash: BlockHash, len: usize, block: Option<Block>| {
            block.map_or(Ok(()), hand_out)?;
            list.push((hash, len as u64));
            for node in builder.push(hash, len as u64)? {
                if !known.contains(&node.hash()) {
                    hand_out(node)?;
                }
            }
            Ok::<(), ReadError>(())
        };
        let read = if known.is_empty() && before.size >= SHARED_BYTES_MIN {
            self.shared.read(&file, |chunk| {
                let block = Block::new(chunk);
                take(block.hash(), block.bytes().len(), Some(block))
            })?
        } else {
            self.chunks.read(&file, |_, chunk| {
                // With a base most chunks are known: hash first, copy only what is new.
                let hash = if known.is_empty() { None } else { Some(BlockHash::of(chunk)) };
                if let Some(hash) = hash.filter(|hash| known.contains(hash)) {
                    return take(hash, chunk.len(), None);
                }
                let block = Block::new(Bytes::copy_from_slice(chunk));
                take(block.hash(), chunk.len(), Some(block))
            })?
        };
        self.counters.files_hashed.add(1);
        self.counters.bytes_hashed.add(read);
        let (content, nodes) = builder.finish()?;
        let after = self.folder.stamp_of(&file)?;
        if after != before || read != after.size {
            return Ok(None);
        }
        for node in nodes {
            if !known.contains(&node.hash()) {
                hand_out(node)?;
            }
        }
        super::known::remember(&self.folder, &content, &list);
        Ok(Some(Outcome::Read { content, stamp: after, unrested }))
    }
}

/// True when a file changed an instant ago, by the clock that stamps files. A clock that was set back is not waited for.
fn is_unrested(stamp: &Stamp) -> bool {
    let changed = Duration::from_nanos(u64::try_from(stamp.ctime_ns).unwrap_or(0));
    match SystemTime::now().duration_since(UNIX_EPOCH + changed) {
        Ok(age) => age < UNRESTED,
        Err(ahead) => ahead.duration() < UNRESTED,
    }
}
