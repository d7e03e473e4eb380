//! Storage: where a server keeps blocks and journals. Two traits, batch-shaped and async, and two implementations:
//! [`Store`] (packs, journal files, sled as index) and [`MemoryStore`] (the reference, which can crash on purpose).
//!
//! # The durability contract
//! 1. **Blocks durable.** Every block that a commit names is synced to disk, or the change is refused.
//! 2. **Journal record durable.** Then the record of the commit is appended and synced. This is the instant at which the
//!    commit exists: before it a crash forgets the whole commit, after it nothing does.
//! 3. **Acknowledge.** Then [`Journal::commit`] returns.
//! 4. **Broadcast.** Then the event goes to everybody who [watches](Journal::watch). Commits, journal records and events
//!    of one share are in one order.
//!
//! Several commits may share the syncs of 1 and 2; none waits for company. After a write or a sync whose outcome is
//! unknown nothing more is acknowledged: every call returns an error for which [`StorageError::is_fatal`] is true, and
//! the process has to end (a second fsync may report success for pages the first one lost).
//!
//! The index is never part of the contract: it is rebuilt from packs and journals whenever it is in doubt.
//!
//! # Upkeep
//! Deleting is the reverse of a commit: mark what versions name (`mark`), plan (`gc`), condemn, wait, look again, delete
//! (`sweep`), under leases that keep what sessions rely on (`lease`). `check`, `scrub` and `stats` read. What was lost and comes
//! back is looked below (`follow`), and when nothing lacks the packs are put in order (`mend`). All of it runs
//! through `upkeep`, one job at a time, and changes things only in small steps on the storage thread.
//!
//! This room knows no network and no synced folder.

mod check;
mod collected;
mod content;
mod direct;
mod error;
mod file;
mod finding;
mod follow;
mod gc;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod gc_tests;
mod gone;
pub mod history;
mod hold;
mod home;
mod inbox;
mod inspect;
mod journal;
mod keeper;
mod lease;
mod looked;
mod mark;
mod memory;
mod mend;
mod pack_file;
mod packs;
mod pending;
pub mod probe;
mod reach;
mod readers;
mod recover;
mod scrub;
mod shared;
mod sled;
mod stats;
mod store;
mod sweep;
mod timeline;
mod upkeep;
mod writer;

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
mod conformance;

pub use check::{CheckOptions, CheckReport};
pub use error::StorageError;
pub use file::write_whole as write_private;
pub use finding::Finding;
pub use gc::{GcOptions, PackPlan, Sums};
pub use history::History;
pub use memory::MemoryStore;
pub use mend::Mended;
pub use scrub::ScrubStep;
pub use shared::Problem;
pub use stats::{ShareStats, Stats};
pub use store::{Store, StoreOptions};
pub use sweep::{GcReport, GcStep};
pub use upkeep::Brake;

use crate::block::{SealedBlock, VerifiedBlock};
use crate::model::{BlockHash, ChainHash, Change, JournalId, Node, NodeId, Refusal, Seq, SessionId};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::broadcast;

/// What the calls of the traits return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// Result of this room.
pub type Result<T> = std::result::Result<T, StorageError>;

/// One share of a store. Chosen when the share is made; never leaves the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShareId([u8; 16]);

impl ShareId {
    /// Takes an id that came from a disk.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// 32 lower-case hex digits: the name of the journal's file.
    pub fn to_hex(&self) -> String {
        crate::model::hash::hex(&self.0)
    }
}

impl std::fmt::Debug for ShareId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "share:{}", crate::model::hash::hex(self.0.get(..4).unwrap_or_default()))
    }
}

/// What a block takes on the disk besides its payload, about, bytes: the head of its record, and its row in an index that is
/// half empty at times.
pub const BLOCK_COST_BYTES: u64 = 256;

/// What became of the blocks of one put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PutReport {
    /// Blocks that were new.
    pub stored: usize,
    /// Blocks that were held already.
    pub held: usize,
    /// Payload bytes written for the new ones.
    pub bytes: u64,
    /// Payload bytes, and [`BLOCK_COST_BYTES`] each, of those that the share did not reach before, held or not, and that
    /// nobody asked it for. This is what a device is charged: what others hold must not show in it.
    pub brought: u64,
}

/// Keeps blocks by the hash of their plain bytes.
pub trait BlockStore: Send + Sync {
    /// Takes blocks for a share (`None`: for all). They are visible to [`get_in`](Self::get_in) and
    /// [`missing_in`](Self::missing_in) of that share at once and durable with the next commit. Blocks that are held
    /// already, for whatever share, cost nothing.
    ///
    /// # Errors
    /// All or nothing: on an error none of the blocks counts as taken. Blocks sealed against a base are refused.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have taken the blocks.
    fn put_in(&self, share: Option<ShareId>, blocks: Vec<VerifiedBlock>) -> BoxFuture<'_, Result<PutReport>> {
        self.put_within(share, blocks, u64::MAX)
    }

    /// The same, if what they [bring](PutReport::brought) is no more than `brought_max` bytes.
    ///
    /// # Errors
    /// As `put_in`, and [`StorageError::OverQuota`].
    fn put_within(
        &self,
        share: Option<ShareId>,
        blocks: Vec<VerifiedBlock>,
        brought_max: u64,
    ) -> BoxFuture<'_, Result<PutReport>>;

    /// Reads blocks, in the order asked for; `None` for one that is not held, or that this share does not reach (`None`:
    /// the owner, who reaches all). What comes back was checked against the
    /// checksum written with it.
    ///
    /// # Errors
    /// [`StorageError::DamagedBlock`] names the first block that is not what was written; ask for the others without it.
    /// From then on that block counts as missing, so that a client may bring it again.
    fn get_in(
        &self,
        share: Option<ShareId>,
        hashes: Vec<BlockHash>,
    ) -> BoxFuture<'_, Result<Vec<Option<SealedBlock>>>>;

    /// True for each block that is not held or that this share does not reach, in the order asked for.
    fn missing_in(&self, share: Option<ShareId>, hashes: Vec<BlockHash>) -> BoxFuture<'_, Result<Vec<bool>>>;

    /// [`put_in`](Self::put_in) by the owner: for every share.
    fn put_many(&self, blocks: Vec<VerifiedBlock>) -> BoxFuture<'_, Result<PutReport>> {
        self.put_in(None, blocks)
    }

    /// [`get_in`](Self::get_in) by the owner.
    fn get_many(&self, hashes: Vec<BlockHash>) -> BoxFuture<'_, Result<Vec<Option<SealedBlock>>>> {
        self.get_in(None, hashes)
    }

    /// [`missing_in`](Self::missing_in) by the owner.
    fn missing(&self, hashes: Vec<BlockHash>) -> BoxFuture<'_, Result<Vec<bool>>> {
        self.missing_in(None, hashes)
    }

    /// Called before a session asks for blocks or puts them: what it is told is held, and what it puts, is not deleted
    /// until a commit names it or the session [ends](Self::end_lease). A store that never deletes has nothing to do.
    fn lease(&self, _session: SessionId, _hashes: &[BlockHash]) {}

    /// The session was told that these are missing, by the request that leased them.
    fn let_go(&self, _session: SessionId, _hashes: &[BlockHash]) {}

    /// The session is over.
    fn end_lease(&self, _session: SessionId) {}
}

/// Where a share's journal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which journal.
    pub journal: JournalId,
    /// Its last commit.
    pub seq: Seq,
    /// The chain up to and with that commit.
    pub chain: ChainHash,
}

/// A place in the list of nodes ordered by (version, id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Position {
    /// After everything of this version, when `node` is `None`.
    pub seq: Seq,
    /// After this node of that version.
    pub node: Option<NodeId>,
}

/// A slice of the nodes that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Each node once, at its latest version, ordered by (version, id).
    pub nodes: Vec<Node>,
    /// Where to read on.
    pub next: Position,
    /// Nothing follows: whoever read all pages knows the share as it was at `head`.
    pub complete: bool,
    /// The journal when the page was read.
    pub head: Head,
}

/// Changes that one device wants to make at once.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// Where.
    pub share: ShareId,
    /// Name of the device, for the log.
    pub device: String,
    /// Whose broadcast may be skipped.
    pub session: SessionId,
    /// What. Judged together: those that stand are one atomic step.
    pub changes: Vec<Change>,
    /// Small blocks that ride along.
    pub inline: Vec<VerifiedBlock>,
}

/// Answer to a commit. `head.seq == prev` and no nodes when everything was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The head that the commit was judged against.
    pub prev: Seq,
    /// The head with it.
    pub head: Head,
    /// The nodes as they are now, in the order of the changes.
    pub nodes: Vec<Node>,
    /// Index of each change that was refused, and why.
    pub refused: Vec<(u32, Refusal)>,
}

/// A commit that has become durable.
#[derive(Debug, Clone)]
pub struct CommitEvent {
    /// Where.
    pub share: ShareId,
    /// Who made it.
    pub session: SessionId,
    /// The head before it.
    pub prev: Seq,
    /// The head with it.
    pub head: Head,
    /// The nodes it changed.
    pub nodes: Vec<Node>,
    /// The small blocks it brought.
    pub inline: Vec<VerifiedBlock>,
}

/// Keeps what happened to shares, in order.
pub trait Journal: Send + Sync {
    /// Finds a share by name, and makes it when there is none.
    fn open_share(&self, name: &str) -> BoxFuture<'_, Result<(ShareId, Head)>>;

    /// Judges and records changes; returns when what stands is durable.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have committed.
    fn commit(&self, request: CommitRequest) -> BoxFuture<'_, Result<Committed>>;

    /// The nodes that changed after `after`, at most `nodes_max` (at least one); fewer where they are long. Tombstones only
    /// `with_tombstones`: a client that starts from nothing has no use for them. A page may be empty although more follows.
    fn read_since(
        &self,
        share: ShareId,
        after: Position,
        nodes_max: usize,
        with_tombstones: bool,
    ) -> BoxFuture<'_, Result<Page>>;

    /// The head of a share, from memory. All zero for a share that is not here.
    fn head(&self, share: ShareId) -> Head;

    /// True when this journal once had that head: the client that remembers it may read on from there.
    fn knows(
        &self,
        share: ShareId,
        journal: JournalId,
        seq: Seq,
        chain: ChainHash,
    ) -> BoxFuture<'_, Result<bool>>;

    /// The past, for a journal that can tell it.
    fn history(&self) -> Option<&dyn History> {
        None
    }

    /// Durable commits of all shares from now on, in order. Whoever lags too far is told so and reads on with
    /// [`read_since`](Self::read_since).
    fn watch(&self) -> broadcast::Receiver<Arc<CommitEvent>>;
}

/// Events kept for one who watches slowly.
const EVENTS_MAX: usize = 1024;

/// What [`Journal::head`] says of a share that is not here.
const NO_HEAD: Head =
    Head { journal: JournalId::from_bytes([0; 16]), seq: Seq::ZERO, chain: ChainHash::from_bytes([0; 32]) };

/// Share names are 1 to 64 bytes without control characters.
fn check_share_name(name: &str) -> Result<()> {
    let fits = !name.is_empty() && name.len() <= crate::model::limits::SHARE_NAME_BYTES_MAX;
    if fits && !name.chars().any(char::is_control) { Ok(()) } else { Err(StorageError::ShareName) }
}
