//! The commits of a group: judged, but neither durable nor in the index. Each is judged on top of those before it.

use super::inbox::Answer;
use super::journal;
use super::sled::Index;
use super::{CommitEvent, Committed, Head, Result, ShareId, StorageError};
use crate::model::{BlockHash, Name, Node, NodeId, SessionId};
use crate::tree::Nodes;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A group is closed after this time even when more commits are waiting: the first of it has waited long enough.
const GROUP_TIME_MAX: Duration = Duration::from_millis(3);
/// A group is closed at this many commits.
const GROUP_COMMITS_MAX: usize = 512;

/// Where the answer to a commit goes.
pub type Reply = oneshot::Sender<Result<Answer>>;

/// One commit that waits for the disk.
#[derive(Debug)]
pub struct Waiting {
    /// What will be answered.
    pub committed: Committed,
    /// What will be broadcast; `None` when every change was refused.
    pub event: Option<CommitEvent>,
    /// When and by whom it was made.
    pub signed: Signed,
    /// To whom.
    pub reply: Reply,
    /// Who committed.
    pub session: SessionId,
    /// Blocks on which the session's lease ends when this is durable.
    pub named: Vec<BlockHash>,
}

/// What the journal says of a commit beside its changes.
#[derive(Debug, Default)]
pub struct Signed {
    /// Server's clock, ms since 1970.
    pub time_ms: u64,
    /// Name of the device.
    pub device: String,
}

/// What a group does to one share.
#[derive(Debug)]
pub struct ShareGroup {
    /// Payload of the journal's record.
    pub bytes: Vec<u8>,
    /// The head with this group.
    pub head: Head,
    /// In order.
    pub waiting: Vec<Waiting>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Group {
    /// By share.
    pub shares: BTreeMap<ShareId, ShareGroup>,
    nodes: BTreeMap<(ShareId, NodeId), Node>,
    /// Of each folder in which something changed, the names that did: the node of that name, or that it is free.
    places: HashMap<(ShareId, NodeId), BTreeMap<Name, Option<NodeId>>>,
    commits: usize,
    since: Option<Instant>,
}

impl Group {
    /// True when the group should be made durable although more commits may be waiting.
    pub fn is_full(&self) -> bool {
        self.commits >= GROUP_COMMITS_MAX
            || self.since.is_some_and(|since| since.elapsed() > GROUP_TIME_MAX)
            || self.shares.values().any(|share| share.bytes.len() >= journal::GROUP_BYTES_TARGET)
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// The head that the next commit of a share is judged on; `durable` is the head on disk.
    pub fn head(&self, share: ShareId, durable: Head) -> Head {
        self.shares.get(&share).map_or(durable, |group| group.head)
    }

    /// Adds a judged commit; `record` is empty when every change was refused.
    pub fn push(&mut self, share: ShareId, index: &Index, record: &[u8], waiting: Waiting) -> Result<()> {
        self.place(share, index, &waiting.committed.nodes)?;
        let head = waiting.committed.head;
        let group = self.shares.entry(share).or_insert_with(|| ShareGroup {
            bytes: Vec::new(),
            head,
            waiting: Vec::new(),
        });
        if !record.is_empty() {
            journal::push(&mut group.bytes, record);
        }
        group.head = head;
        group.waiting.push(waiting);
        self.commits += 1;
        self.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Frees the old places of all nodes first: two nodes may have swapped theirs.
    fn place(&mut self, share: ShareId, index: &Index, nodes: &[Node]) -> Result<()> {
        let mut freed = Vec::new();
        let view = ShareView { share, index, group: self };
        for node in nodes {
            if let Some(state) = view.node(node.id)?.and_then(|node| node.state)
                && view.child(state.parent, &state.name)? == Some(node.id)
            {
                freed.push((share, state.parent, state.name));
            }
        }
        for (share, parent, name) in freed {
            self.places.entry((share, parent)).or_default().insert(name, None);
        }
        for node in nodes {
            if let Some(state) = &node.state {
                let names = self.places.entry((share, state.parent)).or_default();
                names.insert(state.name.clone(), Some(node.id));
            }
            self.nodes.insert((share, node.id), node.clone());
        }
        Ok(())
    }
}

/// A share as it will be when the group is durable.
#[derive(Debug)]
pub struct ShareView<'a> {
    /// Which share.
    pub share: ShareId,
    /// What is durable.
    pub index: &'a Index,
    /// What is not yet.
    pub group: &'a Group,
}

impl Nodes for ShareView<'_> {
    type Error = StorageError;

    fn node(&self, id: NodeId) -> Result<Option<Node>> {
        match self.group.nodes.get(&(self.share, id)) {
            Some(node) => Ok(Some(node.clone())),
            None => self.index.node(self.share, id),
        }
    }

    fn child(&self, parent: NodeId, name: &Name) -> Result<Option<NodeId>> {
        match self.group.places.get(&(self.share, parent)).and_then(|names| names.get(name)) {
            Some(found) => Ok(*found),
            None => self.index.child(self.share, parent, name),
        }
    }

    fn any_child(&self, parent: NodeId, is: &mut dyn FnMut(NodeId) -> bool) -> Result<bool> {
        let placed = self.group.places.get(&(self.share, parent));
        if placed.into_iter().flat_map(BTreeMap::values).flatten().any(|id| is(*id)) {
            return Ok(true);
        }
        let changed = |id: NodeId| self.group.nodes.contains_key(&(self.share, id));
        self.index.any_child(self.share, parent, &mut |id| !changed(id) && is(id))
    }
}
