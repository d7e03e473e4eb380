//! Large files beside everything else: while one is read and sent, or fetched, cycles go on, so that a copy of a few
//! gigabytes makes nobody wait for a small change. Live clients only; a one-time sync does one thing after the other.
//!
//! A cycle leaves a large file alone until its work here has ended; then the next cycle finds its content (by the look
//! of the file) or its staged bytes (by node and content) ready. What became stale meanwhile is simply not asked for.

use super::ClientError;
use super::download::{Fetched, Fetcher, Wanted};
use super::progress::Progress;
use super::read::{Job, Outcome, UNRESTED};
use super::upload::{OnFull, put, upload};
use crate::folder::stage::Staged;
use crate::folder::{Folder, Identity, Stamp};
use crate::model::counters::Counters;
use crate::model::{FileContent, NodeId, RelPath};
use crate::wire::Connection;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// From this size on, bytes.
pub const LARGE_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// Large files under way, and what came of them.
pub struct Large {
    tasks: JoinSet<Result<Ended, ClientError>>,
    /// One file up and one down at a time: more would only share the same disk and wire.
    up: Arc<Semaphore>,
    down: Arc<Semaphore>,
    reading: HashSet<Identity>,
    read: HashMap<Identity, (Stamp, FileContent)>,
    fetching: HashMap<NodeId, FileContent>,
    fetched: HashMap<NodeId, (FileContent, Staged)>,
}

enum Ended {
    Read { identity: Identity, path: RelPath, outcome: Outcome },
    NoRoom { stamp: Stamp, path: RelPath, why: String },
    Fetched { id: NodeId, content: FileContent, path: RelPath, staged: Result<Staged, ClientError> },
}

/// What to do now that a large file is done.
pub struct Note {
    /// Where it is, or will be.
    pub path: RelPath,
    /// A file of this disk: it may have moved while it was read, so everything is looked at again.
    pub local: bool,
    /// It was written to meanwhile.
    pub changing: bool,
    /// The server has no room for its new blocks; how it looked, and what the server says.
    pub no_room: Option<(Stamp, String)>,
    /// Why it cannot be synced now.
    pub problem: Option<String>,
}

impl Default for Large {
    fn default() -> Self {
        Self {
            tasks: JoinSet::new(),
            up: Arc::new(Semaphore::new(1)),
            down: Arc::new(Semaphore::new(1)),
            reading: HashSet::new(),
            read: HashMap::new(),
            fetching: HashMap::new(),
            fetched: HashMap::new(),
        }
    }
}

impl Large {
    /// True when nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The content of a file that looks like this, if it was read.
    pub fn content_of(&self, stamp: &Stamp) -> Option<FileContent> {
        let (read, content) = self.read.get(&stamp.identity())?;
        (read == stamp).then(|| content.clone())
    }

    /// Reads a file and sends what the server lacks, unless that is under way.
    pub fn read(
        &mut self,
        connection: &Connection,
        folder: &Arc<Folder>,
        job: Job,
        stamp: &Stamp,
        counters: &Arc<Counters>,
    ) {
        let identity = stamp.identity();
        if !self.reading.insert(identity) {
            return;
        }
        let (connection, folder, counters, turn) =
            (connection.clone(), folder.clone(), counters.clone(), self.up.clone());
        let stamp = *stamp;
        self.tasks.spawn(async move {
            let _turn = turn.acquire_owned().await.map_err(|_| ClientError::Stopped)?;
            // Read once it rests, or it would have to be read twice.
            tokio::time::sleep(UNRESTED).await;
            let path = job.path.clone();
            let uploaded =
                upload(&connection, &folder, vec![job], 1, &counters, &Progress::default(), OnFull::Stop)
                    .await?;
            let mut full = uploaded.full;
            if !uploaded.inline.is_empty() {
                full = full.or(put(&connection, folder.work(), uploaded.inline).await?.full);
            }
            if let Some(why) = full {
                return Ok(Ended::NoRoom { stamp, path, why });
            }
            let outcome = uploaded.files.into_iter().next().map_or(Outcome::Gone, |(_, outcome)| outcome);
            Ok(Ended::Read { identity, path, outcome })
        });
    }

    /// The staged bytes of a node, if they were fetched and are still the ones that are wanted.
    pub fn take_fetched(&mut self, folder: &Folder, id: NodeId, content: &FileContent) -> Option<Staged> {
        let (fetched, staged) = self.fetched.remove(&id)?;
        if fetched == *content {
            return Some(staged);
        }
        if let Err(error) = folder.discard_staged(&staged) {
            tracing::debug!(%error, "stale download not removed");
        }
        None
    }

    /// True while the same bytes are fetched for another node: this one is made from that.
    pub fn fetches_equal(&self, id: NodeId, content: &FileContent) -> bool {
        self.fetching.iter().any(|(other, fetching)| *other != id && fetching == content)
    }

    /// Fetches a file, unless that is under way.
    pub fn fetch(&mut self, fetcher: &Fetcher, wanted: Wanted) {
        if self.fetching.contains_key(&wanted.id) {
            return;
        }
        self.fetching.insert(wanted.id, wanted.content.clone());
        let (fetcher, turn) = (fetcher.clone(), self.down.clone());
        self.tasks.spawn(async move {
            let _turn = turn.acquire_owned().await.map_err(|_| ClientError::Stopped)?;
            let (id, content, path) = (wanted.id, wanted.content.clone(), wanted.path.clone());
            let fetched: Option<Fetched> = fetcher.fetch(vec![wanted]).await?.into_iter().next();
            let staged = fetched.map_or(Err(ClientError::Stopped), |(_, staged)| staged);
            Ok(Ended::Fetched { id, content, path, staged })
        });
    }

    /// Waits for the next file to be done; for ever while none is under way.
    ///
    /// # Errors
    /// When the connection is lost or the disk is full.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn next(&mut self) -> Result<Note, ClientError> {
        let Some(ended) = self.tasks.join_next().await else {
            return std::future::pending().await;
        };
        match ended.map_err(|_| ClientError::Stopped)?? {
            Ended::Read { identity, path, outcome } => {
                self.reading.remove(&identity);
                // Still being written: looked at again after a pause.
                let changing = match &outcome {
                    Outcome::Changing => true,
                    Outcome::Read { rests_in, .. } => !rests_in.is_zero(),
                    Outcome::Gone | Outcome::Unreadable(_) => false,
                };
                let problem = match outcome {
                    Outcome::Read { .. } if changing => None,
                    Outcome::Read { content, stamp, .. } => {
                        self.read.insert(identity, (stamp, content));
                        None
                    }
                    Outcome::Gone | Outcome::Changing => None,
                    Outcome::Unreadable(error) => Some(super::error::line(&error)),
                };
                Ok(Note { path, local: true, changing, no_room: None, problem })
            }
            Ended::NoRoom { stamp, path, why } => {
                self.reading.remove(&stamp.identity());
                Ok(Note { path, local: true, changing: false, no_room: Some((stamp, why)), problem: None })
            }
            Ended::Fetched { id, content, path, staged } => {
                self.fetching.remove(&id);
                let problem = match staged {
                    Ok(staged) => {
                        self.fetched.insert(id, (content, staged));
                        None
                    }
                    Err(error) => Some(super::error::line(&error)),
                };
                Ok(Note { path, local: false, changing: false, no_room: None, problem })
            }
        }
    }

    /// Forgets contents of files that have been taken in.
    pub fn forget_read(&mut self, stamp: &Stamp) {
        self.read.remove(&stamp.identity());
    }
}
