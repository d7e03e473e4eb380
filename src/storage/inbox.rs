//! What the storage thread is asked for, and the queue it comes through.

use super::looked::{Asked, Looked};
use super::pack_file::{RECORD_HEADER, record_header};
use super::pending::Reply;
use super::reach::Asker;
use super::writer::Writer;
use super::{Committed, Head, PutReport, Result, ShareId};
use crate::block::VerifiedBlock;
use crate::model::BlockHash;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// A block with the header of its record, made by the caller so that hashing is not done here.
#[derive(Debug)]
pub struct Prepared {
    /// The block.
    pub block: VerifiedBlock,
    /// Of its record.
    pub header: [u8; RECORD_HEADER as usize],
}

impl Prepared {
    /// The address of the block.
    pub const fn hash(&self) -> BlockHash {
        self.block.hash()
    }

    /// For [`Writer::append`].
    pub const fn record(&self) -> Record<'_> {
        (&self.block, self.header)
    }

    /// Makes the headers; refuses blocks that do not stand alone.
    pub fn all(blocks: Vec<VerifiedBlock>) -> Result<Vec<Self>> {
        blocks.into_iter().map(|block| Ok(Self { header: record_header(&block)?, block })).collect()
    }
}

/// A block with the header of its record, as [`Writer::append`] takes it.
pub type Record<'a> = (&'a VerifiedBlock, [u8; RECORD_HEADER as usize]);

/// Work for the storage thread that is described elsewhere.
pub struct Job(pub Box<dyn FnOnce(&mut Writer) + Send>);

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

/// What becomes of a commit.
#[derive(Debug)]
pub enum Answer {
    /// It is durable, or was refused.
    Committed(Committed),
    /// Something was deleted since its blocks were looked for.
    LookAgain(Box<Asked>),
}

/// Blocks to take. The permit bounds the bytes in the queue.
#[derive(Debug)]
pub struct Put {
    /// For which share.
    pub asker: Asker,
    /// What.
    pub blocks: Vec<Prepared>,
    /// Most that they may bring, bytes.
    pub brought_max: u64,
    /// To whom.
    pub reply: oneshot::Sender<Result<PutReport>>,
    /// Held until it is done.
    pub _permit: OwnedSemaphorePermit,
}

impl Put {
    /// Payload bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks.iter().map(|one| one.block.sealed().payload.len() as u64).sum()
    }
}

/// What the storage thread is asked for.
#[derive(Debug)]
pub enum Work {
    /// Take blocks.
    Put(Put),
    /// Commit, given what was found out about it.
    Commit(Box<Asked>, Looked, Reply, OwnedSemaphorePermit),
    /// Find or make a share.
    OpenShare(String, oneshot::Sender<Result<(ShareId, Head)>>),
    /// Do this between two groups of commits, with everything before it durable.
    Job(Job),
    /// Finish what came before, then end.
    Stop,
}

/// The queue of the storage thread, and what was taken off it too early.
#[derive(Debug)]
pub struct Inbox {
    queue: mpsc::Receiver<Work>,
    next: Option<Work>,
}

impl Inbox {
    /// Nothing was taken yet.
    pub const fn new(queue: mpsc::Receiver<Work>) -> Self {
        Self { queue, next: None }
    }

    /// Waits for the next request; `None` when nobody can ask any more.
    pub fn wait(&mut self) -> Option<Work> {
        self.next.take().or_else(|| self.queue.blocking_recv())
    }

    /// The next request, if it is here.
    pub fn try_next(&mut self) -> Option<Work> {
        self.next.take().or_else(|| self.queue.try_recv().ok())
    }

    /// The next request, if it is here and brings blocks.
    pub fn try_put(&mut self) -> Option<Put> {
        match self.try_next()? {
            Work::Put(put) => Some(put),
            other => {
                self.next = Some(other);
                None
            }
        }
    }
}
