//! One journal file: a share's commits in order, each linked to the one before by a hash.
//!
//! ```text
//! 0   8   magic "DBLKJRNL"
//! 8   4   version 1, u32 LE
//! 12  ..  record (model::record): codec-encoded [Title]
//! ..  ..  records: groups of commits. A payload is one or more of: length u32 LE, codec-encoded [CommitRecord]
//! ```
//! A group is what was made durable by one sync, so at any time at most one record, the last, is not known to be on disk:
//! a record that does not check is a torn tail if it is the last, and damage if any whole record follows.
//! The chain is not stored: link n is computed from link n-1 and the bytes of commit n. The index keeps it per commit.

use super::error::{At, StorageError};
use super::pack_file::Place;
use super::{Head, Result, ShareId, file};
use crate::model::codec::{self, CodecError};
use crate::model::record::{self, Parsed};
use crate::model::{ChainHash, Change, JournalId, Seq, StoreId};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"DBLKJRNL";
const VERSION: u32 = 1;
/// Bytes before the title.
const TITLE_AT: u64 = 12;
/// A group is closed at this size, bytes; one more commit may follow. Also how far a torn tail can reach.
pub const GROUP_BYTES_TARGET: usize = 1024 * 1024;
const GROUP_BYTES_MAX: usize = GROUP_BYTES_TARGET + codec::BYTES_MAX + 64;

/// Whose journal it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Title {
    /// The store it belongs to.
    pub store: StoreId,
    /// This journal; also the seed of its chain.
    pub journal: JournalId,
    /// The share, as in the file's name.
    pub share: ShareId,
    /// Name of the share.
    pub name: String,
}

/// One commit as it is kept. Only changes that stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// Its number.
    pub seq: Seq,
    /// Server's clock, ms since 1970. Shown, never used to decide.
    pub time_ms: u64,
    /// Name of the device that made it.
    pub device: String,
    /// Packs were durable up to here when it was written: damage before that place is damage, after it a torn tail.
    pub packs: Place,
    /// Full new states. `base` is the version before, so the history of a node can be walked backwards.
    pub changes: Vec<Change>,
}

impl CommitRecord {
    /// Its bytes in a group.
    ///
    /// # Errors
    /// [`StorageError::CommitTooLarge`] when they could not be read back.
    pub fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self).map_err(|error| match error {
            CodecError::TooLarge(_) => StorageError::CommitTooLarge,
            error => error.into(),
        })
    }
}

/// A commit read back, with what its place in the journal adds.
#[derive(Debug)]
pub struct Replayed {
    /// What was written.
    pub record: CommitRecord,
    /// The chain with it.
    pub chain: ChainHash,
    /// Byte of the record (of the group) that holds it.
    pub offset: u64,
}

/// What reading a whole journal found.
#[derive(Debug)]
pub struct Verified {
    /// Where it stands.
    pub head: Head,
    /// First byte after the last whole record.
    pub len: u64,
    /// Bytes of a torn tail after it.
    pub torn: u64,
}

/// A journal that is open for appending.
#[derive(Debug)]
pub struct JournalFile {
    /// Whose it is.
    pub title: Title,
    path: PathBuf,
    file: File,
    len: u64,
}

impl JournalFile {
    /// Makes an empty journal. It is there completely or not at all.
    pub fn create(folder: &Path, title: Title) -> Result<Self> {
        let name = format!("{}.journal", title.share.to_hex());
        let path = folder.join(&name);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        record::append(&mut bytes, &codec::encode(&title)?).ok_or(StorageError::ShareName)?;
        file::write_whole(folder, &name, &bytes).at("write", &path)?;
        let file = file::open_write(&path).at("open", &path)?;
        Ok(Self { title, path, file, len: bytes.len() as u64 })
    }

    /// Opens a journal and reads its title; the commits are for [`replay`](Self::replay).
    pub fn open(path: &Path, store: StoreId) -> Result<Self> {
        let damaged = |offset| StorageError::Damaged { path: path.to_owned(), offset };
        let file = file::open_write(path).at("open", path)?;
        let mut front = vec![0; 4096];
        let got = read_some(&file, path, 0, &mut front)?;
        front.truncate(got);
        let version = front.get(8..12).and_then(|v| v.try_into().ok()).map(u32::from_le_bytes);
        match version {
            Some(version) if front.starts_with(MAGIC) => {
                if version > VERSION {
                    let path = path.to_owned();
                    return Err(StorageError::NewerVersion { path, found: version, known: VERSION });
                }
                if version != VERSION {
                    return Err(damaged(8));
                }
            }
            _ => return Err(damaged(0)),
        }
        let Parsed::Record { payload, bytes } = record::parse(front.get(12..).unwrap_or_default()) else {
            return Err(damaged(TITLE_AT));
        };
        let title: Title = codec::decode(payload).map_err(|_| damaged(TITLE_AT))?;
        let named = path.file_stem().is_some_and(|stem| stem == title.share.to_hex().as_str());
        if title.store != store || !named {
            return Err(damaged(TITLE_AT));
        }
        Ok(Self { title, path: path.to_owned(), file, len: TITLE_AT + bytes as u64 })
    }

    /// The chain before the first commit.
    pub fn start(&self) -> ChainHash {
        ChainHash::start(self.title.journal.as_bytes())
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads every commit in order and checks numbers and records. A torn tail is reported, not yet cut.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] for anything that is wrong before the last record.
    pub fn replay(&self, visit: &mut dyn FnMut(Replayed) -> Result<()>) -> Result<Verified> {
        let mut head = Head { journal: self.title.journal, seq: Seq::ZERO, chain: self.start() };
        let mut window = Window::new(&self.file, &self.path)?;
        let mut at = self.len;
        let file_bytes = window.file_bytes;
        loop {
            let bytes = window.at(at)?;
            let (payload, size) = match record::parse(bytes) {
                Parsed::Record { payload, bytes } => (payload, bytes as u64),
                Parsed::End => return Ok(Verified { head, len: at, torn: 0 }),
                Parsed::Torn | Parsed::Damaged => {
                    let torn = file_bytes - at;
                    if torn > (GROUP_BYTES_MAX + record::HEADER_BYTES) as u64 || holds_a_record(bytes) {
                        return Err(self.damaged(at));
                    }
                    return Ok(Verified { head, len: at, torn });
                }
            };
            for commit in Commits(payload) {
                let bytes = commit.ok_or_else(|| self.damaged(at))?;
                let record: CommitRecord = codec::decode(bytes).map_err(|_| self.damaged(at))?;
                if record.seq != head.seq.next() {
                    return Err(self.damaged(at));
                }
                head.seq = record.seq;
                head.chain = head.chain.link(bytes);
                visit(Replayed { record, chain: head.chain, offset: at })?;
            }
            at += size;
        }
    }

    /// Takes over what [`replay`](Self::replay) found, and cuts a torn tail.
    pub fn settle(&mut self, verified: &Verified) -> Result<()> {
        self.len = verified.len;
        if verified.torn > 0 {
            self.file.set_len(self.len).at("cut", &self.path)?;
            self.file.sync_all().at("sync", &self.path)?;
        }
        Ok(())
    }

    /// Appends one group and makes it durable; returns the byte where its record starts.
    ///
    /// # Errors
    /// [`StorageError::Full`] when the disk had no room and the file is as it was. After any other error the journal's
    /// state is unknown.
    pub fn append(&mut self, group: &[u8]) -> Result<u64> {
        let mut bytes = Vec::with_capacity(group.len() + record::HEADER_BYTES);
        record::append(&mut bytes, group).ok_or(StorageError::CommitTooLarge)?;
        let at = self.len;
        let found = self.file.metadata().at("look at", &self.path)?.len();
        if found != at {
            let cut = std::io::Error::other(format!("somebody changed it: {found} bytes long, not {at}"));
            return Err(StorageError::Io { what: "go on with", path: self.path.clone(), source: cut });
        }
        if let Err(error) = self.file.write_all_at(&bytes, at).at("write", &self.path) {
            if matches!(error, StorageError::Full(_)) {
                self.file.set_len(at).map_err(|source| StorageError::Io {
                    what: "cut back",
                    path: self.path.clone(),
                    source,
                })?;
            }
            return Err(error);
        }
        // Not `at`: a sync that fails is never survived, not even for want of room.
        file::sync_named(&self.file, &self.path).map_err(|source| StorageError::Io {
            what: "sync",
            path: self.path.clone(),
            source,
        })?;
        self.len += bytes.len() as u64;
        Ok(at)
    }

    fn damaged(&self, offset: u64) -> StorageError {
        StorageError::Damaged { path: self.path.clone(), offset }
    }
}

/// Adds one commit to a group's payload.
pub fn push(group: &mut Vec<u8>, commit: &[u8]) {
    group.extend_from_slice(&u32::try_from(commit.len()).unwrap_or(u32::MAX).to_le_bytes());
    group.extend_from_slice(commit);
}

/// The commits of a group; `None` for bytes that are not one.
struct Commits<'a>(&'a [u8]);

impl<'a> Iterator for Commits<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let split = self
            .0
            .split_first_chunk::<4>()
            .and_then(|(len, rest)| rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?));
        match split {
            Some((commit, rest)) => {
                self.0 = rest;
                Some(Some(commit))
            }
            None => {
                self.0 = &[];
                Some(None)
            }
        }
    }
}

/// True when a whole group stands anywhere after the first byte: then what stands first was not the last.
fn holds_a_record(bytes: &[u8]) -> bool {
    (1..bytes.len()).any(|at| {
        let Some(rest) = bytes.get(at..) else { return false };
        let field = |at: usize| {
            let bytes = rest.get(at..)?.first_chunk()?;
            usize::try_from(u32::from_le_bytes(*bytes)).ok()
        };
        // The commit inside must fit the group. Cheap, and spares nearly every checksum.
        let plausible = matches!((field(0), field(record::HEADER_BYTES)),
            (Some(group), Some(commit)) if group > 4 && commit > 0 && commit <= group - 4);
        plausible && matches!(record::parse(rest), Parsed::Record { .. })
    })
}

fn read_some(file: &File, path: &Path, at: u64, buffer: &mut [u8]) -> Result<usize> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StorageError::io("read", path, error)),
        }
    }
    Ok(got)
}

/// A file read front to back, always with a whole group in memory.
struct Window<'a> {
    file: &'a File,
    path: &'a Path,
    file_bytes: u64,
    from: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a File, path: &'a Path) -> Result<Self> {
        let file_bytes = file.metadata().at("look at", path)?.len();
        Ok(Self { file, path, file_bytes, from: 0, bytes: Vec::new() })
    }

    /// The bytes from `at` on: to the end of the file, or at least one group.
    fn at(&mut self, at: u64) -> Result<&[u8]> {
        let have = usize::try_from(at.saturating_sub(self.from)).ok().and_then(|skip| self.bytes.get(skip..));
        let enough = have.is_some_and(|have| {
            at + have.len() as u64 == self.file_bytes || have.len() > GROUP_BYTES_MAX + record::HEADER_BYTES
        });
        if !enough {
            let left = usize::try_from(self.file_bytes.saturating_sub(at)).unwrap_or(usize::MAX);
            self.bytes.clear();
            self.bytes.resize(left.min(2 * (GROUP_BYTES_MAX + record::HEADER_BYTES)), 0);
            let got = read_some(self.file, self.path, at, &mut self.bytes)?;
            self.bytes.truncate(got);
            self.from = at;
        }
        let skip = usize::try_from(at - self.from).unwrap_or(usize::MAX);
        Ok(self.bytes.get(skip..).unwrap_or_default())
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
mod tests {
    use super::*;
    use crate::model::NodeId;

    fn journal(folder: &Path) -> JournalFile {
        let title = Title {
            store: StoreId::from_bytes([1; 16]),
            journal: JournalId::from_bytes([2; 16]),
            share: ShareId::from_bytes([3; 16]),
            name: "default".to_owned(),
        };
        JournalFile::create(folder, title).unwrap()
    }

    fn commit(seq: u64) -> Vec<u8> {
        let change = Change { id: NodeId::from_bytes([seq as u8; 16]), base: Seq(0), state: None };
        let record = CommitRecord {
            seq: Seq(seq),
            time_ms: 5,
            device: "d".to_owned(),
            packs: Place::default(),
            changes: vec![change],
        };
        codec::encode(&record).unwrap()
    }

    fn group(seqs: &[u64]) -> Vec<u8> {
        let mut group = Vec::new();
        seqs.iter().for_each(|seq| push(&mut group, &commit(*seq)));
        group
    }

    fn read(path: &Path) -> Result<(Vec<u64>, Verified)> {
        let journal = JournalFile::open(path, StoreId::from_bytes([1; 16]))?;
        let mut seqs = Vec::new();
        let verified = journal.replay(&mut |replayed| {
            seqs.push(replayed.record.seq.0);
            Ok(())
        })?;
        Ok((seqs, verified))
    }

    #[test]
    fn a_cut_at_every_byte_of_the_last_record_loses_that_record_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = journal(folder.path());
        journal.append(&group(&[1, 2])).unwrap();
        let last = journal.append(&group(&[3])).unwrap();
        let bytes = std::fs::read(journal.path()).unwrap();
        for cut in last as usize..bytes.len() {
            std::fs::write(journal.path(), &bytes[..cut]).unwrap();
            let (seqs, verified) = read(journal.path()).unwrap();
            assert_eq!(
                (seqs, verified.len, verified.torn),
                (vec![1, 2], last, cut as u64 - last),
                "cut at {cut}"
            );
            // The file may also have its full length with the end never written.
            let mut zeros = bytes[..cut].to_vec();
            zeros.resize(bytes.len(), 0);
            std::fs::write(journal.path(), &zeros).unwrap();
            if zeros != bytes {
                assert_eq!(read(journal.path()).unwrap().0, [1, 2], "zeros from {cut}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_before_the_last_record_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = journal(folder.path());
        journal.append(&group(&[1])).unwrap();
        let last = journal.append(&group(&[2, 3])).unwrap();
        let bytes = std::fs::read(journal.path()).unwrap();
        for bit in 0..last as usize * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(journal.path(), &flipped).unwrap();
            assert!(
                matches!(
                    read(journal.path()),
                    Err(StorageError::Damaged { .. } | StorageError::NewerVersion { .. })
                ),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn the_chain_links_every_commit_whatever_the_groups() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut one = journal(folders[0].path());
        one.append(&group(&[1, 2, 3])).unwrap();
        let mut two = journal(folders[1].path());
        two.append(&group(&[1])).unwrap();
        two.append(&group(&[2, 3])).unwrap();
        assert_eq!(read(one.path()).unwrap().1.head, read(two.path()).unwrap().1.head);
    }
}
