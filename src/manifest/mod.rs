//! Manifests: what a file is made of, as a tree of small blocks.
//!
//! After the chunker, before journal and transfer. A manifest is the list of (block hash, length) of a file. A long list
//! is cut into nodes by content, the nodes' list again, and so on: the root names the whole file, and one changed chunk
//! changes one node per level. Nodes are ordinary blocks, stored, sent and deduplicated like any other.
//! Pure: [`Walker`] and [`Differ`] say which nodes they need and are fed with them, from a store, a wire or a test.
//!
//! Invariants:
//! - Equal bytes, cut with equal parameters, have equal roots: a node's cut depends on the entries in it only.
//! - No number of a node is believed: levels, lengths and the total are checked against what stands above, and a
//!   node's bytes against its hash. A manifest that passes adds up to the size it was announced with.

pub mod builder;
pub mod diff;
pub mod node;
pub mod walk;

pub use builder::{Builder, empty_file};
pub use diff::{Diff, DiffStep, Differ, diff};
pub use node::{Entry, ManifestNode};
pub use walk::{ChunkRef, Step, Walker, chunk_list};

use crate::model::BlockHash;

/// Why a manifest cannot be built or read. When reading, the one who sent or stored it is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The first bytes are not those of a manifest node.
    #[error("not a manifest node")]
    Magic,
    /// A format that this build does not know.
    #[error("unknown manifest format {0}")]
    Version(u8),
    /// Level 0, or above `MANIFEST_LEVEL_MAX`.
    #[error("manifest level {0} is out of bounds")]
    Level(u8),
    /// A byte that must be zero is not.
    #[error("a reserved byte is set")]
    Reserved,
    /// None, more than `MANIFEST_ENTRIES_MAX`, a fraction of one, or a root with one.
    #[error("{0} bytes of entries are out of bounds")]
    EntryCount(usize),
    /// An entry without bytes, a chunk above `BLOCK_BYTES_MAX`, or less than `CHUNK_BYTES_MIN` before the last entry.
    #[error("an entry of {0} bytes is out of bounds")]
    EntryLength(u64),
    /// The lengths add up to more than u64 holds, or there are too many chunks.
    #[error("the lengths overflow")]
    Overflow,
    /// The node's bytes are not those that were asked for.
    #[error("the bytes of node {0} have another hash")]
    Hash(BlockHash),
    /// A node that nobody asked for.
    #[error("node {0} was not asked for")]
    Unasked(BlockHash),
    /// A source gave more or fewer nodes than it was asked for.
    #[error("asked for {asked} nodes, got {found}")]
    Undelivered {
        /// Nodes asked for.
        asked: usize,
        /// Nodes given.
        found: usize,
    },
    /// A node at one level where its parent promised another.
    #[error("node {hash} is at level {found} instead of {promised}")]
    LevelPromise {
        /// The node.
        hash: BlockHash,
        /// By the parent.
        promised: u8,
        /// In the node.
        found: u8,
    },
    /// A block whose bytes are not as many as its parent promised.
    #[error("{hash} has {found} bytes instead of {promised}")]
    LengthPromise {
        /// The node or chunk.
        hash: BlockHash,
        /// By the parent, bytes of the file.
        promised: u64,
        /// In the node, bytes of the file.
        found: u64,
    },
    /// A node that was cut with other parameters than its file.
    #[error("node {0} has other chunk parameters than its file")]
    Params(BlockHash),
    /// A size that the root cannot have: a lone block too large, or bytes in an empty file.
    #[error("a file of {0} bytes cannot have this root")]
    Size(u64),
}
