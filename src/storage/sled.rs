//! The index: the only file that names the `sled` crate (1.0 alpha; ADR 0002 says why).
//!
//! Everything in here can be rebuilt from packs and journals, and nothing gets in before those are durable. sled is
//! flushed now and then; one writer at a time writes, and a flush keeps a prefix of what was written, so what a crash
//! leaves is the index as it was some time ago. [`Checkpoint`] says from where packs and journals have to be read again.
//!
//! | tree | key | value |
//! |---|---|---|
//! | blocks | block hash | pack, offset, payload length, plain length: u32 LE each; then the tag of each share that reaches it, u32 LE (`reach`) |
//! | nodes | share, node id | codec-encoded `Node`, tombstones too |
//! | children | share, parent id, name | node id, live nodes only |
//! | versions | share, version u64 BE, node id | 0 tombstone, 1 live |
//! | commits | share, seq u64 BE | chain (32), byte of the record in the journal u64 LE, time u64 LE, latest time so far u64 LE, device |
//! | past | share, node id, version u64 BE | the version that replaced it u64 LE, codec-encoded state or none |
//! | log | share, version u64 BE, node id | nothing; replaced versions only |
//! | places | share, parent id, name, 0, version u64 BE, node id | nothing; places that a node has left, and by which version |
//! | meta | "format", "checkpoint", "tags" | [`FORMAT`] u32 LE; codec-encoded `Checkpoint`; nothing, there when every block has its tags |
//!
//! The latest version of a node is in `nodes` and `versions` only: history costs nothing before a node changes. It is in
//! `past` before it is replaced in `nodes`, so a reader that looks at `nodes` first misses nothing.
//!
//! sled may panic on a damaged file: every call is caught and becomes an error. A tree or iterator that is dropped would
//! flush if sled's own flusher were off, therefore it is on, with an interval it never reaches.

mod past;

pub use past::{CommitInfo, Replaced, ShareIndex};

use super::error::StorageError;
use super::pack_file::{Location, Place};
use super::reach::Tag;
use super::timeline::PAGE_BYTES_MAX;
use super::{Page, Position, Result, ShareId};
use crate::model::{BlockHash, ChainHash, JournalId, Name, Node, NodeId, Seq, StoreId, codec};
use serde::{Deserialize, Serialize};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// Entries per leaf. Every touched leaf is rewritten at a flush, and block hashes touch leaves at random: small leaves
/// keep flushes short. Part of sled's format.
const LEAF_FANOUT: usize = 64;
/// Bytes of leaves that sled keeps in memory.
const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// How often, and after what pause, sled's files are tried again while a process that ends still holds them.
const FREE_ATTEMPTS: u32 = 200;
const FREE_PAUSE: Duration = Duration::from_millis(10);
/// Tombstones that a page leaves out, at most: some 10 ms.
const LEFT_OUT_MAX: usize = 16 * 1024;
/// Ten years: the flusher exists so that dropping a handle does not flush, not to do anything.
const NEVER_MS: usize = 10 * 365 * 86_400_000;
/// An index up to this size is read as a whole when it is opened, bytes on disk: about 300,000 blocks, some 0.3 s.
const READ_ALL_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Of the trees and their values; an index of another format is built anew.
const FORMAT: u32 = 3;

/// Boxed: sled's handles are tens of kilobytes each, too much to move about on a thread's stack.
type Tree = Box<::sled::Tree<LEAF_FANOUT>>;

/// Up to where the index holds what packs and journals hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The store it belongs to; `None` only in the default.
    pub store: Option<StoreId>,
    /// Every record before it is in the index.
    pub packs_end: Place,
    /// The packs that were there.
    pub packs: Vec<u32>,
    /// Per share: journal, last commit, chain.
    pub shares: Vec<(ShareId, JournalId, Seq, ChainHash)>,
}

/// A commit as the index takes it.
#[derive(Debug)]
pub struct Applied<'a> {
    /// Number of the commit, the version of its nodes.
    pub seq: Seq,
    /// Server's clock, ms since 1970.
    pub time_ms: u64,
    /// Name of the device that made it.
    pub device: &'a str,
    /// The chain with it.
    pub chain: ChainHash,
    /// Byte of its record in the journal.
    pub offset: u64,
    /// The nodes as they are after it.
    pub nodes: &'a [Node],
}

/// A handle on the index. One per thread: sled's handles can be sent but not shared.
#[derive(Clone)]
pub struct Index {
    db: Box<::sled::Db<LEAF_FANOUT>>,
    blocks: Tree,
    nodes: Tree,
    children: Tree,
    versions: Tree,
    commits: Tree,
    past: Tree,
    log: Tree,
    places: Tree,
    meta: Tree,
    /// Blocks that were looked up.
    #[cfg(test)]
    pub looks: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Index")
    }
}

/// Runs a call into sled; a panic inside is an error outside.
fn guarded<T>(call: impl FnOnce() -> io::Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(io::Error::other("the database panicked")))
        .map_err(|error| StorageError::Index(plain(error)))
}

/// The cause alone: sled puts before it where in its own source, on the machine that built it, the error passed.
fn plain(error: io::Error) -> io::Error {
    let text = error.to_string();
    match text.rsplit_once(".rs:").and_then(|(_, rest)| rest.split_once(" -> ")) {
        Some((_, cause)) => io::Error::new(error.kind(), cause.to_owned()),
        None => error,
    }
}

fn broken<T>(found: Option<T>) -> io::Result<T> {
    found.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a value of the index is not valid"))
}

fn key(share: ShareId, rest: &[&[u8]]) -> Vec<u8> {
    let mut key = share.as_bytes().to_vec();
    rest.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// A value of the tree of blocks.
fn row(bytes: &[u8]) -> Option<(Location, Vec<Tag>)> {
    let (place, tags) = bytes.split_first_chunk::<16>()?;
    let (tags, rest) = tags.as_chunks::<4>();
    let tags = tags.iter().map(|tag| Tag::from_bytes(*tag)).collect();
    if rest.is_empty() { Some((Location::from_bytes(place)?, tags)) } else { None }
}

fn node_id(bytes: &[u8]) -> io::Result<NodeId> {
    broken(bytes.try_into().ok()).map(NodeId::from_bytes)
}

/// Opens sled's files. Nobody else may have them, as the store is locked; but a process that is being started or killed
/// holds a copy of a descriptor, and sled's own lock with it, for an instant. That is no reason to rebuild the index.
fn open_when_free(config: &::sled::Config) -> io::Result<::sled::Db<LEAF_FANOUT>> {
    for _ in 0..FREE_ATTEMPTS {
        match config.open::<LEAF_FANOUT>() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FREE_PAUSE),
            other => return other,
        }
    }
    config.open::<LEAF_FANOUT>()
}

impl Index {
    /// Opens or makes the index in `path`, and reads its checkpoint (the default in a new one). A damaged file can send
    /// sled into an endless loop: after `patience` this gives up, and the thread that hangs is left behind.
    pub fn open(path: &Path, patience: Duration) -> Result<(Self, Checkpoint)> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let path = path.to_owned();
        let opener = std::thread::Builder::new().name("open-index".to_owned());
        opener
            .spawn(move || {
                let opened = guarded(|| Self::open_here(&path)).and_then(|index| {
                    let read = index.checkpoint().and_then(|checkpoint| {
                        guarded(|| index.read_all_if_small())?;
                        Ok(checkpoint)
                    });
                    match read {
                        Ok(checkpoint) => Ok((index, checkpoint)),
                        Err(error) => {
                            index.abandon();
                            Err(error)
                        }
                    }
                });
                // Nobody listens when it took too long.
                let _ = sender.send(opened);
            })
            .map_err(StorageError::Index)?;
        match receiver.recv_timeout(patience) {
            Ok(opened) => opened,
            Err(_) => Err(StorageError::Index(io::ErrorKind::TimedOut.into())),
        }
    }

    fn open_here(path: &Path) -> io::Result<Self> {
        super::file::make_dir(path)?;
        let config =
            ::sled::Config::new().path(path).cache_capacity_bytes(CACHE_BYTES).flush_every_ms(Some(NEVER_MS));
        let db = open_when_free(&config)?;
        let trees = || -> io::Result<Self> {
            let tree = |name: &str| db.open_tree(name).map(Box::new);
            let index = Self {
                blocks: tree("blocks")?,
                nodes: tree("nodes")?,
                children: tree("children")?,
                versions: tree("versions")?,
                commits: tree("commits")?,
                past: tree("past")?,
                log: tree("log")?,
                places: tree("places")?,
                meta: tree("meta")?,
                #[cfg(test)]
                looks: Default::default(),
                db: Box::new(db.clone()),
            };
            index.check_format()?;
            Ok(index)
        };
        let opened = trees();
        if opened.is_err() {
            // As in `abandon`.
            std::mem::forget(db);
        }
        opened
    }

    /// Marks a new index; refuses one of another format.
    fn check_format(&self) -> io::Result<()> {
        let known = FORMAT.to_le_bytes();
        match self.meta.get("format")? {
            Some(found) if *found == known => Ok(()),
            None if self.meta.is_empty()? && self.blocks.is_empty()? && self.nodes.is_empty()? => {
                self.meta.insert("format", known).map(|_| ())
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the index is of another format")),
        }
    }

    /// sled checks a leaf when it reads it. A damaged one is better met now, when it costs a rebuild, than later, when it
    /// costs a restart and then the rebuild. In a large index that would take too long.
    fn read_all_if_small(&self) -> io::Result<()> {
        if self.db.size_on_disk()? > READ_ALL_BYTES_MAX {
            return Ok(());
        }
        let trees = [&self.blocks, &self.nodes, &self.children, &self.versions];
        let history = [&self.commits, &self.past, &self.log, &self.places];
        trees
            .into_iter()
            .chain(history)
            .try_for_each(|tree| tree.iter().try_for_each(|entry| entry.map(|_| ())))
    }

    fn checkpoint(&self) -> Result<Checkpoint> {
        match guarded(|| self.meta.get("checkpoint"))? {
            Some(bytes) => Ok(codec::decode(&bytes)?),
            None => Ok(Checkpoint::default()),
        }
    }

    /// Writes the checkpoint and flushes everything before it to disk.
    pub fn flush(&self, checkpoint: &Checkpoint) -> Result<()> {
        let bytes = codec::encode(checkpoint)?;
        guarded(|| {
            self.meta.insert("checkpoint", bytes)?;
            self.db.flush().map(|_| ())
        })
    }

    /// Where a block lies.
    pub fn block(&self, hash: &BlockHash) -> Result<Option<Location>> {
        Ok(self.row(hash)?.map(|(location, _)| location))
    }

    /// Where a block lies, and the tags of the shares that reach it.
    pub fn row(&self, hash: &BlockHash) -> Result<Option<(Location, Vec<Tag>)>> {
        #[cfg(test)]
        self.looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        guarded(|| match self.blocks.get(hash.as_bytes())? {
            Some(bytes) => broken(row(&bytes)).map(Some),
            None => Ok(None),
        })
    }

    /// True when every block in here has its tags.
    pub fn has_tags(&self) -> Result<bool> {
        guarded(|| Ok(self.meta.get("tags")?.is_some()))
    }

    /// Says whether every block in here has its tags.
    pub fn set_has_tags(&self, has: bool) -> Result<()> {
        guarded(|| {
            let done = if has { self.meta.insert("tags", [])? } else { self.meta.remove("tags")? };
            drop(done);
            Ok(())
        })
    }

    /// Adds blocks. Their records are durable.
    pub fn add_blocks(&self, blocks: &[(BlockHash, Location)]) -> Result<()> {
        self.add_rows(blocks.iter().map(|(hash, location)| (*hash, Some(*location), [].as_slice())))
    }

    /// Adds blocks and tags. Tags that a row has stay; without a place it must be there already, or nothing is added.
    pub fn add_rows<'a>(
        &self,
        rows: impl IntoIterator<Item = (BlockHash, Option<Location>, &'a [Tag])>,
    ) -> Result<()> {
        let mut batch = ::sled::Batch::default();
        for (hash, location, more) in rows {
            let known = self.row(&hash)?;
            let (place, mut tags) = known.map_or((None, Vec::new()), |(place, tags)| (Some(place), tags));
            let Some(location) = location.or(place) else { continue };
            let before = tags.len();
            tags.extend(more);
            tags.sort_unstable();
            tags.dedup();
            if place == Some(location) && tags.len() == before {
                continue;
            }
            let mut bytes = location.to_bytes().to_vec();
            tags.iter().for_each(|tag| bytes.extend_from_slice(&tag.to_bytes()));
            batch.insert(hash.as_bytes(), bytes);
        }
        guarded(|| self.blocks.apply_batch(batch))
    }

    /// Takes blocks out.
    pub fn remove_blocks(&self, hashes: &[BlockHash]) -> Result<()> {
        let mut batch = ::sled::Batch::default();
        for hash in hashes {
            batch.remove(hash.as_bytes());
        }
        guarded(|| self.blocks.apply_batch(batch))
    }

    /// Shows every block, in the order of their hashes, until `visit` says to stop.
    pub fn each_block(&self, visit: &mut dyn FnMut(BlockHash, Location) -> Result<bool>) -> Result<()> {
        let mut entries = self.blocks.iter();
        while let Some((key, value)) = guarded(|| entries.next().transpose())? {
            let hash = guarded(|| broken(key.first_chunk().map(|bytes| BlockHash::from_bytes(*bytes))))?;
            let (location, _) = guarded(|| broken(row(&value)))?;
            if !visit(hash, location)? {
                break;
            }
        }
        Ok(())
    }

    /// A node at its latest version.
    pub fn node(&self, share: ShareId, id: NodeId) -> Result<Option<Node>> {
        Ok(self.sized_node(share, id)?.map(|(node, _)| node))
    }

    /// The same, with its bytes in here.
    fn sized_node(&self, share: ShareId, id: NodeId) -> Result<Option<(Node, usize)>> {
        match guarded(|| self.nodes.get(key(share, &[id.as_bytes()])))? {
            Some(bytes) => Ok(Some((codec::decode(&bytes)?, bytes.len()))),
            None => Ok(None),
        }
    }

    /// The live node of that name in that folder.
    pub fn child(&self, share: ShareId, parent: NodeId, name: &Name) -> Result<Option<NodeId>> {
        guarded(|| {
            let found = self.children.get(key(share, &[parent.as_bytes(), name.as_bytes()]))?;
            found.map(|bytes| node_id(&bytes)).transpose()
        })
    }

    /// True when `is` says so of a live node in a folder; shows none after that one.
    pub fn any_child(
        &self,
        share: ShareId,
        parent: NodeId,
        is: &mut dyn FnMut(NodeId) -> bool,
    ) -> Result<bool> {
        let mut entries = self.children.scan_prefix(key(share, &[parent.as_bytes()]));
        while let Some((_, id)) = guarded(|| entries.next().transpose())? {
            if is(guarded(|| node_id(&id))?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes a durable commit. The journal of the share is the only order; taking a commit again changes nothing, also
    /// when the index already holds it in part or holds later ones (which is how a replay meets it).
    pub fn apply(&self, share: ShareId, commit: &Applied<'_>) -> Result<()> {
        let mut fresh = Vec::with_capacity(commit.nodes.len());
        let mut old = past::Old::default();
        for node in commit.nodes {
            if let Some(before) = self.node(share, node.id)? {
                if before.version > node.version {
                    continue;
                }
                old.versions.remove(key(share, &[&before.version.0.to_be_bytes(), before.id.as_bytes()]));
                if let Some(state) = &before.state
                    && self.child(share, state.parent, &state.name)? == Some(before.id)
                {
                    old.children.remove(key(share, &[state.parent.as_bytes(), state.name.as_bytes()]));
                }
                if before.version < node.version {
                    old.keep(share, &before, node)?;
                }
            }
            fresh.push(node);
        }
        // Places are freed before the nodes change: a crash in between leaves the old state to find them by.
        guarded(|| {
            self.past.apply_batch(old.past)?;
            self.log.apply_batch(old.log)?;
            self.places.apply_batch(old.places)?;
            self.children.apply_batch(old.children)?;
            self.versions.apply_batch(old.versions)
        })?;
        self.insert_nodes(share, &fresh)?;
        self.insert_commit(share, commit)
    }

    fn insert_nodes(&self, share: ShareId, fresh: &[&Node]) -> Result<()> {
        let mut nodes = ::sled::Batch::default();
        let mut children = ::sled::Batch::default();
        let mut versions = ::sled::Batch::default();
        for node in fresh {
            nodes.insert(key(share, &[node.id.as_bytes()]), codec::encode(node)?);
            let live = u8::from(node.state.is_some());
            versions.insert(key(share, &[&node.version.0.to_be_bytes(), node.id.as_bytes()]), [live]);
            if let Some(state) = &node.state {
                let place = key(share, &[state.parent.as_bytes(), state.name.as_bytes()]);
                children.insert(place, node.id.as_bytes());
            }
        }
        guarded(|| {
            self.nodes.apply_batch(nodes)?;
            self.children.apply_batch(children)?;
            self.versions.apply_batch(versions)
        })
    }

    /// One page of nodes after `after` (`Journal::read_since`), which ends after so many bytes too, or tombstones left out;
    /// `head` is filled in by the caller, who also keeps commits out meanwhile.
    pub fn page(
        &self,
        share: ShareId,
        after: Position,
        nodes_max: usize,
        with_tombstones: bool,
        head: super::Head,
    ) -> Result<Page> {
        let from = match after.node {
            Some(node) => key(share, &[&after.seq.0.to_be_bytes(), node.as_bytes(), &[0]]),
            None => key(share, &[&after.seq.0.saturating_add(1).to_be_bytes()]),
        };
        let to = key(share, &[&head.seq.0.saturating_add(1).to_be_bytes()]);
        let end = Position { seq: after.seq.max(head.seq), node: None };
        let mut page = Page { nodes: Vec::new(), next: end, complete: true, head };
        if from >= to {
            return Ok(page);
        }
        let (mut last, mut bytes, mut left_out) = (after, 0, 0);
        let mut entries = self.versions.range(from..to);
        while let Some(entry) = guarded(|| entries.next().transpose())? {
            if page.nodes.len() >= nodes_max.max(1) || bytes >= PAGE_BYTES_MAX || left_out >= LEFT_OUT_MAX {
                page.next = last;
                page.complete = false;
                break;
            }
            let (seq, id) = guarded(|| past::version_key(&entry.0))?;
            if entry.1.first() == Some(&0) && !with_tombstones {
                last = Position { seq, node: Some(id) };
                left_out += 1;
                continue;
            }
            let node = self.sized_node(share, id)?;
            let (node, node_bytes) = guarded(|| broken(node))?;
            bytes += node_bytes;
            last = Position { seq: node.version, node: Some(id) };
            page.nodes.push(node);
        }
        Ok(page)
    }

    /// Gives up the index without sled's last flush: after a failed flush that one would fail too, and end the process
    /// in the middle of whatever it does.
    pub fn abandon(self) {
        std::mem::forget(self);
    }
}

#[cfg(test)]
#[path = "sled/tests.rs"]
mod tests;
