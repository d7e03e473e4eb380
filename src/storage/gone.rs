//! Small files of upkeep, each written whole: tombstones of packs that were removed on purpose, notes of packs that were lost,
//! the list of condemned blocks, and the list of those that are damaged or missing.
//!
//! ```text
//! packs/NNNNNNNN.gone                      condemned
//! 0   8  magic "DBLKGONE"                  0   8   magic "DBLKCOND"
//! 8   4  version 1, u32 LE                 8   4   version 1, u32 LE
//! 12  4  pack number, u32 LE               12  16  store id
//! 16  16 store id                          28  8   number of entries n, u64 LE
//! 32  8  packs were durable up to here:    36  40n block hash (32), since when, ms since 1970, u64 LE
//!        pack u32 LE, offset u32 LE        ..  8   checksum of everything before
//! 40  8  checksum of bytes 0..40
//! ```
//! `packs/NNNNNNNN.lost` is as a tombstone, with the magic "DBLKLOST".
//!
//! Both only explain why a pack is absent. A pack that is there is read like any other, whatever stands beside it: it may have
//! been put back, as the only copy of something.

use super::error::{At, StorageError};
use super::gc::Condemned;
use super::pack_file::Place;
use super::{Result, file, packs};
use crate::model::hash::checksum8;
use crate::model::{BlockHash, StoreId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const VERSION: u32 = 1;
const GONE_MAGIC: &[u8; 8] = b"DBLKGONE";
const LOST_MAGIC: &[u8; 8] = b"DBLKLOST";
const CONDEMNED_MAGIC: &[u8; 8] = b"DBLKCOND";
const CONDEMNED_HEADER: usize = 36;
const ENTRY_BYTES: usize = 40;
/// Name of the list in the store's folder.
const CONDEMNED: &str = "condemned";
/// Name of the list of damaged and missing blocks.
const WANTED: &str = "wanted";

fn name(number: u32) -> String {
    format!("{number:08}.gone")
}

/// Says for good that pack `number` was removed, and that all packs were durable before `durable` by then: what was moved
/// out of it must never be taken for a torn tail.
pub fn bury(folder: &Path, number: u32, store: StoreId, durable: Place) -> Result<()> {
    write(folder, &name(number), &encode(GONE_MAGIC, number, store, durable))
}

/// Takes tombstones and notes away that explain nothing any more.
pub fn forget(folder: &Path, tombstones: &BTreeSet<u32>, notes: &BTreeSet<u32>) -> Result<()> {
    let names = tombstones.iter().map(|number| name(*number));
    for name in names.chain(notes.iter().map(|number| lost_name(*number))) {
        let path = folder.join(name);
        std::fs::remove_file(&path).at("remove", &path)?;
    }
    file::sync_dir(folder).at("sync", folder)
}

/// Tombstones and notes of packs that are there: of both the numbers.
pub fn beside(folder: &Path, store: StoreId) -> Result<(BTreeSet<u32>, BTreeSet<u32>)> {
    let there = |number: &u32| packs::path(folder, *number).exists();
    let tombstones = list(folder, store)?.into_keys().filter(there).collect();
    let notes = read_all(folder, ".lost", LOST_MAGIC, store)?.into_keys().filter(there).collect();
    Ok((tombstones, notes))
}

/// Notes that pack `number` is gone and that nothing lacked without it. Only a note: a pack that is there again is read.
pub fn note_lost(folder: &Path, number: u32, store: StoreId) -> Result<()> {
    write(folder, &lost_name(number), &encode(LOST_MAGIC, number, store, Place::default()))
}

/// The packs that were noted as lost and are not there again.
pub fn lost(folder: &Path, store: StoreId) -> Result<BTreeSet<u32>> {
    let noted = read_all(folder, ".lost", LOST_MAGIC, store)?.into_keys();
    Ok(noted.filter(|number| !packs::path(folder, *number).exists()).collect())
}

fn lost_name(number: u32) -> String {
    format!("{number:08}.lost")
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    file::write_whole(folder, name, bytes).at("write", &folder.join(name))
}

fn encode(magic: &[u8; 8], number: u32, store: StoreId, durable: Place) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(store.as_bytes());
    bytes.extend_from_slice(&durable.pack.to_le_bytes());
    bytes.extend_from_slice(&durable.offset.to_le_bytes());
    let sum = checksum8(&[&bytes]);
    bytes.extend_from_slice(&sum);
    bytes
}

/// The tombstones in a folder, each with its place. One that does not check is none.
pub fn list(folder: &Path, store: StoreId) -> Result<BTreeMap<u32, Place>> {
    read_all(folder, ".gone", GONE_MAGIC, store)
}

fn read_all(folder: &Path, extension: &str, magic: &[u8; 8], store: StoreId) -> Result<BTreeMap<u32, Place>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).at("list", folder)? {
        let entry = entry.at("list", folder)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(extension)).and_then(|n| n.parse().ok());
        let Some(number) = number else { continue };
        let bytes = match std::fs::read(entry.path()) {
            Ok(bytes) => bytes,
            Err(error) => {
                // A note says why something is absent: without it that is a loss, which is looked into.
                tracing::warn!(path = %entry.path().display(), %error, "not a note of a pack; it is ignored");
                continue;
            }
        };
        if let Some(place) = parse(magic, &bytes, number, store) {
            found.insert(number, place);
        }
    }
    Ok(found)
}

fn parse(magic: &[u8; 8], bytes: &[u8], number: u32, store: StoreId) -> Option<Place> {
    let (body, sum) = bytes.split_at_checked(40)?;
    let field = |at: usize| Some(u32::from_le_bytes(*body.get(at..)?.first_chunk()?));
    let whole = body.starts_with(magic)
        && checksum8(&[body]) == sum
        && field(8)? == VERSION
        && field(12)? == number
        && body.get(16..32)? == store.as_bytes();
    whole.then_some(Place { pack: field(32)?, offset: field(36)? })
}

/// Writes down which blocks are damaged or missing, as text, one hash a line.
pub fn save_wanted(home: &Path, wanted: &[BlockHash]) -> Result<()> {
    let text: String = wanted.iter().map(|hash| hash.to_hex() + "\n").collect();
    file::write_whole(home, WANTED, text.as_bytes()).at("write", &home.join(WANTED))
}

/// What was written down; lines that are no hash are skipped. A block that is fine again by now is only asked for once more.
pub fn load_wanted(home: &Path) -> BTreeSet<BlockHash> {
    let text = std::fs::read_to_string(home.join(WANTED)).unwrap_or_default();
    text.lines().filter_map(BlockHash::from_hex).collect()
}

/// Writes the list of condemned blocks.
pub fn save_condemned(home: &Path, store: StoreId, condemned: &Condemned) -> Result<()> {
    let mut bytes = Vec::with_capacity(CONDEMNED_HEADER + condemned.len() * ENTRY_BYTES + 8);
    bytes.extend_from_slice(CONDEMNED_MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(store.as_bytes());
    bytes.extend_from_slice(&(condemned.len() as u64).to_le_bytes());
    for (hash, since) in condemned {
        bytes.extend_from_slice(hash.as_bytes());
        bytes.extend_from_slice(&since.to_le_bytes());
    }
    let sum = checksum8(&[&bytes]);
    bytes.extend_from_slice(&sum);
    file::write_whole(home, CONDEMNED, &bytes).at("write", &home.join(CONDEMNED))
}

/// Reads the list. When it is missing or not what was written it is empty: everything gets its grace time once more.
pub fn load_condemned(home: &Path, store: StoreId) -> Result<Condemned> {
    let path = home.join(CONDEMNED);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(parse_condemned(&bytes, store).unwrap_or_default()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Condemned::default()),
        Err(error) => Err(StorageError::io("read", &path, error)),
    }
}

fn parse_condemned(bytes: &[u8], store: StoreId) -> Option<Condemned> {
    let (body, sum) = bytes.split_last_chunk::<8>()?;
    let (header, entries) = body.split_at_checked(CONDEMNED_HEADER)?;
    let count = u64::from_le_bytes(*header.get(28..)?.first_chunk()?);
    let whole = header.starts_with(CONDEMNED_MAGIC)
        && header.get(8..12)? == VERSION.to_le_bytes()
        && header.get(12..28)? == store.as_bytes()
        && checksum8(&[body]) == *sum
        && entries.len() as u64 == count.checked_mul(ENTRY_BYTES as u64)?;
    let entry = |bytes: &[u8]| {
        let (hash, since) = bytes.split_first_chunk::<32>()?;
        Some((BlockHash::from_bytes(*hash), u64::from_le_bytes(*since.first_chunk()?)))
    };
    if whole { entries.chunks_exact(ENTRY_BYTES).map(entry).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId::from_bytes([3; 16]);

    #[test]
    fn a_tombstone_counts_only_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { pack: 9, offset: 77 };
        bury(folder.path(), 5, STORE, place).unwrap();
        assert_eq!(list(folder.path(), STORE).unwrap(), BTreeMap::from([(5, place)]));
        assert!(list(folder.path(), StoreId::from_bytes([4; 16])).unwrap().is_empty());
        let bytes = std::fs::read(folder.path().join(name(5))).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(GONE_MAGIC, &flipped, 5, STORE), None, "bit {bit}");
        }
        assert_eq!(parse(GONE_MAGIC, &bytes, 6, STORE), None);
        assert!(lost(folder.path(), STORE).unwrap().is_empty());
    }

    #[test]
    fn a_note_of_a_lost_pack_is_no_tombstone_and_ends_when_the_pack_is_there() {
        let folder = tempfile::tempdir().unwrap();
        note_lost(folder.path(), 5, STORE).unwrap();
        note_lost(folder.path(), 6, STORE).unwrap();
        assert!(list(folder.path(), STORE).unwrap().is_empty());
        assert_eq!(lost(folder.path(), STORE).unwrap(), BTreeSet::from([5, 6]));
        let other = StoreId::from_bytes([4; 16]);
        assert!(lost(folder.path(), other).unwrap().is_empty());
        std::fs::write(packs::path(folder.path(), 5), "x").unwrap();
        assert_eq!(lost(folder.path(), STORE).unwrap(), BTreeSet::from([6]));
        let (tombstones, notes) = beside(folder.path(), STORE).unwrap();
        assert_eq!((tombstones.len(), &notes), (0, &BTreeSet::from([5])));
        forget(folder.path(), &tombstones, &notes).unwrap();
        std::fs::remove_file(packs::path(folder.path(), 5)).unwrap();
        assert_eq!(lost(folder.path(), STORE).unwrap(), BTreeSet::from([6]), "lost once more");
    }

    #[test]
    fn a_folder_in_the_place_of_a_note_is_none() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(name(5))).unwrap();
        std::fs::create_dir(folder.path().join(lost_name(6))).unwrap();
        note_lost(folder.path(), 7, STORE).unwrap();
        assert!(list(folder.path(), STORE).unwrap().is_empty());
        assert_eq!(lost(folder.path(), STORE).unwrap(), BTreeSet::from([7]));
    }

    #[test]
    fn a_list_of_condemned_blocks_comes_back_or_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load_condemned(folder.path(), STORE).unwrap().is_empty());
        let condemned: Condemned =
            (0..50u8).map(|n| (BlockHash::from_bytes([n; 32]), u64::from(n) * 1000)).collect();
        save_condemned(folder.path(), STORE, &condemned).unwrap();
        assert_eq!(load_condemned(folder.path(), STORE).unwrap(), condemned);
        let path = folder.path().join(CONDEMNED);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(load_condemned(folder.path(), STORE).unwrap().is_empty());
        std::fs::write(&path, &bytes[..50]).unwrap();
        assert!(load_condemned(folder.path(), STORE).unwrap().is_empty());
    }
}
