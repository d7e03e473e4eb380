//! Making a large file: walked along its manifest in bounded memory, its chunks taken from where they are.
//!
//! A chunk that is in an old file here is taken from it by several tasks at once, and hashed on the way, also when the old
//! file looks exactly as when its bytes were agreed. A look is not enough for that: a program that has the file mapped
//! into memory may write to a page that still waits for the disk without any trace in the file's times, and what was copied
//! then would be recorded as equal to the server's, by a client that never looked. Hashing costs 0.3 ns a byte, the copy
//! itself more.

use super::ClientError;
use super::download::{Fetcher, REQUEST_BYTES, REQUESTS_MAX, Wanted, blocking, blocks_lost};
use super::fresh::Fresh;
use super::known;
use super::reusable::{Reusable, Track};
use crate::folder::Folder;
use crate::folder::sketches::SketchFile;
use crate::folder::stage::{Staged, StagedFile};
use crate::manifest::{ChunkRef, Step, Walker};
use crate::model::counters::Counters;
use crate::model::{BlockHash, RelPath, limits};
use crate::work::Work;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::JoinSet;

/// Chunks of one file that are remembered, so that one which comes again is not asked for again.
const ASKED_MAX: usize = 1 << 18;

/// What was written is brought to the disk whenever it is this much more, bytes: while the rest is on its way, not all at
/// once at the end.
const SYNC_BYTES: u64 = 32 * 1024 * 1024;

/// What a task of a file leaves to be asked for.
type Absent = Result<Vec<ChunkRef>, ClientError>;

impl Fetcher {
    /// A file of many blocks.
    pub(super) async fn fetch_large(&self, wanted: Wanted) -> Result<Staged, ClientError> {
        let (fetcher, source) = (self.clone(), wanted.clone());
        let (file, reusable, sketch) = blocking(self.folder.work(), move || {
            fetcher.folder.check_room(source.content.size)?;
            let file = StagedFile::create(&fetcher.folder, source.id, &source.content)?;
            let sketch = Kept::begin(&fetcher.folder, source.content.size);
            Ok((file, Reusable::open(&fetcher.folder, &source.sources), sketch))
        })
        .await?;
        let mut large = Large {
            fetcher: self,
            path: wanted.path.clone(),
            file: Arc::new(file),
            reusable: Arc::new(reusable),
            sketch: Arc::new(sketch),
            track: Track::default(),
            like: HashMap::new(),
            tasks: JoinSet::new(),
            request: Vec::new(),
            request_bytes: 0,
            unsynced: Arc::default(),
            asked: HashMap::new(),
            repeats: Vec::new(),
            absent: Vec::new(),
        };
        let mut list = Vec::new();
        let mut walker = Walker::new(&wanted.content)?;
        loop {
            match walker.next()? {
                Step::NeedNodes(hashes) => large.feed(&mut walker, hashes).await?,
                Step::Chunks(chunks) => {
                    list.extend(chunks.iter().map(|chunk| (chunk.hash, u64::from(chunk.len))));
                    large.take(chunks).await?;
                }
                Step::Done => break,
            }
        }
        let sketch = large.sketch.clone();
        let file = large.finish().await?;
        self.fresh.add(file.handle(), &list);
        let fetcher = self.clone();
        blocking(self.folder.work(), move || {
            sketch.end(Some(&wanted.content.root.hash));
            known::remember(&fetcher.folder, &wanted.content, &list);
            Ok(file.finish(&fetcher.folder, wanted.exec, wanted.mtime_ns)?)
        })
        .await
    }
}

/// A large file under way.
struct Large<'a> {
    fetcher: &'a Fetcher,
    path: RelPath,
    file: Arc<StagedFile>,
    reusable: Arc<Reusable>,
    sketch: Arc<Kept>,
    track: Track,
    /// Chunks that are not here -> chunks that are, which may be like them.
    like: HashMap<BlockHash, BlockHash>,
    tasks: JoinSet<Absent>,
    request: Vec<ChunkRef>,
    request_bytes: u64,
    unsynced: Arc<Unsynced>,
    /// Where in this file a chunk was asked for first.
    asked: HashMap<BlockHash, u64>,
    /// Chunks that come again, and where they are the first time.
    repeats: Vec<(ChunkRef, u64)>,
    /// Chunks that were looked for here and not found.
    absent: Vec<ChunkRef>,
}

impl Large<'_> {
    fn work(&self) -> Work {
        self.fetcher.folder.work()
    }

    /// Gives the walker its nodes: from what is known here, from a push, or from the network.
    async fn feed(&mut self, walker: &mut Walker, hashes: Vec<BlockHash>) -> Result<(), ClientError> {
        let mut absent = Vec::new();
        for hash in hashes {
            match self.reusable.nodes.get(&hash).or_else(|| self.fetcher.inline.get(&hash)) {
                Some(bytes) => walker.feed(hash, bytes)?,
                None => absent.push(hash),
            }
        }
        if absent.is_empty() {
            return Ok(());
        }
        // A node has at most 256 entries of 40 bytes.
        let bytes_max = absent.len() as u64 * 16 * 1024;
        let like = |hash: &BlockHash| {
            let (level, offset) = walker.place_of(hash)?;
            Some(self.reusable.like_node(level, offset))
        };
        let bases = absent.iter().map(|hash| like(hash).unwrap_or(BlockHash::NONE)).collect();
        let reusable = self.reusable.clone();
        let held = Arc::new(move |hash: &BlockHash| reusable.bytes_of(hash));
        let blocks = self.fetcher.want(&absent, bases, bytes_max, held).await?;
        for (hash, block) in absent.iter().zip(blocks) {
            let Some(block) = block else { return Err(blocks_lost(&self.path)) };
            walker.feed(*hash, block.bytes())?;
        }
        Ok(())
    }

    /// Takes the next chunks: those that are here are copied, the others asked for.
    async fn take(&mut self, chunks: Vec<ChunkRef>) -> Result<(), ClientError> {
        if !self.reusable.is_empty() {
            let like = self.reusable.like_chunks(&mut self.track, &chunks);
            let pairs = chunks.iter().map(|chunk| chunk.hash).zip(like);
            self.like.extend(pairs.filter(|(_, like)| *like != BlockHash::NONE));
        }
        let Fetcher { inline, fresh, .. } = self.fetcher;
        if self.reusable.is_empty() && inline.is_empty() && fresh.is_empty() && !self.file.is_resumed() {
            return self.lack(chunks).await;
        }
        self.make_room().await?;
        let (fetcher, file, reusable) = (self.fetcher.clone(), self.file.clone(), self.reusable.clone());
        let (sketch, unsynced) = (self.sketch.clone(), self.unsynced.clone());
        self.tasks.spawn(blocking(self.work(), move || {
            let Fetcher { inline, fresh, counters, on_bytes, .. } = &fetcher;
            let looking = Looking { inline, fresh, counters, on_bytes: &**on_bytes, sketch: &sketch };
            let (absent, written) = take_here(&looking, &file, &reusable, chunks)?;
            unsynced.wrote(&file, written)?;
            Ok(absent)
        }));
        let absent = std::mem::take(&mut self.absent);
        self.lack(absent).await
    }

    /// Asks for chunks, in requests of a good size.
    async fn lack(&mut self, chunks: Vec<ChunkRef>) -> Result<(), ClientError> {
        for chunk in chunks {
            if let Some(first) = self.asked.get(&chunk.hash) {
                self.repeats.push((chunk, *first));
                continue;
            }
            if self.asked.len() < ASKED_MAX {
                self.asked.insert(chunk.hash, chunk.offset);
            }
            let full = self.request_bytes + u64::from(chunk.len) > REQUEST_BYTES;
            if full || self.request.len() >= limits::HASHES_PER_REQUEST_MAX {
                self.ask().await?;
            }
            self.request_bytes += u64::from(chunk.len);
            self.request.push(chunk);
        }
        Ok(())
    }

    async fn ask(&mut self) -> Result<(), ClientError> {
        if self.request.is_empty() {
            return Ok(());
        }
        let chunks = std::mem::take(&mut self.request);
        let bytes = std::mem::take(&mut self.request_bytes);
        self.make_room().await?;
        let (fetcher, file, path) = (self.fetcher.clone(), self.file.clone(), self.path.clone());
        let (work, unsynced) = (self.work(), self.unsynced.clone());
        let like = |chunk: &ChunkRef| self.like.remove(&chunk.hash).unwrap_or(BlockHash::NONE);
        let bases: Vec<BlockHash> = chunks.iter().map(like).collect();
        let (reusable, sketch) = (self.reusable.clone(), self.sketch.clone());
        self.tasks.spawn(async move {
            let hashes: Vec<BlockHash> = chunks.iter().map(|chunk| chunk.hash).collect();
            let held = Arc::new(move |hash: &BlockHash| reusable.bytes_of(hash));
            let blocks = fetcher.want(&hashes, bases, bytes, held).await?;
            blocking(work, move || {
                for (chunk, block) in chunks.iter().zip(blocks) {
                    let Some(block) = block else { return Err(blocks_lost(&path)) };
                    file.write_at(chunk.offset, block.bytes())?;
                    sketch.take(chunk.offset, block.bytes());
                    (fetcher.on_bytes)(u64::from(chunk.len));
                }
                unsynced.wrote(&file, bytes)?;
                Ok(Vec::new())
            })
            .await
        });
        Ok(())
    }

    async fn make_room(&mut self) -> Result<(), ClientError> {
        while self.tasks.len() >= REQUESTS_MAX {
            self.join_one().await?;
        }
        Ok(())
    }

    async fn join_one(&mut self) -> Result<(), ClientError> {
        if let Some(done) = self.tasks.join_next().await {
            self.absent.extend(done.map_err(|_| ClientError::Stopped)??);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<StagedFile, ClientError> {
        while !(self.tasks.is_empty() && self.absent.is_empty() && self.request.is_empty()) {
            self.join_one().await?;
            let absent = std::mem::take(&mut self.absent);
            self.lack(absent).await?;
            if self.tasks.is_empty() {
                self.ask().await?;
            }
        }
        let (work, file, fetcher) = (self.work(), self.file.clone(), self.fetcher.clone());
        let repeats = self.repeats;
        blocking(work, move || {
            let mut buffer = Vec::new();
            for (chunk, first) in repeats {
                buffer.resize(usize::try_from(chunk.len).unwrap_or(0), 0);
                file.read_at(first, &mut buffer)?;
                file.write_at(chunk.offset, &buffer)?;
                (fetcher.on_bytes)(u64::from(chunk.len));
            }
            Ok(())
        })
        .await?;
        Arc::try_unwrap(self.file).map_err(|_| ClientError::Stopped)
    }
}

/// What looking for chunks here needs of a [`Fetcher`].
struct Looking<'a> {
    inline: &'a HashMap<BlockHash, Bytes>,
    fresh: &'a Fresh,
    counters: &'a Counters,
    on_bytes: &'a dyn Fn(u64),
    sketch: &'a Kept,
}

/// Takes chunks from an interrupted download, an old file, one that was just fetched, or a push; returns those that are in
/// none, and the bytes that were written.
fn take_here(
    looking: &Looking<'_>,
    file: &StagedFile,
    reusable: &Reusable,
    chunks: Vec<ChunkRef>,
) -> Result<(Vec<ChunkRef>, u64), ClientError> {
    let there = file.check(chunks.iter().map(|chunk| (chunk.offset, chunk.len, chunk.hash)))?;
    let (mut absent, mut written, mut buffer) = (Vec::new(), 0, Vec::new());
    for (chunk, there) in chunks.into_iter().zip(there) {
        let len = u64::from(chunk.len);
        if !there {
            let here = reusable.read(&chunk, &mut buffer).is_some()
                || looking.fresh.read(&chunk, &mut buffer).is_some();
            let bytes = if here {
                looking.counters.bytes_reused.add(len);
                &*buffer
            } else if let Some(bytes) = looking.inline.get(&chunk.hash) {
                &**bytes
            } else {
                absent.push(chunk);
                continue;
            };
            file.write_at(chunk.offset, bytes)?;
            looking.sketch.take(chunk.offset, bytes);
            written += len;
        }
        (looking.on_bytes)(len);
    }
    Ok((absent, written))
}

/// Bytes of a file that were written since its last early sync.
#[derive(Debug, Default)]
struct Unsynced(AtomicU64);

impl Unsynced {
    /// More was written. One of the tasks waits for the disk now and then, the others go on.
    fn wrote(&self, file: &StagedFile, bytes: u64) -> Result<(), ClientError> {
        if self.0.fetch_add(bytes, Ordering::Relaxed) + bytes >= SYNC_BYTES {
            self.0.store(0, Ordering::Relaxed);
            file.sync_early()?;
        }
        Ok(())
    }
}

/// The sketch of the file that is made, if it can be kept.
#[derive(Debug)]
struct Kept(Arc<Folder>, Mutex<Option<Arc<SketchFile>>>);

impl Kept {
    fn begin(folder: &Arc<Folder>, size: u64) -> Self {
        Self(folder.clone(), Mutex::new(folder.begin_sketch(size).map(Arc::new)))
    }

    fn file(&self) -> MutexGuard<'_, Option<Arc<SketchFile>>> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, offset: u64, chunk: &[u8]) {
        let file = self.file().clone();
        if let Some(file) = file {
            file.take(offset, chunk);
        }
    }

    fn end(&self, root: Option<&BlockHash>) {
        if let Some(file) = self.file().take() {
            self.0.end_sketch(&file, root);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.end(None);
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
