//! A folder as a user changes it: create, edit, rename, delete, with names that need not be UTF-8.

use super::tree::Item;
use super::tree::{Tree, look};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A real folder on disk.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Takes or makes the folder at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        fs::create_dir_all(&path).unwrap();
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last component of the path.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap().to_string_lossy().into_owned()
    }

    /// A path inside.
    pub fn join(&self, rel: impl AsRef<Path>) -> PathBuf {
        self.path.join(rel)
    }

    /// Its picture.
    pub fn tree(&self) -> Tree {
        Tree::of(&self.path)
    }

    /// One entry of the picture; `None` when nothing is there.
    pub fn item(&self, rel: impl AsRef<Path>) -> Option<Item> {
        look(&self.join(rel)).ok()
    }

    /// Writes a whole file in place, makes its parents.
    pub fn write(&self, rel: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        let path = self.join(rel);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }

    /// Saves as editors do: a temporary file beside it, renamed over it.
    pub fn save(&self, rel: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        let path = self.join(rel);
        let temp = self.path.with_extension("saving");
        fs::write(&temp, bytes).unwrap();
        fs::rename(&temp, &path).unwrap();
    }

    /// Adds at the end.
    pub fn append(&self, rel: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        let mut file = fs::OpenOptions::new().append(true).open(self.join(rel)).unwrap();
        file.write_all(bytes.as_ref()).unwrap();
    }

    /// Overwrites a range in place.
    pub fn patch(&self, rel: impl AsRef<Path>, offset: u64, bytes: impl AsRef<[u8]>) {
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().write(true).open(self.join(rel)).unwrap();
        file.write_all_at(bytes.as_ref(), offset).unwrap();
    }

    /// Makes the file this long, with a hole where nothing was.
    pub fn set_len(&self, rel: impl AsRef<Path>, len: u64) {
        let path = self.join(rel);
        fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .unwrap()
            .set_len(len)
            .unwrap();
    }

    /// The bytes of a file.
    pub fn read(&self, rel: impl AsRef<Path>) -> Vec<u8> {
        let path = self.join(rel);
        fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
    }

    /// The text of a file.
    pub fn text(&self, rel: impl AsRef<Path>) -> String {
        String::from_utf8_lossy(&self.read(rel)).into_owned()
    }

    /// True when something is there, also a dangling link.
    pub fn has(&self, rel: impl AsRef<Path>) -> bool {
        self.join(rel).symlink_metadata().is_ok()
    }

    /// Makes a folder and its parents.
    pub fn mkdir(&self, rel: impl AsRef<Path>) {
        fs::create_dir_all(self.join(rel)).unwrap();
    }

    /// Deletes a file, a link, or a folder with all it holds.
    pub fn remove(&self, rel: impl AsRef<Path>) {
        let path = self.join(rel);
        let stat = path.symlink_metadata().unwrap_or_else(|e| panic!("remove {}: {e}", path.display()));
        if stat.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    /// Renames or moves.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) {
        let (from, to) = (self.join(from), self.join(to));
        fs::rename(&from, &to).unwrap_or_else(|e| panic!("rename {} {}: {e}", from.display(), to.display()));
    }

    /// Copies the bytes of a file.
    pub fn copy(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) {
        fs::copy(self.join(from), self.join(to)).unwrap();
    }

    /// Makes a symlink.
    pub fn symlink(&self, target: impl AsRef<Path>, rel: impl AsRef<Path>) {
        std::os::unix::fs::symlink(target, self.join(rel)).unwrap();
    }

    /// Makes a hard link.
    pub fn hard_link(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) {
        fs::hard_link(self.join(from), self.join(to)).unwrap();
    }

    /// Sets the permission bits.
    pub fn chmod(&self, rel: impl AsRef<Path>, mode: u32) {
        fs::set_permissions(self.join(rel), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The permission bits.
    pub fn mode(&self, rel: impl AsRef<Path>) -> u32 {
        self.join(rel).symlink_metadata().unwrap().mode() & 0o7777
    }

    /// Sets the modification time of the entry itself (links not followed), s and ns since 1970.
    pub fn set_mtime(&self, rel: impl AsRef<Path>, secs: i64, nanos: i64) {
        let time = Timespec { tv_sec: secs, tv_nsec: nanos };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, self.join(rel), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }

    /// The modification time of the entry itself, s and ns since 1970.
    pub fn mtime(&self, rel: impl AsRef<Path>) -> (i64, i64) {
        let stat = self.join(rel).symlink_metadata().unwrap();
        (stat.mtime(), stat.mtime_nsec())
    }

    /// Makes a fifo.
    pub fn fifo(&self, rel: impl AsRef<Path>) {
        let mode = rustix::fs::Mode::from_bits_truncate(0o644);
        rustix::fs::mknodat(CWD, self.join(rel), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }

    /// Inode number.
    pub fn inode(&self, rel: impl AsRef<Path>) -> u64 {
        self.join(rel).symlink_metadata().unwrap().ino()
    }

    /// Bytes that the file takes on disk.
    pub fn disk_bytes(&self, rel: impl AsRef<Path>) -> u64 {
        self.join(rel).symlink_metadata().unwrap().blocks() * 512
    }

    /// `count` small files with different contents below `dir`.
    pub fn many(&self, dir: &str, count: usize) {
        self.mkdir(dir);
        for i in 0..count {
            fs::write(self.join(dir).join(format!("file-{i:06}")), format!("content {i}\n")).unwrap();
        }
    }
}
