//! Nodes: the files, folders and symlinks of a share, and what a commit does to them.

use super::{BlockHash, Name, NodeId, Seq, limits};
use serde::{Deserialize, Serialize};

/// Names all the bytes of a file: the block itself (level 0), or the manifest node above its blocks (level 1 and up).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Root {
    /// Chunk parameters the file was cut with; 1 = `chunk::params::V1`.
    pub params: u8,
    /// 0: `hash` is the file's only block (or the empty file). n: a manifest node n levels above the blocks.
    pub level: u8,
    /// The block's or the manifest node's address.
    pub hash: BlockHash,
}

/// What a file holds. Equal content has equal `size` and `root` (cut points depend only on the bytes).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct FileContent {
    /// Bytes.
    pub size: u64,
    /// Names the bytes. For the empty file: level 0 and the hash of no bytes, and no block is ever stored or sent.
    pub root: Root,
}

/// What a node is.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// A folder. Its own times and mode are not synced.
    Folder,
    /// A regular file.
    File {
        /// The bytes.
        content: FileContent,
        /// Modification time, ns since 1970.
        mtime_ns: i64,
        /// The owner may execute it.
        exec: bool,
    },
    /// A symbolic link, never followed.
    Symlink {
        /// The link's text, 1 to 4095 bytes, kept byte for byte.
        target: Vec<u8>,
        /// Modification time of the link itself, ns since 1970.
        mtime_ns: i64,
    },
}

impl Kind {
    /// True for a folder.
    pub const fn is_folder(&self) -> bool {
        matches!(self, Self::Folder)
    }

    /// The bytes of a file.
    pub const fn content(&self) -> Option<&FileContent> {
        match self {
            Self::File { content, .. } => Some(content),
            _ => None,
        }
    }

    /// Same sort of node with the same bytes; time and exec bit do not count.
    pub fn same_content(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Folder, Self::Folder) => true,
            (Self::File { content: a, .. }, Self::File { content: b, .. }) => a == b,
            (Self::Symlink { target: a, .. }, Self::Symlink { target: b, .. }) => a == b,
            _ => false,
        }
    }
}

/// Where a node is and what it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct NodeState {
    /// The folder that holds it.
    pub parent: NodeId,
    /// Its name there, unique in that folder.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
}

impl NodeState {
    /// Same folder and same name.
    pub fn same_place(&self, other: &Self) -> bool {
        self.parent == other.parent && self.name == other.name
    }
}

/// A node of a share at one version. `state: None` is a tombstone: the node was deleted at `version`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Survives renames.
    pub id: NodeId,
    /// The commit that changed it last.
    pub version: Seq,
    /// Where and what; `None` when deleted.
    pub state: Option<NodeState>,
}

/// One node's part of a commit.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Change {
    /// The node.
    pub id: NodeId,
    /// The version this change was made on top of; 0 for a node that is new. Any other version is refused as stale.
    pub base: Seq,
    /// The new state; `None` deletes.
    pub state: Option<NodeState>,
}

/// Why the server refused one change of a commit. The others of the commit stand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The node is at another version.
    #[error("the node is at another version")]
    Stale,
    /// Another node has that name in that folder.
    #[error("the name is taken")]
    NameTaken,
    /// The parent is deleted, unknown or not a folder.
    #[error("the parent folder is gone")]
    ParentGone,
    /// A folder that still has children cannot be deleted.
    #[error("the folder is not empty")]
    NotEmpty,
    /// A folder cannot move into itself.
    #[error("the folder would contain itself")]
    Cycle,
    /// The content names blocks that the server does not hold.
    #[error("blocks are missing")]
    MissingBlocks,
    /// The change is not one that any client should send (root changed, private name, bad bounds).
    #[error("the change is invalid")]
    Invalid,
}

impl NodeState {
    /// Checks what types cannot: bounds of target and manifest level, the private name at the top.
    pub fn is_valid(&self) -> bool {
        let kind_ok = match &self.kind {
            Kind::Folder => true,
            Kind::File { content, .. } => {
                content.root.params == limits::CHUNK_PARAMS
                    && content.root.level <= limits::MANIFEST_LEVEL_MAX
                    && (content.root.level > 0 || content.size <= limits::BLOCK_BYTES_MAX as u64)
                    && (content.size > 0 || content.root.level == 0)
            }
            Kind::Symlink { target, .. } => {
                !target.is_empty() && target.len() <= limits::SYMLINK_BYTES_MAX && !target.contains(&0)
            }
        };
        kind_ok && !(self.parent == NodeId::ROOT && self.name.is_private_dir())
    }
}
