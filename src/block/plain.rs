//! [`Block`]: plain bytes and their true hash.

use crate::model::{BlockHash, limits::BLOCK_BYTES_MAX};
use bytes::Bytes;

/// Bytes whose hash is known to be true, because the only constructor computes it. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    hash: BlockHash,
    bytes: Bytes,
}

impl Block {
    /// Hashes `bytes`, 0 to [`BLOCK_BYTES_MAX`] of them.
    ///
    /// # Panics
    /// With more bytes: neither chunker nor manifest makes such a block and [`super::seal::open`] refuses to, so it
    /// could be stored, but never be read back. Better to stop before that.
    pub fn new(bytes: Bytes) -> Self {
        assert!(bytes.len() <= BLOCK_BYTES_MAX, "a block of {} bytes", bytes.len());
        Self { hash: BlockHash::of(&bytes), bytes }
    }

    /// Its address.
    pub const fn hash(&self) -> BlockHash {
        self.hash
    }

    /// The plain bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The plain bytes, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// Never the contents: they would end up in a log.
impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({:?}, {} bytes)", self.hash, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_bytes_and_debug_hides_them() {
        let block = Block::new(Bytes::from_static(b"secret"));
        assert_eq!(block.hash(), BlockHash::of(b"secret"));
        assert!(!format!("{block:?}").contains("secret"));
    }

    #[test]
    #[should_panic(expected = "a block of")]
    fn a_block_that_could_never_be_opened_is_not_made() {
        Block::new(Bytes::from(vec![0; BLOCK_BYTES_MAX + 1]));
    }
}
