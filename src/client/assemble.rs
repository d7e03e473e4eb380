//! Making a large file: walked along its manifest in bounded memory, its chunks taken from where they are.
//!
//! A chunk that is here already is taken from the old file, inside the kernel where neighbours stay neighbours. Its bytes
//! are hashed first, unless the old file is trusted: it looks exactly as when its bytes were agreed, before and after,
//! and it has rested since. Without the rest a look proves too little: a program that has a file mapped into memory may
//! write to a page that waits for the disk without any trace in the file's times. Damage by the disk itself is not looked
//! for here, as an unchanged file is not read for it either. Chunks of the network are always hashed.

use super::ClientError;
use super::download::{Fetcher, REQUEST_BYTES, REQUESTS_MAX, Source, Wanted, blocking, blocks_lost};
use super::known;
use crate::folder::fs::File;
use crate::folder::stage::{Staged, StagedFile};
use crate::folder::{Folder, Stamp};
use crate::manifest::{Builder, ChunkRef, Step, Walker};
use crate::model::counters::Counters;
use crate::model::{BlockHash, RelPath, limits};
use crate::work::Work;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// A file that did not change for this long has no page left that waits for the disk: systems write those after 30 s.
const RESTED: Duration = Duration::from_secs(90);
/// Chunks of one file that are remembered, so that one which comes again is not asked for again.
const ASKED_MAX: usize = 1 << 18;

/// What a task of a file leaves to be asked for.
type Absent = Result<Vec<ChunkRef>, ClientError>;

impl Fetcher {
    /// A file of many blocks.
    pub(super) async fn fetch_large(&self, wanted: Wanted) -> Result<Staged, ClientError> {
        if let Some(staged) = self.assemble(&wanted, Some(RESTED)).await? {
            return Ok(staged);
        }
        // The old file was written to meanwhile. What was staged is there still, and each of its chunks is hashed now.
        match self.assemble(&wanted, None).await? {
            Some(staged) => Ok(staged),
            None => Err(ClientError::Stopped),
        }
    }

    /// `None` when an old file that was to be trusted did not keep still.
    async fn assemble(&self, wanted: &Wanted, rest: Option<Duration>) -> Result<Option<Staged>, ClientError> {
        let (fetcher, source) = (self.clone(), wanted.clone());
        let (file, reusable) = blocking(self.folder.work(), move || {
            fetcher.folder.check_room(source.content.size)?;
            let file = StagedFile::create(&fetcher.folder, source.id, &source.content)?;
            Ok((file, Reusable::open(&fetcher.folder, &source.sources, rest)))
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
        let reusable = large.reusable.clone();
        let file = large.finish().await?;
        let (fetcher, wanted) = (self.clone(), wanted.clone());
        blocking(self.folder.work(), move || {
            if !reusable.kept_still(&fetcher.folder) {
                return Ok(None);
            }
            known::remember(&fetcher.folder, &wanted.content, &list);
            Ok(Some(file.finish(&fetcher.folder, wanted.exec, wanted.mtime_ns)?))
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
        let work = self.work();
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
    let mut here = Here { looking, file, reusable, run: None, absent: Vec::new() };
    let mut buffer = Vec::new();
    for (chunk, there) in chunks.into_iter().zip(there) {
        if there {
            here.have(&chunk);
        } else if !here.copy(&chunk)? {
            let bytes = match reusable.read(&chunk, &mut buffer) {
                Some(bytes) => {
                    looking.counters.bytes_reused.add(u64::from(chunk.len));
                    Some(bytes)
                }
                None => looking.inline.get(&chunk.hash).map(|bytes| &**bytes),
            };
            match bytes {
                Some(bytes) => {
                    file.write_at(chunk.offset, bytes)?;
                    here.have(&chunk);
                }
                None => here.absent.push(chunk),
            }
        }
    }
    here.end_run()?;
    Ok(here.absent)
}

/// Chunks that are taken from old files that are trusted.
struct Here<'a> {
    looking: &'a Looking<'a>,
    file: &'a StagedFile,
    reusable: &'a Reusable,
    run: Option<Run>,
    absent: Vec<ChunkRef>,
}

/// Chunks that are neighbours in the old file and in the new one.
struct Run {
    source: usize,
    from: u64,
    to: u64,
    len: u64,
    chunks: Vec<ChunkRef>,
}

impl Here<'_> {
    fn have(&self, chunk: &ChunkRef) {
        (self.looking.on_bytes)(u64::from(chunk.len));
    }

    /// Adds a chunk to the run, or begins another. `false` when no trusted file has it.
    fn copy(&mut self, chunk: &ChunkRef) -> Result<bool, ClientError> {
        let Some((source, from)) = self.reusable.trusted(&chunk.hash) else { return Ok(false) };
        let len = u64::from(chunk.len);
        if let Some(run) = &mut self.run
            && run.source == source
            && run.from + run.len == from
            && run.to + run.len == chunk.offset
        {
            run.len += len;
            run.chunks.push(*chunk);
            return Ok(true);
        }
        self.end_run()?;
        self.run = Some(Run { source, from, to: chunk.offset, len, chunks: vec![*chunk] });
        Ok(true)
    }

    fn end_run(&mut self) -> Result<(), ClientError> {
        let Some(run) = self.run.take() else { return Ok(()) };
        let Some(source) = self.reusable.files.get(run.source) else { return Ok(()) };
        if self.file.copy_from(&source.file, run.from, run.to, run.len)? {
            self.looking.counters.bytes_reused.add(run.len);
            (self.looking.on_bytes)(run.len);
        } else {
            self.absent.extend(run.chunks);
        }
        Ok(())
    }
}

/// Files here that hold chunks of a wanted one.
#[derive(Debug, Default)]
struct Reusable {
    files: Vec<Opened>,
    /// Hash -> file and offset.
    chunks: HashMap<BlockHash, (usize, u64)>,
    /// Manifest nodes that can be made here.
    nodes: HashMap<BlockHash, Bytes>,
}

#[derive(Debug)]
struct Opened {
    file: File,
    /// How it looks for as long as its bytes are what they were.
    trusted: Option<Stamp>,
}

impl Reusable {
    /// `rest`: for how long a file must not have changed to be trusted; `None` trusts nothing.
    fn open(folder: &Folder, sources: &[Source], rest: Option<Duration>) -> Self {
        let mut reusable = Self::default();
        for Source { path, content, stamp } in sources {
            let (Some(chunks), Ok(Some((file, now)))) =
                (known::chunks_of(folder, content), folder.open_file(path))
            else {
                continue;
            };
            let index = reusable.files.len();
            let rested = rest.is_some_and(|rest| has_rested(&now, folder.disk().now_ns(), rest));
            let trusted = (*stamp == Some(now) && rested).then_some(now);
            reusable.files.push(Opened { file, trusted });
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

    /// Where a trusted file has a chunk.
    fn trusted(&self, hash: &BlockHash) -> Option<(usize, u64)> {
        let place = *self.chunks.get(hash)?;
        self.files.get(place.0)?.trusted.map(|_| place)
    }

    /// The bytes of a chunk, if a file here still holds them.
    fn read<'a>(&self, chunk: &ChunkRef, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let (index, offset) = self.chunks.get(&chunk.hash)?;
        buffer.resize(usize::try_from(chunk.len).ok()?, 0);
        self.files.get(*index)?.file.read_exact_at(buffer, *offset).ok()?;
        (BlockHash::of(buffer) == chunk.hash).then_some(&**buffer)
    }

    /// True when no trusted file was written to since it was opened.
    fn kept_still(&self, folder: &Folder) -> bool {
        let still = |opened: &Opened| match &opened.trusted {
            Some(stamp) => folder.stamp_of(&opened.file).is_ok_and(|now| now == *stamp),
            None => true,
        };
        self.files.iter().all(still)
    }
}

/// True when a file was last changed long enough ago, by the clock that stamps files.
fn has_rested(stamp: &Stamp, now_ns: i64, rest: Duration) -> bool {
    let age_ns = u64::try_from(now_ns.saturating_sub(stamp.ctime_ns)).ok();
    age_ns.is_some_and(|age_ns| Duration::from_nanos(age_ns) >= rest)
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
