//! Hashes. The only file that names the `blake3` crate.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The address of a block: BLAKE3 (32 bytes) of its plain bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockHash([u8; 32]);

impl BlockHash {
    /// The hash of no block: where a list of hashes has a gap.
    pub const NONE: Self = Self([0; 32]);

    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Takes a hash that came from a wire or a disk. It claims nothing about any bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// Reads 64 hex digits; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|h| Self(*h.as_bytes()))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", hex(self.0.get(..6).unwrap_or_default()))
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// A link of a hash chain: `H(n) = BLAKE3(H(n-1) || payload(n))`. The journal uses it, and clients remember it, so that
/// a journal that lost or changed its past is recognised.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
pub struct ChainHash([u8; 32]);

impl ChainHash {
    /// The chain before its first record; `seed` binds it to one journal.
    pub fn start(seed: &[u8]) -> Self {
        Self(blake3::derive_key("dropblock 2026 journal chain v1", seed))
    }

    /// The next link.
    pub fn link(&self, payload: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(payload);
        Self(*hasher.finalize().as_bytes())
    }

    /// Takes a link that came from a wire or a disk.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain:{}", hex(self.0.get(..6).unwrap_or_default()))
    }
}

/// The first 8 bytes of BLAKE3, as a checksum of a record on disk (damage, not malice).
pub fn checksum8(parts: &[&[u8]]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut out = [0u8; 8];
    hasher.finalize_xof().fill(&mut out);
    out
}

/// `len` deterministic pseudo-random bytes from a seed: ids, test data.
pub fn expand(seed: &[u8; 32], counter: u64, out: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_keyed(seed);
    hasher.update(&counter.to_le_bytes());
    hasher.finalize_xof().fill(out);
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_everything_else() {
        let hash = BlockHash::of(b"abc");
        assert_eq!(BlockHash::from_hex(&hash.to_hex()), Some(hash));
        assert_eq!(BlockHash::from_hex("zz"), None);
        assert_eq!(BlockHash::from_hex(&"0".repeat(63)), None);
    }

    #[test]
    fn a_chain_depends_on_its_seed_its_records_and_their_order() {
        let a = ChainHash::start(b"1").link(b"x").link(b"y");
        assert_ne!(a, ChainHash::start(b"2").link(b"x").link(b"y"));
        assert_ne!(a, ChainHash::start(b"1").link(b"y").link(b"x"));
        assert_eq!(a, ChainHash::start(b"1").link(b"x").link(b"y"));
    }
}
