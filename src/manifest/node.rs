//! [`ManifestNode`]: one node of a manifest and its bytes.
//!
//! ```text
//! offset size  field
//! 0      4     magic "DBMN"
//! 4      1     version, 1
//! 5      1     level, 1 to 12: 1 names chunks, n names nodes of level n - 1
//! 6      1     id of the chunk parameters
//! 7      1     zero
//! 8      n*e   1 to 256 entries: hash (32), then the bytes of the file below it, u32 LE at level 1 (e = 36),
//!              u64 LE above (e = 40)
//! ```

use super::ManifestError;
use crate::model::{BlockHash, limits};
use bytes::{BufMut, Bytes, BytesMut};

/// Before the entries.
pub const HEADER_BYTES: usize = 8;
const MAGIC: [u8; 4] = *b"DBMN";
const VERSION: u8 = 1;
const HASH_BYTES: usize = 32;

const _: () = assert!(
    HEADER_BYTES + limits::MANIFEST_ENTRIES_MAX * (HASH_BYTES + size_of::<u64>()) <= limits::BLOCK_BYTES_MAX
);

/// One block below a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The chunk, or the node one level further down.
    pub hash: BlockHash,
    /// Bytes of the file below it, at least 1.
    pub len: u64,
}

impl Entry {
    /// True when a node that is long enough ends behind this entry: once in 64 entries.
    pub(super) fn ends_node(&self) -> bool {
        const BELOW: u64 = (1 << 32) / limits::MANIFEST_ENTRIES_AVG as u64;
        let [a, b, c, d, ..] = *self.hash.as_bytes();
        u64::from(u32::from_le_bytes([a, b, c, d])) < BELOW
    }
}

/// A node whose bounds have been checked. Whether it keeps its parent's promises is for [`super::Walker`] to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestNode {
    level: u8,
    params: u8,
    bytes: u64,
    entries: Vec<Entry>,
}

impl ManifestNode {
    /// A node of 1 to 256 entries at level 1 to 12.
    ///
    /// # Errors
    /// A level, number, length or sum out of bounds.
    pub fn new(level: u8, params: u8, entries: Vec<Entry>) -> Result<Self, ManifestError> {
        if level == 0 || level > limits::MANIFEST_LEVEL_MAX {
            return Err(ManifestError::Level(level));
        }
        if entries.is_empty() || entries.len() > limits::MANIFEST_ENTRIES_MAX {
            return Err(ManifestError::EntryCount(entries.len().saturating_mul(entry_bytes(level))));
        }
        let len_max = if level == 1 { limits::BLOCK_BYTES_MAX as u64 } else { u64::MAX };
        let mut bytes: u64 = 0;
        for entry in &entries {
            if entry.len == 0 || entry.len > len_max {
                return Err(ManifestError::EntryLength(entry.len));
            }
            bytes = bytes.checked_add(entry.len).ok_or(ManifestError::Overflow)?;
        }
        Ok(Self { level, params, bytes, entries })
    }

    /// 1: entries are chunks; n: entries are nodes of level n - 1.
    pub const fn level(&self) -> u8 {
        self.level
    }

    /// Id of the chunk parameters.
    pub const fn params(&self) -> u8 {
        self.params
    }

    /// Bytes of the file below this node.
    pub const fn file_bytes(&self) -> u64 {
        self.bytes
    }

    /// In file order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The node's bytes. Equal nodes have equal bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_BYTES + self.entries.len() * entry_bytes(self.level));
        out.put_slice(&MAGIC);
        out.put_slice(&[VERSION, self.level, self.params, 0]);
        for entry in &self.entries {
            out.put_slice(entry.hash.as_bytes());
            match u32::try_from(entry.len) {
                Ok(len) if self.level == 1 => out.put_u32_le(len),
                _ => out.put_u64_le(entry.len),
            }
        }
        out.freeze()
    }

    /// Reads all of `bytes` as a node.
    ///
    /// # Errors
    /// Anything but the bytes that [`Self::encode`] gives for some node.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let Some((&[m0, m1, m2, m3, version, level, params, reserved], body)) =
            bytes.split_first_chunk::<HEADER_BYTES>()
        else {
            return Err(ManifestError::Magic);
        };
        if [m0, m1, m2, m3] != MAGIC {
            return Err(ManifestError::Magic);
        }
        if version != VERSION {
            return Err(ManifestError::Version(version));
        }
        if reserved != 0 {
            return Err(ManifestError::Reserved);
        }
        let size = entry_bytes(level);
        // Before the entries take any memory.
        if body.len() % size != 0 || body.len() / size > limits::MANIFEST_ENTRIES_MAX {
            return Err(ManifestError::EntryCount(body.len()));
        }
        let entries = body.chunks_exact(size).filter_map(read_entry).collect();
        Self::new(level, params, entries)
    }
}

const fn entry_bytes(level: u8) -> usize {
    HASH_BYTES + if level == 1 { size_of::<u32>() } else { size_of::<u64>() }
}

/// Always `Some` for the sizes of [`entry_bytes`].
fn read_entry(bytes: &[u8]) -> Option<Entry> {
    let (hash, len) = bytes.split_first_chunk::<HASH_BYTES>()?;
    let len = match len.len() {
        4 => u32::from_le_bytes(len.try_into().ok()?).into(),
        _ => u64::from_le_bytes(len.try_into().ok()?),
    };
    Some(Entry { hash: BlockHash::from_bytes(*hash), len })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(i: u8, len: u64) -> Entry {
        Entry { hash: BlockHash::of(&[i]), len }
    }

    #[test]
    fn a_node_comes_back_at_every_level_and_its_size_is_as_specified() {
        for (level, size) in [(1, 36), (2, 40), (12, 40)] {
            let node = ManifestNode::new(level, 1, (0..=255).map(|i| entry(i, u64::from(i) + 1)).collect());
            let node = node.unwrap();
            let bytes = node.encode();
            assert_eq!(bytes.len(), 8 + 256 * size);
            assert_eq!(ManifestNode::decode(&bytes).as_ref(), Ok(&node));
            assert_eq!(node.file_bytes(), 256 * 257 / 2);
        }
    }

    #[test]
    fn levels_numbers_and_lengths_out_of_bounds_are_refused() {
        let new = |level, entries: Vec<Entry>| ManifestNode::new(level, 1, entries).unwrap_err();
        assert_eq!(new(0, vec![entry(0, 1)]), ManifestError::Level(0));
        assert_eq!(new(13, vec![entry(0, 1)]), ManifestError::Level(13));
        assert_eq!(new(1, vec![]), ManifestError::EntryCount(0));
        assert!(matches!(new(1, vec![entry(0, 1); 257]), ManifestError::EntryCount(_)));
        assert_eq!(new(1, vec![entry(0, 0)]), ManifestError::EntryLength(0));
        assert_eq!(new(1, vec![entry(0, 262_145)]), ManifestError::EntryLength(262_145));
        assert_eq!(new(2, vec![entry(0, u64::MAX), entry(1, 1)]), ManifestError::Overflow);
    }

    #[test]
    fn every_change_of_the_header_and_every_cut_is_refused() {
        let bytes = ManifestNode::new(1, 1, vec![entry(0, 7), entry(1, 9)]).unwrap().encode();
        let with = |at: usize, value: u8| {
            let mut changed = bytes.to_vec();
            changed[at] = value;
            ManifestNode::decode(&changed)
        };
        assert_eq!(with(0, b'd'), Err(ManifestError::Magic));
        assert_eq!(with(4, 2), Err(ManifestError::Version(2)));
        assert_eq!(with(5, 0).unwrap_err(), ManifestError::EntryCount(72));
        assert_eq!(with(7, 1), Err(ManifestError::Reserved));
        for cut in (0..bytes.len()).filter(|cut| *cut != 8 + 36) {
            assert!(ManifestNode::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(ManifestNode::decode(&[&bytes[..], &[0]].concat()).is_err());
        let huge = [&bytes[..8], &vec![1; 257 * 36][..]].concat();
        assert_eq!(ManifestNode::decode(&huge), Err(ManifestError::EntryCount(257 * 36)));
    }
}
