//! What can go wrong in a store.

use crate::model::{BlockHash, Seq, codec::CodecError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What failed, on what.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A folder with other things in it.
    #[error("{0} is not a dropblock store and not empty: name a new folder")]
    NotAStore(PathBuf),
    /// Written by a later dropblock.
    #[error("{path} has format {found}, this dropblock knows up to {known}: use a newer dropblock")]
    NewerVersion {
        /// The file that says so.
        path: PathBuf,
        /// The version it has.
        found: u32,
        /// The last version known here.
        known: u32,
    },
    /// Another process has the store open.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// A file of the store is not what was written, and the store cannot do without it.
    #[error(
        "{path} is damaged at byte {offset}: put back a copy of the store from before, nothing was changed"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
    },
    /// A journal ends before a commit that was durable once.
    #[error(
        "{path} ends at commit {has}, but commit {seen} was there: put back the whole file, or remove the folder db beside journal to go on from commit {has}"
    )]
    JournalCut {
        /// Which journal.
        path: PathBuf,
        /// Its last commit.
        has: Seq,
        /// The last commit the index saw.
        seen: Seq,
    },
    /// A journal that was there once is gone.
    #[error(
        "{path} is missing; it held {seen} commits or more: put it back, or remove the folder db beside journal to go on without that share"
    )]
    JournalMissing {
        /// Which journal.
        path: PathBuf,
        /// The last commit the index saw.
        seen: Seq,
    },
    /// There are blocks, and no journal that says what they belong to.
    #[error(
        "{0} is empty although there are blocks: put the journals back; nothing is collected without them"
    )]
    NoJournal(PathBuf),
    /// A block is not what was written. Others are not affected.
    #[error("block {hash} is damaged ({path} at byte {offset})")]
    DamagedBlock {
        /// Its address.
        hash: BlockHash,
        /// The pack.
        path: PathBuf,
        /// Where in the pack its record starts.
        offset: u64,
    },
    /// The disk has no room. Nothing was taken, and the store goes on.
    #[error("the disk of {0} is full")]
    Full(PathBuf),
    /// The blocks bring more than they may. Nothing was taken.
    #[error("more than this device may bring")]
    OverQuota,
    /// The index must be built anew, and the disk has no room for another one beside what is there.
    #[error(
        "the disk of {0} is full, and the index of the store needs room: make room there and start again"
    )]
    FullForIndex(PathBuf),
    /// Reading or writing failed.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The index failed; it is rebuilt at the next start.
    #[error("the index failed, it is rebuilt at the next start")]
    Index(#[source] io::Error),
    /// A value cannot be written or read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The block can be opened only with another one at hand; a store keeps blocks that stand alone.
    #[error("block {0} is sealed against a base")]
    NeedsBase(BlockHash),
    /// More than one commit may hold.
    #[error("the commit is too large")]
    CommitTooLarge,
    /// No share with that id.
    #[error("no such share")]
    UnknownShare,
    /// Not a name for a share.
    #[error("a share name has 1 to 64 bytes and no control characters")]
    ShareName,
    /// An earlier error left it open what the disk holds. Nothing is acknowledged any more.
    #[error("the store stopped: {0}")]
    Failed(#[source] Arc<StorageError>),
    /// A version names the block, and it cannot be read.
    #[error("block {0} cannot be read, but a version needs it: nothing was deleted; see dropblock check")]
    Unreadable(BlockHash),
    /// Somebody stopped it.
    #[error("stopped before the end; nothing is lost")]
    Stopped,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl StorageError {
    /// The process has to end: the store acknowledges nothing any more.
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    /// An IO error on a file of the store; a disk without room is told apart.
    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        if super::file::is_full(&source) {
            return Self::Full(path.to_owned());
        }
        Self::Io { what, path: path.to_owned(), source }
    }
}

/// Gives an `io::Error` its place.
pub(super) trait At<T> {
    /// What was tried, on what.
    fn at(self, what: &'static str, path: &Path) -> Result<T, StorageError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, StorageError> {
        self.map_err(|source| StorageError::io(what, path, source))
    }
}
