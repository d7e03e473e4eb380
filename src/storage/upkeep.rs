//! Upkeep: work on a store that is open, beside everything else: collecting garbage, checking, scrubbing, counting.
//!
//! It runs on the thread of whoever asks, one job at a time, reads with a handle of its own, and changes things only as
//! jobs of the storage thread, in small steps, so that commits never wait for it longer than for each other.

use super::collected::Collected;
use super::error::StorageError;
use super::inbox::{Job, Work};
use super::journal::{JournalFile, Replayed, Title};
use super::mark::{Marked, Unreadable};
use super::pack_file::{FILE_HEADER, Location};
use super::shared::Shared;
use super::sled::Index;
use super::writer::{Writer, locate};
use super::{Result, keeper, packs};
use crate::block::seal;
use crate::model::{BlockHash, FileContent, NodeId, StoreId};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// See the module.
#[derive(Debug)]
pub struct Upkeep {
    pub shared: Arc<Shared>,
    pub index: Index,
    pub queue: mpsc::Sender<Work>,
    pub store: StoreId,
}

/// How long work is stopped and slowed down.
#[derive(Debug, Clone, Default)]
pub struct Brake {
    /// Set by whoever no longer wants the result.
    pub cancel: Arc<AtomicBool>,
    /// Rest as long as was worked, at every step.
    pub gentle: bool,
}

/// The contents that the versions of all shares name.
#[derive(Debug, Default)]
pub struct Contents {
    /// Of current versions.
    pub head: HashSet<FileContent>,
    /// Of replaced versions that can be restored. May hold current ones too.
    pub history: HashSet<FileContent>,
    /// The last commit of each share before which nothing is kept for history.
    pub floors: Collected,
}

impl From<Unreadable> for StorageError {
    fn from(Unreadable(hash): Unreadable) -> Self {
        Self::Unreadable(hash)
    }
}

impl Upkeep {
    /// Ends the work when nobody wants it any more or the store is being closed; otherwise rests a little if it shall,
    /// and says when the next piece of work began.
    pub fn pace(&self, brake: &Brake, since: Instant) -> Result<Instant> {
        if brake.cancel.load(Ordering::Relaxed) || self.shared.closing.load(Ordering::Relaxed) {
            return Err(StorageError::Stopped);
        }
        self.shared.failure.check()?;
        if brake.gentle {
            std::thread::sleep(since.elapsed().min(Duration::from_millis(250)));
        }
        Ok(Instant::now())
    }

    /// Does something on the storage thread, with every commit before it durable.
    pub fn on_writer<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job = Job(Box::new(move |writer| {
            // Whoever asked waits.
            let _ = reply.send(job(writer));
        }));
        let gone = || self.shared.failure.check().err().unwrap_or(StorageError::Closed);
        self.queue.blocking_send(Work::Job(job)).map_err(|_| gone())?;
        answer.blocking_recv().map_err(|_| gone())?
    }

    /// The same for what begins a new era: commits that were sent back once are let through first.
    pub fn begin_era<T: Send + 'static>(
        &self,
        brake: &Brake,
        job: impl FnOnce(&mut Writer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _begins = self.shared.holds.begin(&mut || self.pace(brake, Instant::now()).map(drop))?;
        self.on_writer(job)
    }

    /// Where a block lies; `None` when it is not held.
    pub fn locate(&self, hash: &BlockHash) -> Result<Option<Location>> {
        locate(&self.shared, &self.index, hash)
    }

    /// Where a block lies, also one that counts as missing because it is damaged.
    pub fn place(&self, hash: &BlockHash) -> Result<Option<Location>> {
        match self.shared.recent(hash) {
            Some(location) => Ok(Some(location)),
            None => self.index.block(hash),
        }
    }

    /// The bytes of a block; `None` when it is not held, or is not what it should be.
    pub fn plain(&self, hash: &BlockHash) -> Result<Option<Bytes>> {
        let Some(location) = self.locate(hash)? else { return Ok(None) };
        match self.shared.packs.read(&[(*hash, location)]) {
            Ok(sealed) => {
                let block = sealed.first().and_then(|sealed| seal::open(sealed, None).ok());
                Ok(block.filter(|block| block.hash() == *hash).map(crate::block::Block::into_bytes))
            }
            Err(StorageError::DamagedBlock { hash, .. }) => {
                self.shared.want(hash);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads all journals, each with its title, from files of their own.
    pub fn journals(&self) -> Result<Vec<(Title, JournalFile)>> {
        let shares = self.shared.heads.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let paths: Vec<PathBuf> = shares
            .keys()
            .map(|share| self.shared.path.join("journal").join(format!("{}.journal", share.to_hex())))
            .collect();
        drop(shares);
        let open = |path: PathBuf| {
            let journal = JournalFile::open(&path, self.store)?;
            Ok((journal.title.clone(), journal))
        };
        paths.into_iter().map(open).collect()
    }

    /// The contents of all versions that are current, or were replaced after `cutoff_ms` and not collected before: read from
    /// the journals, so that nothing depends on the index. The rule is that of `history`: what counts is the latest time up
    /// to a commit.
    pub fn contents(&self, cutoff_ms: u64, brake: &Brake) -> Result<Contents> {
        let mut contents = Contents::default();
        let mut since = Instant::now();
        let journals = self.journals()?;
        if journals.is_empty() && self.packs()?.values().any(|len| *len > u64::from(FILE_HEADER)) {
            return Err(StorageError::NoJournal(self.shared.path.join("journal")));
        }
        for (title, journal) in journals {
            let mut current: HashMap<NodeId, FileContent> = HashMap::new();
            let mut time_max_ms = 0;
            let (before, collected) = (self.shared.head(title.share), self.shared.collected(title.share));
            let read = journal.replay(&mut |Replayed { record, chain, .. }| {
                time_max_ms = record.time_ms.max(time_max_ms);
                let kept = time_max_ms > cutoff_ms && record.seq > collected;
                if !kept {
                    contents.floors.insert(title.share, (record.seq, chain));
                }
                for change in record.changes {
                    let new = change.state.as_ref().and_then(|state| state.kind.content()).cloned();
                    let old = match new {
                        Some(new) => current.insert(change.id, new),
                        None => current.remove(&change.id),
                    };
                    contents.history.extend(old.filter(|_| kept));
                }
                if since.elapsed() > Duration::from_millis(20) {
                    since = self.pace(brake, since)?;
                }
                Ok(())
            })?;
            // A file that was cut or bent at its end reads like a shorter one, and what the rest names like garbage.
            if read.head.seq < before.seq || (read.head.seq == before.seq && read.head.chain != before.chain)
            {
                return Err(StorageError::Damaged { path: journal.path().to_owned(), offset: read.len });
            }
            contents.head.extend(current.into_values());
        }
        Ok(contents)
    }

    /// Marks the blocks of contents.
    ///
    /// # Errors
    /// A manifest that cannot be read: then the mark is not complete, and nothing may be deleted by it.
    pub fn mark<'a>(
        &self,
        marked: &mut Marked,
        contents: impl IntoIterator<Item = &'a FileContent>,
        brake: &Brake,
    ) -> Result<()> {
        let mut since = Instant::now();
        for content in contents {
            marked.add(content, &mut |hash| {
                if since.elapsed() > Duration::from_millis(20) {
                    since = self.pace(brake, since)?;
                }
                self.plain(hash)
            })?;
        }
        Ok(())
    }

    /// Where every block lies, those too that the index does not have yet.
    pub fn each_block(&self, visit: &mut dyn FnMut(BlockHash, Location)) -> Result<()> {
        let recent: HashMap<BlockHash, Location> =
            self.shared.recent.read().unwrap_or_else(std::sync::PoisonError::into_inner).blocks.clone();
        self.index.each_block(&mut |hash, location| {
            if !recent.contains_key(&hash) {
                visit(hash, location);
            }
            Ok(!self.shared.closing.load(Ordering::Relaxed))
        })?;
        recent.into_iter().for_each(|(hash, location)| visit(hash, location));
        if self.shared.closing.load(Ordering::Relaxed) { Err(StorageError::Stopped) } else { Ok(()) }
    }

    /// The packs and their bytes.
    pub fn packs(&self) -> Result<BTreeMap<u32, u64>> {
        packs::list(&self.packs_folder())
    }

    /// `STORE/packs`.
    pub fn packs_folder(&self) -> PathBuf {
        self.shared.path.join("packs")
    }

    /// Brings everything that was appended so far into the index.
    pub fn settle(&self) -> Result<()> {
        keeper::settle(&self.shared, &self.index).map(drop).map_err(|error| self.shared.fail(error))
    }

    /// Flushes the index.
    pub fn flush(&self) -> Result<()> {
        keeper::flush(&self.shared, &self.index, self.store).map_err(|error| self.shared.fail(error))
    }

    /// Lets go of the index. After a failure without sled's last flush, like everybody.
    pub fn end(self) {
        if self.shared.failure.check().is_err() {
            self.index.abandon();
        }
    }

    /// Milliseconds since 1970, by the store's clock.
    pub fn now_ms(&self) -> u64 {
        (self.shared.options.clock)()
    }
}
