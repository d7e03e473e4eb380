//! Staged files: content on its way into the folder, whole before anybody sees it.
//!
//! A file is written under a name made of its node and its content root, so a download that was interrupted is found
//! again; which of its blocks are good is found by hashing them, never remembered. [`StagedFile::finish`] sets mode
//! and time and renames it to a name that also carries its inode (see `names`), ready for [`Folder::place`].
//! [`Folder::stage_whole`] does it all for a small file in as few system calls as there can be, and leaves the name to
//! the swap, which alone has a use for it: most small files come into a free place.
//!
//! Where the filesystem can, a small file has no name at all until it gets its own ([`Folder::stage_for`]): many threads
//! that make names in one folder wait for each other, and each name would be made twice.
//!
//! [`Folder::place`]: super::Folder::place

use super::fs::{self, File};
use super::meta::with_exec;
use super::names::StageName;
use super::nearby::Nearby;
use super::{EntryKind, Folder, FolderError, Meta, Stamp};
use crate::model::path::PRIVATE_DIR;
use crate::model::{BlockHash, FileContent, Name, NodeId, RelPath};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Runs of zeros of this size and alignment become holes, bytes.
const HOLE_BYTES: usize = 4096;
/// Up to this many files are synced one by one; above it the whole filesystem is, which then costs less.
const SINGLE_SYNCS_MAX: usize = 256;
/// Permission bits of new files before the umask.
const NEW_FILE_MODE: u32 = 0o644;
/// Files without a name that may be open at once: two batches of small ones.
const NAMELESS_MAX: usize = 4096;

/// A file being written.
#[derive(Debug)]
pub struct StagedFile {
    id: NodeId,
    content: FileContent,
    name: Name,
    file: Arc<File>,
    path: PathBuf,
    /// An earlier run left it: it may hold other bytes than zeros where nothing was written yet.
    resumed: bool,
    /// Held while bytes are written: the kernel lets one writer of a file in at a time, and the others would spin meanwhile on
    /// a core that has better things to do.
    writing: Mutex<()>,
}

/// A finished file or symlink that can be put in its place.
#[derive(Debug, Clone)]
pub struct Staged {
    pub(super) id: NodeId,
    /// In the stage.
    pub(super) name: Name,
    /// A file without a name, which is there for as long as it is open.
    pub(super) nameless: Option<Arc<Nameless>>,
    pub(super) kind: EntryKind,
    pub(super) mode: u32,
    /// As finished.
    pub stamp: Stamp,
}

/// An open file without a name, counted.
#[derive(Debug)]
pub(super) struct Nameless {
    pub(super) file: File,
    root: BlockHash,
    open: Arc<AtomicUsize>,
}

/// How many files without a name are open, and how many there may be.
#[derive(Debug)]
pub(super) struct NamelessFiles {
    open: Arc<AtomicUsize>,
    max: usize,
    /// What stands for the names they do not have.
    name: Name,
}

impl NamelessFiles {
    /// None yet. They take a quarter of what the process may have open: it may have several folders.
    pub(super) fn new() -> io::Result<Self> {
        let max = usize::try_from(fs::open_files_max() / 4).unwrap_or(usize::MAX).min(NAMELESS_MAX);
        Ok(Self { open: Arc::default(), max, name: super::names::own("nameless")? })
    }

    /// Takes in one more that `make` makes, if there may be one.
    fn take(&self, root: BlockHash, make: impl FnOnce() -> Option<File>) -> Option<Nameless> {
        if self.open.fetch_add(1, Ordering::Relaxed) < self.max
            && let Some(file) = make()
        {
            return Some(Nameless { file, root, open: self.open.clone() });
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Nameless {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl StagedFile {
    /// Starts a file of this content, or goes on with one that was interrupted.
    pub fn create(folder: &Folder, id: NodeId, content: &FileContent) -> Result<Self, FolderError> {
        let failed = folder.failed_private("stage a file in");
        let name = StageName::Get(id, content.root.hash).to_name().map_err(&failed)?;
        let (file, resumed) = match folder.stage.create_file(&name, NEW_FILE_MODE) {
            Ok(file) => (file, false),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (folder.stage.open_own(&name).map_err(&failed)?, true)
            }
            Err(error) => return Err(failed(error)),
        };
        // Only the length: space is taken as bytes come, so that sparse files stay cheap.
        file.set_len(content.size).map_err(&failed)?;
        let path = folder.path.join(PRIVATE_DIR).join("stage");
        let (file, writing) = (Arc::new(file), Mutex::default());
        Ok(Self { id, content: content.clone(), name, file, path, resumed, writing })
    }

    /// True when an earlier run left something: [`StagedFile::check`] tells what of it is good.
    pub const fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Which chunks (offset, length, hash) are there already. Nothing is read for a file that was just begun.
    pub fn check(
        &self,
        chunks: impl IntoIterator<Item = (u64, u32, BlockHash)>,
    ) -> Result<Vec<bool>, FolderError> {
        let mut buffer = Vec::new();
        chunks
            .into_iter()
            .map(|(offset, len, hash)| {
                if !self.resumed {
                    return Ok(false);
                }
                buffer.resize(usize::try_from(len).unwrap_or(0), 0);
                match self.file.read_exact_at(&mut buffer, offset) {
                    Ok(()) => Ok(BlockHash::of(&buffer) == hash),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
                    Err(error) => Err(self.failed("read", error)),
                }
            })
            .collect()
    }

    /// Writes bytes at their place. Zeros become holes.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), FolderError> {
        let mut at = offset;
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        for (is_zero, run) in zero_runs(offset, bytes) {
            let len = run.len() as u64;
            let punched = is_zero
                && (!self.resumed
                    || fs::punch_hole(&self.file, at, len).map_err(|error| self.failed("write", error))?);
            if !punched {
                self.file.write_all_at(run, at).map_err(|error| self.failed("write", error))?;
            }
            at += len;
        }
        Ok(())
    }

    /// Has what was written so far brought to the disk, so that less is left to do when the file is complete.
    pub fn sync_early(&self) -> Result<(), FolderError> {
        self.file.sync_data().map_err(|error| self.failed("sync", error))
    }

    /// Reads bytes that were written before.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FolderError> {
        self.file.read_exact_at(buffer, offset).map_err(|error| self.failed("read", error))
    }

    /// Copies bytes from a file that is here already, inside the kernel, holes as holes. `false` when `from` ends
    /// early. The caller checks that `from` was what it thinks, before and after.
    pub fn copy_from(
        &self,
        from: &File,
        from_offset: u64,
        offset: u64,
        len: u64,
    ) -> Result<bool, FolderError> {
        let end = from_offset.saturating_add(len);
        let failed = |error| self.failed("copy to", error);
        if fs::meta_of_file(from).map_err(failed)?.stamp.size < end {
            return Ok(false);
        }
        let mut at = from_offset;
        while at < end {
            let extent = if self.resumed {
                Some((at, end))
            } else {
                fs::next_extent(from, at, end).map_err(failed)?
            };
            let Some((start, stop)) = extent else { break };
            let to = offset + (start - from_offset);
            if fs::copy_range(from, start, &self.file, to, stop - start).map_err(failed)? < stop - start {
                return Ok(false);
            }
            at = stop;
        }
        Ok(true)
    }

    /// The open file, also when it is finished and in its place.
    pub fn handle(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Sets mode and time, and makes it ready to be placed. The caller has verified the content.
    pub fn finish(self, folder: &Folder, exec: bool, mtime_ns: i64) -> Result<Staged, FolderError> {
        let failed = |error| self.failed("finish", error);
        let before = fs::meta_of_file(&self.file).map_err(failed)?;
        let mode = with_exec(before.mode, exec);
        fs::set_file_meta(&self.file, mode, mtime_ns).map_err(failed)?;
        let name = StageName::Put(self.id, self.content.root.hash, before.stamp.identity());
        let name = name.to_name().map_err(failed)?;
        folder.stage.rename_over(&self.name, &folder.stage, &name).map_err(failed)?;
        let stamp = fs::meta_of_file(&self.file).map_err(failed)?.stamp;
        Ok(Staged { id: self.id, name, nameless: None, kind: EntryKind::File, mode, stamp })
    }

    /// Throws it away, with what was downloaded.
    pub fn discard(self, folder: &Folder) -> Result<(), FolderError> {
        folder.stage.unlink(&self.name).map_err(|error| self.failed("remove", error))
    }

    fn failed(&self, action: &'static str, error: io::Error) -> FolderError {
        FolderError::from_io(action, self.path.as_path(), error)
    }
}

impl Folder {
    /// Stages a file of which all bytes are at hand and verified.
    pub fn stage_whole(
        &self,
        id: NodeId,
        content: &FileContent,
        bytes: &[u8],
        exec: bool,
        mtime_ns: i64,
    ) -> Result<Staged, FolderError> {
        let failed = self.failed_private("stage a file in");
        let name = StageName::Get(id, content.root.hash).to_name().map_err(&failed)?;
        let file = match self.stage.create_file(&name, NEW_FILE_MODE) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // An earlier run left it: whatever is in it is written over.
                let file = StagedFile::create(self, id, content)?;
                file.write_at(0, bytes)?;
                return file.finish(self, exec, mtime_ns);
            }
            Err(error) => return Err(failed(error)),
        };
        let meta = write_whole(&file, bytes, exec, mtime_ns).map_err(failed)?;
        Ok(Staged { id, name, nameless: None, kind: EntryKind::File, mode: meta.mode, stamp: meta.stamp })
    }

    /// [`Folder::stage_whole`] for a file that will be in the folder that `near` is at.
    pub fn stage_for(
        &self,
        near: &mut Nearby<'_>,
        to: &RelPath,
        (id, content): (NodeId, &FileContent),
        bytes: &[u8],
        (exec, mtime_ns): (bool, i64),
    ) -> Result<Staged, FolderError> {
        let make = || near.parent_of(to)?.0.nameless_file(NEW_FILE_MODE);
        let Some(nameless) = self.nameless.take(content.root.hash, make) else {
            return self.stage_whole(id, content, bytes, exec, mtime_ns);
        };
        let failed = self.failed_private("stage a file in");
        let meta = write_whole(&nameless.file, bytes, exec, mtime_ns).map_err(failed)?;
        let (name, nameless) = (self.nameless.name.clone(), Some(Arc::new(nameless)));
        Ok(Staged { id, name, nameless, kind: EntryKind::File, mode: meta.mode, stamp: meta.stamp })
    }

    /// The name under which a staged file may be swapped with another: one that tells after a crash which of the two it
    /// is. Gives it that name unless it has it.
    pub(super) fn name_for_swap(&self, staged: &Staged) -> io::Result<Name> {
        let identity = staged.stamp.identity();
        if let Some(nameless) = &staged.nameless {
            let name = StageName::Put(staged.id, nameless.root, identity).to_name()?;
            self.stage.give_name(&nameless.file, &name)?;
            return Ok(name);
        }
        let Some(StageName::Get(id, root)) = StageName::parse(&staged.name) else {
            return Ok(staged.name.clone());
        };
        let name = StageName::Put(id, root, identity).to_name()?;
        self.stage.rename_over(&staged.name, &self.stage, &name)?;
        Ok(name)
    }

    /// Takes the name for a swap back that did not happen. What had none before is gone then: the system gives a name only
    /// once.
    pub(super) fn unname(&self, staged: &Staged, own: &Name) -> io::Result<()> {
        match &staged.nameless {
            Some(_) => self.stage.unlink(own),
            None => self.stage.rename_over(own, &self.stage, &staged.name),
        }
    }

    /// Makes a symlink ready to be placed. Its text is kept byte for byte and never followed.
    pub fn stage_symlink(&self, id: NodeId, target: &[u8], mtime_ns: i64) -> Result<Staged, FolderError> {
        let failed = self.failed_private("stage a symlink in");
        let root = BlockHash::of(target);
        let make = || -> io::Result<(Name, Meta)> {
            let temp = StageName::Get(id, root).to_name()?;
            if self.stage.meta_if_there(&temp)?.is_some() {
                self.stage.unlink(&temp)?;
            }
            self.stage.make_symlink(&temp, target)?;
            self.stage.set_mtime(&temp, mtime_ns)?;
            let identity = self.stage.meta(&temp)?.stamp.identity();
            let name = StageName::Put(id, root, identity).to_name()?;
            self.stage.rename_over(&temp, &self.stage, &name)?;
            let meta = self.stage.meta(&name)?;
            Ok((name, meta))
        };
        let (name, meta) = make().map_err(failed)?;
        Ok(Staged { id, name, nameless: None, kind: EntryKind::Symlink, mode: meta.mode, stamp: meta.stamp })
    }

    /// Makes finished files durable, bytes, mode and time. To be called before they are placed: then no reader, and
    /// no power cut, ever sees half a file under a name of the user.
    pub fn sync_staged(&self, staged: &[Staged]) -> Result<(), FolderError> {
        let failed = self.failed_private("sync");
        let files: Vec<_> = staged.iter().filter(|staged| staged.kind == EntryKind::File).collect();
        if files.len() > SINGLE_SYNCS_MAX {
            return self.stage.sync_filesystem().map_err(failed);
        }
        for staged in files {
            match &staged.nameless {
                Some(nameless) => nameless.file.sync_all().map_err(&failed)?,
                None => {
                    self.stage.open_own(&staged.name).and_then(|file| file.sync_all()).map_err(&failed)?
                }
            }
        }
        Ok(())
    }

    /// Checks that a file of this size fits on the disk, before it is fetched.
    pub fn check_room(&self, bytes: u64) -> Result<(), FolderError> {
        let free = self.stage.free_bytes().map_err(self.failed_private("look at the disk of"))?;
        if bytes <= free {
            return Ok(());
        }
        Err(self.failed_private("stage a file in")(io::ErrorKind::StorageFull.into()))
    }

    /// Throws away what was downloaded of a node.
    pub fn discard_partials(&self, id: NodeId) -> Result<(), FolderError> {
        let discard = || -> io::Result<()> {
            for listed in self.stage.list()? {
                if matches!(StageName::parse(&listed.name), Some(StageName::Get(owner, _)) if owner == id) {
                    self.stage.unlink(&listed.name)?;
                }
            }
            Ok(())
        };
        discard().map_err(self.failed_private("clear the stage in"))
    }

    /// Throws a finished file away, if it is still in the stage. After a swap its name there is that of what came out.
    pub fn discard_staged(&self, staged: &Staged) -> Result<(), FolderError> {
        if staged.nameless.is_some() {
            return Ok(());
        }
        let discard = || match self.stage.meta_if_there(&staged.name)? {
            Some(found) if found.stamp.identity() == staged.stamp.identity() => {
                self.stage.unlink(&staged.name)
            }
            _ => Ok(()),
        };
        discard().map_err(self.failed_private("remove a staged file in"))
    }
}

/// Fills a new, empty file and sets mode and time.
fn write_whole(file: &File, bytes: &[u8], exec: bool, mtime_ns: i64) -> io::Result<Meta> {
    if zero_runs(0, bytes).any(|(is_zero, _)| is_zero) {
        file.set_len(bytes.len() as u64)?;
    }
    let mut at = 0;
    for (is_zero, run) in zero_runs(0, bytes) {
        if !is_zero {
            file.write_all_at(run, at)?;
        }
        at += run.len() as u64;
    }
    // A new file has no executable bit, whatever the umask.
    if exec {
        fs::set_file_mode(file, with_exec(fs::meta_of_file(file)?.mode, exec))?;
    }
    fs::set_file_mtime(file, mtime_ns)?;
    fs::meta_of_file(file)
}

/// Cuts bytes that stand at `offset` of a file into runs of whole zero pages and of anything else.
fn zero_runs(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    let mut rest = bytes;
    let mut at = offset;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (mut len, mut kind) = (0, None);
        while len < rest.len() {
            let in_page = usize::try_from((at + len as u64) % HOLE_BYTES as u64).unwrap_or(0);
            let cell_len = (HOLE_BYTES - in_page).min(rest.len() - len);
            let cell = rest.get(len..len + cell_len).unwrap_or_default();
            let is_zero = cell_len == HOLE_BYTES && cell.iter().all(|byte| *byte == 0);
            if *kind.get_or_insert(is_zero) != is_zero {
                break;
            }
            len += cell_len;
        }
        let (run, tail) = rest.split_at(len);
        rest = tail;
        at += len as u64;
        Some((kind.unwrap_or(false), run))
    })
}
