//! The storage thread: the only one that writes packs, journals and nodes. What it takes from its queue first is first
//! in the packs, in the journal, in the answers and in the broadcast.
//!
//! It takes a request, then whatever else has arrived by then: blocks that came side by side are written together, and
//! all commits become durable together. With nobody else in the queue nothing waits.

use super::content::{Held, Search, decide};
use super::inbox::{Answer, Inbox, Prepared, Put, Record, Work};
use super::journal::{CommitRecord, JournalFile, Title};
use super::keeper::{self, Signal};
use super::looked::{Asked, Looked};
use super::pack_file::Location;
use super::pending::{Group, Reply, ShareGroup, ShareView, Signed, Waiting};
use super::reach::{self, Asker, Tag};
use super::shared::{ShareHead, Shared};
use super::sled::{Applied, Index};
use super::{
    BLOCK_COST_BYTES, CommitEvent, CommitRequest, Committed, Head, PutReport, Result, ShareId, StorageError,
    check_share_name, file,
};
use crate::model::{BlockHash, IdSource, JournalId, Node, Refusal, Seq, SessionId, StoreId};
use bytes::Bytes;
use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use tokio::sync::mpsc;

/// Requests to take blocks are written together up to this many bytes of payload.
const PUT_BYTES_MAX: u64 = 4 * 1024 * 1024;

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
}

impl Writer {
    /// Works until it is told to stop or nobody can ask any more.
    pub fn run(mut self, queue: mpsc::Receiver<Work>) {
        let shared = self.shared.clone();
        let mut inbox = Inbox::new(queue);
        let worked = catch_unwind(AssertUnwindSafe(|| {
            while let Some(work) = inbox.wait() {
                let mut go_on = self.take(work, &mut inbox);
                while go_on && !self.group.is_empty() && !self.group.is_full() {
                    match inbox.try_next() {
                        Some(work) => go_on = self.take(work, &mut inbox),
                        None => break,
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
    fn take(&mut self, work: Work, inbox: &mut Inbox) -> bool {
        match work {
            Work::Put(put) => {
                let mut bytes = put.bytes();
                let mut puts = vec![put];
                while bytes < PUT_BYTES_MAX
                    && let Some(put) = inbox.try_put()
                {
                    bytes += put.bytes();
                    puts.push(put);
                }
                self.put_together(puts);
            }
            Work::Commit(asked, looked, reply, _permit) => self.commit(asked, looked, reply),
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

    /// Takes the blocks of several requests with one write, and answers each.
    fn put_together(&mut self, puts: Vec<Put>) {
        let requests: Vec<(Asker, &[Prepared], u64)> =
            puts.iter().map(|put| (put.asker, put.blocks.as_slice(), put.brought_max)).collect();
        let done = self.put(&requests).map_err(|error| self.fatal_if_index(error));
        match (done, puts.len()) {
            (Ok(reports), _) => {
                for (put, report) in puts.into_iter().zip(reports) {
                    let _ = put.reply.send(Ok(report));
                }
            }
            (Err(error), ..=1) => {
                if let Some(put) = puts.into_iter().next() {
                    let _ = put.reply.send(Err(error));
                }
            }
            // Each has an answer of its own: on a full disk, a smaller one may still fit.
            (Err(_), _) => puts.into_iter().for_each(|put| self.put_together(vec![put])),
        }
    }

    /// Takes all blocks of all requests or none.
    fn put(&mut self, requests: &[(Asker, &[Prepared], u64)]) -> Result<Vec<PutReport>> {
        self.shared.failure.check()?;
        let mut seen = HashSet::new();
        let mut fresh = Vec::new();
        let mut reports = Vec::with_capacity(requests.len());
        let mut tags = Vec::new();
        let mut tagged = HashSet::new();
        for (asker, blocks, brought_max) in requests {
            let mut report = PutReport::default();
            for one in *blocks {
                let hash = one.block.hash();
                // Whoever puts a block relies on it.
                self.shared.leases().save(&hash);
                let (place, known) = reach::look(&self.shared, &self.index, &hash)?;
                let bytes = one.block.sealed().payload.len() as u64;
                if !known.contains(&asker.tag()) && tagged.insert((hash, asker.tag())) {
                    // Whoever has the bytes may have them again.
                    tags.push((hash, asker.tag()));
                    if reach::is_brought(&self.shared, &self.index, *asker, &hash, &known)? {
                        report.brought += bytes + BLOCK_COST_BYTES;
                    }
                }
                let held = place.is_some() && !self.shared.is_damaged(&hash);
                if seen.insert(hash) && !held {
                    report.stored += 1;
                    report.bytes += bytes;
                    fresh.push((&one.block, one.header));
                } else {
                    report.held += 1;
                }
            }
            if report.brought > *brought_max {
                return Err(StorageError::OverQuota);
            }
            reports.push(report);
        }
        if !fresh.is_empty() {
            self.append(&fresh, reports.iter().map(|report| report.bytes).sum())?;
        }
        self.tag(tags);
        Ok(reports)
    }

    /// Remembers to which shares blocks were brought.
    pub fn tag(&self, tags: Vec<(BlockHash, Tag)>) {
        if tags.is_empty() {
            return;
        }
        let mut recent = self.shared.recent.write().unwrap_or_else(PoisonError::into_inner);
        for (hash, tag) in tags {
            let known = recent.tags.entry(hash).or_default();
            if !known.contains(&tag) {
                known.push(tag);
            }
        }
        self.signal.wrote(0, recent.tags.len());
    }

    /// Appends blocks whether they are held or not; from now on this is where they are.
    pub fn append(&mut self, fresh: &[Record<'_>], bytes: u64) -> Result<()> {
        self.check_room(bytes)?;
        let before = self.shared.packs.end().pack;
        let locations = self.shared.packs.append(fresh, &self.shared.failure)?;
        if before > 0 && self.shared.packs.end().pack > before && !self.shared.packs.path(before).exists() {
            // What was in it has to be found and asked for.
            self.shared.unsettled.store(true, Ordering::Relaxed);
        }
        let mut recent = self.shared.recent.write().unwrap_or_else(PoisonError::into_inner);
        let mut damaged = self.shared.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let absent = self.shared.absent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut came = Vec::new();
        for ((block, _), location) in fresh.iter().zip(locations) {
            let hash = block.hash();
            recent.blocks.insert(hash, location);
            if damaged.remove(&hash) || absent.contains_key(&hash) {
                came.push(hash);
            }
        }
        recent.noted = self.shared.packs.end();
        self.signal.wrote(self.shared.packs.unsynced_bytes(), recent.blocks.len());
        drop((recent, damaged, absent));
        if !came.is_empty() {
            self.shared.came(came);
        }
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
        let share = loop {
            let share = ShareId::from_bytes(self.ids.bytes16());
            let tag = Tag::of(share);
            // One in four thousand million, and then another.
            if tag != Tag::ALL && self.journals.keys().all(|other| Tag::of(*other) != tag) {
                break share;
            }
        };
        let journal = JournalId::from_bytes(self.ids.bytes16());
        let title = Title { store: self.store, journal, share, name: name.to_owned() };
        let file = JournalFile::create(&self.shared.path.join("journal"), title)?;
        let head = Head { journal, seq: Seq::ZERO, chain: file.start() };
        let entry = ShareHead { head, start: file.start() };
        self.shared.heads.write().unwrap_or_else(PoisonError::into_inner).insert(share, entry);
        self.journals.insert(share, file);
        // From here on a start knows that there was such a journal, and refuses when it is gone.
        keeper::flush(&self.shared, &self.index, self.store).map_err(|error| self.shared.fail(error))?;
        Ok((share, head))
    }

    /// Judges a commit and puts it into the group; on an error it is answered at once.
    fn commit(&mut self, asked: Box<Asked>, looked: Looked, reply: Reply) {
        // Eras begin on this thread.
        if !looked.is_empty() && looked.era != self.shared.leases().era() {
            let _ = reply.send(Ok(Answer::LookAgain(asked)));
            return;
        }
        let Asked { request, inline } = *asked;
        let session = request.session;
        match self.judged(request, &inline, looked) {
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

    fn judged(&mut self, request: CommitRequest, inline: &[Prepared], mut looked: Looked) -> Result<Judged> {
        self.shared.failure.check()?;
        let CommitRequest { share, device, session, changes, .. } = request;
        let durable = self.shared.share(share).ok_or(StorageError::UnknownShare)?.head;
        let asker = Asker::Share(Tag::of(share));
        self.put(&[(asker, inline, u64::MAX)])?;
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner).learn(share, &looked);
        let prev = self.group.head(share, durable);
        let view = ShareView { share, index: &self.index, group: &self.group };
        let verdicts = decide(&view, &changes, |_, new| {
            if new.root.level > 0 {
                // What nobody has looked for has changed since, and is refused as stale or sent again.
                return Ok(looked.is_complete(new).unwrap_or(false));
            }
            let (shared, index, leased) = (&self.shared, &self.index, Cell::new(false));
            let complete =
                Search::new(None, new).finish(&Here { shared, index, asker, session, leased: &leased })?;
            looked.add(new.clone(), complete, leased.get().then_some(new.root.hash));
            Ok(complete)
        })?;
        let named = looked.taken(&changes, &verdicts);
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
        let record = CommitRecord { seq, time_ms, device, packs, changes: standing }.encode()?;
        let head = Head { journal: prev.journal, seq, chain: prev.chain.link(&record) };
        let inline = inline.iter().map(|one| one.block.clone()).collect();
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
                        let _ = reply.send(Ok(Answer::Committed(committed)));
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
    /// Blocks it names on which the lease of its session ends with it.
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

/// The same for somebody who may not reach every block.
pub fn locate_for(
    shared: &Shared,
    index: &Index,
    asker: Asker,
    hash: &BlockHash,
) -> Result<Option<Location>> {
    if shared.is_damaged(hash) { Ok(None) } else { reach::find(shared, index, asker, hash) }
}

/// The blocks of this store, for contents of one block. Whatever a commit looks at is not deleted meanwhile.
struct Here<'a> {
    shared: &'a Shared,
    index: &'a Index,
    /// A commit can only name what its share reaches, or it would be a way to what others have.
    asker: Asker,
    session: SessionId,
    /// The session has a lease on it.
    leased: &'a Cell<bool>,
}

impl Held for Here<'_> {
    fn plain_lens(&self, hashes: &[BlockHash]) -> Result<Vec<Option<u32>>> {
        let len = |hash| {
            self.leased.set(self.shared.leases().named(self.session, hash));
            Ok(locate_for(self.shared, self.index, self.asker, hash)?.map(|location| location.plain_len))
        };
        hashes.iter().map(len).collect()
    }

    fn plain(&self, _: &[BlockHash]) -> Result<Option<Vec<Bytes>>> {
        // One block has no list.
        Ok(None)
    }
}
