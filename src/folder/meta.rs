//! What a name on disk looks like from outside, without reading it.

use crate::model::Kind;
use serde::{Deserialize, Serialize};

/// Tells one file on disk from another, whatever its name: inode and birth time. The birth time makes an inode number
/// that was used again different from its first use; filesystems without it leave `None`.
pub type Identity = (u64, Option<i64>);

/// How a file looked when it was last known to be equal to its node. Any difference means: look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Inode number.
    pub ino: u64,
    /// Birth time, ns since 1970, where the filesystem has it.
    pub btime_ns: Option<i64>,
    /// Bytes.
    pub size: u64,
    /// Modification time, ns since 1970.
    pub mtime_ns: i64,
    /// Change time, ns since 1970. Programs cannot set it, so it gives away edits that restore size and mtime.
    pub ctime_ns: i64,
    /// The owner may execute it.
    pub exec: bool,
}

impl Stamp {
    /// Of something that went before it was looked at: no file has it.
    pub const NONE: Self =
        Self { ino: 0, btime_ns: None, size: 0, mtime_ns: 0, ctime_ns: i64::MIN, exec: false };

    /// Which file it is, whatever its name and content.
    pub const fn identity(&self) -> Identity {
        (self.ino, self.btime_ns)
    }

    /// The same file with the same bytes, as far as can be told across a rename (which changes the change time).
    pub fn same_bytes(&self, other: &Self) -> bool {
        self.identity() == other.identity() && self.size == other.size && self.mtime_ns == other.mtime_ns
    }

    /// This stamp made to differ from every file on disk, so that the next scan reports the file as touched. Used
    /// when a file may have changed between an operation and the look at its result.
    #[must_use]
    pub const fn distrusted(self) -> Self {
        Self { ctime_ns: i64::MIN, ..self }
    }
}

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// A fifo, socket or device: left alone.
    Special,
}

impl EntryKind {
    /// How a node of this kind shows on disk.
    pub const fn of(kind: &Kind) -> Self {
        match kind {
            Kind::Folder => Self::Folder,
            Kind::File { .. } => Self::File,
            Kind::Symlink { .. } => Self::Symlink,
        }
    }
}

/// What one look at a name shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: EntryKind,
    /// Identity, size and times.
    pub stamp: Stamp,
    /// Permission bits, 12 of them.
    pub mode: u32,
    /// Names this file has on the filesystem.
    pub links: u32,
    /// The filesystem it is on.
    pub device: (u32, u32),
    /// The mount it was reached through, where the kernel tells. A bind mount is one of its own on the same filesystem.
    pub mount: Option<u64>,
}

/// Whole seconds and the nanoseconds after them, also before 1970.
pub const fn ns_to_parts(ns: i64) -> (i64, i64) {
    (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000))
}

/// Permission bits of a file when only the executable bit is given: everyone who may read may execute.
pub const fn with_exec(mode: u32, exec: bool) -> u32 {
    let plain = mode & 0o777;
    if exec { plain | ((plain & 0o444) >> 2) } else { plain & !0o111 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_split_into_whole_seconds_and_positive_nanoseconds() {
        assert_eq!(ns_to_parts(-1), (-1, 999_999_999));
        assert_eq!(ns_to_parts(1_500_000_000), (1, 500_000_000));
    }

    #[test]
    fn the_exec_bit_follows_the_read_bits_and_never_brings_setuid() {
        assert_eq!(with_exec(0o644, true), 0o755);
        assert_eq!(with_exec(0o600, true), 0o700);
        assert_eq!(with_exec(0o4755, false), 0o644);
        assert_eq!(with_exec(0o4755, true), 0o755);
    }
}
