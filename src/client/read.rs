//! Reading files: bytes on disk -> chunks -> blocks and a manifest. Blocking, on a few threads; what comes out is taken
//! by [`upload`](super::upload).
//!
//! A file that changes while it is read is read again. Blocks of a given-up attempt were handed out already; they do no
//! harm, because nothing names them.

use super::basis::Basis;
use super::large::LARGE_BYTES_MIN;
use super::sketching::Sketching;
use crate::block::{Block, SealedBlock};
use crate::chunk::{Buffers, ChunkReader, ParallelReader, SharedReader, V1};
use crate::folder::{Folder, FolderError, Stamp};
use crate::manifest::{Builder, ManifestError};
use crate::model::counters::Counters;
use crate::model::{BlockHash, FileContent, NodeId, RelPath};
use crate::work::Work;
use bytes::Bytes;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Blocks that may wait between the readers and the network; at most 256 KiB each.
const WAITING_BLOCKS_MAX: usize = 64;
/// Chunks of new files from this size on share their buffers with the network, bytes. Smaller ones, and the few new chunks
/// of a file that is known, would keep more memory alive than they fill.
const SHARED_BYTES_MIN: u64 = 1024 * 1024;
/// Threads for one file at most: they read faster than disks do, and hold 8 MiB each.
const FILE_THREADS_MAX: usize = 4;
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
    /// Contents that the server holds, its own as last agreed first: their blocks are not handed out, and new ones are
    /// said as what changed.
    pub bases: Vec<FileContent>,
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
        /// It had changed within [`UNRESTED`] before, so it must be looked at again after this long; else zero.
        rests_in: Duration,
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
    /// A chunk or a manifest node that the server may lack; and the same against blocks that it holds.
    Block(Block, Option<SealedBlock>),
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
    deltas: bool,
    counters: &Arc<Counters>,
) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(WAITING_BLOCKS_MAX);
    if folder.work() == Work::Inline {
        let outlet = Outlet::Kept(RefCell::default());
        let reader = FileReader::new(folder, counters, outlet, Buffers::default(), deltas);
        tokio::spawn(read_inline(reader, jobs, sender));
        return receiver;
    }
    let jobs = Arc::new((jobs, AtomicUsize::new(0)));
    let buffers = Buffers::default();
    for _ in 0..threads.clamp(1, jobs.0.len().max(1)) {
        let (folder, counters, jobs, sender, buffers) =
            (folder.clone(), counters.clone(), jobs.clone(), sender.clone(), buffers.clone());
        tokio::task::spawn_blocking(move || {
            let mut reader = FileReader::new(&folder, &counters, Outlet::Channel(sender), buffers, deltas);
            let (list, next) = &*jobs;
            while let Some(job) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
                let outcome = reader.read(job);
                if reader.outlet.send(Event::Done(job.clone(), outcome)).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

/// Where a reader hands out: to the network's side of the channel, or kept until the reader lets go of its only thread.
enum Outlet {
    Channel(mpsc::Sender<Event>),
    Kept(RefCell<Vec<Event>>),
}

impl Outlet {
    fn send(&self, event: Event) -> Result<(), ReadError> {
        match self {
            Self::Channel(sender) => sender.blocking_send(event).map_err(|_| ReadError::Stopped),
            Self::Kept(events) => {
                events.borrow_mut().push(event);
                Ok(())
            }
        }
    }

    fn take(&mut self) -> Vec<Event> {
        match self {
            Self::Channel(_) => Vec::new(),
            Self::Kept(events) => std::mem::take(events.get_mut()),
        }
    }
}

/// What the threads do, as one task: reads and pauses in turn.
async fn read_inline(mut reader: FileReader, jobs: Vec<Job>, sender: mpsc::Sender<Event>) {
    for job in jobs {
        let mut basis = reader.basis(&job);
        let mut outcome = Outcome::Changing;
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                tokio::time::sleep(ATTEMPT_PAUSE).await;
            }
            let read = reader.attempt_outcome(&job, &mut basis, attempt == 0);
            for event in reader.outlet.take() {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
            if let Some(read) = read {
                outcome = read;
                break;
            }
        }
        if sender.send(Event::Done(job, outcome)).await.is_err() {
            return;
        }
    }
}

struct FileReader {
    folder: Arc<Folder>,
    counters: Arc<Counters>,
    outlet: Outlet,
    chunks: ChunkReader,
    shared: SharedReader,
    /// The server opens deltas.
    deltas: bool,
}

impl FileReader {
    fn new(
        folder: &Arc<Folder>,
        counters: &Arc<Counters>,
        outlet: Outlet,
        buffers: Buffers,
        deltas: bool,
    ) -> Self {
        let (folder, counters) = (folder.clone(), counters.clone());
        let shared = SharedReader::new(&V1, buffers);
        Self { folder, counters, outlet, chunks: ChunkReader::new(&V1), shared, deltas }
    }

    fn basis(&self, job: &Job) -> Basis {
        Basis::open(&self.folder, &job.bases)
    }

    fn read(&mut self, job: &Job) -> Outcome {
        let mut basis = self.basis(job);
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                std::thread::sleep(ATTEMPT_PAUSE);
            }
            if let Some(outcome) = self.attempt_outcome(job, &mut basis, attempt == 0) {
                return outcome;
            }
        }
        Outcome::Changing
    }

    /// Reads once. `None` when the file changed meanwhile, or should rest `first`.
    fn attempt_outcome(&mut self, job: &Job, basis: &mut Basis, first: bool) -> Option<Outcome> {
        basis.rewind();
        match self.attempt(job, basis, first) {
            Ok(outcome) => outcome,
            Err(ReadError::Folder(error)) => Some(Outcome::Unreadable(error)),
            Err(ReadError::Io(error)) => Some(Outcome::Unreadable(self.folder.read_error(&job.path, error))),
            Err(ReadError::Manifest(_) | ReadError::Stopped) => Some(Outcome::Changing),
        }
    }

    fn attempt(&mut self, job: &Job, basis: &mut Basis, first: bool) -> Result<Option<Outcome>, ReadError> {
        let Some((file, before)) = self.folder.open_file(&job.path)? else { return Ok(Some(Outcome::Gone)) };
        let rests_in = rests_in(&before, self.folder.disk().now_ns());
        if !rests_in.is_zero() && first && before.size >= LARGE_BYTES_MIN {
            // To wait costs less than to read all of it once more.
            return Ok(None);
        }
        let mut builder = Builder::new(V1.id());
        let mut list = Vec::new();
        let (outlet, deltas, is_new) = (&self.outlet, self.deltas, basis.is_empty());
        let hand_out_node = |node: Block, basis: &Basis| {
            if basis.knows_node(&node.hash()) {
                return Ok(());
            }
            let delta = if deltas { basis.patch_node(&node) } else { None };
            outlet.send(Event::Block(node, delta))
        };
        let say = |knows_next, basis: &mut Basis| {
            let mut said = basis.say(knows_next).into_iter();
            said.try_for_each(|(block, delta)| outlet.send(Event::Block(block, delta)))
        };
        let mut sketching = Sketching::new(&self.folder, before.size);
        let mut take =
            |offset: u64, hash: BlockHash, chunk: &[u8], block: Option<Block>, basis: &mut Basis| {
                sketching.push(offset, chunk);
                match block {
                    Some(block) if deltas && !is_new => {
                        basis.wait(offset, block);
                        if basis.is_full() {
                            say(false, basis)?;
                        }
                    }
                    Some(block) => outlet.send(Event::Block(block, None))?,
                    None => say(true, basis)?,
                }
                list.push((hash, chunk.len() as u64));
                for node in builder.push(hash, chunk.len() as u64)? {
                    // Blocks first, then the nodes that name them.
                    say(false, basis)?;
                    hand_out_node(node, basis)?;
                }
                Ok::<(), ReadError>(())
            };
        let threads = threads_for(&self.folder, before.size, is_new);
        let read = if threads > 1 {
            let read_at = |buffer: &mut [u8], offset: u64| file.read_at(buffer, offset);
            ParallelReader::new(&V1, threads).read(read_at, Block::new, |offset, block| {
                let (hash, chunk) = (block.hash(), block.bytes().clone());
                if is_new {
                    return take(offset, hash, &chunk, Some(block), basis);
                }
                let is_known = basis.knows_chunk(offset, &hash);
                // A copy: what is kept must not keep all that was read with it.
                let block = (!is_known).then(|| Block::new(Bytes::copy_from_slice(&chunk)));
                take(offset, hash, &chunk, block, basis)
            })?
        } else if is_new && before.size >= SHARED_BYTES_MIN {
            let mut offset = 0;
            self.shared.read(&file, |chunk| {
                let block = Block::new(chunk.clone());
                let at = offset;
                offset += chunk.len() as u64;
                take(at, block.hash(), &chunk, Some(block), basis)
            })?
        } else {
            self.chunks.read(&file, |offset, chunk| {
                // With a base most chunks are known: hash first, copy only what is new.
                let hash = if is_new { None } else { Some(BlockHash::of(chunk)) };
                if let Some(hash) = hash.filter(|hash| basis.knows_chunk(offset, hash)) {
                    return take(offset, hash, chunk, None, basis);
                }
                let block = Block::new(Bytes::copy_from_slice(chunk));
                take(offset, block.hash(), chunk, Some(block), basis)
            })?
        };
        say(false, basis)?;
        self.counters.files_hashed.add(1);
        self.counters.bytes_hashed.add(read);
        let (content, nodes) = builder.finish()?;
        let after = self.folder.stamp_of(&file)?;
        if after != before || read != after.size {
            return Ok(None);
        }
        for node in nodes {
            hand_out_node(node, basis)?;
        }
        sketching.finish(&content);
        super::known::remember(&self.folder, &content, &list);
        Ok(Some(Outcome::Read { content, stamp: after, rests_in }))
    }
}

/// Threads that cut and hash one file. Of a new file most bytes are sent too, which takes as many again.
fn threads_for(folder: &Folder, file_bytes: u64, is_new: bool) -> usize {
    if folder.work() == Work::Inline || file_bytes < LARGE_BYTES_MIN {
        return 1;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (if is_new { cores / 2 } else { cores }).min(FILE_THREADS_MAX)
}

/// How long until the last change of a file is [`UNRESTED`] ago, by the clock that stamps files. A clock that was set back is not
/// waited for.
fn rests_in(stamp: &Stamp, now_ns: i64) -> Duration {
    UNRESTED.saturating_sub(Duration::from_nanos(now_ns.abs_diff(stamp.ctime_ns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_waited_for_no_longer_than_until_it_has_rested() {
        let changed = Stamp { ctime_ns: 1_000_000_000, ..Stamp::NONE };
        let rests_after = |ms: i64| rests_in(&changed, changed.ctime_ns + ms * 1_000_000);
        assert_eq!(rests_after(0), UNRESTED);
        assert_eq!(rests_after(70), UNRESTED - Duration::from_millis(70));
        assert_eq!((rests_after(100), rests_after(5_000)), (Duration::ZERO, Duration::ZERO));
        assert_eq!(rests_after(-5_000), Duration::ZERO, "the clock was set back");
    }
}
