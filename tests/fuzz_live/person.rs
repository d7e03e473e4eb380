//! A person who changes a folder without asking anyone: all that the system calls allow, on few names.
//!
//! A person knows what they destroy: contents are read through the file that is then changed or removed. Only an
//! overwriting rename can meet something that came an instant before; the ledger is told.

use crate::ledger::{self, Content, Ledger, short};
use crate::support::disk::Folder;
use crate::support::random_bytes;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// So few that everything collides.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Numbers that follow from a seed (xorshift64*).
pub struct Dice(u64);

impl Dice {
    /// From a seed; neighbours give unlike numbers.
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        dice.next();
        dice
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 20) % end
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// One person and their folder.
pub struct Person<'a> {
    name: String,
    top: PathBuf,
    /// Outside the folder: where things are moved out to, and temporary files of editors are.
    out: PathBuf,
    dice: Dice,
    ledger: &'a Ledger,
    count: u64,
    tag: u64,
}

/// Something that was looked at, open so that it stays known.
struct Held {
    fd: OwnedFd,
    content: Option<Content>,
}

impl Held {
    /// `None` when nothing is there.
    fn at(path: &Path) -> io::Result<Option<Self>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::open(path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            other => other?,
        };
        let content = match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::RegularFile => {
                let bytes = fs::read(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
                (!bytes.is_empty()).then(|| ledger::file(&bytes))
            }
            FileType::Symlink => Some(ledger::link(rustix::fs::readlinkat(&fd, "", Vec::new())?.as_bytes())),
            _ => None,
        };
        Ok(Some(Self { fd, content }))
    }

    fn is_folder(&self) -> bool {
        rustix::fs::fstat(&self.fd)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    fn links(&self) -> i128 {
        rustix::fs::fstat(&self.fd).map_or(0, |stat| i128::from(stat.st_nlink))
    }

    fn inode(&self) -> u64 {
        rustix::fs::fstat(&self.fd).map_or(0, |stat| stat.st_ino)
    }
}

impl<'a> Person<'a> {
    /// Who changes `folder`.
    pub fn new(folder: &Folder, out: PathBuf, seed: u64, ledger: &'a Ledger) -> Self {
        let (name, top) = (folder.name(), folder.path().to_owned());
        Self { name, top, out, dice: Dice::new(seed), ledger, count: 0, tag: seed }
    }

    /// Changes things until then.
    pub fn storm(mut self, until: Instant) {
        while Instant::now() < until {
            self.count += 1;
            let (what, done) = self.deed();
            let end = done.err().map_or_else(|| "done".to_owned(), |error| format!("{:?}", error.kind()));
            self.ledger.note(format!("{}: {what}: {end}", self.name));
            // Bursts, and pauses in which a change travels.
            let pause = match self.dice.below(8) {
                0..4 => 0,
                4..7 => self.dice.below(20),
                _ => self.dice.below(150),
            };
            sleep(Duration::from_millis(pause));
        }
    }

    fn deed(&mut self) -> (String, io::Result<()>) {
        let (some, other, any) = (self.existing(), self.existing(), self.any());
        let (s, o, a) = (self.shown(&some), self.shown(&other), self.shown(&any));
        match self.dice.below(100) {
            0..16 => (format!("write {a}"), self.write(&any)),
            16..22 => (format!("write {s}"), self.write(&some)),
            22..28 => (format!("save {a} from outside"), self.save(&any, false)),
            28..34 => (format!("save {s} from beside"), self.save(&some, true)),
            34..42 => (format!("append to {s}"), self.append(&some)),
            42..45 => (format!("truncate {s}"), self.truncate(&some)),
            45..57 => (format!("rename {s} to {a}"), self.rename(&some, &any)),
            57..61 => (format!("rename {s} to {o}"), self.rename(&some, &other)),
            61..64 => (format!("exchange {s} and {o}"), exchange(&some, &other)),
            64..67 => (format!("swap {s} and {o}"), self.swap(&some, &other)),
            67..70 => (format!("link {s} as {a}"), fs::hard_link(&some, &any)),
            70..74 => (format!("symlink {a}"), self.symlink(&any)),
            74..81 => (format!("delete {s}"), self.delete(&some)),
            81..84 => (format!("move out {s}"), self.move_out(&some)),
            84..87 => (format!("make anew {s}"), self.anew(&some)),
            87..90 => (format!("turn into the other kind {s}"), self.turn(&some)),
            90..93 => (format!("chmod {s}"), self.chmod(&some)),
            93..96 => (format!("touch {s}"), self.touch(&some)),
            96..98 => (format!("copy {s} to {a}"), self.copy(&some, &any)),
            _ => (format!("mkdir {a}"), fs::create_dir_all(&any)),
        }
    }

    /// A path that may or may not be there.
    fn any(&mut self) -> PathBuf {
        let depth = *self.dice.one(&[1, 1, 1, 2, 2, 3]);
        let mut path = self.top.clone();
        for _ in 0..depth {
            path.push(self.dice.one(&NAMES));
        }
        path
    }

    /// Something that is there, if anything is.
    fn existing(&mut self) -> PathBuf {
        let mut at = self.top.clone();
        loop {
            let Ok(entries) = fs::read_dir(&at) else { return at };
            let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            paths.retain(|path| !path.ends_with(".dropblock"));
            paths.sort();
            if paths.is_empty() {
                return if at == self.top { self.any() } else { at };
            }
            at = self.dice.one(&paths).clone();
            let is_folder = at.symlink_metadata().is_ok_and(|meta| meta.is_dir());
            if !is_folder || self.dice.below(3) == 0 {
                return at;
            }
        }
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.top).unwrap_or(path).display().to_string()
    }

    fn saved(&self, content: Content, path: &Path) {
        self.ledger.saved(content, format!("{}:{} as {}", self.name, self.shown(path), short(&content)));
    }

    /// Bytes that nobody has written before.
    fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = format!("{} {} of {}\n", self.name, self.count, self.tag).into_bytes();
        if self.dice.below(12) == 0 {
            let len = 1000 + self.dice.below(400_000) as usize;
            bytes.extend(random_bytes(self.dice.next(), len));
        }
        bytes
    }

    /// Does what removes `held` from its path. Its content may live on under another name, but nobody can count on that.
    fn destroying(&self, held: Held, operation: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let before = held.links();
        operation()?;
        match held.content {
            _ if held.links() >= before => self.ledger.blind(),
            Some(content) => self.ledger.destroyed(content),
            None => {}
        }
        Ok(())
    }

    /// A rename that overwrites only what was seen before.
    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        match Held::at(to)? {
            Some(held) => self.destroying(held, || fs::rename(from, to)),
            None => rename_free(from, to),
        }
    }

    /// In place: what was there is read through the same file.
    fn change(&mut self, path: &Path, create: bool, new: impl FnOnce(&[u8]) -> Vec<u8>) -> io::Result<()> {
        let nofollow = OFlags::NOFOLLOW.bits() as i32;
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(create).custom_flags(nofollow);
        let mut file = options.open(path)?;
        let mut old = Vec::new();
        file.read_to_end(&mut old)?;
        let new = new(&old);
        if new.len() > old.len() && new.starts_with(&old) {
            file.write_all(&new[old.len()..])?;
        } else if old.starts_with(&new) {
            file.set_len(new.len() as u64)?;
        } else {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&new)?;
        }
        if !old.is_empty() {
            self.ledger.destroyed(ledger::file(&old));
        }
        if !new.is_empty() {
            self.saved(ledger::file(&new), path);
        }
        Ok(())
    }

    fn write(&mut self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let bytes = self.bytes();
        self.change(path, true, |_| bytes)
    }

    fn append(&mut self, path: &Path) -> io::Result<()> {
        let more = self.bytes();
        self.change(path, false, |old| [old, &more].concat())
    }

    fn truncate(&mut self, path: &Path) -> io::Result<()> {
        self.change(path, false, |old| old[..old.len() / 2].to_vec())
    }

    /// As editors do: a new file, renamed over the old.
    fn save(&mut self, path: &Path, beside: bool) -> io::Result<()> {
        let temp = if beside { path.with_extension("tmp") } else { self.out.join("tmp") };
        let bytes = self.bytes();
        fs::OpenOptions::new().write(true).create_new(true).open(&temp)?.write_all(&bytes)?;
        let content = ledger::file(&bytes);
        if let Err(error) = self.rename_over(&temp, path) {
            return fs::remove_file(&temp).and(Err(error));
        }
        self.saved(content, path);
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = |path: &Path| Held::at(path).ok().flatten().map(|held| held.inode());
        if inode(from).is_some() && inode(from) == inode(to) {
            // Two names of one file: nothing would happen.
            return Ok(());
        }
        self.rename_over(from, to)
    }

    fn swap(&mut self, one: &Path, other: &Path) -> io::Result<()> {
        let between = self.top.join("between");
        rename_free(one, &between)?;
        rename_free(other, one).and_then(|()| rename_free(&between, other))
    }

    fn symlink(&mut self, path: &Path) -> io::Result<()> {
        let target = format!("{} {} of {}", self.name, self.count, self.tag);
        std::os::unix::fs::symlink(&target, path)?;
        self.saved(ledger::link(target.as_bytes()), path);
        Ok(())
    }

    fn delete(&self, path: &Path) -> io::Result<()> {
        let Some(held) = Held::at(path)? else { return Ok(()) };
        if !held.is_folder() {
            return self.destroying(held, || fs::remove_file(path));
        }
        for entry in fs::read_dir(path)? {
            self.delete(&entry?.path())?;
        }
        fs::remove_dir(path)
    }

    /// To another place on the same disk: for the folder that is a delete.
    fn move_out(&self, path: &Path) -> io::Result<()> {
        fs::rename(path, self.out.join(format!("{}-{}", self.tag, self.count)))
    }

    fn anew(&mut self, path: &Path) -> io::Result<()> {
        self.delete(path)?;
        fs::create_dir(path)?;
        let name = *self.dice.one(&NAMES);
        self.write(&path.join(name))
    }

    fn turn(&mut self, path: &Path) -> io::Result<()> {
        let was_folder = path.symlink_metadata()?.is_dir();
        self.delete(path)?;
        if was_folder { self.write(path) } else { fs::create_dir(path) }
    }

    fn chmod(&mut self, path: &Path) -> io::Result<()> {
        let meta = path.symlink_metadata()?;
        if !meta.is_file() {
            return Ok(());
        }
        fs::set_permissions(path, fs::Permissions::from_mode(meta.permissions().mode() ^ 0o111))
    }

    fn touch(&mut self, path: &Path) -> io::Result<()> {
        let (secs, nanos) = (self.dice.below(2_000_000_000), self.dice.below(1_000_000_000));
        let time = Timespec { tv_sec: secs as i64, tv_nsec: nanos as i64 };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn copy(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let bytes = fs::read(from)?;
        self.change(to, true, |_| bytes)
    }
}

fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

fn rename_free(from: &Path, to: &Path) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}
