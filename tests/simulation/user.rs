//! A person at a machine: saves, renames and deletes as programs do, on the disk that a client syncs.

use super::dice::{Dice, Trace};
use super::saves::{Content, Saves, of_file, of_link};
use dropblock::folder::fs::{self, Dir, File};
use dropblock::folder::{Disk, EntryKind, MemoryDisk, Meta};
use dropblock::model::{Name, RelPath};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tokio::time::{Duration, Instant};

/// The synced folder on every machine.
pub const FOLDER: &str = "/sync";
const FILES: [&str; 9] = ["a", "b", "c", "d.txt", "e.tar.gz", "f", "F", "caf\u{e9}", "cafe\u{301}"];
const FOLDERS: [&str; 5] = ["x", "y", "z", "a", "f"];
/// A program has a file open for writing at most this long.
const HELD_MAX: Duration = Duration::from_millis(900);

/// One thing at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub kind: EntryKind,
    pub content: Content,
    pub mtime_ns: i64,
    pub exec: bool,
}

/// Everything in a folder, without the private part.
pub type Tree = BTreeMap<RelPath, Item>;

/// See the module.
pub struct User {
    pub number: usize,
    disk: MemoryDisk,
    /// The processes it ever was.
    processes: BTreeSet<u32>,
    dice: Dice,
    saves: Saves,
    trace: Trace,
    /// A file that a program has open: where it was, and since when.
    held: Option<(RelPath, File, Instant)>,
    counter: u64,
}

type Done = io::Result<String>;

impl User {
    pub fn new(number: usize, machine: &MemoryDisk, dice: Dice, saves: Saves, trace: Trace) -> Self {
        let disk = machine.process();
        let processes = BTreeSet::from([disk.number()]);
        Self { number, disk, processes, dice, saves, trace, held: None, counter: 0 }
    }

    /// The machine has been started again.
    pub fn log_in(&mut self, machine: &MemoryDisk) {
        self.held = None;
        self.disk = machine.process();
        self.processes.insert(self.disk.number());
    }

    /// True for a process that this user was.
    pub fn was(&self, process: u32) -> bool {
        self.processes.contains(&process)
    }

    fn root(&self) -> io::Result<Dir> {
        Disk::Memory(self.disk.clone()).open_root(Path::new(FOLDER))
    }

    /// Everything in the folder.
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        if let Ok(root) = self.root() {
            walk(&root, &RelPath::root(), &mut tree);
        }
        tree
    }

    /// Does one thing.
    pub fn act(&mut self, when: &str) {
        let choice = self.dice.weighted(&[14, 8, 8, 10, 10, 6, 6, 3, 4, 3, 2, 3, 3, 3, 4, 2, 3, 8, 3, 2]);
        let done = match choice {
            0 => self.create(),
            1 => self.append(),
            2 => self.patch(),
            3 => self.save_by_rename(),
            4 => self.rename(),
            5 => self.delete(),
            6 => self.make_folder(),
            7 => self.delete_tree(),
            8 => self.rename_folder(),
            9 => self.file_to_folder(),
            10 => self.folder_to_file(),
            11 => self.symlink(),
            12 => self.chmod(),
            13 => self.set_mtime_back(),
            // Between a look of the client and the call that changes ctime nothing could tell of such an edit.
            14 if when.ends_with("in the middle:") => Ok("nothing".to_owned()),
            14 => self.edit_keeping_mtime(),
            15 => self.hard_link(),
            16 => self.copy(),
            17 => self.hold(),
            18 => self.sync(),
            _ => self.rewrite_in_place(),
        };
        self.tell(done, when);
    }

    fn tell(&self, done: Done, when: &str) {
        let story = match done {
            Ok(story) => story,
            Err(error) => format!("nothing ({})", error.kind()),
        };
        self.trace.say(&format!("{when} user {}: {story}", self.number));
    }

    /// Does something to the very file that a client is about to replace, move or remove. Size or inode tell of it: between
    /// the client's last look and its call a time of change would not (ADR 0007).
    pub fn meddle(&mut self, path: RelPath, when: &str) {
        let done = self.place(path).and_then(|(path, dir, name)| match self.dice.below(8) {
            0..=2 => self.append_to(path, &dir, &name),
            3 | 4 => self.replace(path, &dir, &name),
            5 => self.overwrite(path, &dir, &name),
            6 => {
                let (to, to_dir, to_name) = self.any_place(&FILES)?;
                dir.rename_to_free(&name, &to_dir, &to_name)?;
                Ok(format!("moves {path} to {to}"))
            }
            _ => {
                let item = self.tree().get(&path).cloned();
                dir.unlink(&name)?;
                item.inspect(|item| self.gone_item(item, &format!("deleted {path}")));
                Ok(format!("deletes {path}"))
            }
        });
        self.tell(done, when);
    }

    /// Where the regular file with this inode is.
    pub fn path_of(&self, ino: u64) -> Option<RelPath> {
        let root = self.root().ok()?;
        let mut files = self.tree().into_iter().filter(|(_, item)| item.kind == EntryKind::File);
        let (path, _) = files.find(|(path, _)| {
            let Some((parent, name)) = path.split_last() else { return false };
            let meta = root.open_below(&parent).and_then(|dir| dir.meta(name));
            meta.is_ok_and(|meta| meta.stamp.ino == ino)
        })?;
        Some(path)
    }

    /// Goes on with a file that a program has open.
    pub fn go_on(&mut self, when: &str) {
        let Some((path, file, since)) = self.held.take() else { return };
        if since.elapsed() > HELD_MAX || self.dice.one_in(4) {
            self.trace.say(&format!("{when} user {}: closes {path}", self.number));
            return;
        }
        let Ok(meta) = fs::meta_of_file(&file) else { return };
        let Ok(old) = read_all(&file, meta.stamp.size) else { return };
        let piece = self.bytes();
        if file.write_all_at(&piece, meta.stamp.size).is_err() {
            return;
        }
        let story = format!("wrote on into {path}");
        self.gone(&old, &story);
        if meta.links > 0 {
            self.save([old, piece].concat(), &format!("{story}, inode {}", meta.stamp.ino), when);
        }
        self.trace.say(&format!("{when} user {}: {story}, inode {}", self.number, meta.stamp.ino));
        self.held = Some((path, file, since));
    }

    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    fn save(&self, bytes: Vec<u8>, story: &str, when: &str) {
        if !bytes.is_empty() {
            self.saves.saved(of_file(&bytes), format!("{when} user {} {story}", self.number));
        }
    }

    fn gone(&self, bytes: &[u8], story: &str) {
        self.saves.removed(of_file(bytes), format!("user {} {story}", self.number));
    }

    fn gone_item(&self, item: &Item, story: &str) {
        if item.kind != EntryKind::Folder {
            self.saves.removed(item.content, format!("user {} {story}", self.number));
        }
    }

    /// A content that nobody ever saved before.
    fn bytes(&mut self) -> Vec<u8> {
        self.counter += 1;
        let line = format!("user {} saves version {}\n", self.number, self.counter);
        let len = match self.dice.below(20) {
            0 => 70_000 + self.dice.index(200_000),
            1..=3 => 3_000 + self.dice.index(9_000),
            _ => line.len() + self.dice.index(600),
        };
        let salt = self.dice.next();
        let noise = (0u64..).flat_map(|n| (salt ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
        let mut bytes = line.into_bytes();
        let rest = len.saturating_sub(bytes.len());
        bytes.extend(noise.take(rest));
        bytes
    }

    fn some(&mut self, kind: EntryKind) -> Option<(RelPath, Item)> {
        let all: Vec<_> = self.tree().into_iter().filter(|(_, item)| item.kind == kind).collect();
        (!all.is_empty()).then(|| self.dice.pick(&all).clone())
    }

    fn some_file(&mut self) -> io::Result<(RelPath, Dir, Name)> {
        let (path, _) = self.some(EntryKind::File).ok_or(io::ErrorKind::NotFound)?;
        self.place(path)
    }

    fn place(&self, path: RelPath) -> io::Result<(RelPath, Dir, Name)> {
        let (parent, name) = path.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        let (dir, name) = (self.root()?.open_below(&parent)?, name.clone());
        Ok((path, dir, name))
    }

    /// A place for something, taken or not.
    fn any_place(&mut self, names: &[&str]) -> io::Result<(RelPath, Dir, Name)> {
        let folder = if self.dice.one_in(2) { None } else { self.some(EntryKind::Folder) };
        let folder = folder.map(|(path, _)| path).filter(|path| path.names().len() < 4).unwrap_or_default();
        let name = Name::new(self.dice.pick(names).as_bytes()).unwrap();
        self.place(folder.join(&name))
    }

    fn create(&mut self) -> Done {
        let (path, dir, name) = self.any_place(&FILES)?;
        if dir.meta_if_there(&name)?.is_some() {
            return self.overwrite(path, &dir, &name);
        }
        let file = dir.create_file(&name, 0o644)?;
        let bytes = self.bytes();
        file.write_all_at(&bytes, 0)?;
        self.save(bytes.clone(), &format!("created {path}"), "");
        Ok(format!("creates {path} with {} bytes, {:016x}", bytes.len(), of_file(&bytes)))
    }

    fn overwrite(&mut self, path: RelPath, dir: &Dir, name: &Name) -> Done {
        let Some((old, _)) = read(dir, name)? else { return Ok(format!("looks at {path}")) };
        let file = dir.open_own(name)?;
        // As `>` in a shell: cut, then write.
        file.set_len(0)?;
        self.gone(&old, &format!("overwrote {path}"));
        let bytes = self.bytes();
        file.write_all_at(&bytes, 0)?;
        self.save(bytes.clone(), &format!("overwrote {path}"), "");
        Ok(format!("overwrites {path} with {} bytes, {:016x}", bytes.len(), of_file(&bytes)))
    }

    fn rewrite_in_place(&mut self) -> Done {
        let (path, dir, name) = self.some_file()?;
        self.overwrite(path, &dir, &name)
    }

    fn append(&mut self) -> Done {
        let (path, dir, name) = self.some_file()?;
        self.append_to(path, &dir, &name)
    }

    fn append_to(&mut self, path: RelPath, dir: &Dir, name: &Name) -> Done {
        let Some((old, _)) = read(dir, name)? else { return Ok("nothing".to_owned()) };
        let piece = self.bytes();
        dir.open_own(name)?.write_all_at(&piece, old.len() as u64)?;
        self.gone(&old, &format!("appended to {path}"));
        let new = [old, piece].concat();
        self.save(new.clone(), &format!("appended to {path}"), "");
        Ok(format!("appends to {path}, now {:016x}", of_file(&new)))
    }

    fn patch(&mut self) -> Done {
        let (path, dir, name) = self.some_file()?;
        let Some((old, meta)) = read(&dir, &name)? else { return Ok("nothing".to_owned()) };
        let mut new = old.clone();
        self.change_same_size(&mut new);
        let file = dir.open_own(&name)?;
        // A client knows when it placed a file: in that same tick of a coarse clock nothing would tell an edit of the same
        // size apart.
        if !self.wrote(&path) && !self.has_ticked(&file, &meta)? {
            return Ok(format!("waits for the clock before {path} is patched"));
        }
        file.write_all_at(&new, 0)?;
        self.gone(&old, &format!("patched {path}"));
        self.save(new.clone(), &format!("patched {path}"), "");
        Ok(format!("patches {path}, now {:016x}", of_file(&new)))
    }

    /// True when the bytes of a file are this user's work, not a client's.
    fn wrote(&self, path: &RelPath) -> bool {
        let full = [FOLDER.as_bytes(), b"/", path.to_os_path().as_os_str().as_bytes()].concat();
        self.disk.writer_of(&full).is_some_and(|writer| self.was(writer))
    }

    /// True when a change of the file shows in its times, by now.
    fn has_ticked(&self, file: &File, before: &Meta) -> io::Result<bool> {
        fs::set_file_mode(file, before.mode)?;
        Ok(fs::meta_of_file(file)?.stamp.ctime_ns != before.stamp.ctime_ns)
    }

    fn change_same_size(&mut self, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        let at = self.dice.index(bytes.len());
        let stamp = self.dice.next().to_le_bytes();
        for (byte, new) in bytes[at..].iter_mut().zip(stamp) {
            *byte = new;
        }
    }

    /// As editors save: a new file beside it, then renamed over it.
    fn save_by_rename(&mut self) -> Done {
        let (path, dir, name) = self.some_file()?;
        self.replace(path, &dir, &name)
    }

    fn replace(&mut self, path: RelPath, dir: &Dir, name: &Name) -> Done {
        let temp = Name::new(b".saving~").unwrap();
        let Some((old, meta)) = read(dir, name)? else { return Ok("nothing".to_owned()) };
        if let Some((leftover, _)) = read(dir, &temp)? {
            dir.unlink(&temp)?;
            self.gone(&leftover, "removed a leftover of an editor");
        }
        let file = dir.create_file(&temp, meta.mode)?;
        let bytes = self.bytes();
        file.write_all_at(&bytes, 0)?;
        let synced = self.dice.one_in(3);
        if synced {
            file.sync_all()?;
        }
        dir.rename_over(&temp, dir, name)?;
        self.gone(&old, &format!("saved {path} by rename"));
        self.save(bytes.clone(), &format!("saved {path} by rename"), "");
        Ok(format!("saves {path} by rename, now {:016x}", of_file(&bytes)))
    }

    fn rename(&mut self) -> Done {
        let (from, dir, name) = self.some_file()?;
        let (to, to_dir, to_name) = self.any_place(&FILES)?;
        if self.dice.one_in(3) {
            let lost = self.tree().get(&to).cloned();
            dir.rename_over(&name, &to_dir, &to_name)?;
            if let Some(item) = lost.filter(|_| from != to) {
                self.gone_item(&item, &format!("moved {from} over {to}"));
            }
            return Ok(format!("moves {from} over {to}"));
        }
        dir.rename_to_free(&name, &to_dir, &to_name)?;
        Ok(format!("moves {from} to {to}"))
    }

    fn delete(&mut self) -> Done {
        let kind = if self.dice.one_in(5) { EntryKind::Symlink } else { EntryKind::File };
        let (path, item) = self.some(kind).ok_or(io::ErrorKind::NotFound)?;
        let (path, dir, name) = self.place(path)?;
        dir.unlink(&name)?;
        self.gone_item(&item, &format!("deleted {path}"));
        Ok(format!("deletes {path}"))
    }

    fn make_folder(&mut self) -> Done {
        let (path, dir, name) = self.any_place(&FOLDERS)?;
        dir.make_dir(&name, 0o755)?;
        Ok(format!("makes the folder {path}"))
    }

    fn delete_tree(&mut self) -> Done {
        let (path, _) = self.some(EntryKind::Folder).ok_or(io::ErrorKind::NotFound)?;
        self.remove_tree(&path)?;
        Ok(format!("deletes the folder {path}"))
    }

    fn remove_tree(&mut self, path: &RelPath) -> io::Result<()> {
        let inside: Vec<_> = self.tree().into_iter().filter(|(at, _)| at.starts_with(path)).rev().collect();
        for (at, item) in inside {
            let (at, dir, name) = self.place(at)?;
            if item.kind == EntryKind::Folder {
                dir.remove_dir(&name)?;
            } else {
                dir.unlink(&name)?;
                self.gone_item(&item, &format!("deleted {at} with its folder"));
            }
        }
        Ok(())
    }

    fn rename_folder(&mut self) -> Done {
        let (from, _) = self.some(EntryKind::Folder).ok_or(io::ErrorKind::NotFound)?;
        let (from, dir, name) = self.place(from)?;
        let (to, to_dir, to_name) = self.any_place(&FOLDERS)?;
        dir.rename_to_free(&name, &to_dir, &to_name)?;
        Ok(format!("moves the folder {from} to {to}"))
    }

    fn file_to_folder(&mut self) -> Done {
        let (path, dir, name) = self.some_file()?;
        let Some((old, _)) = read(&dir, &name)? else { return Ok("nothing".to_owned()) };
        dir.unlink(&name)?;
        self.gone(&old, &format!("made a folder of {path}"));
        dir.make_dir(&name, 0o755)?;
        Ok(format!("makes a folder of the file {path}"))
    }

    fn folder_to_file(&mut self) -> Done {
        let (path, _) = self.some(EntryKind::Folder).ok_or(io::ErrorKind::NotFound)?;
        self.remove_tree(&path)?;
        let (path, dir, name) = self.place(path)?;
        let bytes = self.bytes();
        dir.create_file(&name, 0o644)?.write_all_at(&bytes, 0)?;
        self.save(bytes.clone(), &format!("made a file of the folder {path}"), "");
        Ok(format!("makes a file of the folder {path}, {:016x}", of_file(&bytes)))
    }

    fn symlink(&mut self) -> Done {
        let (path, dir, name) = self.any_place(&FILES)?;
        self.counter += 1;
        let text = format!("../target {} {}", self.number, self.counter);
        dir.make_symlink(&name, text.as_bytes())?;
        self.saves.saved(of_link(text.as_bytes()), format!("user {} linked {path}", self.number));
        Ok(format!("makes the symlink {path}"))
    }

    fn chmod(&mut self) -> Done {
        let (path, dir, name) = self.some_file()?;
        let meta = dir.meta(&name)?;
        fs::set_file_mode(&dir.open_own(&name)?, meta.mode ^ 0o111)?;
        Ok(format!("turns the executable bits of {path}"))
    }

    fn set_mtime_back(&mut self) -> Done {
        let (path, dir, name) = self.some_file()?;
        let back_ns = i64::try_from(self.dice.below(400 * 24 * 3600)).unwrap() * 1_000_000_000;
        let mtime_ns = dir.meta(&name)?.stamp.mtime_ns - back_ns;
        dir.set_mtime(&name, mtime_ns)?;
        Ok(format!("sets the time of {path} back"))
    }

    fn edit_keeping_mtime(&mut self) -> Done {
        let (path, dir, name) = self.some_file()?;
        let Some((old, meta)) = read(&dir, &name)? else { return Ok("nothing".to_owned()) };
        let mut new = old.clone();
        self.change_same_size(&mut new);
        let file = dir.open_own(&name)?;
        // Within one tick of the clock, or while it stands, nothing would tell that the file was written to.
        if !self.has_ticked(&file, &meta)? {
            return Ok(format!("waits for the clock before {path} is edited"));
        }
        file.write_all_at(&new, 0)?;
        fs::set_file_meta(&file, meta.mode, meta.stamp.mtime_ns)?;
        self.gone(&old, &format!("edited {path} keeping its time"));
        self.save(new.clone(), &format!("edited {path} keeping its time"), "");
        Ok(format!("edits {path} keeping size and time, now {:016x}", of_file(&new)))
    }

    fn hard_link(&mut self) -> Done {
        let (from, dir, name) = self.some_file()?;
        let (to, to_dir, to_name) = self.any_place(&FILES)?;
        let (Dir::Memory(dir), Dir::Memory(to_dir)) = (&dir, &to_dir) else {
            unreachable!("all disks are in memory")
        };
        dir.hard_link(&name, to_dir, &to_name)?;
        Ok(format!("links {from} as {to}"))
    }

    fn copy(&mut self) -> Done {
        let (from, dir, name) = self.some_file()?;
        let (to, to_dir, to_name) = self.any_place(&FILES)?;
        let Some((bytes, _)) = read(&dir, &name)? else { return Ok("nothing".to_owned()) };
        to_dir.create_file(&to_name, 0o644)?.write_all_at(&bytes, 0)?;
        self.save(bytes, &format!("copied {from} to {to}"), "");
        Ok(format!("copies {from} to {to}"))
    }

    /// Opens a file and writes to it for a while.
    fn hold(&mut self) -> Done {
        if self.held.is_some() {
            return Ok("waits for a program".to_owned());
        }
        let (path, dir, name) = if self.dice.one_in(2) {
            let (path, dir, name) = self.any_place(&FILES)?;
            let _ = dir.create_file(&name, 0o644);
            (path, dir, name)
        } else {
            self.some_file()?
        };
        self.held = Some((path.clone(), dir.open_own(&name)?, Instant::now()));
        Ok(format!("opens {path} for writing"))
    }

    /// Has a file made durable, with its way to the top.
    fn sync(&mut self) -> Done {
        let (path, item) = self.some(EntryKind::File).ok_or(io::ErrorKind::NotFound)?;
        let (path, dir, name) = self.place(path)?;
        dir.open_own(&name)?.sync_all()?;
        for depth in 0..path.names().len() {
            self.root()?.open_below(&RelPath::from_names(path.names()[..depth].to_vec()))?.sync()?;
        }
        self.saves.secured(item.content);
        Ok(format!("syncs {path}"))
    }

    /// The system makes everything durable by itself.
    pub fn write_back(&self) {
        self.disk.write_back();
        for item in self.tree().values().filter(|item| item.kind != EntryKind::Folder) {
            self.saves.secured(item.content);
        }
    }
}

/// The bytes of a regular file, and what it is.
fn read(dir: &Dir, name: &Name) -> io::Result<Option<(Vec<u8>, dropblock::folder::Meta)>> {
    let Some((mut file, meta)) = dir.open_file(name)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some((bytes, meta)))
}

fn read_all(file: &File, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Everything below a folder.
pub fn walk(dir: &Dir, at: &RelPath, tree: &mut Tree) {
    let Ok(names) = dir.list() else { return };
    for name in names.into_iter().map(|listed| listed.name) {
        if at.is_root() && name.is_private_dir() {
            continue;
        }
        let Ok(meta) = dir.meta(&name) else { continue };
        let path = at.join(&name);
        let content = match meta.kind {
            EntryKind::File => read(dir, &name).ok().flatten().map_or(0, |(bytes, _)| of_file(&bytes)),
            EntryKind::Symlink => dir.read_link(&name).map_or(0, |text| of_link(&text)),
            _ => 0,
        };
        let folder = meta.kind == EntryKind::Folder;
        let mtime_ns = if folder { 0 } else { meta.stamp.mtime_ns };
        let exec = meta.kind == EntryKind::File && meta.stamp.exec;
        tree.insert(path.clone(), Item { kind: meta.kind, content, mtime_ns, exec });
        if folder && let Ok(child) = dir.open_child(&name) {
            walk(&child, &path, tree);
        }
    }
}

/// All contents on a disk with their places, also those in private parts.
pub fn contents(machine: &MemoryDisk) -> BTreeSet<(Content, RelPath)> {
    let mut tree = Tree::new();
    if let Ok(root) = Disk::Memory(machine.process()).open_root(Path::new("/")) {
        walk(&root, &RelPath::root(), &mut tree);
    }
    let files = tree.into_iter().filter(|(_, item)| item.kind != EntryKind::Folder);
    files.map(|(path, item)| (item.content, path)).collect()
}
