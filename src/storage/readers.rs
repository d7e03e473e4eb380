//! Readers: a few threads that read blocks and nodes for everybody. Reading blocks the thread that does it, so it is not
//! done where requests are served; and a handle on the index can be used by one thread at a time.

mod lacking;
pub mod looking;
mod paced;

use super::history;
use super::pack_file::Location;
use super::reach::{self, Asker, Tag};
use super::shared::Shared;
use super::sled::{Index, ShareIndex};
use super::timeline::{self, Timeline};
use super::writer::locate_for;
use super::{Page, Position, Result, ShareId, StorageError};
use crate::block::SealedBlock;
use crate::model::past::{Found, Look, Moment, Seen, Versions};
use crate::model::{BlockHash, ChainHash, JournalId, Name, NodeId, Seq};
use lacking::Lacking;
use paced::Paced;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait; more wait at the sender.
const QUEUE_MAX: usize = 256;

type Job = Box<dyn FnOnce(&Reader) + Send>;

/// What one reading thread has.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    index: Index,
}

/// Asks the reading threads. Cheap to clone; they end when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Readers(mpsc::Sender<Job>);

impl Readers {
    /// Starts `threads` readers.
    pub fn start(shared: &Arc<Shared>, index: &Index, threads: usize) -> Result<(Self, Vec<JoinHandle<()>>)> {
        let (sender, receiver) = mpsc::channel::<Job>(QUEUE_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut handles = Vec::new();
        for number in 0..threads.max(1) {
            let reader = Reader { shared: shared.clone(), index: index.clone() };
            let receiver = receiver.clone();
            let thread = std::thread::Builder::new().name(format!("read-{number}"));
            handles.push(thread.spawn(move || reader.run(&receiver)).map_err(|source| StorageError::Io {
                what: "start a thread for",
                path: shared.path.clone(),
                source,
            })?);
        }
        Ok((Self(sender), handles))
    }

    /// Runs `read` on one of the threads.
    pub async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |reader| {
            // Whoever asked may have gone.
            let _ = reply.send(reader.shared.failure.check().and_then(|()| read(reader)));
        });
        self.0.send(job).await.map_err(|_| StorageError::Closed)?;
        answer.await.map_err(|_| StorageError::Closed)?
    }
}

/// Why blocks were not read.
enum Unread {
    /// This one, at this place, is not what it should be.
    Block(BlockHash, Location, StorageError),
    Other(StorageError),
}

impl Reader {
    fn run(self, queue: &Mutex<mpsc::Receiver<Job>>) {
        loop {
            // One waits in the queue, the others for the lock; a job is done without it.
            let job = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
            let Some(job) = job else { break };
            if catch_unwind(AssertUnwindSafe(|| job(&self))).is_err() {
                tracing::error!("a read panicked");
            }
        }
        if self.shared.failure.check().is_err() {
            self.index.abandon();
        }
    }

    /// `BlockStore::get_many`.
    pub fn get_many(&self, asker: Asker, hashes: &[BlockHash]) -> Result<Vec<Option<SealedBlock>>> {
        loop {
            let error = match self.read_many(asker, hashes) {
                Err(Unread::Block(hash, location, error)) => {
                    if self.place(asker, &hash)? != Some(location) {
                        // Its pack was rewritten between the look and the read.
                        continue;
                    }
                    self.shared.mark_damaged(hash);
                    self.shared.bend(location.place.pack);
                    error
                }
                Err(Unread::Other(error)) => error,
                Ok(blocks) => return Ok(blocks),
            };
            return Err(error);
        }
    }

    fn place(&self, asker: Asker, hash: &BlockHash) -> Result<Option<Location>> {
        reach::find(&self.shared, &self.index, asker, hash).map_err(|error| self.shared.fail(error))
    }

    fn read_many(
        &self,
        asker: Asker,
        hashes: &[BlockHash],
    ) -> std::result::Result<Vec<Option<SealedBlock>>, Unread> {
        let mut wanted = Vec::with_capacity(hashes.len());
        let mut places = Vec::with_capacity(hashes.len());
        for hash in hashes {
            // A damaged block is read all the same: the caller is told what is wrong with it.
            let location = self.place(asker, hash).map_err(Unread::Other)?;
            places.push(location.map(|_| wanted.len()));
            wanted.extend(location.map(|location| (*hash, location)));
        }
        let blocks = self.shared.packs.read(&wanted).map_err(|error| {
            let damaged = match &error {
                StorageError::DamagedBlock { hash, .. } => {
                    wanted.iter().find(|(one, _)| one == hash).copied()
                }
                _ => None,
            };
            match damaged {
                Some((hash, location)) => Unread::Block(hash, location, error),
                None => Unread::Other(error),
            }
        })?;
        Ok(places.into_iter().map(|place| place.and_then(|at| blocks.get(at).cloned())).collect())
    }

    /// `BlockStore::missing`.
    pub fn missing(&self, asker: Asker, hashes: &[BlockHash]) -> Result<Vec<bool>> {
        let (shared, index) = (&self.shared, &self.index);
        let found = hashes.iter().map(|hash| Ok(locate_for(shared, index, asker, hash)?.is_none()));
        found.collect::<Result<_>>().map_err(|error| self.shared.fail(error))
    }

    /// `BlockStore::wanted_in`.
    pub fn wanted_in(&self, share: ShareId) -> Result<Vec<BlockHash>> {
        let mut wanted = Vec::new();
        for hash in self.shared.wanted() {
            let tags = reach::tags_of(&self.shared, &self.index, &hash);
            if reach::may_ask(&self.shared, &tags.map_err(|error| self.shared.fail(error))?, Tag::of(share)) {
                wanted.push(hash);
            }
        }
        Ok(wanted)
    }

    /// `Journal::read_since`.
    pub fn read_since(
        &self,
        share: ShareId,
        after: Position,
        nodes_max: usize,
        tombstones: bool,
    ) -> Result<Page> {
        let _gate = self.shared.gate.read().unwrap_or_else(PoisonError::into_inner);
        let head = self.shared.share(share).ok_or(StorageError::UnknownShare)?.head;
        self.index.page(share, after, nodes_max, tombstones, head).map_err(|error| self.shared.fail(error))
    }

    /// `Journal::knows`.
    pub fn knows(&self, share: ShareId, journal: JournalId, seq: Seq, chain: ChainHash) -> Result<bool> {
        let at = self.shared.share(share).ok_or(StorageError::UnknownShare)?;
        if at.head.journal != journal || seq > at.head.seq {
            return Ok(false);
        }
        if seq == Seq::ZERO {
            return Ok(chain == at.start);
        }
        let found = self.index.commit(share, seq).map_err(|error| self.shared.fail(error))?;
        Ok(found.is_some_and(|found| found.chain == chain))
    }

    /// `History::moment`.
    pub fn moment(&self, share: ShareId, at: Moment) -> Result<Found> {
        let (line, head) = self.line(share)?;
        let now_ms = (self.shared.options.clock)();
        let found = history::find(&line, head, now_ms, self.shared.keep_ms, at);
        let mut found = found.map_err(|error| self.shared.fail(error))?;
        found.floor = found.floor.max(self.shared.collected(share));
        Ok(found)
    }

    /// `History::versions`.
    pub fn versions(
        &self,
        share: ShareId,
        path: &[Name],
        before: Option<(Seq, NodeId)>,
        max: usize,
    ) -> Result<Versions> {
        let (line, head) = self.paced(share)?;
        let found = self.floor(share, &line, head);
        let found = found.and_then(|floor| timeline::versions(&line, floor, path, before, max));
        // Commits wait for the gate, and chunk lists may be long.
        drop(line);
        let mut found = found.map_err(|error| self.shared.fail(error))?;
        self.mark_lacking_versions(&mut found).map_err(|error| self.fatal_if_index(error))?;
        Ok(found)
    }

    fn mark_lacking_versions(&self, found: &mut Versions) -> Result<()> {
        let Some(mut lacking) = Lacking::new(&self.shared, &self.index) else { return Ok(()) };
        for version in found.versions.iter_mut().filter(|version| version.kept) {
            let content = version.after.as_ref().and_then(|shape| shape.kind.content());
            version.kept = !content.map_or(Ok(false), |content| lacking.is_lacking(content))?;
        }
        Ok(())
    }

    /// `History::look`.
    pub fn look(&self, share: ShareId, at: Seq, look: &Look, max: usize) -> Result<Seen> {
        let (line, head) = self.paced(share)?;
        let found = self.floor(share, &line, head);
        let found = found.and_then(|floor| timeline::look(&line, floor, at.min(head), look, max));
        drop(line);
        let mut found = found.map_err(|error| self.shared.fail(error))?;
        self.mark_lacking_nodes(&mut found).map_err(|error| self.fatal_if_index(error))?;
        Ok(found)
    }

    fn mark_lacking_nodes(&self, found: &mut Seen) -> Result<()> {
        let Some(mut lacking) = Lacking::new(&self.shared, &self.index) else { return Ok(()) };
        for past in found.nodes.iter_mut().filter(|past| past.kept) {
            let content = past.node.state.as_ref().and_then(|state| state.kind.content());
            let Some(content) = content else { continue };
            past.kept = !lacking.is_lacking(content)?;
        }
        Ok(())
    }

    fn fatal_if_index(&self, error: StorageError) -> StorageError {
        if matches!(error, StorageError::Index(_)) { self.shared.fail(error) } else { error }
    }

    fn line(&self, share: ShareId) -> Result<(ShareIndex<'_>, Seq)> {
        let head = self.shared.share(share).ok_or(StorageError::UnknownShare)?.head;
        Ok((ShareIndex { share, index: &self.index }, head.seq))
    }

    fn paced(&self, share: ShareId) -> Result<(Paced<'_>, Seq)> {
        let mut at = Seq::ZERO;
        let line = Paced::new(&self.shared.gate, || {
            let (line, head) = self.line(share)?;
            at = head;
            Ok(line)
        })?;
        Ok((line, at))
    }

    fn floor(&self, share: ShareId, line: &impl Timeline, head: Seq) -> Result<Seq> {
        let now_ms = (self.shared.options.clock)();
        let floor = history::floor_by(head, now_ms, self.shared.keep_ms, |seq| line.commit(seq))?;
        Ok(floor.max(self.shared.collected(share)))
    }
}
