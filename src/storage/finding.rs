//! What a check may find.

use crate::model::{BlockHash, Seq};
use serde::{Deserialize, Serialize};

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Finding {
    /// A journal cannot be read.
    Journal {
        /// Its file, and what is wrong.
        text: String,
    },
    /// A pack is gone.
    PackMissing {
        /// Its number.
        pack: u32,
    },
    /// Bytes of a pack are no records.
    PackDamaged {
        /// Its number.
        pack: u32,
        /// First byte.
        from: u64,
        /// First byte after them.
        to: u64,
    },
    /// A block is not what was written, or not there.
    Block {
        /// Its address.
        hash: BlockHash,
        /// Where it should be; `None` when nothing says.
        place: Option<(u32, u32)>,
    },
    /// A version of a file cannot be read as a whole.
    Version {
        /// The share.
        share: String,
        /// The path, escaped for a terminal.
        path: String,
        /// The version.
        version: Seq,
        /// It is what the share has now.
        current: bool,
        /// Blocks of it that are damaged or missing.
        blocks: u64,
    },
    /// A file beside packs and journals is not what was written.
    File {
        /// Which, and what is wrong.
        text: String,
    },
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Journal { text } | Self::File { text } => f.write_str(text),
            Self::PackMissing { pack } => write!(f, "pack {pack}: missing"),
            Self::PackDamaged { pack, from, to } => {
                write!(f, "pack {pack}: bytes {from} to {to} are damaged")
            }
            Self::Block { hash, place: Some((pack, offset)) } => {
                write!(f, "block {hash}: damaged or missing (pack {pack}, byte {offset})")
            }
            Self::Block { hash, place: None } => write!(f, "block {hash}: missing"),
            Self::Version { share, path, version, current, blocks } => {
                let what = if *current { "current" } else { "replaced" };
                write!(f, "{share}: {path}: {what} version {version} lacks {blocks} blocks")
            }
        }
    }
}
