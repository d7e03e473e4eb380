//! What a store lacks, and what comes back: for whoever asks clients for it.

use super::Store;
use crate::model::BlockHash;
use crate::storage::inbox::{Job, Work};
use crate::storage::mend::{self, Mended};
use crate::storage::upkeep::Brake;
use crate::storage::{Result, ShareId, StorageError, file, follow, gone, packs};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// Which files had the names of packs and journals at the last look: device and inode.
#[derive(Debug, Default)]
pub struct SeenFiles {
    journals: BTreeMap<PathBuf, (u64, u64)>,
    packs: BTreeMap<u32, (u64, u64)>,
}

impl Store {
    /// Blocks that versions need and that are damaged or missing, as far as is known: whoever holds one may put it.
    pub fn wanted(&self) -> Vec<BlockHash> {
        self.shared.wanted()
    }

    /// The same, as far as devices of one share may be asked for it: the hash of a block that others have is theirs.
    ///
    /// # Errors
    /// When the index fails.
    pub async fn wanted_in(&self, share: ShareId) -> Result<Vec<BlockHash>> {
        self.reader()?.run(move |reader| reader.wanted_in(share)).await
    }

    /// Writes down what is wanted, if that has changed: what a scrub found must not be forgotten by a restart. A block that
    /// is no longer on the list has its new copy on disk: after a power cut without it nobody would be asked again.
    ///
    /// # Errors
    /// A disk that cannot be written.
    pub fn remember_wanted(&self) -> Result<()> {
        let mut on_disk = self.wanted_on_disk.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.wanted();
        if *on_disk != wanted {
            // After the look at the list: what was struck out of it had been appended by then.
            self.shared.packs.sync(&self.shared.failure)?;
            gone::save_wanted(&self.shared.path, &wanted)?;
            *on_disk = wanted;
        }
        Ok(())
    }

    /// Looks whether packs and journals are still what has their names: one listing, and one look for each. What was in a pack
    /// that is gone or another one is looked for by the next [`mend`](Self::mend).
    ///
    /// # Errors
    /// A journal that is gone or another one is fatal, and so is a missing folder of packs: what is written there, nobody could find.
    pub fn look_at_files(&self) -> Result<()> {
        let shared = &self.shared;
        shared.failure.check()?;
        let journals: Vec<PathBuf> = {
            let heads = shared.heads.read().unwrap_or_else(PoisonError::into_inner);
            let name = |share: &ShareId| format!("{}.journal", share.to_hex());
            heads.keys().map(|share| shared.path.join("journal").join(name(share))).collect()
        };
        let mut seen = self.seen_files.lock().unwrap_or_else(PoisonError::into_inner);
        for path in journals {
            let is_same = match std::fs::metadata(&path) {
                Ok(found) => {
                    *seen.journals.entry(path.clone()).or_insert_with(|| file::identity(&found))
                        == file::identity(&found)
                }
                Err(error) => error.kind() != std::io::ErrorKind::NotFound,
            };
            if !is_same {
                return Err(shared.fail(StorageError::io("find", &path, file::removed())));
            }
        }
        let folder = shared.path.join("packs");
        let mut there = BTreeMap::new();
        let listed = packs::list(&folder).map_err(|error| match error {
            StorageError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                shared.fail(error)
            }
            other => other,
        })?;
        for number in listed.into_keys() {
            if let Ok(found) = std::fs::metadata(shared.packs.path(number)) {
                there.insert(number, file::identity(&found));
            }
        }
        let others: Vec<u32> = seen
            .packs
            .iter()
            .filter(|(pack, file)| there.get(pack) != Some(file))
            .map(|(pack, _)| *pack)
            .collect();
        seen.packs = there;
        if !others.is_empty() {
            // A garbage collection says why before it removes one.
            let removed = gone::list(&folder, self.id)?;
            for pack in others.into_iter().filter(|pack| !removed.contains_key(pack)) {
                shared.unsettled.store(true, Ordering::Relaxed);
                if pack < shared.packs.end().pack {
                    // What is read from now on is what has the name.
                    shared.packs.forget(pack);
                }
            }
        }
        Ok(())
    }

    /// Waits until what is wanted has changed since it was waited for last.
    pub async fn news(&self) {
        self.shared.news.notified().await;
    }

    /// Looks below what came back: what a chunk list names and is not here is wanted when this returns.
    ///
    /// # Errors
    /// A pack that cannot be read, an index that fails.
    pub async fn follow(&self) -> Result<()> {
        while follow::has_more(&self.shared) {
            let (reply, answer) = oneshot::channel();
            let job = Job(Box::new(move |writer| {
                // Whoever asked may have gone.
                let _ = reply.send(follow::step(writer));
            }));
            self.ask(Work::Job(job), answer).await?;
        }
        Ok(())
    }

    /// A device of a share asked for blocks and did not get them.
    pub fn missed(&self, hashes: &[BlockHash]) {
        self.shared.missed(hashes);
    }

    /// True when something was lost or came back since the last [`mend`](Self::mend).
    pub fn is_unsettled(&self) -> bool {
        self.shared.unsettled.load(Ordering::Relaxed)
    }

    /// True, once, when a client asked for what is not here and is not known to be missing.
    pub fn is_doubted(&self) -> bool {
        self.shared.doubted.swap(false, Ordering::Relaxed)
    }

    /// Looks whether all versions are whole. What is missing is wanted from then on; when nothing is, packs in which
    /// something is damaged are written anew, and lost ones are spoken of no more. Blocks for long.
    ///
    /// # Errors
    /// What keeps it from looking or writing. Nothing is lost by it.
    pub fn mend(&self, brake: &Brake) -> Result<Mended> {
        self.upkeep(|upkeep| mend::run(upkeep, brake))
    }
}
