//! What the disk of a [`MemoryStore`](super::MemoryStore) does to it: it is full for a while, or breaks for good.

use crate::storage::{Result, StorageError};
use std::path::Path;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default)]
pub struct Disk {
    /// So many more requests that bring blocks find it full.
    full: u32,
    /// So many more commits go well, then it breaks; the one that was being recorded is there, or not.
    breaks: Option<(u32, bool)>,
    broken: Option<Arc<StorageError>>,
}

impl Disk {
    /// See [`MemoryStore::fill`](super::MemoryStore::fill).
    pub const fn fill(&mut self, times: u32) {
        self.full = times;
    }

    /// See [`MemoryStore::break_after`](super::MemoryStore::break_after).
    pub const fn break_after(&mut self, spared: u32, recorded: bool) {
        self.breaks = Some((spared, recorded));
    }

    /// An error once it is broken.
    pub fn check(&self) -> Result<()> {
        self.broken.as_ref().map_or(Ok(()), |cause| Err(StorageError::Failed(cause.clone())))
    }

    /// Before new blocks are taken.
    pub fn take_room(&mut self) -> Result<()> {
        if self.full == 0 {
            return Ok(());
        }
        self.full -= 1;
        Err(StorageError::Full("memory".into()))
    }

    /// Before a commit is recorded. When the disk breaks after it, [`check`](Self::check) fails from now on.
    pub fn before_record(&mut self) -> Result<()> {
        let Some((spared, recorded)) = &mut self.breaks else { return Ok(()) };
        if let Some(left) = spared.checked_sub(1) {
            *spared = left;
            return Ok(());
        }
        let recorded = *recorded;
        let source = std::io::Error::other("the disk is broken");
        self.broken = Some(Arc::new(StorageError::io("write", Path::new("memory"), source)));
        if recorded { Ok(()) } else { self.check() }
    }
}
