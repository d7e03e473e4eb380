//! [`MemoryStore`]: the reference. Says in the simplest way what a store does, runs in the simulator without threads or
//! clock, and can [`crash`](MemoryStore::crash).

mod blocks;
mod disk;
mod past;

use super::content::{Held, Search, decide};
use super::history::{self, History};
use super::journal::CommitRecord;
use super::pack_file::Place;
use super::sled::{CommitInfo, Replaced};
use super::{
    BlockStore, BoxFuture, CommitEvent, CommitRequest, Committed, EVENTS_MAX, Head, Journal, NO_HEAD, Page,
    Position, PutReport, Result, ShareId, StorageError, check_share_name,
};
use crate::block::{Block, SealedBlock, VerifiedBlock, seal};
use crate::model::{BlockHash, ChainHash, Change, IdSource, JournalId, Name, Node, NodeId, Refusal, Seq};
use crate::tree::Nodes;
use bytes::Bytes;
use disk::Disk;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

/// See the module.
#[derive(Debug)]
pub struct MemoryStore(Mutex<State>);

#[derive(Debug)]
struct State {
    blocks: Blocks,
    /// Put since the last commit.
    unsynced: HashSet<BlockHash>,
    /// To which shares blocks were brought; `None`: to all.
    reach: BTreeSet<(Option<ShareId>, BlockHash)>,
    shares: BTreeMap<ShareId, Share>,
    ids: IdSource,
    now_ms: u64,
    keep_ms: u64,
    events: broadcast::Sender<Arc<CommitEvent>>,
    disk: Disk,
}

#[derive(Debug, Clone, Default)]
struct Blocks(HashMap<BlockHash, SealedBlock>);

#[derive(Debug, Clone)]
pub(super) struct Share {
    name: String,
    head: Head,
    /// What is known of every commit, from before the first.
    commits: Vec<CommitInfo>,
    past: BTreeMap<(NodeId, Seq), Replaced>,
    left: BTreeSet<(NodeId, Name, Seq, NodeId)>,
    nodes: BTreeMap<NodeId, Node>,
    places: BTreeMap<(NodeId, Name), NodeId>,
    versions: BTreeSet<(Seq, NodeId)>,
}

impl MemoryStore {
    /// An empty store. The same seed gives the same ids.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(Mutex::new(State {
            blocks: Blocks::default(),
            unsynced: HashSet::new(),
            reach: BTreeSet::new(),
            shares: BTreeMap::new(),
            ids: IdSource::new(seed),
            now_ms: 0,
            keep_ms: history::KEEP_MS_DEFAULT,
            events: broadcast::channel(EVENTS_MAX).0,
            disk: Disk::default(),
        }))
    }

    /// Sets the clock, ms since 1970. It stands still otherwise.
    pub fn set_clock(&self, now_ms: u64) {
        self.state().now_ms = now_ms;
    }

    /// Sets how long replaced versions stay restorable, ms.
    pub fn set_keep(&self, keep_ms: u64) {
        self.state().keep_ms = keep_ms;
    }

    /// Asks about the past of a share: with its head, the clock and the keep time.
    fn ask<T>(
        &self,
        share: ShareId,
        question: impl FnOnce(&Share, u64, u64) -> Result<T>,
    ) -> std::future::Ready<Result<T>> {
        let state = self.state();
        let share = state.shares.get(&share).ok_or(StorageError::UnknownShare);
        ready(share.and_then(|share| question(share, state.now_ms, state.keep_ms)))
    }

    /// The past of a share, to ask it without a store around it.
    #[cfg(test)]
    pub(super) fn timeline<T>(&self, share: ShareId, ask: impl FnOnce(&Share) -> T) -> T {
        ask(self.state().shares.get(&share).unwrap())
    }

    /// Loses what was not durable, and ends every watch.
    pub fn crash(&self) {
        let mut state = self.state();
        for hash in std::mem::take(&mut state.unsynced) {
            state.blocks.0.remove(&hash);
        }
        state.events = broadcast::channel(EVENTS_MAX).0;
        state.disk = Disk::default();
    }

    /// A copy of what is durable now, as a backup has it.
    pub fn copy(&self) -> Self {
        let state = self.state();
        let mut blocks = state.blocks.clone();
        blocks.0.retain(|hash, _| !state.unsynced.contains(hash));
        Self(Mutex::new(State {
            blocks,
            unsynced: HashSet::new(),
            reach: state.reach.clone(),
            shares: state.shares.clone(),
            ids: state.ids.clone(),
            now_ms: state.now_ms,
            keep_ms: state.keep_ms,
            events: broadcast::channel(EVENTS_MAX).0,
            disk: Disk::default(),
        }))
    }

    /// The next requests that bring blocks, so many of them, find the disk full.
    pub fn fill(&self, times: u32) {
        self.state().disk.fill(times);
    }

    /// After so many more requests that write, the disk breaks: that one and everything after it fails for good, until a
    /// [`crash`](Self::crash). A commit that was being recorded may be there afterwards.
    pub fn break_after(&self, spared: u32, recorded: bool) {
        self.state().disk.break_after(spared, recorded);
    }

    /// The disk is as it should be.
    pub fn mend(&self) {
        self.state().disk = Disk::default();
    }

    /// True after it broke.
    pub fn is_broken(&self) -> bool {
        self.state().disk.check().is_err()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn reaches(&self, share: Option<ShareId>, hash: &BlockHash) -> bool {
        share.is_none() || self.reach.contains(&(share, *hash)) || self.reach.contains(&(None, *hash))
    }

    /// The blocks that a share reaches.
    fn of_share(&self, share: ShareId) -> OfShare<'_> {
        OfShare { state: self, share }
    }

    fn put(
        &mut self,
        share: Option<ShareId>,
        blocks: &[VerifiedBlock],
        brought_max: u64,
    ) -> Result<PutReport> {
        self.disk.check()?;
        if let Some(block) = blocks.iter().find(|block| !block.is_self_contained()) {
            return Err(StorageError::NeedsBase(block.hash()));
        }
        let fresh: BTreeMap<BlockHash, u64> = blocks
            .iter()
            .filter(|block| !self.reaches(share, &block.hash()))
            .map(|block| (block.hash(), block.sealed().payload.len() as u64 + super::BLOCK_COST_BYTES))
            .collect();
        let mut report = PutReport { brought: fresh.values().sum(), ..PutReport::default() };
        if report.brought > brought_max {
            return Err(StorageError::OverQuota);
        }
        let is_new = |block: &VerifiedBlock| !self.blocks.0.contains_key(&block.hash());
        if blocks.iter().any(is_new) {
            self.disk.take_room()?;
        }
        for block in blocks {
            self.reach.insert((share, block.hash()));
            if self.blocks.0.contains_key(&block.hash()) {
                report.held += 1;
                continue;
            }
            report.stored += 1;
            report.bytes += block.sealed().payload.len() as u64;
            self.blocks.0.insert(block.hash(), block.sealed().clone());
            self.unsynced.insert(block.hash());
        }
        Ok(report)
    }

    fn commit(&mut self, request: CommitRequest) -> Result<Committed> {
        let CommitRequest { share: id, device, session, changes, inline } = request;
        if !self.shares.contains_key(&id) {
            return Err(StorageError::UnknownShare);
        }
        self.put(Some(id), &inline, u64::MAX)?;
        let share = self.shares.get(&id).ok_or(StorageError::UnknownShare)?;
        let held = self.of_share(id);
        let verdicts = decide(share, &changes, |old, new| Search::new(old, new).finish(&held))?;
        let share = self.shares.get_mut(&id).ok_or(StorageError::UnknownShare)?;
        let prev = share.head.seq;
        let refused: Vec<(u32, Refusal)> =
            (0u32..).zip(&verdicts).filter_map(|(number, verdict)| Some((number, (*verdict)?))).collect();
        let standing: Vec<Change> = changes
            .into_iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| verdict.is_none())
            .map(|(c, _)| c)
            .collect();
        if standing.is_empty() {
            return Ok(Committed { prev, head: share.head, nodes: Vec::new(), refused });
        }
        self.disk.before_record()?;
        let nodes = share.apply(device, self.now_ms, standing)?;
        self.unsynced.clear();
        self.disk.check()?;
        let head = share.head;
        let event = CommitEvent { share: id, session, prev, head, nodes: nodes.clone(), inline };
        // Nobody watching is fine.
        let _ = self.events.send(Arc::new(event));
        Ok(Committed { prev, head, nodes, refused })
    }
}

impl Share {
    fn apply(&mut self, device: String, time_ms: u64, changes: Vec<Change>) -> Result<Vec<Node>> {
        let seq = self.head.seq.next();
        let packs = Place::default();
        let record = CommitRecord { seq, time_ms, device: device.clone(), packs, changes };
        let link = record.encode()?;
        let nodes: Vec<Node> = record
            .changes
            .iter()
            .map(|change| Node { id: change.id, version: seq, state: change.state.clone() })
            .collect();
        for node in &nodes {
            if let Some(old) = self.nodes.get(&node.id) {
                self.versions.remove(&(old.version, old.id));
                if let Some(state) = &old.state {
                    self.places.remove(&(state.parent, state.name.clone()));
                    if !node.state.as_ref().is_some_and(|new| new.same_place(state)) {
                        self.left.insert((state.parent, state.name.clone(), seq, old.id));
                    }
                }
                self.past.insert((old.id, old.version), Replaced { node: old.clone(), by: seq });
            }
        }
        for node in &nodes {
            self.versions.insert((seq, node.id));
            if let Some(state) = &node.state {
                self.places.insert((state.parent, state.name.clone()), node.id);
            }
            self.nodes.insert(node.id, node.clone());
        }
        self.head.seq = seq;
        self.head.chain = self.head.chain.link(&link);
        let time_max_ms = self.commits.last().map_or(0, |last| last.time_max_ms).max(time_ms);
        self.commits.push(CommitInfo { chain: self.head.chain, time_ms, time_max_ms, device });
        Ok(nodes)
    }

    fn page(&self, after: Position, nodes_max: usize, with_tombstones: bool) -> Page {
        let first = match after.node {
            Some(node) => (after.seq, node),
            None => (after.seq.next(), NodeId::ROOT),
        };
        let mut found = self
            .versions
            .range(first..)
            .filter(|place| after.node.is_none() || **place != first)
            .filter_map(|(_, id)| self.nodes.get(id))
            .filter(|node| with_tombstones || node.state.is_some());
        let nodes: Vec<Node> = found.by_ref().take(nodes_max.max(1)).cloned().collect();
        let complete = found.next().is_none();
        let next = match nodes.last() {
            Some(node) if !complete => Position { seq: node.version, node: Some(node.id) },
            _ => Position { seq: after.seq.max(self.head.seq), node: None },
        };
        Page { nodes, next, complete, head: self.head }
    }
}

impl Nodes for Share {
    type Error = StorageError;

    fn node(&self, id: NodeId) -> Result<Option<Node>> {
        Ok(self.nodes.get(&id).cloned())
    }

    fn child(&self, parent: NodeId, name: &Name) -> Result<Option<NodeId>> {
        Ok(self.places.get(&(parent, name.clone())).copied())
    }

    fn any_child(&self, parent: NodeId, is: &mut dyn FnMut(NodeId) -> bool) -> Result<bool> {
        let all = self.nodes.values();
        let mut inside = all.filter(|node| node.state.as_ref().is_some_and(|state| state.parent == parent));
        Ok(inside.any(|node| is(node.id)))
    }
}

/// What one share sees of the blocks.
struct OfShare<'a> {
    state: &'a State,
    share: ShareId,
}

impl OfShare<'_> {
    fn get(&self, hash: &BlockHash) -> Option<&SealedBlock> {
        self.state.blocks.0.get(hash).filter(|_| self.state.reaches(Some(self.share), hash))
    }
}

impl Held for OfShare<'_> {
    fn plain_lens(&self, hashes: &[BlockHash]) -> Result<Vec<Option<u32>>> {
        Ok(hashes.iter().map(|hash| self.get(hash).map(|sealed| sealed.plain_len)).collect())
    }

    fn plain(&self, hashes: &[BlockHash]) -> Result<Option<Vec<Bytes>>> {
        let open =
            |hash| self.get(hash).and_then(|sealed| seal::open(sealed, None).ok()).map(Block::into_bytes);
        Ok(hashes.iter().map(open).collect())
    }
}

impl Journal for MemoryStore {
    fn open_share(&self, name: &str) -> BoxFuture<'_, Result<(ShareId, Head)>> {
        if let Err(error) = check_share_name(name) {
            return Box::pin(ready(Err(error)));
        }
        let mut state = self.state();
        if let Err(error) = state.disk.check() {
            return Box::pin(ready(Err(error)));
        }
        if let Some((id, share)) = state.shares.iter().find(|(_, share)| share.name == name) {
            return Box::pin(ready(Ok((*id, share.head))));
        }
        let id = ShareId::from_bytes(state.ids.bytes16());
        let journal = JournalId::from_bytes(state.ids.bytes16());
        let start = ChainHash::start(journal.as_bytes());
        let head = Head { journal, seq: Seq::ZERO, chain: start };
        let share = Share {
            name: name.to_owned(),
            head,
            commits: vec![CommitInfo { chain: start, time_ms: 0, time_max_ms: 0, device: String::new() }],
            past: BTreeMap::new(),
            left: BTreeSet::new(),
            nodes: BTreeMap::new(),
            places: BTreeMap::new(),
            versions: BTreeSet::new(),
        };
        state.shares.insert(id, share);
        Box::pin(ready(Ok((id, head))))
    }

    fn commit(&self, request: CommitRequest) -> BoxFuture<'_, Result<Committed>> {
        Box::pin(async move { self.state().commit(request) })
    }

    fn read_since(
        &self,
        share: ShareId,
        after: Position,
        nodes_max: usize,
        with_tombstones: bool,
    ) -> BoxFuture<'_, Result<Page>> {
        let state = self.state();
        let page = state.shares.get(&share).map(|share| share.page(after, nodes_max, with_tombstones));
        Box::pin(ready(page.ok_or(StorageError::UnknownShare)))
    }

    fn head(&self, share: ShareId) -> Head {
        self.state().shares.get(&share).map_or(NO_HEAD, |share| share.head)
    }

    fn knows(
        &self,
        share: ShareId,
        journal: JournalId,
        seq: Seq,
        chain: ChainHash,
    ) -> BoxFuture<'_, Result<bool>> {
        let state = self.state();
        let known = state.shares.get(&share).map(|share| {
            let at = usize::try_from(seq.0).ok().and_then(|seq| share.commits.get(seq));
            share.head.journal == journal && at.is_some_and(|at| at.chain == chain)
        });
        Box::pin(ready(known.ok_or(StorageError::UnknownShare)))
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }

    fn watch(&self) -> broadcast::Receiver<Arc<CommitEvent>> {
        self.state().events.subscribe()
    }
}
