//! All packs of a store: one is appended to, all are read.
//!
//! Only the storage thread appends ([`Packs::append`]); anybody reads and anybody may ask for a sync. Syncs go one at a
//! time behind a lock, because Linux reports a failed write-back once per file handle: the one who sees the error must
//! have told everybody before the next sync can come back clean. How far the packs are durable is read without that lock:
//! a sync may take long, and neither readers nor the storage thread wait for it.

use super::direct::Direct;
use super::error::{At, StorageError};
use super::pack_file::{self, FILE_HEADER, Location, Place, RECORD_HEADER, RecordHeader};
use super::shared::Failure;
use super::{Result, file};
use crate::block::{SealedBlock, VerifiedBlock};
use crate::model::{BlockHash, StoreId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Handles kept open: well below the usual limit of 1024 per process.
const HANDLES_MAX: usize = 256;
/// Records that lie side by side are read with one call up to this size, bytes.
const READ_BYTES_MAX: u64 = 1024 * 1024;

/// A reader of this many bytes at once goes on to what lies behind them, most likely.
const AHEAD_BYTES_MIN: usize = 512 * 1024;
/// Which is brought from the disk meanwhile, bytes.
const AHEAD_BYTES: u64 = 4 * 1024 * 1024;

/// The packs of a store.
#[derive(Debug)]
pub struct Packs {
    folder: PathBuf,
    store: StoreId,
    rotate_bytes: u64,
    handles: RwLock<BTreeMap<u32, Arc<File>>>,
    /// First byte that is not written: [`Place`] as a number.
    end: AtomicU64,
    /// Everything before it is on disk: [`Place`] as a number. Moved under `syncing` only.
    synced: AtomicU64,
    /// Held during a sync.
    syncing: Mutex<()>,
    direct: Direct,
    /// Blocks that were asked for.
    #[cfg(test)]
    pub blocks_read: AtomicU64,
}

impl Packs {
    /// Packs that go on at `end`, which lies in a pack that is there, or is zero before the first. Everything before it
    /// must be durable.
    pub fn new(folder: PathBuf, store: StoreId, rotate_bytes: u64, end: Place) -> Self {
        Self {
            folder,
            store,
            rotate_bytes,
            handles: RwLock::default(),
            end: AtomicU64::new(end.to_u64()),
            synced: AtomicU64::new(end.to_u64()),
            syncing: Mutex::default(),
            direct: Direct::default(),
            #[cfg(test)]
            blocks_read: AtomicU64::new(0),
        }
    }

    /// First byte that is not written.
    pub fn end(&self) -> Place {
        Place::from_u64(self.end.load(Ordering::Acquire))
    }

    /// Everything before it is on disk.
    pub fn synced(&self) -> Place {
        Place::from_u64(self.synced.load(Ordering::Acquire))
    }

    /// Path of a pack.
    pub fn path(&self, number: u32) -> PathBuf {
        path(&self.folder, number)
    }

    fn handle(&self, number: u32) -> Result<Arc<File>> {
        if let Some(file) = self.handles.read().unwrap_or_else(PoisonError::into_inner).get(&number) {
            return Ok(file.clone());
        }
        let path = self.path(number);
        let opened = Arc::new(file::open_write(&path).at("open", &path)?);
        self.keep(number, opened.clone());
        Ok(opened)
    }

    fn keep(&self, number: u32, file: Arc<File>) {
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        // The oldest goes: the newest is the one that is appended to. Its readers keep their clone.
        if handles.len() >= HANDLES_MAX {
            handles.pop_first();
        }
        handles.insert(number, file);
    }

    /// Appends blocks, and says where each is. Called by the storage thread only.
    ///
    /// # Errors
    /// After an error the file is cut back to where it was, so that the next append stands in the same place. When even
    /// that fails, `failure` is set.
    pub fn append(
        &self,
        blocks: &[(&VerifiedBlock, [u8; RECORD_HEADER as usize])],
        failure: &Failure,
    ) -> Result<Vec<Location>> {
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        let at = self.place_to_append(failure)?;
        let mut slices = Vec::with_capacity(blocks.len() * 2);
        let mut locations = Vec::with_capacity(blocks.len());
        let mut offset = u64::from(at.offset);
        for (block, header) in blocks {
            let sealed = block.sealed();
            let location = Location {
                place: Place {
                    pack: at.pack,
                    offset: u32::try_from(offset).map_err(|_| StorageError::CommitTooLarge)?,
                },
                payload_len: u32::try_from(sealed.payload.len()).map_err(|_| StorageError::CommitTooLarge)?,
                plain_len: sealed.plain_len,
            };
            offset = location.end();
            locations.push(location);
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(&sealed.payload));
        }
        let end = u32::try_from(offset).map_err(|_| StorageError::CommitTooLarge)?;
        let file = self.handle(at.pack)?;
        let pack = (at.pack, &*self.path(at.pack));
        if let Err(error) = self.direct.write(&file, pack, u64::from(at.offset), &mut slices) {
            return Err(self.undo(&file, at, error, failure));
        }
        self.end.store(Place { pack: at.pack, offset: end }.to_u64(), Ordering::Release);
        Ok(locations)
    }

    /// A full disk is undone and survived. Any other failed write leaves open what the disk holds.
    fn undo(&self, file: &File, at: Place, error: std::io::Error, failure: &Failure) -> StorageError {
        let path = self.path(at.pack);
        match StorageError::io("write", &path, error) {
            StorageError::Full(path) => match file.set_len(u64::from(at.offset)) {
                Ok(()) => StorageError::Full(path),
                Err(error) => failure.set(StorageError::io("cut back", &path, error)),
            },
            error => failure.set(error),
        }
    }

    /// The end, in a new pack when the last one is full. The full one is durable before the next begins, so only the
    /// last pack of a store can ever be torn.
    fn place_to_append(&self, failure: &Failure) -> Result<Place> {
        let end = self.end();
        if end.pack > 0 && u64::from(end.offset) < self.rotate_bytes && !self.lost_last(end)? {
            return Ok(end);
        }
        if end.pack > 0 {
            self.sync(failure)?;
        }
        self.start_pack(end.pack + 1, failure)
    }

    /// True when the file of the last pack was taken away while all of it was durable: what is appended now goes into
    /// the next one. When it is taken away later, the sync fails.
    fn lost_last(&self, end: Place) -> Result<bool> {
        if end > self.synced() {
            return Ok(false);
        }
        let path = self.path(end.pack);
        let nameless =
            self.handle(end.pack).and_then(|file| file::is_nameless(&file, &path).at("look at", &path));
        let lost = match nameless {
            Err(StorageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => true,
            other => other?,
        };
        if lost {
            tracing::warn!(path = %path.display(), "a pack was removed while the server runs");
            self.forget(end.pack);
        }
        Ok(lost)
    }

    /// Closes the last pack, so that it can be rewritten; the next one is begun.
    pub fn rotate(&self, failure: &Failure) -> Result<Place> {
        self.sync(failure)?;
        self.start_pack(self.end().pack + 1, failure)
    }

    /// A pack was removed.
    pub fn forget(&self, number: u32) {
        self.handles.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// Begins pack `number`. A full disk leaves nothing behind.
    pub fn start_pack(&self, number: u32, failure: &Failure) -> Result<Place> {
        let path = self.path(number);
        let made = match pack_file::create(&self.folder, &path, number, self.store) {
            Ok(made) => made,
            Err(StorageError::Full(full)) => {
                return Err(match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        failure.set(StorageError::io("remove", &path, error))
                    }
                    _ => StorageError::Full(full),
                });
            }
            Err(error) => return Err(failure.set(error)),
        };
        self.keep(number, Arc::new(made));
        let place = Place { pack: number, offset: FILE_HEADER };
        self.end.store(place.to_u64(), Ordering::Release);
        Ok(place)
    }

    /// Makes everything appended so far durable, and says up to where.
    pub fn sync(&self, failure: &Failure) -> Result<Place> {
        let _one_at_a_time = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        failure.check()?;
        let (end, synced) = (self.end(), self.synced());
        if end <= synced {
            return Ok(synced);
        }
        let path = self.path(end.pack);
        let done = self.handle(end.pack).and_then(|file| file::sync_named(&file, &path).at("sync", &path));
        if let Err(error) = done {
            return Err(failure.set(error));
        }
        self.synced.store(end.to_u64(), Ordering::Release);
        Ok(end)
    }

    /// Bytes appended since the last sync.
    pub fn unsynced_bytes(&self) -> u64 {
        let (end, synced) = (self.end(), self.synced());
        if end.pack == synced.pack {
            u64::from(end.offset.saturating_sub(synced.offset))
        } else {
            u64::from(end.offset)
        }
    }

    /// Reads blocks in the order of `wanted`, those that lie side by side with one call.
    pub fn read(&self, wanted: &[(BlockHash, Location)]) -> Result<Vec<SealedBlock>> {
        #[cfg(test)]
        self.blocks_read.fetch_add(wanted.len() as u64, Ordering::Relaxed);
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_unstable_by_key(|i| wanted.get(*i).map(|(_, location)| location.place));
        let mut out: Vec<Option<SealedBlock>> = vec![None; wanted.len()];
        let mut run: Vec<(usize, &BlockHash, Location)> = Vec::new();
        for index in order {
            let Some((hash, location)) = wanted.get(index) else { continue };
            if !continues(&run, location) {
                self.read_run(&run, &mut out)?;
                run.clear();
            }
            run.push((index, hash, *location));
        }
        self.read_run(&run, &mut out)?;
        Ok(out.into_iter().flatten().collect())
    }

    fn read_run(&self, run: &[(usize, &BlockHash, Location)], out: &mut [Option<SealedBlock>]) -> Result<()> {
        let (Some((_, first_hash, first)), Some((_, _, last))) = (run.first(), run.last()) else {
            return Ok(());
        };
        let path = self.path(first.place.pack);
        let damaged = |hash: &BlockHash, at: u32| StorageError::DamagedBlock {
            hash: *hash,
            path: path.clone(),
            offset: u64::from(at),
        };
        let start = u64::from(first.place.offset);
        let bytes =
            usize::try_from(last.end() - start).map_err(|_| damaged(first_hash, first.place.offset))?;
        let read = self.handle(first.place.pack).and_then(|file| {
            if bytes >= AHEAD_BYTES_MIN {
                file::read_ahead(&file, last.end(), AHEAD_BYTES);
            }
            file::read_exact(&file, start, bytes).map_err(|error| StorageError::io("read", &path, error))
        });
        let buffer = match read {
            Ok(buffer) => buffer,
            // The end or the whole of the pack is gone. One by one, so that the error names the right block.
            Err(StorageError::Io { source, .. })
                if matches!(
                    source.kind(),
                    std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::NotFound
                ) =>
            {
                if run.len() == 1 {
                    return Err(damaged(first_hash, first.place.offset));
                }
                return run.iter().try_for_each(|one| self.read_run(std::slice::from_ref(one), out));
            }
            Err(error) => return Err(error),
        };
        let mut rest = Bytes::from(buffer);
        for (index, hash, location) in run {
            let size = (RECORD_HEADER + location.payload_len) as usize;
            let record = rest.split_to(size.min(rest.len()));
            let sealed = open_record(hash, record).ok_or_else(|| damaged(hash, location.place.offset))?;
            if let Some(slot) = out.get_mut(*index) {
                *slot = Some(sealed);
            }
        }
        Ok(())
    }
}

fn continues(run: &[(usize, &BlockHash, Location)], next: &Location) -> bool {
    match (run.first(), run.last()) {
        (Some((_, _, first)), Some((_, _, last))) => {
            last.place.pack == next.place.pack
                && last.end() == u64::from(next.place.offset)
                && next.end() - u64::from(first.place.offset) <= READ_BYTES_MAX
        }
        _ => true,
    }
}

fn open_record(hash: &BlockHash, mut record: Bytes) -> Option<SealedBlock> {
    let header = RecordHeader::parse(&record)?;
    let payload = record.split_off(RECORD_HEADER as usize);
    if header.hash == *hash { header.open(payload) } else { None }
}

/// Path of pack `number` in the folder `packs`.
pub fn path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:08}.pack"))
}

/// The number of the pack at a path.
pub fn number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_suffix(".pack")?.parse().ok()
}

/// Numbers and lengths of the packs in a folder, ascending. Other files are left alone.
pub fn list(folder: &Path) -> Result<BTreeMap<u32, u64>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).at("list", folder)? {
        let entry = entry.at("list", folder)?;
        let number = number(&entry.path());
        if let Some(number) = number.filter(|n| *n > 0 && path(folder, *n) == entry.path()) {
            found.insert(number, entry.metadata().at("look at", &entry.path())?.len());
        }
    }
    Ok(found)
}
