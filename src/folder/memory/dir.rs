//! Calls on a folder in memory, with the kernel's answers.

use super::inode::{Body, Inner};
use super::{Call, MemoryDisk, MemoryFile};
use crate::folder::fs::Listed;
use crate::folder::meta::{EntryKind, Meta};
use crate::model::{Name, RelPath};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;

/// An open folder of a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryDir {
    disk: MemoryDisk,
    ino: u64,
}

impl Drop for MemoryDir {
    fn drop(&mut self) {
        self.disk.inner().close(self.ino);
    }
}

impl MemoryDir {
    pub(super) fn new(disk: MemoryDisk, ino: u64) -> Self {
        disk.inner().open(ino);
        Self { disk, ino }
    }

    pub(in crate::folder) fn open_child(&self, name: &Name) -> io::Result<Self> {
        let ino = self.disk.call(Call::Look, |inner| inner.step(self.ino, name))?;
        Ok(Self::new(self.disk.clone(), ino))
    }

    pub(in crate::folder) fn open_below(&self, path: &RelPath) -> io::Result<Self> {
        let ino = self.disk.call(Call::Look, |inner| inner.walk(self.ino, path))?;
        Ok(Self::new(self.disk.clone(), ino))
    }

    pub(in crate::folder) fn meta(&self, name: &Name) -> io::Result<Meta> {
        self.disk.call(Call::Look, |inner| inner.meta(inner.child(self.ino, name)?))
    }

    pub(in crate::folder) fn own_meta(&self) -> io::Result<Meta> {
        self.disk.call(Call::Look, |inner| inner.meta(self.ino))
    }

    pub(in crate::folder) fn list(&self) -> io::Result<Vec<Listed>> {
        self.disk.call(Call::Look, |inner| {
            let names = inner.folder(self.ino)?.iter();
            let listed = names.map(|(name, ino)| {
                let hint = inner.meta(*ino).ok().map(|meta| meta.kind);
                Listed { name: name.clone(), hint }
            });
            Ok(listed.collect())
        })
    }

    pub(in crate::folder) fn open_file(&self, name: &Name) -> io::Result<Option<(MemoryFile, Meta)>> {
        let found = self.disk.call(Call::Look, |inner| {
            let Ok(ino) = inner.child(self.ino, name) else { return Ok(None) };
            let meta = inner.meta(ino)?;
            Ok((meta.kind == EntryKind::File).then_some((ino, meta)))
        })?;
        Ok(found.map(|(ino, meta)| (MemoryFile::new(self.disk.clone(), ino, false), meta)))
    }

    pub(in crate::folder) fn open_own(&self, name: &Name) -> io::Result<MemoryFile> {
        let ino = self.disk.call(Call::Look, |inner| {
            let ino = inner.child(self.ino, name)?;
            is_file(inner, ino).map(|()| ino)
        })?;
        Ok(MemoryFile::new(self.disk.clone(), ino, false))
    }

    pub(in crate::folder) fn create_file(&self, name: &Name, mode: u32) -> io::Result<MemoryFile> {
        let ino = self.disk.call(Call::Write, |inner| {
            inner.check_linked(self.ino)?;
            match inner.child(self.ino, name) {
                Ok(_) => Err(Errno::EXIST.into()),
                Err(_) => Ok(self.new_file(inner, name, mode)),
            }
        })?;
        Ok(MemoryFile::new(self.disk.clone(), ino, false))
    }

    pub(in crate::folder) fn append_file(&self, name: &Name, mode: u32) -> io::Result<MemoryFile> {
        let ino = self.disk.call(Call::Write, |inner| {
            inner.check_linked(self.ino)?;
            match inner.child(self.ino, name) {
                Ok(ino) => is_file(inner, ino).map(|()| ino),
                Err(_) => Ok(self.new_file(inner, name, mode)),
            }
        })?;
        Ok(MemoryFile::new(self.disk.clone(), ino, true))
    }

    fn new_file(&self, inner: &mut Inner, name: &Name, mode: u32) -> u64 {
        let body = Body::File { bytes: Vec::new(), durable: None, writer: inner.process };
        let ino = inner.make(body, mode);
        inner.rename(vec![(self.ino, name.clone(), Some(ino))]);
        ino
    }

    pub(in crate::folder) fn make_dir(&self, name: &Name, mode: u32) -> io::Result<()> {
        let body = Body::Folder { names: BTreeMap::new(), durable: BTreeMap::new() };
        self.make(name, body, mode)
    }

    pub(in crate::folder) fn make_symlink(&self, name: &Name, target: &[u8]) -> io::Result<()> {
        self.make(name, Body::Symlink(target.to_vec()), 0o777)
    }

    fn make(&self, name: &Name, body: Body, mode: u32) -> io::Result<()> {
        self.disk.call(Call::Write, |inner| {
            inner.check_linked(self.ino)?;
            if inner.child(self.ino, name).is_ok() {
                return Err(Errno::EXIST.into());
            }
            let ino = inner.make(body, mode);
            inner.rename(vec![(self.ino, name.clone(), Some(ino))]);
            Ok(())
        })
    }

    pub(in crate::folder) fn read_link(&self, name: &Name) -> io::Result<Vec<u8>> {
        self.disk.call(Call::Look, |inner| match &inner.get(inner.child(self.ino, name)?)?.body {
            Body::Symlink(text) => Ok(text.clone()),
            _ => Err(Errno::INVAL.into()),
        })
    }

    pub(in crate::folder) fn unlink(&self, name: &Name) -> io::Result<()> {
        self.disk.call_on(Call::Change, Some((self.ino, name)), |inner| {
            let ino = inner.child(self.ino, name)?;
            if inner.folder(ino).is_ok() {
                return Err(Errno::ISDIR.into());
            }
            inner.rename(vec![(self.ino, name.clone(), None)]);
            Ok(())
        })
    }

    pub(in crate::folder) fn remove_dir(&self, name: &Name) -> io::Result<()> {
        self.disk.call(Call::Change, |inner| {
            let ino = inner.child(self.ino, name)?;
            match &inner.get(ino)?.body {
                Body::Folder { names, .. } if names.is_empty() => {}
                Body::Folder { .. } => return Err(Errno::NOTEMPTY.into()),
                _ => return Err(Errno::NOTDIR.into()),
            }
            inner.rename(vec![(self.ino, name.clone(), None)]);
            Ok(())
        })
    }

    pub(in crate::folder) fn rename_over(&self, from: &Name, to_dir: &Self, to: &Name) -> io::Result<()> {
        self.disk.call_on(Call::Change, Some((to_dir.ino, to)), |inner| {
            let ino = self.may_move(inner, from, to_dir)?;
            if let Ok(old) = inner.child(to_dir.ino, to) {
                if old == ino {
                    return Ok(());
                }
                match (inner.folder(ino).is_ok(), inner.folder(old)) {
                    (true, Ok(names)) if !names.is_empty() => return Err(Errno::NOTEMPTY.into()),
                    (true, Err(_)) => return Err(Errno::NOTDIR.into()),
                    (false, Ok(_)) => return Err(Errno::ISDIR.into()),
                    _ => {}
                }
            }
            self.do_move(inner, from, to_dir, to, ino);
            Ok(())
        })
    }

    pub(in crate::folder) fn rename_to_free(&self, from: &Name, to_dir: &Self, to: &Name) -> io::Result<()> {
        self.disk.call_on(Call::Change, Some((self.ino, from)), |inner| {
            // The kernel looks whether the target is taken before it looks for loops.
            inner.child(self.ino, from)?;
            if inner.child(to_dir.ino, to).is_ok() {
                return Err(Errno::EXIST.into());
            }
            let ino = self.may_move(inner, from, to_dir)?;
            self.do_move(inner, from, to_dir, to, ino);
            Ok(())
        })
    }

    fn may_move(&self, inner: &Inner, from: &Name, to_dir: &Self) -> io::Result<u64> {
        let ino = inner.child(self.ino, from)?;
        inner.check_linked(to_dir.ino)?;
        if inner.folder(ino).is_ok() && inner.is_below(to_dir.ino, ino) {
            return Err(Errno::INVAL.into());
        }
        Ok(ino)
    }

    fn do_move(&self, inner: &mut Inner, from: &Name, to_dir: &Self, to: &Name, ino: u64) {
        let (gone, came) = ((self.ino, from.clone(), None), (to_dir.ino, to.clone(), Some(ino)));
        inner.rename(vec![gone, came]);
    }

    pub(in crate::folder) fn exchange(&self, a: &Name, b_dir: &Self, b: &Name) -> io::Result<bool> {
        self.disk.call_on(Call::Change, Some((b_dir.ino, b)), |inner| {
            let (ino_a, ino_b) = (inner.child(self.ino, a)?, inner.child(b_dir.ino, b)?);
            let loops = |ino, dir| inner.folder(ino).is_ok() && inner.is_below(dir, ino);
            if loops(ino_a, b_dir.ino) || loops(ino_b, self.ino) {
                return Err(Errno::INVAL.into());
            }
            if ino_a != ino_b {
                inner.rename(vec![(self.ino, a.clone(), Some(ino_b)), (b_dir.ino, b.clone(), Some(ino_a))]);
            }
            Ok(true)
        })
    }

    /// A second name for a file.
    pub fn hard_link(&self, from: &Name, to_dir: &Self, to: &Name) -> io::Result<()> {
        self.disk.call(Call::Change, |inner| {
            let ino = inner.child(self.ino, from)?;
            inner.check_linked(to_dir.ino)?;
            if inner.folder(ino).is_ok() {
                return Err(Errno::PERM.into());
            }
            if inner.child(to_dir.ino, to).is_ok() {
                return Err(Errno::EXIST.into());
            }
            inner.rename(vec![(to_dir.ino, to.clone(), Some(ino))]);
            Ok(())
        })
    }

    pub(in crate::folder) fn set_mtime(&self, name: &Name, mtime_ns: i64) -> io::Result<()> {
        self.disk.call(Call::Change, |inner| {
            let ino = inner.child(self.ino, name)?;
            let now_ns = inner.now_ns;
            let node = inner.get_mut(ino)?;
            (node.mtime_ns, node.ctime_ns) = (mtime_ns, now_ns);
            inner.touched(ino);
            Ok(())
        })
    }

    pub(in crate::folder) fn sync(&self) -> io::Result<()> {
        self.disk.call(Call::Sync, |inner| {
            inner.persist_names(self.ino);
            Ok(())
        })
    }

    pub(in crate::folder) fn sync_filesystem(&self) -> io::Result<()> {
        self.disk.call(Call::Sync, |inner| {
            inner.persist_all();
            Ok(())
        })
    }

    pub(in crate::folder) fn free_bytes(&self) -> io::Result<u64> {
        self.disk.call(Call::Look, |_| Ok(1 << 40))
    }
}

fn is_file(inner: &Inner, ino: u64) -> io::Result<()> {
    match inner.get(ino)?.body {
        Body::File { .. } => Ok(()),
        Body::Symlink(_) => Err(Errno::LOOP.into()),
        Body::Folder { .. } => Err(Errno::ISDIR.into()),
    }
}
