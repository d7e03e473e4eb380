//! Files and folders as the rest of the room sees them: of the running system, or of a [`MemoryDisk`].
//!
//! Every call takes one name in an open folder, or a [`RelPath`] below it. None ever follows a symlink or leaves the
//! folder; fifos, sockets and devices are never opened.
//!
//! [`MemoryDisk`]: super::MemoryDisk

use super::meta::{EntryKind, Meta};
use super::{kernel, memory};
use crate::model::{Name, RelPath};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

pub use kernel::{host_name, open_files_max, raise_open_files};

/// An open folder.
#[derive(Debug)]
pub enum Dir {
    /// Of the running system.
    Kernel(kernel::Dir),
    /// Of a disk in memory.
    Memory(memory::MemoryDir),
}

/// An open file. Closed when dropped.
#[derive(Debug)]
pub enum File {
    /// Of the running system.
    Kernel(std::fs::File),
    /// Of a disk in memory.
    Memory(memory::MemoryFile),
}

/// One name in a folder, and what the folder itself says it is (`None`: it does not say).
#[derive(Debug)]
pub struct Listed {
    /// The name.
    pub name: Name,
    /// Its kind, as a hint only.
    pub hint: Option<EntryKind>,
}

impl Dir {
    /// Opens a folder of the running system by the user's own path. Only here are symlinks followed.
    pub fn open_root(path: &Path) -> io::Result<Self> {
        kernel::Dir::open_root(path).map(Self::Kernel)
    }

    /// Opens a child folder; an error when it is anything else, also a symlink to a folder.
    pub fn open_child(&self, name: &Name) -> io::Result<Self> {
        match self {
            Self::Kernel(dir) => dir.open_child(name).map(Self::Kernel),
            Self::Memory(dir) => dir.open_child(name).map(Self::Memory),
        }
    }

    /// Opens a folder below this one, however deep.
    pub fn open_below(&self, path: &RelPath) -> io::Result<Self> {
        match self {
            Self::Kernel(dir) => dir.open_below(path).map(Self::Kernel),
            Self::Memory(dir) => dir.open_below(path).map(Self::Memory),
        }
    }

    /// What a name is; symlinks are not followed.
    pub fn meta(&self, name: &Name) -> io::Result<Meta> {
        match self {
            Self::Kernel(dir) => dir.meta(name),
            Self::Memory(dir) => dir.meta(name),
        }
    }

    /// Like [`Dir::meta`], `None` when there is no such name.
    pub fn meta_if_there(&self, name: &Name) -> io::Result<Option<Meta>> {
        match self.meta(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// What this folder itself is.
    pub fn own_meta(&self) -> io::Result<Meta> {
        match self {
            Self::Kernel(dir) => dir.own_meta(),
            Self::Memory(dir) => dir.own_meta(),
        }
    }

    /// All names in the folder, in no particular order. Names no [`Name`] can hold do not exist on Linux.
    pub fn list(&self) -> io::Result<Vec<Listed>> {
        match self {
            Self::Kernel(dir) => dir.list(),
            Self::Memory(dir) => dir.list(),
        }
    }

    /// Opens a regular file for reading. `None` when the name is anything else or absent.
    pub fn open_file(&self, name: &Name) -> io::Result<Option<(File, Meta)>> {
        match self {
            Self::Kernel(dir) => Ok(dir.open_file(name)?.map(|(file, meta)| (File::Kernel(file), meta))),
            Self::Memory(dir) => Ok(dir.open_file(name)?.map(|(file, meta)| (File::Memory(file), meta))),
        }
    }

    /// Opens a file of our own for reading and writing.
    pub fn open_own(&self, name: &Name) -> io::Result<File> {
        match self {
            Self::Kernel(dir) => dir.open_own(name).map(File::Kernel),
            Self::Memory(dir) => dir.open_own(name).map(File::Memory),
        }
    }

    /// Makes a new file; an error when the name exists. `mode` is masked by the umask.
    pub fn create_file(&self, name: &Name, mode: u32) -> io::Result<File> {
        match self {
            Self::Kernel(dir) => dir.create_file(name, mode).map(File::Kernel),
            Self::Memory(dir) => dir.create_file(name, mode).map(File::Memory),
        }
    }

    /// Makes a file that has no name yet, close to the files of this folder on the disk. It is gone when it is closed
    /// without one. `None` where that is not to be had.
    pub fn nameless_file(&self, mode: u32) -> Option<File> {
        match self {
            Self::Kernel(dir) => dir.nameless_file(mode).map(File::Kernel),
            Self::Memory(_) => None,
        }
    }

    /// Gives a nameless file a name; `AlreadyExists` when it is taken.
    pub fn give_name(&self, file: &File, name: &Name) -> io::Result<()> {
        match (self, file) {
            (Self::Kernel(dir), File::Kernel(file)) => dir.give_name(file, name),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Opens a file of our own for appending, made when absent.
    pub fn append_file(&self, name: &Name, mode: u32) -> io::Result<File> {
        match self {
            Self::Kernel(dir) => dir.append_file(name, mode).map(File::Kernel),
            Self::Memory(dir) => dir.append_file(name, mode).map(File::Memory),
        }
    }

    /// Makes a folder. `mode` is masked by the umask.
    pub fn make_dir(&self, name: &Name, mode: u32) -> io::Result<()> {
        match self {
            Self::Kernel(dir) => dir.make_dir(name, mode),
            Self::Memory(dir) => dir.make_dir(name, mode),
        }
    }

    /// Makes a symlink with exactly this text.
    pub fn make_symlink(&self, name: &Name, target: &[u8]) -> io::Result<()> {
        match self {
            Self::Kernel(dir) => dir.make_symlink(name, target),
            Self::Memory(dir) => dir.make_symlink(name, target),
        }
    }

    /// The text of a symlink.
    pub fn read_link(&self, name: &Name) -> io::Result<Vec<u8>> {
        match self {
            Self::Kernel(dir) => dir.read_link(name),
            Self::Memory(dir) => dir.read_link(name),
        }
    }

    /// Removes a name that is not a folder.
    pub fn unlink(&self, name: &Name) -> io::Result<()> {
        match self {
            Self::Kernel(dir) => dir.unlink(name),
            Self::Memory(dir) => dir.unlink(name),
        }
    }

    /// Removes an empty folder.
    pub fn remove_dir(&self, name: &Name) -> io::Result<()> {
        match self {
            Self::Kernel(dir) => dir.remove_dir(name),
            Self::Memory(dir) => dir.remove_dir(name),
        }
    }

    /// Moves a name, replacing what is there. For files of our own only.
    pub fn rename_over(&self, from: &Name, to_dir: &Self, to: &Name) -> io::Result<()> {
        match (self, to_dir) {
            (Self::Kernel(dir), Self::Kernel(to_dir)) => dir.rename_over(from, to_dir, to),
            (Self::Memory(dir), Self::Memory(to_dir)) => dir.rename_over(from, to_dir, to),
            _ => Err(io::ErrorKind::CrossesDevices.into()),
        }
    }

    /// Moves a name; `AlreadyExists` when the new one is taken.
    pub fn rename_to_free(&self, from: &Name, to_dir: &Self, to: &Name) -> io::Result<()> {
        match (self, to_dir) {
            (Self::Kernel(dir), Self::Kernel(to_dir)) => dir.rename_to_free(from, to_dir, to),
            (Self::Memory(dir), Self::Memory(to_dir)) => dir.rename_to_free(from, to_dir, to),
            _ => Err(io::ErrorKind::CrossesDevices.into()),
        }
    }

    /// Swaps two names in one step. `false` when the filesystem cannot.
    pub fn exchange(&self, a: &Name, b_dir: &Self, b: &Name) -> io::Result<bool> {
        match (self, b_dir) {
            (Self::Kernel(dir), Self::Kernel(b_dir)) => dir.exchange(a, b_dir, b),
            (Self::Memory(dir), Self::Memory(b_dir)) => dir.exchange(a, b_dir, b),
            _ => Err(io::ErrorKind::CrossesDevices.into()),
        }
    }

    /// Sets the modification time of a name itself (also of a symlink).
    pub fn set_mtime(&self, name: &Name, mtime_ns: i64) -> io::Result<()> {
        match self {
            Self::Kernel(dir) => dir.set_mtime(name, mtime_ns),
            Self::Memory(dir) => dir.set_mtime(name, mtime_ns),
        }
    }

    /// Makes the names in this folder durable.
    pub fn sync(&self) -> io::Result<()> {
        match self {
            Self::Kernel(dir) => dir.sync(),
            Self::Memory(dir) => dir.sync(),
        }
    }

    /// Makes everything on this filesystem durable.
    pub fn sync_filesystem(&self) -> io::Result<()> {
        match self {
            Self::Kernel(dir) => dir.sync_filesystem(),
            Self::Memory(dir) => dir.sync_filesystem(),
        }
    }

    /// Bytes that this user may still write on this filesystem.
    pub fn free_bytes(&self) -> io::Result<u64> {
        match self {
            Self::Kernel(dir) => dir.free_bytes(),
            Self::Memory(dir) => dir.free_bytes(),
        }
    }

    /// True when a file keeps its inode for as long as it is there, also over mounts.
    pub fn keeps_inodes(&self) -> bool {
        match self {
            Self::Kernel(dir) => dir.keeps_inodes(),
            Self::Memory(_) => true,
        }
    }
}

impl From<std::fs::File> for File {
    fn from(file: std::fs::File) -> Self {
        Self::Kernel(file)
    }
}

impl File {
    /// Reads bytes at an offset; fewer only at the end of the file.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Kernel(file) => file.read_at(buffer, offset),
            Self::Memory(file) => file.read_at(buffer, offset),
        }
    }

    /// Fills the buffer from an offset.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Kernel(file) => file.read_exact_at(buffer, offset),
            Self::Memory(file) => match file.read_at(buffer, offset)? {
                all if all == buffer.len() => Ok(()),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            },
        }
    }

    /// Writes all bytes at an offset.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Kernel(file) => file.write_all_at(bytes, offset),
            Self::Memory(file) => file.write_at(bytes, offset),
        }
    }

    /// Cuts the file, or lets it grow with zeros.
    pub fn set_len(&self, bytes: u64) -> io::Result<()> {
        match self {
            Self::Kernel(file) => file.set_len(bytes),
            Self::Memory(file) => file.set_len(bytes),
        }
    }

    /// Makes bytes and metadata durable.
    pub fn sync_all(&self) -> io::Result<()> {
        match self {
            Self::Kernel(file) => file.sync_all(),
            Self::Memory(file) => file.sync(),
        }
    }

    /// Makes bytes and size durable.
    pub fn sync_data(&self) -> io::Result<()> {
        match self {
            Self::Kernel(file) => file.sync_data(),
            Self::Memory(file) => file.sync(),
        }
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut &*self, buffer)
    }
}

impl Read for &File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            File::Kernel(file) => Read::read(&mut &*file, buffer),
            File::Memory(file) => file.read(buffer),
        }
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Kernel(file) => file.write(bytes),
            Self::Memory(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What an open file is now.
pub fn meta_of_file(file: &File) -> io::Result<Meta> {
    match file {
        File::Kernel(file) => kernel::meta_of_file(file),
        File::Memory(file) => file.meta(),
    }
}

/// Sets permission bits and modification time of an open file.
pub fn set_file_meta(file: &File, mode: u32, mtime_ns: i64) -> io::Result<()> {
    match file {
        File::Kernel(file) => kernel::set_file_meta(file, mode, mtime_ns),
        File::Memory(file) => file.set_meta(mode, Some(mtime_ns)),
    }
}

/// Sets the modification time of an open file.
pub fn set_file_mtime(file: &File, mtime_ns: i64) -> io::Result<()> {
    match file {
        File::Kernel(file) => kernel::set_file_mtime(file, mtime_ns),
        File::Memory(memory) => memory.set_meta(meta_of_file(file)?.mode, Some(mtime_ns)),
    }
}

/// Sets permission bits of an open file.
pub fn set_file_mode(file: &File, mode: u32) -> io::Result<()> {
    match file {
        File::Kernel(file) => kernel::set_file_mode(file, mode),
        File::Memory(file) => file.set_meta(mode, None),
    }
}

/// The lock of a file, held until dropped.
#[derive(Debug)]
pub struct Lock(File);

/// On a busy machine the lock of a process that was ended outlives it by a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

impl Lock {
    /// Takes the lock; `None` when another process has it and keeps it for a second.
    pub fn try_take(file: File) -> io::Result<Option<Self>> {
        let start = Instant::now();
        let taken = match &file {
            File::Kernel(file) => loop {
                if kernel::try_lock(file)? {
                    break true;
                }
                if start.elapsed() >= LOCK_PATIENCE {
                    break false;
                }
                std::thread::sleep(LOCK_PAUSE);
            },
            File::Memory(file) => file.try_lock()?,
        };
        Ok(taken.then_some(Self(file)))
    }
}

impl Drop for Lock {
    /// Closing alone would not do: a process that is being started holds a copy of every descriptor for an instant.
    fn drop(&mut self) {
        // In memory closing is enough: there are no other processes.
        if let File::Kernel(file) = &self.0
            && let Err(error) = kernel::unlock(file)
        {
            tracing::debug!(%error, "lock not given back");
        }
    }
}

/// Makes a range of a file a hole that reads as zeros. `false` when the filesystem has no holes.
pub fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    match file {
        File::Kernel(file) => kernel::punch_hole(file, offset, len),
        File::Memory(_) => Ok(false),
    }
}

/// The next range of a file at or after `from` that is not a hole; `None` when only a hole remains before `end`.
pub fn next_extent(file: &File, from: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    match file {
        File::Kernel(file) => kernel::next_extent(file, from, end),
        File::Memory(_) => Ok((from < end).then_some((from, end))),
    }
}

/// Copies bytes from file to file inside the kernel, or through memory where it cannot. Returns how many bytes were
/// there: fewer than `len` when `from` ends early.
pub fn copy_range(from: &File, from_offset: u64, to: &File, to_offset: u64, len: u64) -> io::Result<u64> {
    if let (File::Kernel(from), File::Kernel(to)) = (from, to) {
        return kernel::copy_range(from, from_offset, to, to_offset, len);
    }
    let mut buffer = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?];
    let there = from.read_at(&mut buffer, from_offset)?;
    to.write_all_at(buffer.get(..there).unwrap_or_default(), to_offset)?;
    Ok(there as u64)
}

/// True when a symlink stood where none is followed.
pub fn is_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// A path of the user as bytes, for messages.
pub fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}
