//! The user's folder on disk: everything that looks at it or changes it.
//!
//! Plain sync code without network. The client calls it once per batch. What it promises:
//! - nothing outside the folder is touched, no symlink is followed, no fifo or device is opened ([`fs`]);
//! - a file of the user is never overwritten or deleted without a look at what it was ([`apply`], [`trash`]);
//! - readers see old or new content, whole; half files exist only in the private part ([`stage`]);
//! - what was "agreed" is recorded only after it is on disk, and is never trusted when damaged ([`state`]).
//!
//! ```text
//! FOLDER/.dropblock/    0700, files inside 0600      docs/FORMAT.md part III has the bytes
//!     lock              flock of the running client
//!     device.key        the folder's own key; `server`: the server it belongs to; `share`: the share, should the state be lost
//!     version           format of everything beside it
//!     state             agreed nodes, stamps, cursor: an append-only log
//!     manifests/        chunk lists of large files, a cache
//!     sketches/         sums of contents, a cache, so that an edit is sent as what changed
//!     stage/            half downloads, finished files on their way, parked files
//!     trash/            files that came out, kept until looked at again
//! ```

mod account;
pub mod apply;
pub mod disk;
pub mod error;
pub mod fs;
mod intents;
mod kernel;
pub mod manifests;
mod matching;
pub mod memory;
pub mod meta;
mod names;
pub mod nearby;
pub mod private;
pub mod probe;
pub mod recover;
pub mod scan;
pub mod sketches;
pub mod stage;
pub mod state;
mod state_log;
pub mod trash;
mod walk;
pub mod watch;

#[cfg(test)]
mod tests;

pub use account::Account;
pub use disk::Disk;
pub use error::{FolderError, ShownPath};
pub use memory::MemoryDisk;
pub use meta::{EntryKind, Identity, Meta, Stamp};
pub use names::rescue_name;
pub use state::{Batch, Cursor, Sent, State, Update};

use crate::model::path::PRIVATE_DIR;
use crate::model::{Name, RelPath};
use crate::work::Work;
use fs::{Dir, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Format of the private files. A larger number is refused, never re-initialised.
pub const STATE_VERSION: u32 = 1;
/// Before the number in the version file.
const VERSION_PREFIX: &str = "dropblock client state ";
/// Permission bits of private folders and files.
const PRIVATE_DIR_MODE: u32 = 0o700;
const PRIVATE_FILE_MODE: u32 = 0o600;

/// Where the private part was made, as its version file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Here,
    /// By a program that did not write it down.
    Unsaid,
    /// It is a copy, came back from a backup, or was moved to another disk: its files have other inodes.
    Elsewhere,
    /// There is a state, and no file that says of which version and where: it is believed as little as that of a copy.
    Lost,
}

/// A folder that is open for syncing, locked against a second client.
#[derive(Debug)]
pub struct Folder {
    disk: Disk,
    /// Absolute, without symlinks.
    path: PathBuf,
    root: Dir,
    private: Dir,
    stage: Dir,
    trash: Dir,
    manifests: Dir,
    sketches_dir: Dir,
    sketches: sketches::Sketches,
    root_meta: Meta,
    private_meta: Meta,
    is_new: bool,
    origin: Origin,
    waiting: Mutex<Vec<trash::Waiting>>,
    nameless: stage::NamelessFiles,
    /// Held for as long as the folder is open.
    _lock: fs::Lock,
}

impl Folder {
    /// Opens a folder for syncing. With `create` it is made when only the last part of its path is absent.
    ///
    /// # Errors
    /// Each cause has its own variant; nothing is left behind by a refusal except perhaps the empty folder.
    pub fn open(path: &Path, create: bool) -> Result<Self, FolderError> {
        Self::open_on(Disk::Kernel, path, create)
    }

    /// [`Folder::open`] on a disk of choice.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn open_on(disk: Disk, path: &Path, create: bool) -> Result<Self, FolderError> {
        let path = find_or_make(&disk, path, create)?;
        let fail = |action| {
            let shown = ShownPath::from(path.as_path());
            move |error| FolderError::from_io(action, shown, error)
        };
        if let Some(outer) = ours_above(&disk, &path) {
            return Err(FolderError::Nested { path: path.as_path().into(), outer: outer.into() });
        }
        let root = disk.open_root(&path).map_err(fail("open"))?;
        let (private, is_new) = open_private(&path, &root)?;
        let private_path = path.join(PRIVATE_DIR);
        let lock = private
            .append_file(&names::own("lock").map_err(fail("open"))?, PRIVATE_FILE_MODE)
            .map_err(|error| FolderError::from_io("lock", private_path.as_path(), error))?;
        let Some(lock) = fs::Lock::try_take(lock).map_err(fail("lock"))? else {
            return Err(FolderError::Locked { path: ShownPath::from(path.as_path()) });
        };
        let private_meta = private.own_meta().map_err(fail("look at"))?;
        let origin = check_version(&private_path, &private, private_meta.stamp.identity())?;
        let sub = |name: &str| {
            open_or_make(&private, name)
                .map_err(|error| FolderError::from_io("open", private_path.join(name).as_path(), error))
        };
        let (stage, trash, manifests) = (sub("stage")?, sub("trash")?, sub("manifests")?);
        let sketches_dir = sub("sketches")?;
        let root_meta = root.own_meta().map_err(fail("look at"))?;
        let private_meta = private.own_meta().map_err(fail("look at"))?;
        let nameless = stage::NamelessFiles::new().map_err(fail("open"))?;
        Ok(Self {
            disk,
            path,
            root,
            private,
            stage,
            trash,
            manifests,
            sketches_dir,
            sketches: sketches::Sketches::default(),
            root_meta,
            private_meta,
            is_new,
            origin,
            waiting: Mutex::default(),
            nameless,
            _lock: lock,
        })
    }

    /// Where it is: absolute, without symlinks.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The disk it is on, whose clock stamps its files.
    pub const fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Where blocking work on it runs.
    pub const fn work(&self) -> Work {
        self.disk.work()
    }

    /// True when the private part was made by this call of [`Folder::open`]: a first sync.
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Removes the private part, if this call of [`Folder::open`] made it. What fails stays.
    pub fn unmake(&self) {
        if self.is_new
            && self.trash_len() == 0
            && let Err(error) = self.disk.remove_all(&self.path.join(PRIVATE_DIR))
        {
            tracing::debug!(%error, "the private part stays");
        }
    }

    /// Checks that the folder at the path is still the one that was opened, with its private part.
    ///
    /// # Errors
    /// [`FolderError::Replaced`] after it was unmounted, deleted, renamed or swapped. Nothing that a scan shows may be
    /// believed then, least of all that files are gone.
    pub fn check(&self) -> Result<(), FolderError> {
        let same = |meta: &Meta, known: &Meta| {
            meta.device == known.device && meta.stamp.identity() == known.stamp.identity()
        };
        let still_there = || -> io::Result<bool> {
            let root = self.disk.open_root(&self.path)?;
            let private = root.meta(&names::own(PRIVATE_DIR)?)?;
            Ok(same(&root.own_meta()?, &self.root_meta) && same(&private, &self.private_meta))
        };
        match still_there() {
            Ok(true) => Ok(()),
            Ok(false) => Err(FolderError::Replaced { path: self.shown() }),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(FolderError::Replaced { path: self.shown() })
            }
            Err(error) => Err(FolderError::from_io("look at", self.path.as_path(), error)),
        }
    }

    /// What stands at a path now; `None` when nothing does.
    pub fn look(&self, path: &RelPath) -> Result<Option<Meta>, FolderError> {
        let Some((parent, name)) = path.split_last() else {
            return self.root.own_meta().map(Some).map_err(self.failed("look at", path));
        };
        match self.root.open_below(&parent).and_then(|dir| dir.meta_if_there(name)) {
            Ok(meta) => Ok(meta),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed("look at", path)(error)),
        }
    }

    /// Opens a regular file for reading, with what it is at this moment. `None` when there is none at the path.
    /// After reading, [`Folder::stamp_of`] tells whether it changed meanwhile.
    pub fn open_file(&self, path: &RelPath) -> Result<Option<(File, Stamp)>, FolderError> {
        let Some((parent, name)) = path.split_last() else { return Ok(None) };
        match self.root.open_below(&parent).and_then(|dir| dir.open_file(name)) {
            Ok(found) => Ok(found.map(|(file, meta)| (file, meta.stamp))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed("read", path)(error)),
        }
    }

    /// What an open file is now.
    pub fn stamp_of(&self, file: &File) -> Result<Stamp, FolderError> {
        fs::meta_of_file(file)
            .map(|meta| meta.stamp)
            .map_err(|error| FolderError::from_io("look at a file in", self.path.as_path(), error))
    }

    /// The error for a file that failed while it was being read.
    pub fn read_error(&self, path: &RelPath, error: io::Error) -> FolderError {
        self.failed("read", path)(error)
    }

    /// Turns the failure of a call on `path` into an error.
    fn failed(&self, action: &'static str, path: &RelPath) -> impl Fn(io::Error) -> FolderError + use<> {
        let full = if path.is_root() { self.path.clone() } else { self.path.join(path.to_os_path()) };
        move |error| FolderError::from_io(action, full.as_path(), error)
    }

    /// Turns the failure of a call on the private part into an error.
    fn failed_private(&self, action: &'static str) -> impl Fn(io::Error) -> FolderError + use<> {
        let full = self.path.join(PRIVATE_DIR);
        move |error| FolderError::from_io(action, full.as_path(), error)
    }

    fn shown(&self) -> ShownPath {
        ShownPath::from(self.path.as_path())
    }

    /// Opens the folder that holds `path`. `None` when it is absent or no folder, and for the top itself.
    fn parent_dir<'a>(&self, path: &'a RelPath) -> Result<Option<(Dir, &'a Name)>, FolderError> {
        let Some((name, parent)) = path.names().split_last() else { return Ok(None) };
        match self.root.open_below(&RelPath::from_names(parent.to_vec())) {
            Ok(dir) => Ok(Some((dir, name))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed("open the folder of", path)(error)),
        }
    }
}

/// The path leads nowhere: something on it is absent, not a folder, or a symlink.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) || fs::is_loop(error)
}

fn find_or_make(disk: &Disk, path: &Path, create: bool) -> Result<PathBuf, FolderError> {
    let fail = |error| FolderError::from_io("open", path, error);
    match disk.is_folder(path) {
        Ok(false) => return Err(FolderError::NotAFolder { path: path.into() }),
        Ok(true) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
            disk.make_folder(path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    // Of a name alone it is the working directory.
                    let parent = path.parent().filter(|parent| parent != &Path::new(""));
                    FolderError::NotFound { path: parent.unwrap_or(Path::new(".")).into() }
                }
                _ => FolderError::from_io("make", path, error),
            })?;
        }
        Err(error) => {
            return Err(match error.kind() {
                io::ErrorKind::NotFound => FolderError::NotFound { path: path.into() },
                io::ErrorKind::NotADirectory => FolderError::NotAFolder { path: path.into() },
                _ => fail(error),
            });
        }
    }
    disk.canonical(path).map_err(fail)
}

/// The synced folder or the store that holds this path, if any. Folders above that cannot be looked at are nobody's.
pub fn ours_above<'a>(disk: &Disk, path: &'a Path) -> Option<&'a Path> {
    let has = |dir: &Dir, name: &str| {
        names::own(name).and_then(|name| dir.meta_if_there(&name)).is_ok_and(|meta| meta.is_some())
    };
    path.ancestors().skip(1).find(|above| {
        let Ok(dir) = disk.open_root(above) else { return false };
        let private = names::own(PRIVATE_DIR).and_then(|name| dir.open_child(&name));
        private.is_ok_and(|private| has(&private, "version")) || has(&dir, "store.toml") && has(&dir, "packs")
    })
}

fn open_private(path: &Path, root: &Dir) -> Result<(Dir, bool), FolderError> {
    let private_path = path.join(PRIVATE_DIR);
    let fail = |action| {
        let shown = ShownPath::from(private_path.as_path());
        move |error| FolderError::from_io(action, shown, error)
    };
    let name = names::own(PRIVATE_DIR).map_err(fail("open"))?;
    let is_new = match root.make_dir(&name, PRIVATE_DIR_MODE) {
        Ok(()) => {
            root.sync().map_err(fail("sync"))?;
            true
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        // Some systems answer "read-only" before they look whether the name exists.
        Err(_) if root.meta(&name).is_ok() => false,
        Err(error) => return Err(fail("make")(error)),
    };
    match root.open_child(&name) {
        Ok(dir) => Ok((dir, is_new)),
        Err(error) if is_absent(&error) => {
            Err(FolderError::NotAFolder { path: private_path.as_path().into() })
        }
        Err(error) => Err(fail("open")(error)),
    }
}

fn open_or_make(parent: &Dir, name: &str) -> io::Result<Dir> {
    let name = names::own(name)?;
    match parent.make_dir(&name, PRIVATE_DIR_MODE) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => parent.open_child(&name),
    }
}

/// Checks the version and tells where the private part, which is `here` now, was made.
fn check_version(path: &Path, private: &Dir, here: Identity) -> Result<Origin, FolderError> {
    let full = path.join("version");
    let fail = |error| FolderError::from_io("read", full.as_path(), error);
    let name = names::own("version").map_err(fail)?;
    let Some((file, _)) = private.open_file(&name).map_err(fail)? else {
        let state = names::own("state").map_err(fail)?;
        if private.meta_if_there(&state).map_err(fail)?.is_some() {
            return Ok(Origin::Lost);
        }
        let written = write_version(private, here);
        return written
            .map(|()| Origin::Here)
            .map_err(|error| FolderError::from_io("write", full.as_path(), error));
    };
    let mut text = String::new();
    if file.take(128).read_to_string(&mut text).is_err() {
        return Err(FolderError::UnknownVersion { path: full.as_path().into() });
    }
    let mut lines = text.lines();
    let found =
        lines.next().and_then(|line| line.strip_prefix(VERSION_PREFIX)?.trim_end().parse::<u32>().ok());
    match found {
        Some(found) if found <= STATE_VERSION => Ok(match lines.next() {
            None => Origin::Unsaid,
            Some(line) if line == place(here) => Origin::Here,
            Some(_) => Origin::Elsewhere,
        }),
        Some(found) => {
            Err(FolderError::NewerVersion { path: full.as_path().into(), found, known: STATE_VERSION })
        }
        None => Err(FolderError::UnknownVersion { path: full.as_path().into() }),
    }
}

/// The line that says where the private part was made.
fn place(here: Identity) -> String {
    format!("at {}", names::show_identity(here))
}

fn write_version(private: &Dir, here: Identity) -> io::Result<()> {
    write_whole(private, "version", format!("{VERSION_PREFIX}{STATE_VERSION}\n{}\n", place(here)).as_bytes())
}

/// Writes a small private file so that it is there whole or not at all, and durable.
fn write_whole(dir: &Dir, name: &str, bytes: &[u8]) -> io::Result<()> {
    let (temp, name) = (names::own(&format!("{name}.new"))?, names::own(name)?);
    let _ = dir.unlink(&temp);
    let mut file = dir.create_file(&temp, PRIVATE_FILE_MODE)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    dir.rename_over(&temp, dir, &name)?;
    dir.sync()
}
