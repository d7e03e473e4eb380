//! The storage thread: the only one that writes packs, journals and nodes. What it takes from its queue first is first
//! in the packs, in the journal, in the answers and in the broadcast.
//!
//! It takes a request, then whatever else has arrived by then, and makes all commits among them durable together. With
//! nobody else in the queue nothing waits.

use super::content::{Held, KnownContents, decide};
use super::journal::{CommitRecord, JournalFile, Title};
use super::keeper::Signal;
use super::pack_file::{Location, RECORD_HEADER, record_header};
use super::pending::{Group, Reply, ShareGroup, ShareView, Signed, Waiting};
use super::shared::{ShareHead, Shared};
use super::sled::{Applied, Index};
use super::{
    CommitEvent, CommitRequest, Committed, Head, PutReport, Result, ShareId, StorageError, check_share_name,
    file,
};
use crate::block::{VerifiedBlock, seal};
use crate::model::{BlockHash, IdSource, JournalId, Node, Refusal, Seq, SessionId, StoreId, codec};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// A block with the header of its record, made by the caller so that hashing is not done here.
#[derive(Debug)]
pub struct Prepared {
    block: VerifiedBlock,
    header: [u8; RECORD_HEADER as usize],
}

/// A block with the header of its record, as [`Writer::append`] takes it.
pub type Record<'a> = (&'a VerifiedBlock, [u8; RECORD_HEADER as usize]);

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

/// What the storage thread is asked for. The permit bounds the bytes in its queue.
#[derive(Debug)]
pub enum Work {
    /// Take blocks.
    Put(Vec<Prepared>, oneshot::Sender<Result<PutReport>>, OwnedSemaphorePermit),
    /// Commit; the blocks are those of `inline`.
    Commit(CommitRequest, Vec<Prepared>, Reply, OwnedSemaphorePermit),
    /// Find or make a share.
    OpenShare(String, oneshot::Sender<Result<(ShareId, Head)>>),
    /// Do this between two groups of commits, with everything before it durable.
    Job(Job),
    /// Finish what came before, then end.
    Stop,
}

/// Work for the storage thread that is described elsewhere.
pub struct Job(pub Box<dyn FnOnce(&mut Writer) + Send>);

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

/// See the module.
#[derive(Debug)]
pub struct Writer {
    pub shared: Arc<Shared>,
    pub index: Index,
    pub journals: BTreeMap<ShareId, JournalFile>,
    pub store: StoreId,
    pub ids: IdSource,
    pub signal: Arc<Signal>,
    pub group: Group,
    pub known: KnownContents,
}

impl Writer {
    /// Works until it is told to stop or nobody can ask any more.
    pub fn run(mut self, mut queue: mpsc::Receiver<Work>) {
        let shared = self.shared.clone();
        let worked = catch_unwind(AssertUnwindSafe(|| {
            while let Some(work) = queue.blocking_recv() {
                let mut go_on = self.take(work);
                while go_on && !self.group.is_empty() && !self.group.is_full() {
                    match queue.try_recv() {
                        Ok(work) => go_on = self.take(work),
                        Err(_) => break,
                    }
                }
                self.finish_group();
                if !go_on {
                    break;
                }
            }
        }));
        if worked.is_err() {
            // What it was doing is unknown. Whoever waits hears of it by the end of the reply channel.
            let path = shared.path.clone();
            shared.failure.set(StorageError::Io {
                what: "go on working on",
                path,
                source: std::io::Error::other("the storage thread panicked"),
            });
        }
        if shared.failure.check().is_err() {
            self.index.abandon();
        }
    }

    /// Does one request, or puts it into the group; `false` for the last. An answer nobody waits for is not an error.
    fn take(&mut self, work: Work) -> bool {
        match work {
            Work::Put(blocks, reply, _permit) => {
                let done = self.put(&blocks).map_err(|error| self.fatal_if_index(error));
                let _ = reply.send(done);
            }
            Work::Commit(request, inline, reply, _permit) => self.commit(request, &inline, reply),
            Work::OpenShare(name, reply) => {
                let _ = reply.send(self.open_share(&name));
            }
            Work::Job(job) => {
                self.finish_group();
                job.0(self);
            }
            Work::Stop => return false,
        }
        true
    }

    /// An index that fails cannot be worked with, and may know less than it did.
    fn fatal_if_index(&self, error: StorageError) -> StorageError {
        if matches!(error, StorageError::Index(_)) { self.shared.fail(error) } else { error }
    }

    fn put(&mut self, blocks: &[Prepared]) -> Result<PutReport> {
        self.shared.failure.check()?;
        let mut seen = HashSet::new();
        let mut fresh = Vec::with_capacity(blocks.len());
        for one in blocks {
            let hash = one.block.hash();
            if seen.insert(hash) {
                // Whoever puts a block relies on it.
                self.shared.leases().save(&hash);
                if locate(&self.shared, &self.index, &hash)?.is_none() {
                    fresh.push((&one.block, one.header));
                }
            }
        }
        let bytes = fresh.iter().map(|(block, _)| block.sealed().payload.len() as u64).sum();
        let report = PutReport { stored: fresh.len(), held: blocks.len() - fresh.len(), bytes };
        if fresh.is_empty() {
            return Ok(report);
        }
        self.append(&fresh, bytes)?;
        Ok(report)
    }

    /// Appends blocks whether they are held or not; from now on this is where they are.
    pub fn append(&mut self, fresh: &[Record<'_>], bytes: u64) -> Result<()> {
        self.check_room(bytes)?;
        let locations = self.shared.packs.append(fresh, &self.shared.failure)?;
        let mut recent = self.shared.recent.write().unwrap_or_else(PoisonError::into_inner);
        let mut damaged = self.shared.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        for ((block, _), location) in fresh.iter().zip(locations) {
            recent.blocks.insert(block.hash(), location);
            damaged.remove(&block.hash());
        }
        recent.noted = self.shared.packs.end();
        self.signal.wrote(self.shared.packs.unsynced_bytes(), recent.blocks.len());
        Ok(())
    }

    fn check_room(&self, bytes: u64) -> Result<()> {
        let min = self.shared.options.free_bytes_min;
        if min == 0 {
            return Ok(());
        }
        let path = &self.shared.path;
        let free =
            file::free_bytes(path).map_err(|error| StorageError::io("look at the disk of", path, error))?;
        if free < min.saturating_add(bytes) { Err(StorageError::Full(path.clone())) } else { Ok(()) }
    }

    fn open_share(&mut self, name: &str) -> Result<(ShareId, Head)> {
        self.shared.failure.check()?;
        check_share_name(name)?;
        let found = self.journals.values().find(|journal| journal.title.name == name);
        if let Some(journal) = found {
            let share = journal.title.share;
            return Ok((share, self.shared.head(share)));
        }
        let share = ShareId::from_bytes(self.ids.bytes16());
        let journal = JournalId::from_bytes(self.ids.bytes16());
        let title = Title { store: self.store, journal, share, name: name.to_owned() };
        let file = JournalFile::create(&self.shared.path.join("journal"), title)?;
        let head = Head { journal, seq: Seq::ZERO, chain: file.start() };
        let entry = ShareHead { head, start: file.start() };
        self.shared.heads.write().unwrap_or_else(PoisonError::into_inner).insert(share, entry);
        self.journals.insert(share, file);
        Ok((share, head))
    }

    /// Judges a commit and puts it into the group; on an error it is answered at once.
    fn commit(&mut self, request: CommitRequest, inline: &[Prepared], reply: Reply) {
        let session = request.session;
        match self.judged(request, inline) {
            Ok(Judged { share, record, committed, event, signed, named }) => {
                let waiting = Waiting { committed, event, signed, reply, session, named };
                if let Err(error) = self.group.push(share, &self.index, &record, waiting) {
                    // The one who waits hears of it by the end of the reply channel.
                    self.shared.fail(error);
                }
            }
            Err(error) => {
                let _ = reply.send(Err(self.fatal_if_index(error)));
            }
        }
    }

    fn judged(&mut self, request: CommitRequest, inline: &[Prepared]) -> Result<Judged> {
        self.shared.failure.check()?;
        let CommitRequest { share, device, session, changes, .. } = request;
        let durable = self.shared.share(share).ok_or(StorageError::UnknownShare)?.head;
        self.put(inline)?;
        let prev = self.group.head(share, durable);
        let view = ShareView { share, index: &self.index, group: &self.group };
        let held = Here { shared: &self.shared, index: &self.index, session, named: RefCell::default() };
        let verdicts = decide(&view, &held, &mut self.known, &changes)?;
        let named = held.named.into_inner();
        let (refused, standing) = sort_out(changes, &verdicts);
        if standing.is_empty() {
            let committed = Committed { prev: prev.seq, head: prev, nodes: vec![], refused };
            let (record, event, signed) = (Vec::new(), None, Signed::default());
            return Ok(Judged { share, record, committed, event, signed, named: Vec::new() });
        }
        let seq = prev.seq.next();
        let nodes: Vec<Node> = standing
            .iter()
            .map(|change| Node { id: change.id, version: seq, state: change.state.clone() })
            .collect();
        let time_ms = (self.shared.options.clock)();
        // Synced before the record is written, hence the right place even if more is appended until then.
        let packs = self.shared.packs.end();
        let signed = Signed { time_ms, device: device.clone() };
        let record = codec::encode(&CommitRecord { seq, time_ms, device, packs, changes: standing })?;
        if record.len() > codec::BYTES_MAX {
            return Err(StorageError::CommitTooLarge);
        }
        let head = Head { journal: prev.journal, seq, chain: prev.chain.link(&record) };
        let inline = inline.iter().map(|one| one.block.sealed().clone()).collect();
        let event = CommitEvent { share, session, prev: prev.seq, head, nodes: nodes.clone(), inline };
        let committed = Committed { prev: prev.seq, head, nodes, refused };
        Ok(Judged { share, record, committed, event: Some(event), signed, named })
    }

    /// Blocks durable, journal durable, index, answer, broadcast.
    fn finish_group(&mut self) {
        let group = std::mem::take(&mut self.group);
        if group.is_empty() {
            return;
        }
        for (share, part) in group.shares {
            match self.make_durable(share, &part) {
                Ok(()) => {
                    for Waiting { committed, event, reply, session, named, .. } in part.waiting {
                        if !named.is_empty() {
                            self.shared.leases().settle(session, &named);
                        }
                        let _ = reply.send(Ok(committed));
                        if let Some(event) = event {
                            // Nobody watching is fine.
                            let _ = self.shared.events.send(Arc::new(event));
                        }
                    }
                }
                Err(error) => {
                    for Waiting { reply, .. } in part.waiting {
                        let _ = reply.send(Err(again(&error)));
                    }
                }
            }
        }
        self.signal.committed();
    }

    /// # Errors
    /// `Full` when nothing happened, else `Failed`.
    fn make_durable(&mut self, share: ShareId, part: &ShareGroup) -> Result<()> {
        self.shared.failure.check()?;
        if part.bytes.is_empty() {
            return Ok(());
        }
        self.shared.packs.sync(&self.shared.failure)?;
        let journal = self.journals.get_mut(&share).ok_or(StorageError::UnknownShare)?;
        let offset = match journal.append(&part.bytes) {
            Ok(offset) => offset,
            Err(StorageError::Full(path)) => return Err(StorageError::Full(path)),
            Err(error) => return Err(self.shared.fail(error)),
        };
        // The commits exist from here on.
        let _gate = self.shared.gate.write().unwrap_or_else(PoisonError::into_inner);
        for waiting in part.waiting.iter().filter(|waiting| waiting.event.is_some()) {
            let committed = &waiting.committed;
            let applied = Applied {
                seq: committed.head.seq,
                time_ms: waiting.signed.time_ms,
                device: &waiting.signed.device,
                chain: committed.head.chain,
                offset,
                nodes: &committed.nodes,
            };
            self.index.apply(share, &applied).map_err(|error| self.shared.fail(error))?;
        }
        if let Some(entry) = self.shared.heads.write().unwrap_or_else(PoisonError::into_inner).get_mut(&share)
        {
            entry.head = part.head;
        }
        Ok(())
    }
}

/// A commit that can go into the group.
struct Judged {
    share: ShareId,
    /// Encoded; empty when every change was refused.
    record: Vec<u8>,
    committed: Committed,
    event: Option<CommitEvent>,
    signed: Signed,
    /// Blocks it names on which its session has a lease.
    named: Vec<BlockHash>,
}

/// Splits changes by their verdicts.
fn sort_out(
    changes: Vec<crate::model::Change>,
    verdicts: &[Option<Refusal>],
) -> (Vec<(u32, Refusal)>, Vec<crate::model::Change>) {
    let (mut refused, mut standing) = (Vec::new(), Vec::new());
    for ((number, change), verdict) in (0u32..).zip(changes).zip(verdicts) {
        match verdict {
            Some(refusal) => refused.push((number, *refusal)),
            None => standing.push(change),
        }
    }
    (refused, standing)
}

/// The same error for everybody in a group.
fn again(error: &StorageError) -> StorageError {
    match error {
        StorageError::Full(path) => StorageError::Full(path.clone()),
        StorageError::Failed(cause) => StorageError::Failed(cause.clone()),
        _ => StorageError::UnknownShare,
    }
}

/// Where a block lies; `None` when it is not held or turned out damaged.
pub fn locate(shared: &Shared, index: &Index, hash: &BlockHash) -> Result<Option<Location>> {
    if shared.is_damaged(hash) {
        return Ok(None);
    }
    match shared.recent(hash) {
        Some(location) => Ok(Some(location)),
        None => index.block(hash),
    }
}

/// The blocks of this store, as the judge looks at them. Whatever a commit looks at is not deleted meanwhile.
struct Here<'a> {
    shared: &'a Shared,
    index: &'a Index,
    session: SessionId,
    named: RefCell<Vec<BlockHash>>,
}

impl Here<'_> {
    fn name(&self, hash: &BlockHash) {
        if self.shared.leases().named(self.session, hash) {
            self.named.borrow_mut().push(*hash);
        }
    }
}

impl Held for Here<'_> {
    fn plain_len(&self, hash: &BlockHash) -> Result<Option<u32>> {
        self.name(hash);
        Ok(locate(self.shared, self.index, hash)?.map(|location| location.plain_len))
    }

    fn plain(&self, hash: &BlockHash) -> Result<Option<Bytes>> {
        self.name(hash);
        let Some(location) = locate(self.shared, self.index, hash)? else { return Ok(None) };
        match self.shared.packs.read(&[(*hash, location)]) {
            Ok(sealed) => {
                let block = sealed.first().and_then(|sealed| seal::open(sealed, None).ok());
                Ok(block.map(crate::block::Block::into_bytes))
            }
            Err(StorageError::DamagedBlock { hash, .. }) => {
                self.shared.mark_damaged(hash);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
