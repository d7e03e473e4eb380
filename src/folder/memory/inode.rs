//! Inodes and names: what is on the disk now, and what of it would survive a power cut.

use crate::folder::meta::{EntryKind, Meta, Stamp};
use crate::folder::watch::Hint;
use crate::model::{IdSource, Name, RelPath};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// The inode of the top.
pub const ROOT: u64 = 2;
/// The first inode for others.
const FIRST: u64 = 12;
/// Permission bits that new files and folders never get.
const UMASK: u32 = 0o022;

/// What an inode is.
#[derive(Debug, Clone)]
pub enum Body {
    /// Bytes.
    File {
        /// As every process sees them.
        bytes: Vec<u8>,
        /// As after a power cut; `None`: never synced.
        durable: Option<Vec<u8>>,
        /// The process that changed them last.
        writer: u32,
    },
    /// Names.
    Folder {
        /// As every process sees them.
        names: BTreeMap<Name, u64>,
        /// As after a power cut, before what is pending.
        durable: BTreeMap<Name, u64>,
    },
    /// A text.
    Symlink(Vec<u8>),
}

/// A file, folder or symlink.
#[derive(Debug, Clone)]
pub struct Inode {
    pub body: Body,
    pub mode: u32,
    pub btime_ns: i64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    /// Mode and modification time as last synced.
    pub durable_meta: Option<(u32, i64)>,
    /// Every place it has.
    pub places: BTreeSet<(u64, Name)>,
    pub handles: u32,
}

/// Names that change in one step: folder, name, what stands there then.
pub type NameOp = Vec<(u64, Name, Option<u64>)>;

/// The whole disk.
#[derive(Debug)]
pub struct Inner {
    pub inodes: BTreeMap<u64, Inode>,
    pub free: BTreeSet<u64>,
    pub next: u64,
    /// Changes of names that no sync has covered, oldest first.
    pub pending: Vec<NameOp>,
    /// Inode of a locked file -> process and handle.
    pub locks: BTreeMap<u64, (u32, u64)>,
    pub handles: u64,
    pub dice: IdSource,
    pub now_ns: i64,
    /// Who makes the current call.
    pub process: u32,
    /// What the current call changed.
    pub hints: BTreeSet<Hint>,
    pub digest: u64,
    /// Names that differ only by case, or by how an accent is written, are one, as on vfat and in folders with `chattr +F`.
    pub folds: bool,
}

/// What names have alike that are one on a disk that folds.
fn folded(name: &Name) -> Vec<u8> {
    match std::str::from_utf8(name.as_bytes()) {
        Ok(text) => text.to_lowercase().replace("e\u{301}", "\u{e9}").into_bytes(),
        Err(_) => name.as_bytes().to_ascii_lowercase(),
    }
}

impl Inner {
    pub fn new(now_ns: i64, dice: IdSource) -> Self {
        let body = Body::Folder { names: BTreeMap::new(), durable: BTreeMap::new() };
        let root = Inode::new(body, 0o755, now_ns);
        Self {
            inodes: BTreeMap::from([(ROOT, root)]),
            free: BTreeSet::new(),
            next: FIRST,
            pending: Vec::new(),
            locks: BTreeMap::new(),
            handles: 0,
            dice,
            now_ns,
            process: 0,
            hints: BTreeSet::new(),
            digest: 0xcbf2_9ce4_8422_2325,
            folds: false,
        }
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        let bytes = self.dice.bytes16();
        u64::from_le_bytes(*bytes.first_chunk().unwrap_or(&[0; 8])) % sides.max(1)
    }

    pub fn get(&self, ino: u64) -> io::Result<&Inode> {
        self.inodes.get(&ino).ok_or_else(|| Errno::IO.into())
    }

    pub fn get_mut(&mut self, ino: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&ino).ok_or_else(|| Errno::IO.into())
    }

    pub fn folder(&self, ino: u64) -> io::Result<&BTreeMap<Name, u64>> {
        match &self.get(ino)?.body {
            Body::Folder { names, .. } => Ok(names),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    pub fn child(&self, dir: u64, name: &Name) -> io::Result<u64> {
        self.entry(dir, name)?.map(|(_, ino)| ino).ok_or_else(|| Errno::NOENT.into())
    }

    /// What stands under a name, and how that is written on the disk.
    fn entry(&self, dir: u64, name: &Name) -> io::Result<Option<(Name, u64)>> {
        let names = self.folder(dir)?;
        if let Some(ino) = names.get(name) {
            return Ok(Some((name.clone(), *ino)));
        }
        if !self.folds {
            return Ok(None);
        }
        let alike = |other: &Name| folded(other) == folded(name);
        Ok(names.iter().find(|(other, _)| alike(other)).map(|(other, ino)| (other.clone(), *ino)))
    }

    /// A child that must be a folder.
    pub fn step(&self, dir: u64, name: &Name) -> io::Result<u64> {
        let ino = self.child(dir, name)?;
        self.folder(ino)?;
        Ok(ino)
    }

    /// The folder at a path below another. A symlink on the way is a loop, at the end it is no folder.
    pub fn walk(&self, dir: u64, path: &RelPath) -> io::Result<u64> {
        let last = path.names().len().saturating_sub(1);
        path.names().iter().enumerate().try_fold(dir, |at, (n, name)| match self.step(at, name) {
            Err(_) if n < last && self.is_symlink(at, name) => Err(Errno::LOOP.into()),
            found => found,
        })
    }

    fn is_symlink(&self, dir: u64, name: &Name) -> bool {
        let found = self.child(dir, name).and_then(|ino| self.get(ino));
        found.is_ok_and(|node| matches!(node.body, Body::Symlink(_)))
    }

    /// The inode at an absolute path; symlinks are not followed.
    pub fn resolve(&self, path: &[u8]) -> io::Result<u64> {
        let mut at = ROOT;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            at = self.child(at, &Name::new(part).map_err(|_| Errno::INVAL)?)?;
        }
        Ok(at)
    }

    /// A new inode without a place.
    pub fn make(&mut self, body: Body, mode: u32) -> u64 {
        let ino = self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        let mode = if matches!(body, Body::Symlink(_)) { 0o777 } else { mode & !UMASK };
        self.inodes.insert(ino, Inode::new(body, mode, self.now_ns));
        ino
    }

    /// Changes names in one step. Everything was checked.
    pub fn rename(&mut self, mut op: NameOp) {
        for (dir, name, _) in &mut op {
            // What is there keeps its spelling.
            if self.folds
                && let Ok(Some((written, _))) = self.entry(*dir, name)
            {
                *name = written;
            }
        }
        for (dir, name, _) in &op {
            if let Ok(old) = self.child(*dir, name)
                && let Some(node) = self.inodes.get_mut(&old)
            {
                self.digest = mix(self.digest, old);
                node.places.remove(&(*dir, name.clone()));
                node.ctime_ns = self.now_ns;
            }
        }
        for (dir, name, new) in &op {
            self.digest =
                name.as_bytes().iter().fold(mix(self.digest, *dir), |at, byte| mix(at, (*byte).into()));
            if let Some(Inode { body: Body::Folder { names, .. }, mtime_ns, ctime_ns, .. }) =
                self.inodes.get_mut(dir)
            {
                (*mtime_ns, *ctime_ns) = (self.now_ns, self.now_ns);
                match new {
                    Some(ino) => drop(names.insert(name.clone(), *ino)),
                    None => drop(names.remove(name)),
                }
            }
            if let Some(ino) = new
                && let Some(node) = self.inodes.get_mut(ino)
            {
                node.places.insert((*dir, name.clone()));
                node.ctime_ns = self.now_ns;
            }
        }
        for (dir, _, new) in &op {
            self.hint(*dir);
            if let Some(ino) = *new {
                self.hint_below(ino);
            }
        }
        self.pending.push(op);
    }

    /// Bytes or metadata of an inode changed.
    pub fn touched(&mut self, ino: u64) {
        self.digest = mix(self.digest, ino);
        let dirs: Vec<u64> = self
            .inodes
            .get(&ino)
            .into_iter()
            .flat_map(|node| node.places.iter().map(|(dir, _)| *dir))
            .collect();
        dirs.into_iter().for_each(|dir| self.hint(dir));
    }

    fn hint(&mut self, dir: u64) {
        if let Some(path) = self.watched_path(dir) {
            self.hints.insert(Hint::Dirty(path));
        }
    }

    /// New folders are reported with all below them, as the watcher does.
    fn hint_below(&mut self, ino: u64) {
        let mut queue = vec![ino];
        while let Some(at) = queue.pop() {
            let Ok(names) = self.folder(at) else { continue };
            queue.extend(names.values().copied());
            self.hint(at);
        }
    }

    /// The path below the synced folder, which is a child of the top; `None` in its private part and outside.
    fn watched_path(&self, dir: u64) -> Option<RelPath> {
        let mut names = self.names_of(dir)?;
        names.pop()?;
        names.reverse();
        (!names.first().is_some_and(Name::is_private_dir)).then(|| RelPath::from_names(names))
    }

    /// Names from an inode up to the top.
    fn names_of(&self, ino: u64) -> Option<Vec<Name>> {
        let (mut at, mut names) = (ino, Vec::new());
        while at != ROOT {
            let (dir, name) = self.inodes.get(&at)?.places.first()?;
            names.push(name.clone());
            at = *dir;
        }
        Some(names)
    }

    /// True when `ino` is `above` or lies below it.
    pub fn is_below(&self, ino: u64, above: u64) -> bool {
        let mut at = Some(ino);
        while let Some(here) = at {
            if here == above {
                return true;
            }
            at = self.inodes.get(&here).and_then(|node| node.places.first()).map(|(dir, _)| *dir);
        }
        false
    }

    /// A folder in which names can be made: one that was removed takes none.
    pub fn check_linked(&self, dir: u64) -> io::Result<()> {
        if dir == ROOT || !self.get(dir)?.places.is_empty() { Ok(()) } else { Err(Errno::NOENT.into()) }
    }

    pub fn meta(&self, ino: u64) -> io::Result<Meta> {
        let node = self.get(ino)?;
        let (kind, size, links) = match &node.body {
            Body::File { bytes, .. } => (EntryKind::File, bytes.len() as u64, node.places.len()),
            Body::Symlink(text) => (EntryKind::Symlink, text.len() as u64, node.places.len()),
            Body::Folder { .. } => (EntryKind::Folder, 4096, 2),
        };
        let stamp = Stamp {
            ino,
            btime_ns: Some(node.btime_ns),
            size,
            mtime_ns: node.mtime_ns,
            ctime_ns: node.ctime_ns,
            exec: node.mode & 0o100 != 0,
        };
        let links = u32::try_from(links).unwrap_or(u32::MAX);
        Ok(Meta { kind, stamp, mode: node.mode, links, device: (0, 1), mount: None })
    }

    pub fn unlock_all_of(&mut self, process: u32) {
        self.locks.retain(|_, (owner, _)| *owner != process);
    }
}

impl Inode {
    pub fn new(body: Body, mode: u32, now_ns: i64) -> Self {
        Self {
            body,
            mode,
            btime_ns: now_ns,
            mtime_ns: now_ns,
            ctime_ns: now_ns,
            durable_meta: None,
            places: BTreeSet::new(),
            handles: 0,
        }
    }
}

/// One step of FNV-1a, on 64 bits at a time: the digest only has to differ.
pub const fn mix(at: u64, value: u64) -> u64 {
    (at ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17)
}
