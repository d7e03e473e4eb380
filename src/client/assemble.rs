//! Making a large file: walked along its manifest in bounded memory, its chunks taken from where they are.
//!
//! A chunk that is in an old file here is taken from it by several tasks at once, and hashed on the way, also when the old
//! file looks exactly as when its bytes were agreed. A look is not enough for that: a program that has the file mapped
//! into memory may write to a page that still waits for the disk without any trace in the file's times, and what was copied
//! then would be recorded as equal to the server's, by a client that never looked. Hashing costs 0.3 ns a byte, the copy
//! itself more.

use super::ClientError;
use super::download::{Fetcher, REQUEST_BYTES, REQUESTS_MAX, Wanted, blocking, blocks_lost};
use super::known;
use crate::folder::Folder;
use crate::folder::fs::File;
use crate::folder::stage::{Staged, StagedFile};
use crate::manifest::{Builder, ChunkRef, Step, Walker};
use crate::model::counters::Counters;
use crate::model::{BlockHash, FileContent, RelPath, limits};
use crate::work::Work;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
        let (file, reusable) = blocking(self.folder.work(), move || {
            fetcher.folder.check_room(source.content.size)?;
            let file = StagedFile::create(&fetcher.folder, source.id, &source.content)?;
            Ok((file, Reusable::open(&fetcher.folder, &source.sources)))
        })
        .await?;
        let mut large = Large {
            fetcher: self,
            path: wanted.path.clone(),
            file: Arc::new(file),
            reusable: Arc::new(reusable),
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
        let file = large.finish().await?;
        let fetcher = self.clone();
        blocking(self.folder.work(), move || {
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
    tasks: JoinSet<Absent>,
    request: Vec<ChunkRef>,
    request_bytes: u64,
    /// Bytes written since the last early sync.
    unsynced: Arc<AtomicU64>,
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
        let blocks = self.fetcher.connection.want(absent.clone(), bytes_max).await?.all().await?;
        for (hash, sealed) in absent.iter().zip(blocks) {
            let block = sealed.and_then(|sealed| self.fetcher.open(&sealed, *hash));
            let Some(block) = block else { return Err(blocks_lost(&self.path, 1)) };
            walker.feed(*hash, block.bytes())?;
        }
        Ok(())
    }

    /// Takes the next chunks: those that are here are copied, the others asked for.
    async fn take(&mut self, chunks: Vec<ChunkRef>) -> Result<(), ClientError> {
        if self.reusable.files.is_empty() && self.fetcher.inline.is_empty() && !self.file.is_resumed() {
            return self.lack(chunks).await;
        }
        self.make_room().await?;
        let (fetcher, file, reusable) = (self.fetcher.clone(), self.file.clone(), self.reusable.clone());
        self.tasks.spawn(blocking(self.work(), move || {
            let Fetcher { inline, counters, on_bytes, .. } = &fetcher;
            take_here(&Looking { inline, counters, on_bytes: &**on_bytes }, &file, &reusable, chunks)
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
        self.tasks.spawn(async move {
            let hashes = chunks.iter().map(|chunk| chunk.hash).collect();
            let blocks = fetcher.connection.want(hashes, bytes).await?.all().await?;
            blocking(work, move || {
                for (chunk, sealed) in chunks.iter().zip(blocks) {
                    let block = sealed.and_then(|sealed| fetcher.open(&sealed, chunk.hash));
                    let Some(block) = block else { return Err(blocks_lost(&path, 1)) };
                    file.write_at(chunk.offset, block.bytes())?;
                    (fetcher.on_bytes)(u64::from(chunk.len));
                }
                // One of the tasks waits for the disk, the others go on.
                if unsynced.fetch_add(bytes, Ordering::Relaxed) + bytes >= SYNC_BYTES {
                    unsynced.store(0, Ordering::Relaxed);
                    file.sync_early()?;
                }
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
    counters: &'a Counters,
    on_bytes: &'a dyn Fn(u64),
}

/// Takes chunks from an interrupted download, an old file or a push, and returns those that are in none.
fn take_here(looking: &Looking<'_>, file: &StagedFile, reusable: &Reusable, chunks: Vec<ChunkRef>) -> Absent {
    let there = file.check(chunks.iter().map(|chunk| (chunk.offset, chunk.len, chunk.hash)))?;
    let (mut absent, mut buffer) = (Vec::new(), Vec::new());
    for (chunk, there) in chunks.into_iter().zip(there) {
        let len = u64::from(chunk.len);
        if !there {
            let bytes = match reusable.read(&chunk, &mut buffer) {
                Some(bytes) => {
                    looking.counters.bytes_reused.add(len);
                    Some(bytes)
                }
                None => looking.inline.get(&chunk.hash).map(|bytes| &**bytes),
            };
            let Some(bytes) = bytes else {
                absent.push(chunk);
                continue;
            };
            file.write_at(chunk.offset, bytes)?;
        }
        (looking.on_bytes)(len);
    }
    Ok(absent)
}

/// Files here that hold chunks of a wanted one.
#[derive(Debug, Default)]
struct Reusable {
    files: Vec<File>,
    /// Hash -> file and offset.
    chunks: HashMap<BlockHash, (usize, u64)>,
    /// Manifest nodes that can be made here.
    nodes: HashMap<BlockHash, Bytes>,
}

impl Reusable {
    fn open(folder: &Folder, sources: &[(RelPath, FileContent)]) -> Self {
        let mut reusable = Self::default();
        for (path, content) in sources {
            let (Some(chunks), Ok(Some((file, _)))) =
                (known::chunks_of(folder, content), folder.open_file(path))
            else {
                continue;
            };
            let index = reusable.files.len();
            reusable.files.push(file);
            let mut builder = Builder::new(content.root.params);
            let mut nodes = Vec::new();
            for chunk in &chunks {
                reusable.chunks.insert(chunk.hash, (index, chunk.offset));
                nodes.extend(builder.push(chunk.hash, u64::from(chunk.len)).unwrap_or_default());
            }
            nodes.extend(builder.finish().map(|(_, nodes)| nodes).unwrap_or_default());
            reusable.nodes.extend(nodes.into_iter().map(|node| (node.hash(), node.into_bytes())));
        }
        reusable
    }

    /// The bytes of a chunk, if a file here still holds them.
    fn read<'a>(&self, chunk: &ChunkRef, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let (index, offset) = self.chunks.get(&chunk.hash)?;
        buffer.resize(usize::try_from(chunk.len).ok()?, 0);
        self.files.get(*index)?.read_exact_at(buffer, *offset).ok()?;
        (BlockHash::of(buffer) == chunk.hash).then_some(&**buffer)
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
