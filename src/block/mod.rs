//! Blocks: the unit of storage and of transfer.
//!
//! Behind the chunker, before the store and the wire. Pure. A type per state of trust:
//!
//! ```text
//!   bytes --Block::new (hashes)--> Block --Sealer::seal--> VerifiedBlock --into_sealed--> SealedBlock --> wire, disk
//!   wire, disk --> SealedBlock --open--> Block                (bytes whose hash is computed, not claimed)
//!                  SealedBlock --verify--> VerifiedBlock      (the same, and the sealed form is kept)
//! ```
//! A [`SealedBlock`] is whatever someone sent. Only [`seal`] makes a [`VerifiedBlock`], and only [`Block::new`] makes a
//! [`Block`], so whoever holds one need not check again. Must not: look a block up, decide where a base comes from.
//! `docs/FORMAT.md` has the byte tables.

pub mod pack;
pub mod patch;
mod plain;
pub mod seal;
mod sealed;
pub mod sketch;

pub use plain::Block;
pub use seal::Sealer;
pub use sealed::{Codec, SealedBlock, VerifiedBlock};

use crate::model::BlockHash;

/// Why bytes are not a block, or not a pack of blocks. All of them mean that the sender or the disk is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A codec that this build does not know.
    #[error("unknown codec {0}")]
    Codec(u8),
    /// More plain bytes than a block may have.
    #[error("a block of {0} bytes is too large")]
    TooLarge(u64),
    /// The payload is empty, or longer than the plain bytes.
    #[error("{payload} payload bytes cannot hold {plain} plain bytes")]
    PayloadLength {
        /// Bytes of the payload.
        payload: u64,
        /// Declared plain length, bytes.
        plain: u32,
    },
    /// The payload is not exactly one zstd frame.
    #[error("the payload is not one zstd frame")]
    Frame,
    /// The frame does not decode, or not with this base, or to more than it declared.
    #[error("the payload does not decode")]
    Decode,
    /// The frame decoded to fewer bytes than declared.
    #[error("{found} plain bytes instead of {declared}")]
    PlainLength {
        /// As in the header.
        declared: u32,
        /// As decoded.
        found: u64,
    },
    /// The block can only be opened with the bytes of its base.
    #[error("the base block {0} is needed")]
    BaseNeeded(BlockHash),
    /// The payload is no patch, or copies from where its bases have nothing.
    #[error("the payload is not a patch")]
    Patch,
    /// A patch came out as another block than it says: its sender was wrong about the bases.
    #[error("the patch makes another block")]
    Check,
    /// A codec without a base names one, or one with a base does not.
    #[error("codec and base do not fit")]
    BaseMismatch,
    /// A pack ends inside a block.
    #[error("the pack is cut short")]
    Truncated,
    /// A pack holds more than `PACK_BLOCKS_MAX` blocks.
    #[error("too many blocks in a pack")]
    TooMany,
}

impl BlockError {
    /// True when the same bytes can succeed with a base; everything else is final.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::BaseNeeded(_))
    }
}
