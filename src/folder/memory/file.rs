//! Calls on an open file in memory.

use super::inode::Body;
use super::{Call, MemoryDisk};
use crate::folder::meta::Meta;
use rustix::io::Errno;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Larger files than this are a mistake of a simulation, bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// An open file of a [`MemoryDisk`]. It may have no name any more.
#[derive(Debug)]
pub struct MemoryFile {
    disk: MemoryDisk,
    ino: u64,
    /// Tells it from other handles of the same file.
    handle: u64,
    append: bool,
    at: AtomicU64,
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let mut inner = self.disk.inner();
        if inner.locks.get(&self.ino).is_some_and(|(_, handle)| *handle == self.handle) {
            inner.locks.remove(&self.ino);
        }
        inner.close(self.ino);
    }
}

impl MemoryFile {
    pub(super) fn new(disk: MemoryDisk, ino: u64, append: bool) -> Self {
        let handle = disk.inner().open(ino);
        Self { disk, ino, handle, append, at: AtomicU64::new(0) }
    }

    pub(in crate::folder) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.call(Call::Read, |inner| {
            let Body::File { bytes, .. } = &inner.get(self.ino)?.body else {
                return Err(Errno::ISDIR.into());
            };
            let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
            let len = rest.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..len), rest.get(..len)) {
                to.copy_from_slice(from);
            }
            Ok(len)
        })
    }

    pub(in crate::folder) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.read_at(buffer, self.at.load(Ordering::Relaxed))?;
        self.at.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }

    pub(in crate::folder) fn write(&self, new: &[u8]) -> io::Result<usize> {
        let at = if self.append { self.meta()?.stamp.size } else { self.at.load(Ordering::Relaxed) };
        self.write_at(new, at)?;
        self.at.store(at + new.len() as u64, Ordering::Relaxed);
        Ok(new.len())
    }

    pub(in crate::folder) fn write_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        self.change(Call::Write, |bytes| {
            let end = offset.checked_add(new.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
            let end = end.and_then(|end| usize::try_from(end).ok()).ok_or(Errno::FBIG)?;
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            if let Some(place) = bytes.get_mut(end - new.len()..end) {
                place.copy_from_slice(new);
            }
            Ok(())
        })
    }

    pub(in crate::folder) fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Call::Change, |bytes| {
            let len =
                Some(len).filter(|len| *len <= FILE_BYTES_MAX).and_then(|len| usize::try_from(len).ok());
            bytes.resize(len.ok_or(Errno::FBIG)?, 0);
            Ok(())
        })
    }

    fn change(&self, call: Call, work: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        self.disk.call(call, |inner| {
            let (now_ns, process) = (inner.now_ns, inner.process);
            let node = inner.get_mut(self.ino)?;
            let Body::File { bytes, writer, .. } = &mut node.body else { return Err(Errno::ISDIR.into()) };
            work(bytes)?;
            *writer = process;
            (node.mtime_ns, node.ctime_ns) = (now_ns, now_ns);
            inner.touched(self.ino);
            Ok(())
        })
    }

    pub(in crate::folder) fn sync(&self) -> io::Result<()> {
        self.disk.call(Call::Sync, |inner| {
            inner.persist_file(self.ino);
            Ok(())
        })
    }

    pub(in crate::folder) fn meta(&self) -> io::Result<Meta> {
        self.disk.call(Call::Look, |inner| inner.meta(self.ino))
    }

    pub(in crate::folder) fn set_meta(&self, mode: u32, mtime_ns: Option<i64>) -> io::Result<()> {
        self.disk.call(Call::Change, |inner| {
            let now_ns = inner.now_ns;
            let node = inner.get_mut(self.ino)?;
            node.mode = mode & 0o7777;
            node.mtime_ns = mtime_ns.unwrap_or(node.mtime_ns);
            node.ctime_ns = now_ns;
            inner.touched(self.ino);
            Ok(())
        })
    }

    pub(in crate::folder) fn try_lock(&self) -> io::Result<bool> {
        let owner = (self.disk.process, self.handle);
        self.disk.call(Call::Look, |inner| Ok(*inner.locks.entry(self.ino).or_insert(owner) == owner))
    }
}
