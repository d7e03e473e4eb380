//! What garbage collection took from the past: per share the last commit of which the replaced versions may be gone. A
//! version that was replaced by it or before is never called restorable again, however long the keep time is later.
//!
//! A commit and not a time: a clock that was wrong for an hour must not take the years after it along.
//!
//! ```text
//! STORE/collected                          entry
//! 0   8   magic "DBLKCOLL"                 0   16  share id
//! 8   4   version 1, u32 LE                16  8   seq of the commit, u64 LE
//! 12  16  store id                         24  32  chain up to it
//! 28  8   number of entries n, u64 LE
//! 36  56n entries
//! ..  8   checksum of everything before
//! ```

use super::error::At;
use super::sled::Index;
use super::{Result, ShareId, StorageError, file};
use crate::model::hash::checksum8;
use crate::model::{ChainHash, Seq, StoreId};
use std::collections::BTreeMap;
use std::path::Path;

const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"DBLKCOLL";
const HEADER: usize = 36;
const ENTRY_BYTES: usize = 56;
/// Name of the file in the store's folder.
const FILE: &str = "collected";

/// Per share the commit, and the chain up to it: a journal with another past was not collected.
pub type Collected = BTreeMap<ShareId, (Seq, ChainHash)>;

/// Writes it, durably.
pub fn save(home: &Path, store: StoreId, collected: &Collected) -> Result<()> {
    let mut bytes = Vec::with_capacity(HEADER + collected.len() * ENTRY_BYTES + 8);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(store.as_bytes());
    bytes.extend_from_slice(&(collected.len() as u64).to_le_bytes());
    for (share, (seq, chain)) in collected {
        bytes.extend_from_slice(share.as_bytes());
        bytes.extend_from_slice(&seq.0.to_le_bytes());
        bytes.extend_from_slice(chain.as_bytes());
    }
    let sum = checksum8(&[&bytes]);
    bytes.extend_from_slice(&sum);
    file::write_whole(home, FILE, &bytes).at("write", &home.join(FILE))
}

/// Reads it. When it is missing or not what was written it is empty: then history may promise what is gone, and a mark
/// that meets a gap deletes nothing.
fn load(home: &Path, store: StoreId) -> Result<Collected> {
    let path = home.join(FILE);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(parse(&bytes, store).unwrap_or_else(|| {
            tracing::warn!(path = %path.display(), "not what was written: it is not known what was collected");
            Collected::default()
        })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Collected::default()),
        Err(error) => Err(StorageError::io("read", &path, error)),
    }
}

/// What was collected from the journals that are here: one that was put back from a copy may have another past.
pub fn known(home: &Path, store: StoreId, index: &Index) -> Result<Collected> {
    let mut collected = load(home, store)?;
    for (share, (seq, chain)) in std::mem::take(&mut collected) {
        if index.commit(share, seq)?.is_some_and(|found| found.chain == chain) {
            collected.insert(share, (seq, chain));
        }
    }
    Ok(collected)
}

fn parse(bytes: &[u8], store: StoreId) -> Option<Collected> {
    let (body, sum) = bytes.split_last_chunk::<8>()?;
    let (header, entries) = body.split_at_checked(HEADER)?;
    let count = u64::from_le_bytes(*header.get(28..)?.first_chunk()?);
    let whole = header.starts_with(MAGIC)
        && header.get(8..12)? == VERSION.to_le_bytes()
        && header.get(12..28)? == store.as_bytes()
        && checksum8(&[body]) == *sum
        && entries.len() as u64 == count.checked_mul(ENTRY_BYTES as u64)?;
    let entry = |bytes: &[u8]| {
        let (share, rest) = bytes.split_first_chunk::<16>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let chain = ChainHash::from_bytes(*rest.first_chunk()?);
        Some((ShareId::from_bytes(*share), (Seq(u64::from_le_bytes(*seq)), chain)))
    };
    if whole { entries.chunks_exact(ENTRY_BYTES).map(entry).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_as_written_or_not_at_all() {
        let (folder, store) = (tempfile::tempdir().unwrap(), StoreId::from_bytes([3; 16]));
        assert!(load(folder.path(), store).unwrap().is_empty());
        let entry =
            |n: u8| (ShareId::from_bytes([n; 16]), (Seq(u64::from(n)), ChainHash::from_bytes([n; 32])));
        let collected: Collected = (1..4).map(entry).collect();
        save(folder.path(), store, &collected).unwrap();
        assert_eq!(load(folder.path(), store).unwrap(), collected);
        assert!(load(folder.path(), StoreId::from_bytes([4; 16])).unwrap().is_empty());
        let path = folder.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&flipped, store), None, "bit {bit}");
        }
        assert_eq!(parse(&bytes[..50], store), None);
    }
}
