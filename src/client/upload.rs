//! Uploading: what readers hand out goes to the server, unless it has it.
//!
//! A few blocks ride inside the commit (one round trip for a small change). More than that are asked for in batches and
//! sent in packs, while the files are still being read.

use super::ClientError;
use super::error::no_room;
use super::progress::Progress;
use super::read::{self, Event, Job, Outcome};
use crate::block::pack::{self, Packer};
use crate::block::{Block, SealedBlock, Sealer};
use crate::folder::Folder;
use crate::model::counters::Counters;
use crate::model::{BlockHash, limits};
use crate::wire::{Connection, WireError};
use crate::work::Work;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::task::JoinSet;

/// A batch is sent when it has this many bytes…
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// …or blocks.
const BATCH_BLOCKS: usize = 1024;
/// Batches on their way at once. With the readers' channel this bounds the memory of an upload.
const BATCHES_MAX: usize = 6;
/// Plain bytes of a batch that goes against bases; less than what a frame may make the server hold, because one more block
/// comes before it is full.
const DELTA_PLAIN_BYTES: usize = limits::DELTA_PLAIN_BYTES_MAX - limits::BLOCK_BYTES_MAX;
/// Hashes of blocks that were handed to the network, so that one upload sends none twice. Forgotten beyond this.
const SENT_MAX: usize = 1 << 20;
/// Compression of new blocks: zstd 1 has the best ratio per time.
const SEAL_LEVEL: i32 = 1;
/// The same for few bytes: 4 % less, and nobody waits for it.
const FEW_SEAL_LEVEL: i32 = 3;
/// The first of an upload, bytes: compressing them takes some tens of milliseconds more.
const FEW_BYTES: usize = 16 * 1024 * 1024;
/// The same where the network is what everybody waits for: a tenth less, for several times the work.
const SLOW_SEAL_LEVEL: i32 = 9;
/// Below this the network is slow, bytes per second: 100 Mbit/s. One core compresses several times as much.
const SLOW_BYTES_PER_SECOND: u64 = 12_000_000;

/// What to do when the server has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// Send no further blocks, but read on: the server may hold everything of what comes.
    ReadOn,
    /// Read no further: what is left needs room, as far as anyone knows.
    Stop,
}

/// Files that were read, and the blocks that were not sent because they fit into the commit.
#[derive(Debug, Default)]
pub struct Uploaded {
    /// The server had no room for some blocks of these files, and said why.
    pub full: Option<String>,
    /// It took some.
    pub stored: bool,
    /// In the order in which reading ended; those that were not read are not here.
    pub files: Vec<(Job, Outcome)>,
    /// For [`Connection::commit`].
    pub inline: Vec<Outgoing>,
}

/// A block ready to be sent.
#[derive(Debug)]
pub struct Outgoing {
    /// As it goes.
    pub sealed: SealedBlock,
    /// The block itself, when it goes against a base: in case that does not open.
    pub plain: Option<Block>,
}

/// A block that the server may lack, and the same against blocks that it holds.
type Fresh = (Block, Option<SealedBlock>);

/// Reads files and sees that the server holds all their blocks, apart from those that are returned and those that it has
/// no room for.
///
/// # Errors
/// When the connection is lost. Files that cannot be read are outcomes.
pub async fn upload(
    connection: &Connection,
    folder: &Arc<Folder>,
    jobs: Vec<Job>,
    threads: usize,
    counters: &Arc<Counters>,
    progress: &Progress,
    on_full: OnFull,
) -> Result<Uploaded, ClientError> {
    if jobs.is_empty() {
        return Ok(Uploaded::default());
    }
    let mut events = read::start(folder, jobs, threads, connection.has_deltas(), counters);
    let mut sender = Sender::new(connection, folder.work());
    let mut files = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Block(block, delta) => {
                progress.add_bytes(block.bytes().len() as u64);
                sender.take(block, delta).await?;
            }
            Event::Done(job, outcome) => {
                progress.add_files(1);
                files.push((job, outcome));
            }
        }
        if sender.taken.full.is_some() && on_full == OnFull::Stop {
            break;
        }
    }
    let inline = sender.finish().await?;
    let Taken { stored, full } = sender.taken;
    Ok(Uploaded { full, stored, files, inline })
}

/// What the server did with blocks.
#[derive(Debug, Default)]
pub struct Taken {
    /// It took some.
    pub stored: bool,
    /// It had no room for some, and said why.
    pub full: Option<String>,
}

impl Taken {
    fn and(self, other: Self) -> Self {
        Self { stored: self.stored || other.stored, full: self.full.or(other.full) }
    }
}

struct Sender<'a> {
    connection: &'a Connection,
    work: Work,
    seen: HashSet<BlockHash>,
    waiting: Vec<Fresh>,
    /// As sent, about.
    waiting_bytes: usize,
    /// Of those that go against a base.
    delta_plain_bytes: usize,
    /// More came than fits into a commit.
    large: bool,
    /// Plain bytes of blocks that went before.
    plain_bytes: usize,
    batches: JoinSet<Result<Taken, ClientError>>,
    taken: Taken,
}

impl<'a> Sender<'a> {
    fn new(connection: &'a Connection, work: Work) -> Self {
        Self {
            connection,
            work,
            seen: HashSet::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            delta_plain_bytes: 0,
            large: false,
            plain_bytes: 0,
            batches: JoinSet::new(),
            taken: Taken::default(),
        }
    }

    async fn take(&mut self, block: Block, delta: Option<SealedBlock>) -> Result<(), ClientError> {
        // The server would take none, or has no room.
        if self.connection.welcome().is_read_only() || self.taken.full.is_some() {
            return Ok(());
        }
        if self.seen.len() >= SENT_MAX {
            self.seen.clear();
        }
        if !self.seen.insert(block.hash()) {
            return Ok(());
        }
        let plain_bytes = block.bytes().len();
        self.waiting_bytes += delta.as_ref().map_or(plain_bytes, pack::encoded_bytes);
        self.delta_plain_bytes += delta.as_ref().map_or(0, |_| plain_bytes);
        self.waiting.push((block, delta));
        let many = self.waiting.len() >= BATCH_BLOCKS || self.delta_plain_bytes > DELTA_PLAIN_BYTES;
        self.large |= many || self.waiting_bytes > limits::INLINE_BYTES_MAX;
        let full = self.waiting_bytes >= BATCH_BYTES || self.delta_plain_bytes >= BATCH_BYTES;
        if self.large && (many || full) {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ClientError> {
        while self.batches.len() >= BATCHES_MAX {
            self.join_one().await?;
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        let blocks = std::mem::take(&mut self.waiting);
        (self.waiting_bytes, self.delta_plain_bytes) = (0, 0);
        let few = self.plain_bytes < FEW_BYTES;
        self.plain_bytes += blocks.iter().map(|(block, _)| block.bytes().len()).sum::<usize>();
        self.batches.spawn(send(self.connection.clone(), self.work, blocks, few));
        Ok(())
    }

    async fn join_one(&mut self) -> Result<(), ClientError> {
        let Some(done) = self.batches.join_next().await else { return Ok(()) };
        let taken = done.map_err(|_| ClientError::Stopped)??;
        self.taken = std::mem::take(&mut self.taken).and(taken);
        Ok(())
    }

    /// Sends what waits if it is too much for a commit, and waits for everything on its way.
    async fn finish(&mut self) -> Result<Vec<Outgoing>, ClientError> {
        let mut inline = Vec::new();
        if self.large && self.taken.full.is_none() {
            self.flush().await?;
        } else if !self.large {
            let sealer = sealer(self.connection, true);
            inline.extend(self.waiting.drain(..).map(|(block, delta)| match delta {
                Some(sealed) => Outgoing { sealed, plain: Some(block) },
                None => Outgoing { sealed: sealer.seal(&block).into_sealed(), plain: None },
            }));
        }
        while !self.batches.is_empty() {
            self.join_one().await?;
        }
        Ok(inline)
    }
}

/// Sends deltas; asks which of the other blocks the server lacks, and sends those.
async fn send(
    connection: Connection,
    work: Work,
    blocks: Vec<Fresh>,
    few: bool,
) -> Result<Taken, ClientError> {
    let (mut alone, mut deltas) = (Vec::new(), Vec::new());
    for (block, delta) in blocks {
        match delta {
            // A delta costs little more than to ask whether it is needed.
            Some(sealed) => deltas.push(Outgoing { sealed, plain: Some(block) }),
            None => alone.push(block),
        }
    }
    let (put, sent) = tokio::join!(put(&connection, work, deltas), send_alone(&connection, work, alone, few));
    Ok(put?.and(sent?))
}

async fn send_alone(
    connection: &Connection,
    work: Work,
    blocks: Vec<Block>,
    few: bool,
) -> Result<Taken, ClientError> {
    if blocks.is_empty() {
        return Ok(Taken::default());
    }
    let missing = connection.missing(blocks.iter().map(Block::hash).collect()).await?;
    let lacking: Vec<Block> =
        blocks.into_iter().zip(missing).filter(|(_, lacks)| *lacks).map(|(block, _)| block).collect();
    put_alone(connection, work, lacking, few).await
}

/// As the network deserves, and as much or few bytes do.
fn sealer(connection: &Connection, few: bool) -> Sealer {
    let is_slow = connection.put_bytes_per_second().is_some_and(|pace| pace < SLOW_BYTES_PER_SECOND);
    Sealer::new(match (is_slow, few) {
        (true, _) => SLOW_SEAL_LEVEL,
        (false, true) => FEW_SEAL_LEVEL,
        (false, false) => SEAL_LEVEL,
    })
}

/// Seals blocks without bases and sends them.
pub async fn put_alone(
    connection: &Connection,
    work: Work,
    blocks: Vec<Block>,
    few: bool,
) -> Result<Taken, ClientError> {
    let mut taken = Taken::default();
    if blocks.is_empty() {
        return Ok(taken);
    }
    let sealer = sealer(connection, few);
    let packs = work.beside(move || {
        let mut packer = Packer::default();
        let mut packs: Vec<_> =
            blocks.iter().filter_map(|block| packer.push(sealer.seal(block).into_sealed())).collect();
        packs.extend(Some(packer.take()).filter(|rest| !rest.is_empty()));
        packs
    });
    // Side by side: the server checks one while another is on its way to the disk.
    let mut puts = JoinSet::new();
    for pack in packs.await.map_err(|_| ClientError::Stopped)? {
        let connection = connection.clone();
        puts.spawn(async move { connection.put(&pack).await });
    }
    while let Some(done) = puts.join_next().await {
        match done.map_err(|_| ClientError::Stopped)? {
            Ok(()) => taken.stored = true,
            Err(error) => taken.full = Some(no_room(&error).ok_or(error)?),
        }
    }
    Ok(taken)
}

/// Sends blocks that were sealed already, at most a batch; those that do not open go again without their bases.
pub async fn put(
    connection: &Connection,
    work: Work,
    mut blocks: Vec<Outgoing>,
) -> Result<Taken, ClientError> {
    let mut taken = Taken::default();
    while !blocks.is_empty() {
        let mut bytes = 0;
        let fits = blocks.iter().take_while(|block| {
            bytes += pack::encoded_bytes(&block.sealed);
            bytes <= limits::PACK_BYTES_TARGET
        });
        let rest = blocks.split_off(fits.count().max(1));
        let batch = std::mem::replace(&mut blocks, rest);
        match connection.put(&sealed(&batch)).await {
            Err(WireError::Unopened { which }) => {
                let (failed, _) = unopened(batch, which);
                taken = taken.and(put_alone(connection, work, failed, true).await?);
            }
            Err(error) => {
                taken.full = Some(no_room(&error).ok_or(error)?);
                break;
            }
            Ok(()) => taken.stored = true,
        }
    }
    Ok(taken)
}

/// The blocks as they go.
pub fn sealed(blocks: &[Outgoing]) -> Vec<SealedBlock> {
    blocks.iter().map(|block| block.sealed.clone()).collect()
}

/// Blocks that did not open with their bases, as they are; and the others.
pub fn unopened(blocks: Vec<Outgoing>, which: Vec<bool>) -> (Vec<Block>, Vec<Outgoing>) {
    let (failed, others): (Vec<_>, Vec<_>) = blocks.into_iter().zip(which).partition(|(_, failed)| *failed);
    let failed = failed.into_iter().filter_map(|(block, _)| block.plain).collect();
    (failed, others.into_iter().map(|(block, _)| block).collect())
}
