//! Questions about the past of a share, answered over any place that remembers it.
//!
//! What a page holds is bounded in bytes while it is made, and so is the work for it: a page may be empty although more
//! follows.

mod holders;
mod log;
mod look;
mod paths;

pub use log::versions;
pub use look::look;

use super::Result;
use super::sled::{CommitInfo, Replaced};
use crate::model::{Name, Node, NodeId, NodeState, Seq};

/// Bytes of a page, as they are counted here: not fewer than they are in memory and on the wire. A page has one entry at
/// least, of at most some 560 KiB (two paths of 1,024 long names, two targets), so that it is always well below a frame.
pub const PAGE_BYTES_MAX: usize = 512 * 1024;

/// A place that remembers a share.
pub trait Timeline {
    /// A node as it stands, tombstones too.
    fn node(&self, id: NodeId) -> Result<Option<Node>>;
    /// The last version of a node up to and with `at` among those that were replaced.
    fn replaced(&self, id: NodeId, at: Seq) -> Result<Option<Replaced>>;
    /// The live node of that name in that folder.
    fn child(&self, parent: NodeId, name: &Name) -> Result<Option<NodeId>>;
    /// The node that was the first to leave that place after commit `at`.
    fn left_next(&self, parent: NodeId, name: &Name, at: Seq) -> Result<Option<NodeId>>;
    /// The last `max` times that a node has left that place, latest first, and by which version.
    fn left_last(&self, parent: NodeId, name: &Name, max: usize) -> Result<Vec<(NodeId, Seq)>>;
    /// At most `max` live nodes of a folder by name, after a name.
    fn children_after(&self, parent: NodeId, after: Option<&Name>, max: usize)
    -> Result<Vec<(Name, NodeId)>>;
    /// At most `max` names that nodes have left in a folder, after a name; each with the first to leave it after commit `at`.
    fn left_after(
        &self,
        parent: NodeId,
        after: Option<&Name>,
        at: Seq,
        max: usize,
    ) -> Result<Vec<(Name, Option<NodeId>)>>;
    /// At most `max` versions of all nodes before one, latest first.
    fn log_before(&self, before: (Seq, NodeId), max: usize) -> Result<Vec<(Seq, NodeId)>>;
    /// What is known of a commit.
    fn commit(&self, seq: Seq) -> Result<Option<CommitInfo>>;
}

/// A node as it was after commit `at`, and the version that has replaced it since; `None` when it did not exist.
pub fn node_at(line: &impl Timeline, id: NodeId, at: Seq) -> Result<Option<(Node, Option<Seq>)>> {
    match line.node(id)? {
        Some(node) if node.version <= at => Ok(Some((node, None))),
        Some(_) => Ok(line.replaced(id, at)?.map(|replaced| (replaced.node, Some(replaced.by)))),
        None => Ok(None),
    }
}

fn state_at(line: &impl Timeline, id: NodeId, at: Seq) -> Result<Option<NodeState>> {
    Ok(node_at(line, id, at)?.and_then(|(node, _)| node.state))
}

fn stands_at(state: &NodeState, parent: NodeId, name: &Name) -> bool {
    state.parent == parent && state.name == *name
}

fn is_kept(by: Option<Seq>, floor: Seq) -> bool {
    by.is_none_or(|by| by > floor)
}

#[cfg(test)]
mod tests;
