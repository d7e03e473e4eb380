//! [`SealedBlock`] (untrusted) and [`VerifiedBlock`] (checked): a block as it is stored and sent.

use super::BlockError;
use crate::model::{BlockHash, limits};
use bytes::Bytes;

/// How a payload holds the plain bytes. The numbers are a stored format: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// The payload is the plain bytes.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
    /// One zstd frame whose prefix is the plain bytes of another block.
    ZstdBase = 2,
    /// Parts of other blocks and new bytes: a [`patch`](super::patch). On the wire only.
    Patch = 3,
}

impl Codec {
    /// As on wire and disk.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Reads the byte of wire or disk.
    ///
    /// # Errors
    /// A codec that this build does not know.
    pub const fn from_code(code: u8) -> Result<Self, BlockError> {
        match code {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            2 => Ok(Self::ZstdBase),
            3 => Ok(Self::Patch),
            other => Err(BlockError::Codec(other)),
        }
    }
}

/// An encoded block from a wire or a disk. Nothing about it is known to be true.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedBlock {
    /// How to read the payload.
    pub codec: Codec,
    /// Declared length of the plain bytes.
    pub plain_len: u32,
    /// For [`Codec::ZstdBase`]: the block whose plain bytes are the prefix.
    pub base: Option<BlockHash>,
    /// The encoded bytes. A slice of a larger buffer keeps all of that buffer alive: copy it to keep it for long.
    pub payload: Bytes,
}

impl SealedBlock {
    /// Checks the lengths against each other and the limits, and that a base is there exactly when the codec has one.
    ///
    /// # Errors
    /// [`BlockError::TooLarge`], [`BlockError::PayloadLength`], [`BlockError::BaseMismatch`].
    pub fn check(&self) -> Result<(), BlockError> {
        check_lengths(self.codec, self.plain_len, self.payload.len())?;
        if self.base.is_some() == (self.codec == Codec::ZstdBase) {
            Ok(())
        } else {
            Err(BlockError::BaseMismatch)
        }
    }

    /// The blocks whose plain bytes, one after the other, are needed to open it.
    ///
    /// # Errors
    /// A patch that is none.
    pub fn bases(&self) -> Result<Vec<BlockHash>, BlockError> {
        match self.codec {
            Codec::Raw | Codec::Zstd => Ok(Vec::new()),
            Codec::ZstdBase => Ok(self.base.into_iter().collect()),
            Codec::Patch => super::patch::bases(&self.payload),
        }
    }
}

/// Raw: as many payload bytes as plain ones. Else: fewer, because a codec that does not shrink a block is not used.
pub(super) fn check_lengths(codec: Codec, plain_len: u32, payload_len: usize) -> Result<(), BlockError> {
    let plain = usize::try_from(plain_len).unwrap_or(usize::MAX);
    if plain > limits::BLOCK_BYTES_MAX {
        return Err(BlockError::TooLarge(plain_len.into()));
    }
    let fits = match codec {
        Codec::Raw => payload_len == plain,
        Codec::Zstd | Codec::ZstdBase | Codec::Patch => payload_len > 0 && payload_len < plain,
    };
    let payload = payload_len as u64;
    if fits { Ok(()) } else { Err(BlockError::PayloadLength { payload, plain: plain_len }) }
}

/// Never the contents: they would end up in a log.
impl std::fmt::Debug for SealedBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { codec, plain_len, base, payload } = self;
        write!(f, "SealedBlock({codec:?}, {plain_len} plain, {} payload, base {base:?})", payload.len())
    }
}

/// A sealed block that was opened once: it decodes to plain bytes with this hash. Made only by [`super::seal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedBlock {
    hash: BlockHash,
    sealed: SealedBlock,
}

impl VerifiedBlock {
    /// For [`super::seal`] only: `sealed` must decode to bytes with this hash.
    pub(super) const fn trust(hash: BlockHash, sealed: SealedBlock) -> Self {
        Self { hash, sealed }
    }

    /// The address: BLAKE3 of the plain bytes.
    pub const fn hash(&self) -> BlockHash {
        self.hash
    }

    /// The encoded form.
    pub const fn sealed(&self) -> &SealedBlock {
        &self.sealed
    }

    /// The encoded form, without a copy.
    pub fn into_sealed(self) -> SealedBlock {
        self.sealed
    }

    /// Length of the plain bytes.
    pub const fn plain_len(&self) -> u32 {
        self.sealed.plain_len
    }

    /// True when no other block is needed to open it: what a store may keep.
    pub const fn is_self_contained(&self) -> bool {
        matches!(self.sealed.codec, Codec::Raw | Codec::Zstd)
    }
}
