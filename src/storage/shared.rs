//! What the threads of an open store share.

use super::collected::Collected;
use super::error::StorageError;
use super::follow::Follow;
use super::gc::Due;
use super::hold::Holds;
use super::lease::Leases;
use super::looked::Known;
use super::pack_file::{Location, Place};
use super::packs::Packs;
use super::reach::Tag;
use super::{CommitEvent, Head, NO_HEAD, Result, ShareId, StoreOptions};
use crate::model::{BlockHash, ChainHash, Seq};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use tokio::sync::{Notify, broadcast};

/// The first error that left it open what the disk holds. Once set, the store acknowledges nothing.
#[derive(Debug, Default)]
pub struct Failure(OnceLock<Arc<StorageError>>);

impl Failure {
    /// An error once anything has failed.
    pub fn check(&self) -> Result<()> {
        self.0.get().map_or(Ok(()), |cause| Err(StorageError::Failed(cause.clone())))
    }

    /// Records a failure; the first one is kept as the cause.
    pub fn set(&self, error: StorageError) -> StorageError {
        if let StorageError::Failed(_) = error {
            return error;
        }
        tracing::error!(%error, source = std::error::Error::source(&error).map(tracing::field::display), "the store stops");
        StorageError::Failed(self.0.get_or_init(|| Arc::new(error)).clone())
    }
}

/// Blocks that are missing and asked for at one time. What is found missing beyond is found again when these have come.
pub const WANTED_MAX: usize = 1 << 18;

/// The shares that name a block, each with the level at which it does: 0 for a chunk, else that of a node.
pub type Named = BTreeSet<(Tag, u8)>;

/// Something about the store's files that its owner should know. The store works, without what is named here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Bytes of a pack are not what was written; the blocks in them are lost unless a client brings them again.
    DamagedPack {
        /// The pack.
        path: PathBuf,
        /// First byte.
        from: u64,
        /// First byte after them.
        to: u64,
    },
    /// A pack that was there is gone.
    MissingPack(PathBuf),
    /// There are blocks and no journal in this folder: nothing says what they belong to.
    NoJournal(PathBuf),
    /// A block was found damaged when it was read.
    DamagedBlock(BlockHash),
    /// The end of a file that was being written when the process or the machine stopped. It was never acknowledged.
    CutTail {
        /// The file.
        path: PathBuf,
        /// How much was cut.
        bytes: u64,
    },
    /// The index was missing, stale or damaged, and was built anew from packs and journals.
    RebuiltIndex {
        /// Where the old one was put, if there was one.
        kept: Option<PathBuf>,
    },
}

/// Head of a share, and what a checkpoint needs to know of it.
#[derive(Debug, Clone, Copy)]
pub struct ShareHead {
    /// Last durable commit.
    pub head: Head,
    /// The chain before the first commit.
    pub start: ChainHash,
}

/// Blocks that may not be on disk yet, and therefore are not in the index: it must never be ahead of the packs.
#[derive(Debug, Default)]
pub struct Recent {
    /// Where they are.
    pub blocks: HashMap<BlockHash, Location>,
    /// Every record before this place is in `blocks` or in the index.
    pub noted: Place,
    /// Tags that are not in the index: of blocks in `blocks`, and of others that were brought to one more share.
    pub tags: HashMap<BlockHash, Vec<Tag>>,
}

/// See the module.
#[derive(Debug)]
pub struct Shared {
    /// Folder of the store.
    pub path: PathBuf,
    /// As given to `open`.
    pub options: StoreOptions,
    /// How long replaced versions stay restorable, ms.
    pub keep_ms: u64,
    /// What garbage collection took from the past.
    pub collected: RwLock<Collected>,
    /// What is left to do of runs that collect garbage.
    pub due: Mutex<Option<Due>>,
    /// The packs.
    pub packs: Packs,
    /// Blocks that the index does not have yet.
    pub recent: RwLock<Recent>,
    /// Heads of all shares, durable and in the index.
    pub heads: RwLock<BTreeMap<ShareId, ShareHead>>,
    /// Held for writing while a commit goes into the index, for reading while a page is read, so that a page shows the
    /// share between two commits and never inside one.
    pub gate: RwLock<()>,
    /// Why nothing works any more.
    pub failure: Failure,
    /// Blocks that turned out damaged, or gone although versions name them: they count as missing until they are brought
    /// again, and are asked for.
    pub damaged: Mutex<BTreeSet<BlockHash>>,
    /// Some blocks may lack a tag, because damage has hidden which share names them.
    pub tags_lack: AtomicBool,
    /// Blocks that the journals name and the store does not hold or cannot read, as far as is known: what is below them is
    /// unknown until they come. At most [`WANTED_MAX`], and what was found below one that came.
    pub absent: Mutex<HashMap<BlockHash, Named>>,
    /// Blocks that came back and have to be looked below.
    pub follow: Mutex<Follow>,
    /// Something was lost or came back since everything was looked at last.
    pub unsettled: AtomicBool,
    /// A client asked for blocks that are not here.
    pub doubted: AtomicBool,
    /// Packs in which something is damaged.
    pub bent: Mutex<BTreeSet<u32>>,
    /// Rings when what is wanted has changed.
    pub news: Notify,
    /// What sessions rely on, and what is being deleted. Locked for an instant, or while a batch leaves the index.
    pub leases: Mutex<Leases>,
    /// Commits that hold off the next era.
    pub holds: Arc<Holds>,
    /// Contents that were found complete.
    pub known: Mutex<Known>,
    /// Held while blocks move from `recent` into the index, so that two who do it never undo each other's work.
    pub settling: Mutex<()>,
    /// The store is being closed: long work ends soon.
    pub closing: AtomicBool,
    /// What the owner should know.
    pub problems: Mutex<Vec<Problem>>,
    /// Durable commits.
    pub events: broadcast::Sender<Arc<CommitEvent>>,
}

impl Shared {
    /// Where a block lies if it was put so lately that the index does not have it.
    pub fn recent(&self, hash: &BlockHash) -> Option<Location> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner).blocks.get(hash).copied()
    }

    /// True for a block whose bytes turned out damaged.
    pub fn is_damaged(&self, hash: &BlockHash) -> bool {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).contains(hash)
    }

    /// Remembers that a block is damaged or missing; true when it was not known.
    pub fn want(&self, hash: BlockHash) -> bool {
        let new = self.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(hash);
        if new {
            self.unsettled.store(true, Ordering::Relaxed);
            self.news.notify_one();
        }
        new
    }

    /// The same for a block that the index does not have, as long as not too many are asked for: nobody takes it for held.
    pub fn want_absent(&self, hash: BlockHash) -> bool {
        !self.is_wanting_enough() && self.want(hash)
    }

    /// As much is asked for as can be at one time.
    pub fn is_wanting_enough(&self) -> bool {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).len() >= WANTED_MAX
    }

    /// On the storage thread: blocks that were wanted came back.
    pub fn came(&self, hashes: impl IntoIterator<Item = BlockHash>) {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut follow = self.follow.lock().unwrap_or_else(PoisonError::into_inner);
        for hash in hashes {
            follow.add(hash, absent.remove(&hash).unwrap_or_default());
        }
        self.unsettled.store(true, Ordering::Relaxed);
        self.news.notify_one();
    }

    /// A client asked for blocks that are not here. Those that versions are known to name are wanted from now on; for the
    /// others somebody has to look whether versions name them.
    pub fn missed(&self, hashes: &[BlockHash]) {
        for hash in hashes {
            let named = self.absent.lock().unwrap_or_else(PoisonError::into_inner).contains_key(hash);
            if named {
                self.want_absent(*hash);
            } else if !self.is_damaged(hash) {
                self.doubted.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Something in a pack is not what was written: it should be written anew when nothing is missing any more.
    pub fn bend(&self, pack: u32) {
        if self.bent.lock().unwrap_or_else(PoisonError::into_inner).insert(pack) {
            self.unsettled.store(true, Ordering::Relaxed);
            self.news.notify_one();
        }
    }

    /// The block turned out to be there as it should be.
    pub fn unwant(&self, hash: &BlockHash) {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).remove(hash);
    }

    /// The same as [`want`](Self::want), said in the log and in the list of problems.
    pub fn mark_damaged(&self, hash: BlockHash) -> bool {
        let new = self.want(hash);
        if new {
            tracing::error!(block = %hash, "a block of the store is damaged or missing");
            self.report(Problem::DamagedBlock(hash));
        }
        new
    }

    /// Blocks that are damaged or missing.
    pub fn wanted(&self) -> Vec<BlockHash> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// True when the store has this share and no other.
    pub fn is_only_share(&self, tag: Tag) -> bool {
        let heads = self.heads.read().unwrap_or_else(PoisonError::into_inner);
        heads.len() == 1 && heads.keys().all(|share| Tag::of(*share) == tag)
    }

    /// See [`Leases`].
    pub fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When garbage that was condemned can be deleted, and how.
    pub fn due(&self) -> Option<Due> {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`due`](Self::due).
    pub fn set_due(&self, due: Option<Due>) {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = due;
    }

    /// Adds to the list of problems.
    pub fn report(&self, problem: Problem) {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
    }

    /// Versions of a share that were replaced by this commit or before may be gone.
    pub fn collected(&self, share: ShareId) -> Seq {
        let collected = self.collected.read().unwrap_or_else(PoisonError::into_inner);
        collected.get(&share).map_or(Seq::ZERO, |(seq, _)| *seq)
    }

    /// Head of a share.
    pub fn share(&self, share: ShareId) -> Option<ShareHead> {
        self.heads.read().unwrap_or_else(PoisonError::into_inner).get(&share).copied()
    }

    /// Head of a share, all zero for one that is not here.
    pub fn head(&self, share: ShareId) -> Head {
        self.share(share).map_or(NO_HEAD, |share| share.head)
    }
}
