//! Which disk a folder is on: the running system's, or one in memory that a simulator owns. Its clock stamps the files,
//! so whoever compares times of files asks it and no other.

use super::fs::{Dir, path_bytes};
use super::memory::MemoryDisk;
use crate::work::Work;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a folder is.
#[derive(Debug, Clone, Default)]
pub enum Disk {
    /// The running system.
    #[default]
    Kernel,
    /// In memory.
    Memory(MemoryDisk),
}

impl Disk {
    /// Opens a folder by the user's own path.
    pub fn open_root(&self, path: &Path) -> io::Result<Dir> {
        match self {
            Self::Kernel => Dir::open_root(path),
            Self::Memory(disk) => disk.open_root(path_bytes(path)).map(Dir::Memory),
        }
    }

    /// True for a folder at the path, also behind a symlink.
    pub fn is_folder(&self, path: &Path) -> io::Result<bool> {
        match self {
            Self::Kernel => Ok(std::fs::metadata(path)?.is_dir()),
            Self::Memory(_) => match self.open_root(path) {
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
                other => other.map(|_| true),
            },
        }
    }

    /// Makes a folder in one that is there.
    pub fn make_folder(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Kernel => std::fs::create_dir(path),
            Self::Memory(disk) => disk.make_root(path_bytes(path)),
        }
    }

    /// Removes a folder with all that is in it. In memory nothing is: a simulated user has no second thoughts.
    pub fn remove_all(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Kernel => std::fs::remove_dir_all(path),
            Self::Memory(_) => Ok(()),
        }
    }

    /// The path without symlinks.
    pub fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        match self {
            Self::Kernel => path.canonicalize(),
            Self::Memory(_) => Ok(path.to_owned()),
        }
    }

    /// The wall clock that stamps files, ns since 1970.
    pub fn now_ns(&self) -> i64 {
        match self {
            Self::Kernel => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
            }
            Self::Memory(disk) => disk.clock().wall_ns(),
        }
    }

    /// The clock that only goes forward.
    pub fn instant(&self) -> Instant {
        match self {
            Self::Kernel => Instant::now(),
            Self::Memory(disk) => disk.clock().instant(),
        }
    }

    /// Which run of the machine this is: another one after each power cut. All zeros where the system does not say.
    pub fn boot(&self) -> [u8; 16] {
        match self {
            Self::Kernel => {
                let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
                let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
                u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
            }
            Self::Memory(disk) => u128::from(disk.boots()).to_be_bytes(),
        }
    }

    /// A disk in memory belongs to a simulated world, which has one thread.
    pub const fn work(&self) -> Work {
        match self {
            Self::Kernel => Work::Threads,
            Self::Memory(_) => Work::Inline,
        }
    }
}
