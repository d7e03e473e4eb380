//! [`Store`]: the store in a folder. Packs hold the blocks, journal files the commits, sled the index over both.
//!
//! Threads: one that writes (`writer`), a few that read (`readers`), one that brings things to disk early (`keeper`).

mod commits;
mod lacks;
mod past;

use super::check::{self, CheckOptions, CheckReport};
use super::collected;
use super::gc::{Due, GcOptions};
use super::gone;
use super::history;
use super::home::Home;
use super::inbox::{Prepared, Put, Work};
use super::keeper::{Keeper, Signal, checkpoint};
use super::mend;
use super::packs::Packs;
use super::pending::Group;
use super::reach::{self, Asker};
use super::readers::Readers;
use super::recover::{self, Recovered};
use super::scrub::{Scrub, ScrubStep};
use super::shared::{Problem, Recent, Shared};
use super::stats::{self, Stats};
use super::sweep::{self, GcReport, GcStep};
use super::upkeep::{Brake, Upkeep};
use super::writer::Writer;
use super::{
    BlockStore, BoxFuture, CommitEvent, CommitRequest, Committed, EVENTS_MAX, Head, History, Journal, Page,
    Position, PutReport, Result, ShareId, StorageError,
};
use crate::block::{SealedBlock, VerifiedBlock};
use crate::model::{BlockHash, ChainHash, IdSource, JournalId, Seq, SessionId, StoreId};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot};

/// Requests that wait for the storage thread; more wait at the sender.
const QUEUE_MAX: usize = 256;
/// Payload bytes of the blocks that wait for the storage thread.
const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Waiting for the disk is most of what a read does.
const READ_THREADS: usize = 4;

/// How a store behaves. The default is what `serve` uses.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// A pack that has reached this size is closed, bytes.
    pub pack_bytes: u64,
    /// New blocks are refused when less than this would be free on the disk, bytes; 0 never looks.
    pub free_bytes_min: u64,
    /// The index is flushed at the latest this long after something changed, ms.
    pub flush_ms: u64,
    /// Opening the index may take this long before it is given up and rebuilt, ms. Ordinarily it takes under a second.
    pub index_open_ms: u64,
    /// How long replaced versions stay restorable, ms; 0 keeps only what stands. It is remembered in the store; `None`
    /// takes what was remembered, or 30 days.
    pub keep_ms: Option<u64>,
    /// The time that goes into journals, ms since 1970.
    pub clock: fn() -> u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            pack_bytes: 256 * 1024 * 1024,
            free_bytes_min: 64 * 1024 * 1024,
            flush_ms: 5000,
            index_open_ms: 30_000,
            keep_ms: None,
            clock: now_ms,
        }
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// See the module. Dropping it finishes what was accepted, like [`close`](Self::close), but cannot say how that went.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    id: StoreId,
    queue: mpsc::Sender<Work>,
    queue_bytes: Arc<Semaphore>,
    long_searches: Semaphore,
    signal: Arc<Signal>,
    /// `None` once closed.
    running: Mutex<Option<Running>>,
    readers: Mutex<Option<Readers>>,
    /// Taken by one long job at a time.
    upkeep: Mutex<Option<Upkeep>>,
    scrub: Mutex<Option<Scrub>>,
    wanted_on_disk: Mutex<Vec<BlockHash>>,
    seen_files: Mutex<lacks::SeenFiles>,
}

#[derive(Debug)]
struct Running {
    writer: JoinHandle<()>,
    keeper: JoinHandle<()>,
    readers: Vec<JoinHandle<()>>,
    /// Goes last: it holds the lock.
    home: Home,
}

impl Store {
    /// Opens the store in the folder `path`; makes it when the folder is missing or holds nothing but `README.md` and
    /// `.gitignore`. Blocks while packs and journals are looked at.
    ///
    /// # Errors
    /// A folder that is something else, a store of a newer version, one that is open already, a damaged journal. None of
    /// them changes anything.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Arc<Self>> {
        let mut ids = IdSource::new(random_seed(path)?);
        let home = Home::open(path, || Ok(StoreId::from_bytes(ids.bytes16())))?;
        let remembered = history::read_keep(path)?;
        let keep_ms = options.keep_ms.unwrap_or(remembered);
        let recovered = recover::recover(&home, Duration::from_millis(options.index_open_ms))?;
        let index = recovered.index.clone();
        let kept = if keep_ms == remembered { Ok(()) } else { history::write_keep(path, keep_ms) };
        kept.and_then(|()| Self::start(path, home, recovered, options, keep_ms, ids))
            .inspect_err(|_| index.abandon())
    }

    /// Starts the threads of a store that was looked at.
    fn start(
        path: &Path,
        home: Home,
        recovered: Recovered,
        options: StoreOptions,
        keep_ms: u64,
        ids: IdSource,
    ) -> Result<Arc<Self>> {
        let Recovered { index, journals, heads, known, end, start_new_pack, problems } = recovered;
        let packs = Packs::new(home.packs(), home.id, options.pack_bytes, end);
        let on_disk = gone::load_wanted(path);
        let mut wanted = on_disk.clone();
        if problems.iter().any(|problem| matches!(problem, Problem::RebuiltIndex { .. })) {
            mend::retain_lacking(&mut wanted, &packs, &index)?;
        }
        let beside = gone::beside(&home.packs(), home.id)?;
        let stale = !beside.0.is_empty() || !beside.1.is_empty();
        let collected = collected::known(path, home.id, &index)?;
        let due = Due::of(&gone::load_condemned(path, home.id)?, &GcOptions::default());
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            options,
            keep_ms,
            collected: collected.into(),
            due: due.into(),
            packs,
            recent: Recent { noted: end, ..Recent::default() }.into(),
            heads: heads.into(),
            gate: ().into(),
            failure: Default::default(),
            damaged: wanted.into(),
            tags_lack: AtomicBool::new(false),
            absent: Mutex::default(),
            follow: Mutex::default(),
            unsettled: AtomicBool::new(mend::is_called_for(&problems) || !on_disk.is_empty() || stale),
            doubted: AtomicBool::new(false),
            bent: mend::bent(&problems, &on_disk, &index)?.into(),
            news: Notify::new(),
            leases: Mutex::default(),
            holds: Arc::default(),
            known: Mutex::default(),
            settling: Mutex::default(),
            closing: AtomicBool::new(false),
            problems: problems.into(),
            events: broadcast::channel(EVENTS_MAX).0,
        });
        if start_new_pack {
            shared.packs.start_pack(end.pack + 1, &shared.failure)?;
        }
        reach::bring_up(&shared, &index, &journals, known)?;
        index.flush(&checkpoint(&shared, home.id)?)?;
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let signal = Arc::new(Signal::default());
        let keeper =
            Keeper { shared: shared.clone(), index: index.clone(), store: home.id, signal: signal.clone() };
        let (readers, reader_threads) = Readers::start(&shared, &index, READ_THREADS)?;
        let upkeep =
            Upkeep { shared: shared.clone(), index: index.clone(), queue: queue.clone(), store: home.id };
        let writer = Writer {
            shared: shared.clone(),
            index,
            journals,
            store: home.id,
            ids,
            signal: signal.clone(),
            group: Group::default(),
        };
        let id = home.id;
        let running = Running {
            keeper: spawn("keep", path, move || keeper.run())?,
            writer: spawn("store", path, move || writer.run(requests))?,
            readers: reader_threads,
            home,
        };
        Ok(Arc::new(Self {
            shared,
            id,
            queue,
            queue_bytes: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
            long_searches: Semaphore::new(commits::LONG_SEARCHES_MAX),
            signal,
            running: Mutex::new(Some(running)),
            readers: Mutex::new(Some(readers)),
            upkeep: Mutex::new(Some(upkeep)),
            scrub: Mutex::default(),
            wanted_on_disk: Mutex::new(on_disk.into_iter().collect()),
            seen_files: Mutex::default(),
        }))
    }

    /// The id of this store, from `store.toml`.
    pub const fn id(&self) -> StoreId {
        self.id
    }

    /// How long replaced versions stay restorable, ms.
    pub fn keep_ms(&self) -> u64 {
        self.shared.keep_ms
    }

    /// What was found wrong with the store's files since it was opened. The store works without what is named here.
    pub fn problems(&self) -> Vec<Problem> {
        self.shared.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finishes what was accepted, brings everything to disk and lets go of the folder. Later calls say `Closed`. Blocks.
    ///
    /// # Errors
    /// The failure that stopped the store, whenever that was.
    pub fn close(&self) -> Result<()> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(running) = running else { return self.shared.failure.check() };
        self.shared.closing.store(true, Ordering::Relaxed);
        // A long job notices, and ends at its next step.
        let upkeep = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(upkeep) = upkeep {
            let scrub = self.scrub.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(Err(error)) = scrub.map(|scrub| scrub.remember(&self.shared.path)) {
                // The next pass begins a little earlier.
                tracing::debug!(%error, "place of the scrub not written");
            }
            if let Err(error) = self.remember_wanted() {
                tracing::debug!(%error, "what is wanted was not written down");
            }
            upkeep.end();
        }
        drop(self.readers.lock().unwrap_or_else(PoisonError::into_inner).take());
        // Full means that the storage thread is still taking requests: it ends when it has taken this one.
        let mut stop = Work::Stop;
        while let Err(mpsc::error::TrySendError::Full(again)) = self.queue.try_send(stop) {
            stop = again;
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut whole = running.writer.join().is_ok();
        self.signal.stop();
        whole &= running.keeper.join().is_ok();
        for reader in running.readers {
            whole &= reader.join().is_ok();
        }
        drop(running.home);
        if !whole {
            let source = std::io::Error::other("a thread of the store panicked");
            let error = StorageError::Io { what: "close", path: self.shared.path.clone(), source };
            return Err(self.shared.failure.set(error));
        }
        self.shared.failure.check()
    }

    /// Deletes what no version names, and gives the space back. Blocks for long; `look` is called between the steps and
    /// can end it.
    ///
    /// # Errors
    /// Anything that goes wrong while marking: then nothing was deleted.
    pub fn gc(
        &self,
        options: &GcOptions,
        brake: &Brake,
        look: &mut dyn FnMut(GcStep) -> Result<()>,
    ) -> Result<GcReport> {
        self.upkeep(|upkeep| sweep::run(upkeep, options, brake, look))
    }

    /// Deletes what earlier runs of [`gc`](Self::gc) condemned, once the grace time of all of it is over; `None` when there is
    /// nothing to do yet. Blocks for long when there is. After a restart the usual grace time counts.
    ///
    /// # Errors
    /// As `gc`.
    pub fn finish_gc(&self, brake: &Brake) -> Result<Option<GcReport>> {
        let is_due = self.shared.due().is_some_and(|due| due.at_ms <= (self.shared.options.clock)());
        if is_due { self.upkeep(|upkeep| sweep::finish(upkeep, brake)) } else { Ok(None) }
    }

    /// Looks whether every version is whole and every file is what was written. Blocks for long.
    ///
    /// # Errors
    /// What keeps it from looking. Damage is in the report.
    pub fn check(&self, options: &CheckOptions, brake: &Brake) -> Result<CheckReport> {
        self.upkeep(|upkeep| check::run(upkeep, options, brake))
    }

    /// Counts what is in the store. Blocks for long.
    ///
    /// # Errors
    /// A manifest that cannot be read, among others.
    pub fn stats(&self, brake: &Brake) -> Result<Stats> {
        self.upkeep(|upkeep| stats::run(upkeep, brake))
    }

    /// Reads about `bytes_max` bytes again and looks whether they are what was written.
    ///
    /// # Errors
    /// What keeps it from reading. Damage is in the step.
    pub fn scrub(&self, bytes_max: u64) -> Result<ScrubStep> {
        self.upkeep(|upkeep| {
            let mut scrub = self.scrub.lock().unwrap_or_else(PoisonError::into_inner);
            scrub.get_or_insert_with(|| Scrub::load(upkeep)).step(upkeep, bytes_max)
        })
    }

    /// Bytes of all packs.
    pub fn packs_bytes(&self) -> u64 {
        self.upkeep(|upkeep| Ok(upkeep.packs()?.values().sum())).unwrap_or(0)
    }

    /// One long job at a time.
    fn upkeep<T>(&self, job: impl FnOnce(&Upkeep) -> Result<T>) -> Result<T> {
        let upkeep = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        match &*upkeep {
            Some(upkeep) => job(upkeep),
            None => Err(self.gone()),
        }
    }

    async fn ask<T>(&self, work: Work, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        self.queue.send(work).await.map_err(|_| self.gone())?;
        answer.await.map_err(|_| self.gone())?
    }

    fn gone(&self) -> StorageError {
        self.shared.failure.check().err().unwrap_or(StorageError::Closed)
    }

    /// Waits until the bytes of these blocks may queue up.
    async fn room(&self, blocks: impl IntoIterator<Item = &VerifiedBlock>) -> Result<OwnedSemaphorePermit> {
        let bytes: usize = blocks.into_iter().map(|block| block.sealed().payload.len()).sum();
        let permits = u32::try_from(bytes.min(QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        self.queue_bytes.clone().acquire_many_owned(permits).await.map_err(|_| StorageError::Closed)
    }

    fn reader(&self) -> Result<Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| self.gone())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Whoever wants to know calls `close`; a failure is in the log either way.
        let _ = self.close();
    }
}

fn spawn(name: &str, path: &Path, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|source| StorageError::Io {
        what: "start a thread for",
        path: path.to_owned(),
        source,
    })
}

fn random_seed(path: &Path) -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| StorageError::Io {
        what: "draw an id for",
        path: path.to_owned(),
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(seed)
}

impl BlockStore for Store {
    fn put_within(
        &self,
        share: Option<ShareId>,
        blocks: Vec<VerifiedBlock>,
        brought_max: u64,
    ) -> BoxFuture<'_, Result<PutReport>> {
        let asker = Asker::of(share);
        Box::pin(async move {
            let permit = self.room(&blocks).await?;
            let blocks = Prepared::all(blocks)?;
            let (reply, answer) = oneshot::channel();
            self.ask(Work::Put(Put { asker, blocks, brought_max, reply, _permit: permit }), answer).await
        })
    }

    fn get_in(
        &self,
        share: Option<ShareId>,
        hashes: Vec<BlockHash>,
    ) -> BoxFuture<'_, Result<Vec<Option<SealedBlock>>>> {
        let asker = Asker::of(share);
        Box::pin(async move { self.reader()?.run(move |reader| reader.get_many(asker, &hashes)).await })
    }

    fn lease(&self, session: SessionId, hashes: &[BlockHash]) {
        self.shared.leases().take(session, hashes, (self.shared.options.clock)());
    }

    fn let_go(&self, session: SessionId, hashes: &[BlockHash]) {
        self.shared.leases().let_go(session, hashes);
    }

    fn end_lease(&self, session: SessionId) {
        self.shared.leases().end(session, (self.shared.options.clock)());
    }

    fn missing_in(&self, share: Option<ShareId>, hashes: Vec<BlockHash>) -> BoxFuture<'_, Result<Vec<bool>>> {
        let asker = Asker::of(share);
        Box::pin(async move { self.reader()?.run(move |reader| reader.missing(asker, &hashes)).await })
    }
}

impl Journal for Store {
    fn open_share(&self, name: &str) -> BoxFuture<'_, Result<(ShareId, Head)>> {
        let name = name.to_owned();
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.ask(Work::OpenShare(name, reply), answer).await
        })
    }

    fn commit(&self, request: CommitRequest) -> BoxFuture<'_, Result<Committed>> {
        Box::pin(self.commit_looked(request))
    }

    fn read_since(
        &self,
        share: ShareId,
        after: Position,
        nodes_max: usize,
        with_tombstones: bool,
    ) -> BoxFuture<'_, Result<Page>> {
        Box::pin(async move {
            let read = move |reader: &super::readers::Reader| {
                reader.read_since(share, after, nodes_max, with_tombstones)
            };
            self.reader()?.run(read).await
        })
    }

    fn head(&self, share: ShareId) -> Head {
        self.shared.head(share)
    }

    fn knows(
        &self,
        share: ShareId,
        journal: JournalId,
        seq: Seq,
        chain: ChainHash,
    ) -> BoxFuture<'_, Result<bool>> {
        Box::pin(
            async move { self.reader()?.run(move |reader| reader.knows(share, journal, seq, chain)).await },
        )
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }

    fn watch(&self) -> broadcast::Receiver<Arc<CommitEvent>> {
        self.shared.events.subscribe()
    }
}

#[cfg(test)]
#[path = "upkeep_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "mend_tests.rs"]
mod mend_tests;

#[cfg(test)]
#[path = "reach_tests.rs"]
mod reach_tests;
