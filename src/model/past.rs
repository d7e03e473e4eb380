//! The past of a share: what its nodes were, when and by whom they were changed. Answers of storage, and parts of
//! messages as they are.

use super::{Kind, Name, Node, NodeId, Seq};
use serde::{Deserialize, Serialize};

/// Most folders in one [`Look::Inside`].
pub const LOOK_FOLDERS_MAX: usize = 256;

/// A point in time, by the server's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Moment {
    /// The head.
    Now,
    /// Ms since 1970.
    Time(u64),
    /// So many ms ago.
    Age(u64),
    /// Right after that commit, or the head when it is not there yet.
    Commit(Seq),
}

/// Where a moment lies in a share's journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Found {
    /// The last commit now.
    pub head: Seq,
    /// The last commit that had happened at the moment; 0 when none had.
    pub seq: Seq,
    /// When `seq` was made, ms since 1970; 0 for none.
    pub time_ms: u64,
    /// The share as it was after this commit and after every later one is kept; of what is older, what still stood then.
    pub floor: Seq,
}

/// What to look at in the share as it was after a commit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Look {
    /// The nodes along a path, outermost first, as far as it goes.
    Path {
        /// The folder where it begins; the root, for a path of the share.
        from: NodeId,
        /// Outermost first.
        names: Vec<Name>,
    },
    /// What lies in these folders, folder after folder. In the first one, only what comes after the mark.
    Inside {
        /// 1 ..= [`LOOK_FOLDERS_MAX`].
        folders: Vec<NodeId>,
        /// From the `Rest` of the answer before.
        after: Option<Mark>,
    },
    /// These nodes, in this order. A node that did not exist has version 0 and no state.
    Nodes(Vec<NodeId>),
}

/// How far the list of a folder was read: first what is in it now, then what has left it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// What is in it now was seen.
    pub left: bool,
    /// The last name that was seen.
    pub name: Name,
    /// The last node of that name.
    pub node: NodeId,
}

/// What a [`Look`] has not answered yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rest {
    /// Place in the request of the first folder or node to ask for again.
    pub first: u32,
    /// Where in that folder to go on.
    pub after: Option<Mark>,
}

/// A node as it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PastNode {
    /// At the version it had then; no state when it was deleted or did not exist yet.
    pub node: Node,
    /// Its content is still restorable.
    pub kept: bool,
}

/// Answer to a [`Look`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// What was there. A node of [`Look::Inside`] may come twice.
    pub nodes: Vec<PastNode>,
    /// `None` when everything was answered.
    pub rest: Option<Rest>,
}

/// A node at one version, by its path at that time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shape {
    /// Outermost folder first.
    pub path: Vec<Name>,
    /// What it was.
    pub kind: Kind,
}

/// One change of one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// The commit.
    pub seq: Seq,
    /// The node.
    pub node: NodeId,
    /// The server's clock, ms since 1970.
    pub time_ms: u64,
    /// Name of the device that made it.
    pub device: String,
    /// The node before; `None` when it did not exist or was deleted.
    pub before: Option<Shape>,
    /// The node with it; `None` for a deletion.
    pub after: Option<Shape>,
    /// This version is still restorable.
    pub kept: bool,
}

/// A page of versions, latest first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Versions {
    /// Ordered by (commit, node), falling. May be empty although more follow.
    pub versions: Vec<Version>,
    /// Only versions before this follow; `None` when none do.
    pub rest: Option<(Seq, NodeId)>,
}
