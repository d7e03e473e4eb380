//! Folders and files of the running system, relative to an open folder. The only file of this room that makes system calls
//! on them; everything else goes through [`super::fs`].
//!
//! A [`Dir`] is a descriptor of a folder. Every call takes one name, or a [`RelPath`] that is resolved below the
//! descriptor without ever crossing a symlink or leaving the folder, so a name from somebody else cannot reach
//! anything outside, also when a local program swaps folders for symlinks meanwhile. Fifos, sockets and devices are
//! never opened.

use super::fs::Listed;
use super::meta::{EntryKind, Meta, ns_to_parts};
use crate::model::{Name, RelPath};
use rustix::fs::{self as sys, AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, RawDir, RenameFlags};
use rustix::fs::{ResolveFlags, StatxFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::process::Resource;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

/// Longest path given to one system call, bytes. `PATH_MAX` is 4096 with the NUL; deeper paths take several steps.
const STEP_BYTES_MAX: usize = 3800;
/// Bytes read from a folder in one call.
const LIST_BUFFER_BYTES: usize = 32 * 1024;
/// Bytes moved at once where the kernel cannot copy by itself.
const COPY_BUFFER_BYTES: usize = 1024 * 1024;

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// An open folder.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
}

impl Dir {
    /// Opens a folder by the user's own path. Only here are symlinks followed.
    pub fn open_root(path: &Path) -> io::Result<Self> {
        Ok(Self { fd: sys::open(path, FOLDER, Mode::empty())? })
    }

    /// Opens a child folder; an error when it is anything else, also a symlink to a folder.
    pub fn open_child(&self, name: &Name) -> io::Result<Self> {
        Ok(Self { fd: sys::openat(&self.fd, name.as_os_str(), FOLDER | OFlags::NOFOLLOW, Mode::empty())? })
    }

    /// Opens a folder below this one, however deep.
    pub fn open_below(&self, path: &RelPath) -> io::Result<Self> {
        let mut at = None;
        let mut step = Vec::new();
        for name in path.names() {
            if !step.is_empty() && step.len() + 1 + name.as_bytes().len() > STEP_BYTES_MAX {
                at = Some(at.as_ref().unwrap_or(self).open_step(&step)?);
                step.clear();
            }
            if !step.is_empty() {
                step.push(b'/');
            }
            step.extend_from_slice(name.as_bytes());
        }
        if step.is_empty() {
            return Ok(Self { fd: sys::openat(&self.fd, ".", FOLDER, Mode::empty())? });
        }
        at.as_ref().unwrap_or(self).open_step(&step)
    }

    fn open_step(&self, step: &[u8]) -> io::Result<Self> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match sys::openat2(&self.fd, step, FOLDER | OFlags::NOFOLLOW, Mode::empty(), resolve) {
            // Kernels before 5.6, and filters that do not know the call: one component at a time is as strict.
            Err(Errno::NOSYS | Errno::PERM) => self.open_step_by_step(step),
            other => Ok(Self { fd: other? }),
        }
    }

    fn open_step_by_step(&self, step: &[u8]) -> io::Result<Self> {
        let mut at = Self { fd: sys::openat(&self.fd, ".", FOLDER, Mode::empty())? };
        for part in step.split(|byte| *byte == b'/') {
            at = Self { fd: sys::openat(&at.fd, part, FOLDER | OFlags::NOFOLLOW, Mode::empty())? };
        }
        Ok(at)
    }

    /// What a name is; symlinks are not followed.
    pub fn meta(&self, name: &Name) -> io::Result<Meta> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Ok(meta_of(&sys::statx(&self.fd, name.as_os_str(), flags, LOOK)?))
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
        meta_of_fd(&self.fd)
    }

    /// All names in the folder, in no particular order. Names no [`Name`] can hold do not exist on Linux.
    pub fn list(&self) -> io::Result<Vec<Listed>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOATIME;
        let fd = match sys::openat(&self.fd, ".", flags, Mode::empty()) {
            // Only the owner may ask for "no access time".
            Err(Errno::PERM) => sys::openat(&self.fd, ".", flags.difference(OFlags::NOATIME), Mode::empty())?,
            other => other?,
        };
        let mut found = Vec::new();
        let mut buffer = Vec::with_capacity(LIST_BUFFER_BYTES);
        let mut entries = RawDir::new(&fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            let Ok(name) = Name::new(bytes) else { continue };
            found.push(Listed { name, hint: kind_of(entry.file_type()) });
        }
        Ok(found)
    }

    /// Opens a regular file for reading. `None` when the name is anything else or absent.
    pub fn open_file(&self, name: &Name) -> io::Result<Option<(File, Meta)>> {
        // Looked at first, because merely opening a device can have an effect; opened without blocking and looked at
        // again, because the name may have become a fifo in between.
        match self.meta_if_there(name)? {
            Some(meta) if meta.kind == EntryKind::File => {}
            _ => return Ok(None),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match sys::openat(&self.fd, name.as_os_str(), flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let meta = meta_of_file(&file)?;
        Ok((meta.kind == EntryKind::File).then_some((file, meta)))
    }

    /// Opens a file of our own for reading and writing.
    pub fn open_own(&self, name: &Name) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(sys::openat(&self.fd, name.as_os_str(), flags, Mode::empty())?))
    }

    /// Makes a new file; an error when the name exists. `mode` is masked by the umask.
    pub fn create_file(&self, name: &Name, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(sys::openat(&self.fd, name.as_os_str(), flags, Mode::from_raw_mode(mode))?))
    }

    /// Makes a file that has no name yet, close to the files of this folder on the disk. `None` where that is not to be
    /// had; whatever the cause, a file with a name will tell.
    pub fn nameless_file(&self, mode: u32) -> Option<File> {
        if !can_name_files() {
            return None;
        }
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        sys::openat(&self.fd, ".", flags, Mode::from_raw_mode(mode)).ok().map(File::from)
    }

    /// Gives a nameless file a name; `AlreadyExists` when it is taken.
    pub fn give_name(&self, file: &File, name: &Name) -> io::Result<()> {
        let own = own_path(file);
        Ok(sys::linkat(sys::CWD, own.as_str(), &self.fd, name.as_os_str(), AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Opens a file of our own for appending, made when absent.
    pub fn append_file(&self, name: &Name, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(sys::openat(&self.fd, name.as_os_str(), flags, Mode::from_raw_mode(mode))?))
    }

    /// Makes a folder. `mode` is masked by the umask.
    pub fn make_dir(&self, name: &Name, mode: u32) -> io::Result<()> {
        Ok(sys::mkdirat(&self.fd, name.as_os_str(), Mode::from_raw_mode(mode))?)
    }

    /// Makes a symlink with exactly this text.
    pub fn make_symlink(&self, name: &Name, target: &[u8]) -> io::Result<()> {
        Ok(sys::symlinkat(target, &self.fd, name.as_os_str())?)
    }

    /// The text of a symlink.
    pub fn read_link(&self, name: &Name) -> io::Result<Vec<u8>> {
        Ok(sys::readlinkat(&self.fd, name.as_os_str(), Vec::new())?.into_bytes())
    }

    /// Removes a name that is not a folder.
    pub fn unlink(&self, name: &Name) -> io::Result<()> {
        Ok(sys::unlinkat(&self.fd, name.as_os_str(), AtFlags::empty())?)
    }

    /// Removes an empty folder.
    pub fn remove_dir(&self, name: &Name) -> io::Result<()> {
        Ok(sys::unlinkat(&self.fd, name.as_os_str(), AtFlags::REMOVEDIR)?)
    }

    /// Moves a name, replacing what is there. For files of our own only.
    pub fn rename_over(&self, from: &Name, to_dir: &Self, to: &Name) -> io::Result<()> {
        Ok(sys::renameat(&self.fd, from.as_os_str(), &to_dir.fd, to.as_os_str())?)
    }

    /// Moves a name; `AlreadyExists` when the new one is taken.
    ///
    /// Where the filesystem cannot do this in one step, a file is linked under the new name (which is as strict) and
    /// unlinked under the old one; a folder is renamed after a look, which could at worst replace an empty folder.
    pub fn rename_to_free(&self, from: &Name, to_dir: &Self, to: &Name) -> io::Result<()> {
        let (a, b) = (from.as_os_str(), to.as_os_str());
        match sys::renameat_with(&self.fd, a, &to_dir.fd, b, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                self.rename_to_free_slowly(from, to_dir, to)
            }
            other => Ok(other?),
        }
    }

    fn rename_to_free_slowly(&self, from: &Name, to_dir: &Self, to: &Name) -> io::Result<()> {
        if self.meta(from)?.kind != EntryKind::Folder {
            sys::linkat(&self.fd, from.as_os_str(), &to_dir.fd, to.as_os_str(), AtFlags::empty())?;
            return self.unlink(from);
        }
        if to_dir.meta_if_there(to)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        self.rename_over(from, to_dir, to)
    }

    /// Swaps two names in one step. `false` when the filesystem cannot.
    pub fn exchange(&self, a: &Name, b_dir: &Self, b: &Name) -> io::Result<bool> {
        match sys::renameat_with(&self.fd, a.as_os_str(), &b_dir.fd, b.as_os_str(), RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sets the modification time of a name itself (also of a symlink).
    pub fn set_mtime(&self, name: &Name, mtime_ns: i64) -> io::Result<()> {
        let times = timestamps(mtime_ns);
        Ok(sys::utimensat(&self.fd, name.as_os_str(), &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Makes the names in this folder durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(sys::fsync(self.reopen()?)?)
    }

    /// Makes everything on this filesystem durable.
    pub fn sync_filesystem(&self) -> io::Result<()> {
        Ok(sys::syncfs(self.reopen()?)?)
    }

    /// Bytes that this user may still write on this filesystem.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let disk = sys::fstatvfs(self.reopen()?)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// True when a file keeps its inode for as long as it is there, also over mounts. Not on FAT, and not for certain on
    /// network and user filesystems.
    pub fn keeps_inodes(&self) -> bool {
        const GUESSED: [u32; 6] = [0x4d44, 0x2011_bab0, 0x6573_5546, 0x6969, 0xff53_4d42, 0xfe53_4d42];
        let kind = |fd: OwnedFd| sys::fstatfs(fd).map_err(io::Error::from);
        let kind = self.reopen().and_then(kind).map(|disk| i128::from(disk.f_type));
        kind.is_ok_and(|kind| GUESSED.iter().all(|guessed| i128::from(*guessed) != kind & 0xffff_ffff))
    }

    /// A descriptor that can be read and synced; the own one can only be looked up from.
    fn reopen(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(sys::openat(&self.fd, ".", flags, Mode::empty())?)
    }
}

/// Where the system shows an open file of this process.
fn own_path(file: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

/// True when [`own_path`] leads somewhere: `/proc` may be absent.
fn can_name_files() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| Path::new("/proc/self/fd").is_dir())
}

/// How many files this process may have open.
pub fn open_files_max() -> u64 {
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Lets this process have as many files open as it may ask for, up to `wanted`.
pub fn raise_open_files(wanted: u64) {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(wanted, |most| most.min(wanted));
    if limit.current.is_some_and(|current| current < most) {
        limit.current = Some(most);
        // Refused: then it is what it was.
        let _ = rustix::process::setrlimit(Resource::Nofile, limit);
    }
}

/// What an open file is now.
pub fn meta_of_file(file: &File) -> io::Result<Meta> {
    meta_of_fd(file)
}

/// What every look asks for.
const LOOK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME).union(StatxFlags::MNT_ID);

fn meta_of_fd(fd: &impl AsFd) -> io::Result<Meta> {
    Ok(meta_of(&sys::statx(fd, "", AtFlags::EMPTY_PATH, LOOK)?))
}

fn meta_of(stat: &sys::Statx) -> Meta {
    let ns = |time: &sys::StatxTimestamp| {
        time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
    };
    let has = |what: StatxFlags| stat.stx_mask & what.bits() != 0;
    let mode = u32::from(stat.stx_mode);
    let kind = sys::FileType::from_raw_mode(mode);
    Meta {
        kind: kind_of(kind).unwrap_or(EntryKind::Special),
        stamp: super::Stamp {
            ino: stat.stx_ino,
            btime_ns: has(StatxFlags::BTIME).then(|| ns(&stat.stx_btime)),
            size: stat.stx_size,
            mtime_ns: ns(&stat.stx_mtime),
            ctime_ns: ns(&stat.stx_ctime),
            exec: mode & 0o100 != 0,
        },
        mode: mode & 0o7777,
        links: stat.stx_nlink,
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        mount: has(StatxFlags::MNT_ID).then_some(stat.stx_mnt_id),
    }
}

fn kind_of(kind: sys::FileType) -> Option<EntryKind> {
    match kind {
        sys::FileType::RegularFile => Some(EntryKind::File),
        sys::FileType::Directory => Some(EntryKind::Folder),
        sys::FileType::Symlink => Some(EntryKind::Symlink),
        sys::FileType::Unknown => None,
        _ => Some(EntryKind::Special),
    }
}

fn timestamps(mtime_ns: i64) -> Timestamps {
    let (seconds, nanos) = ns_to_parts(mtime_ns);
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: sys::UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos },
    }
}

/// Sets permission bits and modification time of an open file.
pub fn set_file_meta(file: &File, mode: u32, mtime_ns: i64) -> io::Result<()> {
    sys::fchmod(file, Mode::from_raw_mode(mode))?;
    Ok(sys::futimens(file, &timestamps(mtime_ns))?)
}

/// Sets the modification time of an open file.
pub fn set_file_mtime(file: &File, mtime_ns: i64) -> io::Result<()> {
    Ok(sys::futimens(file, &timestamps(mtime_ns))?)
}

/// Sets permission bits of an open file.
pub fn set_file_mode(file: &File, mode: u32) -> io::Result<()> {
    Ok(sys::fchmod(file, Mode::from_raw_mode(mode))?)
}

/// Takes the lock of a file for this process. `false` when another one has it.
pub fn try_lock(file: &File) -> io::Result<bool> {
    match sys::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives the lock of a file back, whoever else has it open.
pub fn unlock(file: &File) -> io::Result<()> {
    Ok(sys::flock(file, FlockOperation::Unlock)?)
}

/// Makes a range of a file a hole that reads as zeros. `false` when the filesystem has no holes.
pub fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    match sys::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The next range of a file at or after `from` that is not a hole; `None` when only a hole remains before `end`.
pub fn next_extent(file: &File, from: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match sys::seek(file, sys::SeekFrom::Data(from)) {
        Ok(start) if start < end => start,
        Ok(_) | Err(Errno::NXIO) => return Ok(None),
        // No notion of holes: everything is bytes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((from, end))),
        Err(error) => return Err(error.into()),
    };
    let stop = sys::seek(file, sys::SeekFrom::Hole(start)).unwrap_or(end).min(end);
    Ok((stop > start).then_some((start, stop)))
}

/// Copies bytes from file to file inside the kernel, or through memory where it cannot. Returns how many bytes were
/// there: fewer than `len` when `from` ends early.
pub fn copy_range(from: &File, from_offset: u64, to: &File, to_offset: u64, len: u64) -> io::Result<u64> {
    let mut done = 0;
    while done < len {
        let (mut a, mut b) = (from_offset + done, to_offset + done);
        let want = usize::try_from(len - done).unwrap_or(usize::MAX).min(1 << 30);
        match sys::copy_file_range(from, Some(&mut a), to, Some(&mut b), want) {
            Ok(0) => break,
            Ok(n) => done += n as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::BADF) => {
                return Ok(done + copy_through_memory(from, a, to, b, len - done)?);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

fn copy_through_memory(from: &File, mut a: u64, to: &File, mut b: u64, len: u64) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    let mut done = 0;
    while done < len {
        let want = usize::try_from(len - done).unwrap_or(usize::MAX).min(buffer.len());
        let read = from.read_at(buffer.get_mut(..want).unwrap_or_default(), a)?;
        if read == 0 {
            break;
        }
        to.write_all_at(buffer.get(..read).unwrap_or_default(), b)?;
        a += read as u64;
        b += read as u64;
        done += read as u64;
    }
    Ok(done)
}

/// The host's name; empty when it has none that is text.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_str().unwrap_or_default().to_owned()
}
