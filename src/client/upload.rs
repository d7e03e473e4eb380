//! Uploading: what readers hand out goes to the server, unless it has it.
//!
//! A few blocks ride inside the commit (one round trip for a small change). More than that are asked for in batches and
//! sent in packs, while the files are still being read.

use super::ClientError;
use super::read::{self, Event, Job, Outcome};
use crate::block::pack::Packer;
use crate::block::{Block, SealedBlock, Sealer};
use crate::folder::Folder;
use crate::model::counters::Counters;
use crate::model::{BlockHash, limits};
use crate::wire::Connection;
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
/// Hashes of blocks that were handed to the network, so that one upload sends none twice. Forgotten beyond this.
const SENT_MAX: usize = 1 << 20;
/// Compression of new blocks: zstd 1 has the best ratio per time.
const SEAL_LEVEL: i32 = 1;

/// Files that were read, and the blocks that were not sent because they fit into the commit.
#[derive(Debug, Default)]
pub struct Uploaded {
    /// In the order in which reading ended.
    pub files: Vec<(Job, Outcome)>,
    /// For [`Connection::commit`].
    pub inline: Vec<SealedBlock>,
}

/// Reads files and sees that the server holds all their blocks, apart from those that are returned.
///
/// # Errors
/// When the connection is lost. Files that cannot be read are outcomes.
pub async fn upload(
    connection: &Connection,
    folder: &Arc<Folder>,
    jobs: Vec<Job>,
    threads: usize,
    counters: &Arc<Counters>,
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<Uploaded, ClientError> {
    if jobs.is_empty() {
        return Ok(Uploaded::default());
    }
    let mut events = read::start(folder, jobs, threads, counters);
    let mut sender = Sender::new(connection, folder.work());
    let mut files = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Block(block) => {
                on_bytes(block.bytes().len() as u64);
                sender.take(block).await?;
            }
            Event::Done(job, outcome) => files.push((job, outcome)),
        }
    }
    Ok(Uploaded { files, inline: sender.finish().await? })
}

struct Sender<'a> {
    connection: &'a Connection,
    work: Work,
    seen: HashSet<BlockHash>,
    waiting: Vec<Block>,
    waiting_bytes: usize,
    /// More came than fits into a commit.
    large: bool,
    batches: JoinSet<Result<(), ClientError>>,
}

impl<'a> Sender<'a> {
    fn new(connection: &'a Connection, work: Work) -> Self {
        Self {
            connection,
            work,
            seen: HashSet::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            large: false,
            batches: JoinSet::new(),
        }
    }

    async fn take(&mut self, block: Block) -> Result<(), ClientError> {
        if self.seen.len() >= SENT_MAX {
            self.seen.clear();
        }
        if !self.seen.insert(block.hash()) {
            return Ok(());
        }
        self.waiting_bytes += block.bytes().len();
        self.waiting.push(block);
        self.large |= self.waiting_bytes > limits::INLINE_BYTES_MAX || self.waiting.len() >= BATCH_BLOCKS;
        if self.large && (self.waiting_bytes >= BATCH_BYTES || self.waiting.len() >= BATCH_BLOCKS) {
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
        self.waiting_bytes = 0;
        self.batches.spawn(send(self.connection.clone(), self.work, blocks));
        Ok(())
    }

    async fn join_one(&mut self) -> Result<(), ClientError> {
        match self.batches.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(_)) => Err(ClientError::Stopped),
            None => Ok(()),
        }
    }

    /// Sends what waits if it is too much for a commit, and waits for everything on its way.
    async fn finish(mut self) -> Result<Vec<SealedBlock>, ClientError> {
        let mut inline = Vec::new();
        if self.large {
            self.flush().await?;
        } else {
            let sealer = Sealer::new(SEAL_LEVEL);
            inline.extend(self.waiting.drain(..).map(|block| sealer.seal(&block).into_sealed()));
        }
        while !self.batches.is_empty() {
            self.join_one().await?;
        }
        Ok(inline)
    }
}

/// Asks which blocks the server lacks, and sends those.
async fn send(connection: Connection, work: Work, blocks: Vec<Block>) -> Result<(), ClientError> {
    let missing = connection.missing(blocks.iter().map(Block::hash).collect()).await?;
    let lacking: Vec<Block> =
        blocks.into_iter().zip(missing).filter(|(_, lacks)| *lacks).map(|(block, _)| block).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let packs = work.beside(move || {
        let (sealer, mut packer) = (Sealer::new(SEAL_LEVEL), Packer::default());
        let mut packs: Vec<_> =
            lacking.iter().filter_map(|block| packer.push(sealer.seal(block).into_sealed())).collect();
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
        done.map_err(|_| ClientError::Stopped)??;
    }
    Ok(())
}
