//! What a store lacks, and what comes back: for whoever asks clients for it.

use super::Store;
use crate::model::BlockHash;
use crate::storage::inbox::{Job, Work};
use crate::storage::mend::{self, Mended};
use crate::storage::upkeep::Brake;
use crate::storage::{Result, ShareId, StorageError, file, follow, gone, packs};
use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

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

    /// Looks whether packs and journals still have their names: one listing and one look for each share. What was in a pack
    /// that is gone is looked for by the next [`mend`](Self::mend).
    ///
    /// # Errors
    /// A journal that is gone is fatal, and so is the folder of the packs: what is written there, nobody could find.
    pub fn look_at_files(&self) -> Result<()> {
        let shared = &self.shared;
        shared.failure.check()?;
        let names: Vec<String> = {
            let heads = shared.heads.read().unwrap_or_else(PoisonError::into_inner);
            heads.keys().map(|share| format!("{}.journal", share.to_hex())).collect()
        };
        let journals = shared.path.join("journal");
        let folder = shared.path.join("packs");
        for path in names.into_iter().map(|name| journals.join(name)).chain([folder.clone()]) {
            if let Ok(false) = path.try_exists() {
                return Err(shared.fail(StorageError::io("find", &path, file::removed())));
            }
        }
        let there: BTreeSet<u32> = packs::list(&folder)?.into_keys().collect();
        let seen = std::mem::replace(
            &mut *self.seen_packs.lock().unwrap_or_else(PoisonError::into_inner),
            there.clone(),
        );
        let vanished: Vec<&u32> = seen.difference(&there).collect();
        if !vanished.is_empty() {
            // A garbage collection says why before it removes one.
            let removed = gone::list(&folder, self.id)?;
            if vanished.into_iter().any(|pack| !removed.contains_key(pack)) {
                shared.unsettled.store(true, Ordering::Relaxed);
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
