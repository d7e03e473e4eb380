//! The part of the index that remembers: commits, replaced versions, places that nodes have left.

use super::{Applied, Index, broken, guarded, key, node_id};
use crate::model::{ChainHash, Name, Node, NodeId, Seq, codec};
use crate::storage::timeline::Timeline;
use crate::storage::{Result, ShareId};
use ::sled::InlineArray;
use std::io;

/// What the index knows of a commit beside its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// The chain with it.
    pub chain: ChainHash,
    /// Server's clock, ms since 1970.
    pub time_ms: u64,
    /// The latest such time up to and with this commit: it never goes back.
    pub time_max_ms: u64,
    /// Name of the device that made it.
    pub device: String,
}

/// A version of a node that a later one has replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// As it was.
    pub node: Node,
    /// The version that followed.
    pub by: Seq,
}

fn commit_info(bytes: &[u8]) -> Option<CommitInfo> {
    let (chain, rest) = bytes.split_first_chunk()?;
    let (_offset, rest) = rest.split_first_chunk::<8>()?;
    let (time, rest) = rest.split_first_chunk()?;
    let (time_max, device) = rest.split_first_chunk()?;
    Some(CommitInfo {
        chain: ChainHash::from_bytes(*chain),
        time_ms: u64::from_le_bytes(*time),
        time_max_ms: u64::from_le_bytes(*time_max),
        device: std::str::from_utf8(device).ok()?.to_owned(),
    })
}

/// Version and node of a key of `versions` or `log`.
pub(super) fn version_key(key: &[u8]) -> io::Result<(Seq, NodeId)> {
    let (seq, node) = broken(key.get(16..).and_then(|rest| rest.split_first_chunk()))?;
    Ok((Seq(u64::from_be_bytes(*seq)), node_id(node)?))
}

fn replaced(key: &[u8], value: &[u8]) -> Result<Replaced> {
    let (id, version) = guarded(|| broken(key.get(16..).and_then(|rest| rest.split_first_chunk::<16>())))?;
    let version = guarded(|| broken(version.try_into().ok()))?;
    let (by, state) = guarded(|| broken(value.split_first_chunk()))?;
    let version = Seq(u64::from_be_bytes(version));
    let node = Node { id: NodeId::from_bytes(*id), version, state: codec::decode(state)? };
    Ok(Replaced { node, by: Seq(u64::from_le_bytes(*by)) })
}

fn name(bytes: Option<&[u8]>) -> io::Result<Name> {
    broken(bytes.and_then(|bytes| Name::new(bytes).ok()))
}

/// A key of `places`: name, version by which the node left, node.
fn left_place(key: &[u8]) -> io::Result<(Name, Seq, NodeId)> {
    let (rest, node) = broken(key.get(32..).and_then(|rest| rest.split_last_chunk::<16>()))?;
    let (named, by) = broken(rest.split_last_chunk::<8>())?;
    Ok((name(named.strip_suffix(&[0]))?, Seq(u64::from_be_bytes(*by)), NodeId::from_bytes(*node)))
}

/// Where in `places` that begins which nodes have left after commit `at`.
fn left_after_commit(share: ShareId, parent: NodeId, name: &Name, at: Seq) -> Vec<u8> {
    key(share, &[parent.as_bytes(), name.as_bytes(), &[0], &at.0.saturating_add(1).to_be_bytes()])
}

type Entry = io::Result<(InlineArray, InlineArray)>;

/// The first `max` entries that begin with `prefix`.
fn within(entries: impl Iterator<Item = Entry>, prefix: &[u8], max: usize) -> impl Iterator<Item = Entry> {
    entries.take_while(move |entry| entry.as_ref().map_or(true, |(key, _)| key.starts_with(prefix))).take(max)
}

/// What a commit takes out of the tables of what stands, and puts into those of the past.
#[derive(Default)]
pub(super) struct Old {
    pub(super) children: ::sled::Batch,
    pub(super) versions: ::sled::Batch,
    pub(super) past: ::sled::Batch,
    pub(super) log: ::sled::Batch,
    pub(super) places: ::sled::Batch,
}

impl Old {
    pub(super) fn keep(&mut self, share: ShareId, before: &Node, node: &Node) -> Result<()> {
        let version = before.version.0.to_be_bytes();
        let mut value = node.version.0.to_le_bytes().to_vec();
        value.extend_from_slice(&codec::encode(&before.state)?);
        self.past.insert(key(share, &[before.id.as_bytes(), &version]), value);
        self.log.insert(key(share, &[&version, before.id.as_bytes()]), vec![]);
        if let Some(state) = &before.state
            && !node.state.as_ref().is_some_and(|new| new.same_place(state))
        {
            let by = node.version.0.to_be_bytes();
            let parts: [&[u8]; 5] =
                [state.parent.as_bytes(), state.name.as_bytes(), &[0], &by, before.id.as_bytes()];
            self.places.insert(key(share, &parts), vec![]);
        }
        Ok(())
    }
}

impl Index {
    /// What is known of a commit; `None` for one that is not here.
    pub fn commit(&self, share: ShareId, seq: Seq) -> Result<Option<CommitInfo>> {
        guarded(|| {
            let found = self.commits.get(key(share, &[&seq.0.to_be_bytes()]))?;
            found.map(|bytes| broken(commit_info(&bytes))).transpose()
        })
    }

    /// The number of the last commit in the index.
    pub fn last_commit(&self, share: ShareId) -> Result<Seq> {
        let all = key(share, &[])..=key(share, &[&u64::MAX.to_be_bytes()]);
        guarded(|| match self.commits.range(all).next_back().transpose()? {
            Some((found, _)) => broken(found.get(16..).and_then(|seq| seq.try_into().ok()))
                .map(|seq| Seq(u64::from_be_bytes(seq))),
            None => Ok(Seq::ZERO),
        })
    }

    pub(super) fn insert_commit(&self, share: ShareId, commit: &Applied<'_>) -> Result<()> {
        let before = self.commit(share, Seq(commit.seq.0.saturating_sub(1)))?;
        let time_max = before.map_or(0, |before| before.time_max_ms).max(commit.time_ms);
        let mut value = commit.chain.as_bytes().to_vec();
        for number in [commit.offset, commit.time_ms, time_max] {
            value.extend_from_slice(&number.to_le_bytes());
        }
        value.extend_from_slice(commit.device.as_bytes());
        guarded(|| self.commits.insert(key(share, &[&commit.seq.0.to_be_bytes()]), value).map(|_| ()))
    }

    /// The last version of a node up to and with `at` among those that were replaced.
    pub fn replaced(&self, share: ShareId, id: NodeId, at: Seq) -> Result<Option<Replaced>> {
        let upto = key(share, &[id.as_bytes()])..=key(share, &[id.as_bytes(), &at.0.to_be_bytes()]);
        match guarded(|| self.past.range(upto).next_back().transpose())? {
            Some((key, value)) => replaced(&key, &value).map(Some),
            None => Ok(None),
        }
    }

    /// At most `max` versions of all nodes before (`seq`, `node`), latest first: replaced ones and those that stand.
    pub fn log_before(
        &self,
        share: ShareId,
        (seq, node): (Seq, NodeId),
        max: usize,
    ) -> Result<Vec<(Seq, NodeId)>> {
        let mut found = Vec::new();
        for tree in [&self.log, &self.versions] {
            let range = key(share, &[])..key(share, &[&seq.0.to_be_bytes(), node.as_bytes()]);
            let mut entries = tree.range(range);
            for _ in 0..max {
                let Some((key, _)) = guarded(|| entries.next_back().transpose())? else { break };
                found.push(guarded(|| version_key(&key))?);
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        found.truncate(max);
        Ok(found)
    }

    /// The node that was the first to leave that place after commit `at`: the one that stood there then, if one of those
    /// that have left did.
    pub fn left_next(&self, share: ShareId, parent: NodeId, name: &Name, at: Seq) -> Result<Option<NodeId>> {
        let place = key(share, &[parent.as_bytes(), name.as_bytes(), &[0]]);
        let entries = self.places.range(left_after_commit(share, parent, name, at)..);
        match guarded(|| within(entries, &place, 1).next().transpose())? {
            Some((key, _)) => Ok(Some(guarded(|| left_place(&key))?.2)),
            None => Ok(None),
        }
    }

    /// The last `max` times that a node has left that place, latest first, and by which version; also those that came back.
    pub fn left_last(
        &self,
        share: ShareId,
        parent: NodeId,
        name: &Name,
        max: usize,
    ) -> Result<Vec<(NodeId, Seq)>> {
        let place = key(share, &[parent.as_bytes(), name.as_bytes(), &[0]]);
        let end = left_after_commit(share, parent, name, Seq(u64::MAX));
        let mut entries = self.places.range(place..=[end, vec![0xff; 16]].concat());
        let mut found = Vec::new();
        while found.len() < max
            && let Some((key, _)) = guarded(|| entries.next_back().transpose())?
        {
            let (_, by, id) = guarded(|| left_place(&key))?;
            found.push((id, by));
        }
        Ok(found)
    }

    /// At most `max` names that nodes have left in a folder, after a name; each with the node that was the first to leave
    /// it after commit `at`.
    pub fn left_after(
        &self,
        share: ShareId,
        parent: NodeId,
        after: Option<&Name>,
        at: Seq,
        max: usize,
    ) -> Result<Vec<(Name, Option<NodeId>)>> {
        let folder = key(share, &[parent.as_bytes()]);
        // Behind every key of that name.
        let behind = |name: &Name| key(share, &[parent.as_bytes(), name.as_bytes(), &[1]]);
        let mut first = after.map_or_else(|| folder.clone(), behind);
        let mut found = Vec::new();
        while found.len() < max
            && let Some((key, _)) =
                guarded(|| within(self.places.range(first..), &folder, 1).next().transpose())?
        {
            let (name, by, id) = guarded(|| left_place(&key))?;
            let next = if by > at { Some(id) } else { self.left_next(share, parent, &name, at)? };
            first = behind(&name);
            found.push((name, next));
        }
        Ok(found)
    }

    /// At most `max` live nodes of a folder by name, after a name.
    pub fn children_after(
        &self,
        share: ShareId,
        parent: NodeId,
        after: Option<&Name>,
        max: usize,
    ) -> Result<Vec<(Name, NodeId)>> {
        let first = match after {
            Some(name) => key(share, &[parent.as_bytes(), name.as_bytes(), &[0]]),
            None => key(share, &[parent.as_bytes()]),
        };
        let folder = key(share, &[parent.as_bytes()]);
        let entries = self.children.range(first..);
        let child = |(key, id): (InlineArray, InlineArray)| Ok((name(key.get(32..))?, node_id(&id)?));
        within(entries, &folder, max).map(|entry| guarded(|| child(entry?))).collect()
    }

    /// The nodes of a share as they stand, tombstones too, in the order of their ids.
    pub fn standing(&self, share: ShareId) -> impl Iterator<Item = Result<Node>> + use<> {
        let mut entries = self.nodes.scan_prefix(key(share, &[]));
        std::iter::from_fn(move || guarded(|| entries.next().transpose()).transpose())
            .map(|entry| Ok(codec::decode(&entry?.1)?))
    }

    /// Every replaced version of a share.
    pub fn all_replaced(&self, share: ShareId) -> impl Iterator<Item = Result<Replaced>> + use<> {
        let mut entries = self.past.scan_prefix(key(share, &[]));
        std::iter::from_fn(move || guarded(|| entries.next().transpose()).transpose()).map(|entry| {
            let (key, value) = entry?;
            replaced(&key, &value)
        })
    }
}

/// One share of the index, as a place that remembers.
#[derive(Debug)]
pub struct ShareIndex<'a> {
    /// Which share.
    pub share: ShareId,
    /// Where.
    pub index: &'a Index,
}

impl Timeline for ShareIndex<'_> {
    fn node(&self, id: NodeId) -> Result<Option<Node>> {
        self.index.node(self.share, id)
    }

    fn replaced(&self, id: NodeId, at: Seq) -> Result<Option<Replaced>> {
        self.index.replaced(self.share, id, at)
    }

    fn child(&self, parent: NodeId, name: &Name) -> Result<Option<NodeId>> {
        self.index.child(self.share, parent, name)
    }

    fn left_next(&self, parent: NodeId, name: &Name, at: Seq) -> Result<Option<NodeId>> {
        self.index.left_next(self.share, parent, name, at)
    }

    fn left_last(&self, parent: NodeId, name: &Name, max: usize) -> Result<Vec<(NodeId, Seq)>> {
        self.index.left_last(self.share, parent, name, max)
    }

    fn children_after(
        &self,
        parent: NodeId,
        after: Option<&Name>,
        max: usize,
    ) -> Result<Vec<(Name, NodeId)>> {
        self.index.children_after(self.share, parent, after, max)
    }

    fn left_after(
        &self,
        parent: NodeId,
        after: Option<&Name>,
        at: Seq,
        max: usize,
    ) -> Result<Vec<(Name, Option<NodeId>)>> {
        self.index.left_after(self.share, parent, after, at, max)
    }

    fn log_before(&self, before: (Seq, NodeId), max: usize) -> Result<Vec<(Seq, NodeId)>> {
        self.index.log_before(self.share, before, max)
    }

    fn commit(&self, seq: Seq) -> Result<Option<CommitInfo>> {
        self.index.commit(self.share, seq)
    }
}
