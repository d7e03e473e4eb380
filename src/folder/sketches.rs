//! Cache of [sketches](crate::block::sketch): what is kept of contents whose bytes may be overwritten any time, so that an
//! edit is sent as what changed.
//!
//! A cache and a hint: what is absent or damaged costs bytes on the network and nothing else, so nothing here is synced or
//! checked. Bounded: a sketch is 1/32 of its file or less; files of one block share two files of 32 MiB, of
//! which the older one goes when the newer one is full; a larger file has its own as long as it is in the share.
//!
//! ```text
//! sketches/ROOT (64 hex digits), for a file of many blocks     sketches/small-0, small-1, for files of one block: records
//! offset size  field                                           offset size  field
//! 0      4     grain, bytes, u32 LE                             0      8     first bytes of the content's root
//! 4 + 2 p ...  sums of a chunk, u16 LE each                     8      4     n, number of sums, u32 LE
//!                                                               12     2 n   sums, u16 LE each
//! ```
//! The sums of a chunk at offset `o` of its file begin at `p = o / grain + o / 32768`, so that their place is known
//! without the chunks before; no chunk but the last is shorter than 32 KiB, so they do not overlap.

use super::fs::{Dir, File};
use super::names::own;
use super::{Folder, FolderError, PRIVATE_FILE_MODE};
use crate::block::sketch;
use crate::model::{BlockHash, limits};
use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One of the two files that small sketches share, bytes.
const SHARED_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Small sketches in one of them: the index takes memory.
const SHARED_SKETCHES_MAX: usize = 1 << 17;
/// Small sketches that wait to be written, bytes.
const WAITING_BYTES_MAX: usize = 256 * 1024;
/// Before the sums of a small sketch.
const RECORD_BYTES: usize = 12;
/// A block without a sum more than this is none.
const SUMS_MAX: usize = limits::BLOCK_BYTES_MAX / sketch::GRAIN_BYTES_MIN;
const SHARED_NAMES: [&str; 2] = ["small-0", "small-1"];
/// Before the sums of a large file.
const HEADER_BYTES: u64 = 4;
/// Chunks before the last of a file are not shorter.
const CHUNK_BYTES_MIN: u64 = 32 * 1024;

/// What is kept where. Loaded when it is asked for first.
#[derive(Debug, Default)]
pub(super) struct Sketches {
    small: Mutex<Option<Small>>,
    temporary: AtomicU64,
}

/// The sketches of small files.
#[derive(Debug, Default)]
struct Small {
    /// First bytes of the root -> (which file, where its sums begin, how many).
    index: HashMap<[u8; 8], (usize, u64, u32)>,
    /// The file that is added to.
    newer: usize,
    /// Its length, bytes, with what waits.
    bytes: u64,
    count: usize,
    waiting: Vec<u8>,
}

/// A sketch of a large file on its way. Chunks may come in any order, from several threads.
#[derive(Debug)]
pub struct SketchFile {
    name: String,
    file: File,
    grain: usize,
}

/// The sketch of a large file.
#[derive(Debug)]
pub struct KeptSketch {
    file: File,
    grain: usize,
}

impl Folder {
    /// Keeps the sums of a file of one block, with the smallest grain.
    pub fn keep_small_sketch(&self, root: &BlockHash, sums: &[u16]) {
        let mut guard = self.small_sketches();
        let small = guard.get_or_insert_with(|| Small::load(&self.sketches_dir));
        let Some(key) = root.as_bytes().first_chunk::<8>() else { return };
        if sums.len() > SUMS_MAX || small.index.contains_key(key) {
            return;
        }
        small.add(&self.sketches_dir, *key, sums);
    }

    /// The sums of a file of one block.
    pub fn small_sketch(&self, root: &BlockHash) -> Option<Vec<u16>> {
        let mut guard = self.small_sketches();
        let small = guard.get_or_insert_with(|| Small::load(&self.sketches_dir));
        let (which, at, count) = *small.index.get(root.as_bytes().first_chunk::<8>()?)?;
        small.write(&self.sketches_dir);
        let (file, _) = self.sketches_dir.open_file(&own(SHARED_NAMES.get(which)?).ok()?).ok()??;
        read_sums(&file, at, usize::try_from(count).ok()?)
    }

    /// Starts a sketch of a large file.
    pub fn begin_sketch(&self, file_bytes: u64) -> Option<SketchFile> {
        let name = format!("new-{}", self.sketches.temporary.fetch_add(1, Ordering::Relaxed));
        let temp = own(&name).ok()?;
        // Left by a program that was killed.
        let _ = self.sketches_dir.unlink(&temp);
        let file = self.sketches_dir.create_file(&temp, PRIVATE_FILE_MODE).ok()?;
        let grain = sketch::grain_bytes(file_bytes);
        file.write_all_at(&u32::try_from(grain).ok()?.to_le_bytes(), 0).ok()?;
        Some(SketchFile { name, file, grain })
    }

    /// Keeps a sketch for the content that it is of; `None`: for none, it is not whole.
    pub fn end_sketch(&self, sketch: &SketchFile, root: Option<&BlockHash>) {
        let end = || {
            let temp = own(&sketch.name)?;
            match root {
                Some(root) => self.sketches_dir.rename_over(&temp, &self.sketches_dir, &own(&root.to_hex())?),
                None => self.sketches_dir.unlink(&temp),
            }
        };
        if let Err(error) = end() {
            tracing::debug!(%error, "sketch not kept");
        }
    }

    /// The sketch of a large file.
    pub fn kept_sketch(&self, root: &BlockHash) -> Option<KeptSketch> {
        let (file, _) = self.sketches_dir.open_file(&own(&root.to_hex()).ok()?).ok()??;
        let mut grain = [0; 4];
        file.read_exact_at(&mut grain, 0).ok()?;
        let grain = usize::try_from(u32::from_le_bytes(grain)).ok()?;
        let known =
            grain.is_power_of_two() && (sketch::GRAIN_BYTES_MIN..=sketch::GRAIN_BYTES_MAX).contains(&grain);
        known.then_some(KeptSketch { file, grain })
    }

    /// Removes sketches of large files of other contents than these, and leftovers; writes what waits.
    pub fn prune_sketches(&self, keep: &HashSet<BlockHash>) -> Result<(), FolderError> {
        if let Some(small) = self.small_sketches().as_mut() {
            small.write(&self.sketches_dir);
        }
        let prune = || -> io::Result<()> {
            for listed in self.sketches_dir.list()? {
                let name = std::str::from_utf8(listed.name.as_bytes()).unwrap_or_default();
                let kept = SHARED_NAMES.contains(&name)
                    || name.starts_with("new-")
                    || BlockHash::from_hex(name).is_some_and(|root| keep.contains(&root));
                if !kept {
                    self.sketches_dir.unlink(&listed.name)?;
                }
            }
            Ok(())
        };
        prune().map_err(self.failed_private("clear the sketches in"))
    }

    /// A panic inside leaves a cache that may be wrong, as any may be.
    fn small_sketches(&self) -> MutexGuard<'_, Option<Small>> {
        self.sketches.small.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Small {
    /// Reads what is there. A torn or damaged end is where a fresh file begins.
    fn load(dir: &Dir) -> Self {
        let mut small = Self::default();
        let lengths = SHARED_NAMES.map(|name| {
            let meta = own(name).and_then(|name| dir.meta_if_there(&name)).ok().flatten();
            meta.map(|meta| (meta.stamp.size, meta.stamp.mtime_ns))
        });
        small.newer = match lengths {
            [Some((_, first)), Some((_, second))] if second >= first => 1,
            [None, Some(_)] => 1,
            _ => 0,
        };
        for which in [1 - small.newer, small.newer] {
            let whole = small.read(dir, which).unwrap_or(false);
            if which == small.newer && !whole {
                small.turn(dir);
            }
        }
        small
    }

    /// Takes in one file; false when its end is not one of a record.
    fn read(&mut self, dir: &Dir, which: usize) -> io::Result<bool> {
        let Some((file, _)) = dir.open_file(&own(SHARED_NAMES.get(which).copied().unwrap_or_default())?)?
        else {
            return Ok(true);
        };
        let mut bytes = Vec::new();
        file.take(SHARED_BYTES_MAX * 2).read_to_end(&mut bytes)?;
        let mut at = 0;
        self.count = 0;
        while let Some(head) = bytes.get(at..at + RECORD_BYTES) {
            let (Some(key), Some(count)) = (head.first_chunk::<8>(), head.last_chunk::<4>()) else { break };
            let count = u32::from_le_bytes(*count);
            let sums_bytes = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(2);
            if sums_bytes > SUMS_MAX * 2 || at + RECORD_BYTES + sums_bytes > bytes.len() {
                break;
            }
            self.index.insert(*key, (which, (at + RECORD_BYTES) as u64, count));
            at += RECORD_BYTES + sums_bytes;
            self.count += 1;
        }
        self.bytes = at as u64;
        Ok(at == bytes.len())
    }

    fn add(&mut self, dir: &Dir, key: [u8; 8], sums: &[u16]) {
        if self.bytes > SHARED_BYTES_MAX || self.count >= SHARED_SKETCHES_MAX {
            self.turn(dir);
        }
        let count = u32::try_from(sums.len()).unwrap_or(0);
        self.waiting.extend_from_slice(&key);
        self.waiting.extend_from_slice(&count.to_le_bytes());
        self.waiting.extend(sums.iter().flat_map(|sum| sum.to_le_bytes()));
        self.index.insert(key, (self.newer, self.bytes + RECORD_BYTES as u64, count));
        self.bytes += (RECORD_BYTES + 2 * sums.len()) as u64;
        self.count += 1;
        if self.waiting.len() >= WAITING_BYTES_MAX {
            self.write(dir);
        }
    }

    fn write(&mut self, dir: &Dir) {
        if self.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let write = || -> io::Result<()> {
            let name = own(SHARED_NAMES.get(self.newer).copied().unwrap_or_default())?;
            dir.append_file(&name, PRIVATE_FILE_MODE)?.write_all(&waiting)
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "sketches not kept");
            // Where the file ends now is not known.
            self.turn(dir);
        }
    }

    /// Goes on in the other file, which starts empty.
    fn turn(&mut self, dir: &Dir) {
        self.write(dir);
        self.newer = 1 - self.newer;
        let newer = self.newer;
        self.index.retain(|_, (which, ..)| *which != newer);
        (self.bytes, self.count) = (0, 0);
        if let Ok(name) = own(SHARED_NAMES.get(newer).copied().unwrap_or_default()) {
            let _ = dir.unlink(&name);
        }
    }
}

impl SketchFile {
    /// Bytes that a sum stands for.
    pub const fn grain(&self) -> usize {
        self.grain
    }

    /// Takes a chunk.
    pub fn take(&self, offset: u64, chunk: &[u8]) {
        let mut sums = Vec::with_capacity(sketch::sums_of(chunk.len(), self.grain));
        sketch::append(&mut sums, chunk, self.grain);
        self.write(sums_at(offset, self.grain), &sums);
    }

    /// Writes sums at a place of [`sums_at`].
    pub fn write(&self, place: u64, sums: &[u16]) {
        let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        if let Err(error) = self.file.write_all_at(&bytes, HEADER_BYTES + 2 * place) {
            // Sums that are not there find nothing.
            tracing::debug!(%error, "sketch not kept");
        }
    }
}

/// Where the sums of a chunk at this offset of its file begin.
pub const fn sums_at(offset: u64, grain: usize) -> u64 {
    offset / grain as u64 + offset / CHUNK_BYTES_MIN
}

impl KeptSketch {
    /// Bytes that a sum stands for.
    pub const fn grain(&self) -> usize {
        self.grain
    }

    /// The sums of a chunk.
    pub fn sums(&self, offset: u64, len: usize) -> Option<Vec<u16>> {
        let place = HEADER_BYTES + 2 * sums_at(offset, self.grain);
        read_sums(&self.file, place, sketch::sums_of(len, self.grain))
    }
}

fn read_sums(file: &File, at: u64, count: usize) -> Option<Vec<u16>> {
    if count > SUMS_MAX {
        return None;
    }
    let mut bytes = vec![0; 2 * count];
    file.read_exact_at(&mut bytes, at).ok()?;
    let sums = bytes.chunks_exact(2).filter_map(|two| Some(u16::from_le_bytes(*two.first_chunk()?)));
    Some(sums.collect())
}
