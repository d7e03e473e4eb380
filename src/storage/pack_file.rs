//! One pack file to the byte: its header, its records, and how it is read from one end to the other.
//!
//! ```text
//! file header, 40 bytes              record header, 64 bytes, then the payload
//! 0   8  magic "DBLKPACK"            0   4  magic "DBRC"
//! 8   4  version 1, u32 LE           4   1  codec (0 raw, 1 zstd)
//! 12  4  pack number, u32 LE         5   3  zero
//! 16  16 store id                    8   4  plain length, u32 LE, at most 256 KiB
//! 32  8  checksum of bytes 0..32     12  4  payload length, u32 LE, at most 256 KiB
//!                                    16  32 block hash (BLAKE3 of the plain bytes)
//!                                    48  8  first 8 bytes of BLAKE3(payload)
//!                                    56  8  checksum of bytes 0..56
//! ```
//! The payload of a raw block is the plain bytes, so its checksum is the front of the block hash and costs nothing to
//! write; only compressed payloads, which are the smaller ones, are hashed again. The header has a checksum of its own so
//! that a reader can walk from record to record without reading payloads, and can find its feet again after damage.

use super::error::{At, StorageError};
use super::{Result, file};
use crate::block::{Codec, SealedBlock, VerifiedBlock};
use crate::model::hash::checksum8;
use crate::model::{BlockHash, StoreId, limits};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of the file header.
pub const FILE_HEADER: u32 = 40;
/// Bytes of a record header.
pub const RECORD_HEADER: u32 = 64;
const RECORD_HEADER_BYTES: usize = 64;
const VERSION: u32 = 1;
const FILE_MAGIC: &[u8; 8] = b"DBLKPACK";
const RECORD_MAGIC: &[u8; 4] = b"DBRC";
/// How far one read looks for the next record after damage.
const SEARCH_BYTES: usize = 1024 * 1024;

/// A byte in the packs. Ordered as they are written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Place {
    /// Number of the pack, from 1.
    pub pack: u32,
    /// Byte in it.
    pub offset: u32,
}

impl Place {
    /// As one number that keeps the order.
    pub const fn to_u64(self) -> u64 {
        ((self.pack as u64) << 32) | self.offset as u64
    }

    /// Back from [`to_u64`](Self::to_u64).
    pub fn from_u64(number: u64) -> Self {
        let half = |n: u64| u32::try_from(n & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Self { pack: half(number >> 32), offset: half(number) }
    }
}

/// Where a block is: the value of the block index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Location {
    /// Start of its record.
    pub place: Place,
    /// Bytes of the payload.
    pub payload_len: u32,
    /// Bytes of the block.
    pub plain_len: u32,
}

impl Location {
    /// Pack, offset, payload length, plain length; u32 LE each.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut out = [0; 16];
        let fields = [self.place.pack, self.place.offset, self.payload_len, self.plain_len];
        for (slot, field) in out.chunks_exact_mut(4).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        out
    }

    /// `None` for anything but 16 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 16] = bytes.try_into().ok()?;
        let field = |at| u32_at(bytes, at);
        Some(Self {
            place: Place { pack: field(0)?, offset: field(4)? },
            payload_len: field(8)?,
            plain_len: field(12)?,
        })
    }

    /// First byte after the record.
    pub fn end(&self) -> u64 {
        u64::from(self.place.offset) + u64::from(RECORD_HEADER) + u64::from(self.payload_len)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|field| u32::from_le_bytes(*field))
}

/// The header of a pack file.
pub fn file_header(number: u32, store: StoreId) -> [u8; FILE_HEADER as usize] {
    let mut out = [0; FILE_HEADER as usize];
    let mut body = Vec::with_capacity(32);
    body.extend_from_slice(FILE_MAGIC);
    body.extend_from_slice(&VERSION.to_le_bytes());
    body.extend_from_slice(&number.to_le_bytes());
    body.extend_from_slice(store.as_bytes());
    let sum = checksum8(&[&body]);
    for (slot, byte) in out.iter_mut().zip(body.iter().chain(&sum)) {
        *slot = *byte;
    }
    out
}

/// Whether a pack file starts as it should. `Ok(false)`: it is short or damaged.
pub fn check_file_header(file: &File, path: &Path, number: u32, store: StoreId) -> Result<bool> {
    let mut found = [0; FILE_HEADER as usize];
    match file.read_exact_at(&mut found, 0) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
        other => other.at("read", path)?,
    }
    if found == file_header(number, store) {
        return Ok(true);
    }
    let whole = found.starts_with(FILE_MAGIC)
        && found.get(32..) == Some(&checksum8(&[found.get(..32).unwrap_or_default()])[..]);
    match u32_at(&found, 8) {
        Some(version) if whole && version > VERSION => {
            Err(StorageError::NewerVersion { path: path.to_owned(), found: version, known: VERSION })
        }
        _ => Ok(false),
    }
}

/// The header of a block's record.
pub fn record_header(block: &VerifiedBlock) -> Result<[u8; RECORD_HEADER_BYTES]> {
    let sealed = block.sealed();
    if !block.is_self_contained() {
        return Err(StorageError::NeedsBase(block.hash()));
    }
    let payload_sum = match sealed.codec {
        Codec::Raw => *block.hash().as_bytes().first_chunk().unwrap_or(&[0; 8]),
        _ => checksum8(&[&sealed.payload]),
    };
    let payload_len = u32::try_from(sealed.payload.len()).unwrap_or(u32::MAX);
    let mut body = Vec::with_capacity(56);
    body.extend_from_slice(RECORD_MAGIC);
    body.extend_from_slice(&[sealed.codec.code(), 0, 0, 0]);
    body.extend_from_slice(&sealed.plain_len.to_le_bytes());
    body.extend_from_slice(&payload_len.to_le_bytes());
    body.extend_from_slice(block.hash().as_bytes());
    body.extend_from_slice(&payload_sum);
    let sum = checksum8(&[&body]);
    let mut out = [0; RECORD_HEADER_BYTES];
    for (slot, byte) in out.iter_mut().zip(body.iter().chain(&sum)) {
        *slot = *byte;
    }
    Ok(out)
}

/// A record header whose checksum was right.
#[derive(Debug, Clone, Copy)]
pub struct RecordHeader {
    codec: Codec,
    payload_sum: [u8; 8],
    /// Address of the block.
    pub hash: BlockHash,
    /// Bytes of the block.
    pub plain_len: u32,
    /// Bytes that follow.
    pub payload_len: u32,
}

impl RecordHeader {
    /// `None` when the bytes are not a record header as it was written.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RECORD_HEADER_BYTES] = bytes.first_chunk()?;
        let (body, sum) = bytes.split_at(56);
        // The magic first: a search after damage would otherwise hash at every byte.
        if !body.starts_with(RECORD_MAGIC) || checksum8(&[body]) != sum {
            return None;
        }
        let header = Self {
            codec: Codec::from_code(*body.get(4)?).ok()?,
            plain_len: u32_at(body, 8)?,
            payload_len: u32_at(body, 12)?,
            hash: BlockHash::from_bytes(*body.get(16..)?.first_chunk()?),
            payload_sum: *body.get(48..)?.first_chunk()?,
        };
        let bounded = header.plain_len as usize <= limits::BLOCK_BYTES_MAX
            && header.payload_len as usize <= limits::SEALED_BYTES_MAX;
        bounded.then_some(header)
    }

    /// Pairs the header with its payload; `None` when the payload is not what was written.
    pub fn open(&self, payload: Bytes) -> Option<SealedBlock> {
        let whole = match self.codec {
            Codec::Raw => BlockHash::of(&payload) == self.hash,
            _ => checksum8(&[&payload]) == self.payload_sum,
        };
        let sealed = SealedBlock { codec: self.codec, plain_len: self.plain_len, base: None, payload };
        (whole && sealed.payload.len() == self.payload_len as usize).then_some(sealed)
    }
}

/// What [`walk`] came upon.
#[derive(Debug)]
pub enum Step {
    /// A record.
    Block(BlockHash, Location),
    /// Bytes that are not a record; the walk goes on after them.
    Gap {
        /// First of them.
        from: u64,
        /// First byte after them.
        to: u64,
    },
}

/// Walks the records of a pack from byte `from` to the end of the file. Payloads are read and checked from byte
/// `check_from` on. `visit` says whether to go on.
pub fn walk(
    file: &File,
    path: &Path,
    number: u32,
    from: u64,
    check_from: u64,
    visit: &mut dyn FnMut(Step) -> Result<bool>,
) -> Result<()> {
    let len = file.metadata().at("look at", path)?.len();
    let mut at = from;
    while at < len {
        match read_record(file, path, number, at, at >= check_from)? {
            Some((hash, location)) => {
                at = location.end();
                if !visit(Step::Block(hash, location))? {
                    return Ok(());
                }
            }
            None => {
                let to = next_record(file, path, at + 1, len)?;
                if !visit(Step::Gap { from: at, to })? {
                    return Ok(());
                }
                at = to;
            }
        }
    }
    Ok(())
}

fn read_record(
    file: &File,
    path: &Path,
    number: u32,
    at: u64,
    check: bool,
) -> Result<Option<(BlockHash, Location)>> {
    let Some(bytes) = read(file, path, at, RECORD_HEADER_BYTES)? else { return Ok(None) };
    let (Some(header), Ok(offset)) = (RecordHeader::parse(&bytes), u32::try_from(at)) else {
        return Ok(None);
    };
    let location = Location {
        place: Place { pack: number, offset },
        payload_len: header.payload_len,
        plain_len: header.plain_len,
    };
    let whole = if check {
        let payload = read(file, path, at + u64::from(RECORD_HEADER), header.payload_len as usize)?;
        payload.is_some_and(|payload| header.open(payload.into()).is_some())
    } else {
        location.end() <= file.metadata().at("look at", path)?.len()
    };
    Ok(whole.then_some((header.hash, location)))
}

/// Reads exactly `len` bytes; `None` when the file ends before.
fn read(file: &File, path: &Path, at: u64, len: usize) -> Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; len];
    match file.read_exact_at(&mut bytes, at) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(StorageError::io("read", path, error)),
    }
}

/// The first byte at or after `from` where a record header stands; `len` when there is none.
fn next_record(file: &File, path: &Path, mut from: u64, len: u64) -> Result<u64> {
    while from < len {
        let take = usize::try_from(len - from).map_or(SEARCH_BYTES, |rest| rest.min(SEARCH_BYTES));
        let Some(bytes) = read(file, path, from, take)? else { return Ok(len) };
        let found = (0..bytes.len()).find(|at| {
            bytes
                .get(*at..)
                .is_some_and(|rest| rest.starts_with(RECORD_MAGIC) && RecordHeader::parse(rest).is_some())
        });
        if let Some(at) = found {
            return Ok(from + at as u64);
        }
        if take < SEARCH_BYTES {
            return Ok(len);
        }
        // A header may straddle two reads.
        from += (take - RECORD_HEADER_BYTES) as u64;
    }
    Ok(len)
}

/// Makes a new pack file with its header; the folder is synced, the header is durable with the first commit.
pub fn create(folder: &Path, path: &Path, number: u32, store: StoreId) -> Result<File> {
    let made = file::create_new(path).at("make", path)?;
    made.write_all_at(&file_header(number, store), 0).at("write", path)?;
    file::sync_dir(folder).at("sync", folder)?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Block, Sealer};

    fn sealed(bytes: &'static [u8]) -> VerifiedBlock {
        Sealer::new(1).seal(&Block::new(Bytes::from_static(bytes)))
    }

    #[test]
    fn a_record_comes_back_and_every_flipped_bit_is_seen() {
        for block in [sealed(b"plain and short"), sealed(&[b'a'; 4000])] {
            let header = record_header(&block).unwrap();
            let payload = block.sealed().payload.clone();
            let opened = RecordHeader::parse(&header).unwrap().open(payload.clone()).unwrap();
            assert_eq!(&opened.payload, &payload);
            for bit in 0..header.len() * 8 {
                let mut flipped = header;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(RecordHeader::parse(&flipped).is_none(), "bit {bit}");
            }
            for bit in 0..payload.len() * 8 {
                let mut flipped = payload.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(RecordHeader::parse(&header).unwrap().open(flipped.into()).is_none(), "bit {bit}");
            }
        }
    }

    #[test]
    fn places_keep_their_order_as_numbers() {
        let (a, b) = (Place { pack: 1, offset: u32::MAX }, Place { pack: 2, offset: 0 });
        assert!(a < b && a.to_u64() < b.to_u64());
        assert_eq!(Place::from_u64(a.to_u64()), a);
    }
}
