//! Files that came out of the folder, kept until it is certain that nobody wrote to them any more.
//!
//! A program that had a file open when it was replaced or deleted goes on writing to what is now in the trash. So
//! each file is looked at again after a while: unchanged, it is deleted (its content is on the server, and in its
//! history); changed, it goes back beside where it was, as a file of its own.

use super::fs::Dir;
use super::names::TrashName;
use super::{Folder, FolderError, Stamp};
use crate::model::path::PRIVATE_DIR;
use crate::model::{Name, NodeId, RelPath};
use std::collections::HashMap;
use std::io;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a file stays at least.
pub const TRASH_WAIT: Duration = Duration::from_secs(2);
/// Tries to find a free name before giving up.
const NAMES_MAX: u32 = 1000;

/// A file in the trash, or one that could not be brought there.
#[derive(Debug)]
pub struct Waiting {
    in_stage: bool,
    name: Name,
    /// Where it was.
    path: RelPath,
    /// How it looked when it came in.
    stamp: Stamp,
    since: Instant,
}

impl Folder {
    /// Looks again at files that have been in the trash for [`TRASH_WAIT`]. Returns the paths of those that were
    /// written to meanwhile and are now in the folder again; `names` gives names for them: first argument the name
    /// they had, second how many were tried already.
    pub fn sweep_trash(
        &self,
        now: Instant,
        names: &mut dyn FnMut(&Name, u32) -> Name,
    ) -> Result<Vec<RelPath>, FolderError> {
        let due = {
            let mut waiting = self.waiting();
            let (due, rest) = std::mem::take(&mut *waiting)
                .into_iter()
                .partition(|entry| now.saturating_duration_since(entry.since) >= TRASH_WAIT);
            *waiting = rest;
            let due: Vec<Waiting> = due;
            due
        };
        let (mut rescued, mut failed) = (Vec::new(), None);
        for entry in due {
            match self.sweep_one(&entry, names) {
                Ok(path) => rescued.extend(path),
                Err(error) => {
                    failed = Some(error);
                    self.waiting().push(Waiting { since: now, ..entry });
                }
            }
        }
        match failed {
            Some(error) if rescued.is_empty() => Err(self.failed_private("clear the trash in")(error)),
            _ => Ok(rescued),
        }
    }

    /// How long to wait before a sweep finds a place for everything that came out and could not be brought to the trash;
    /// `None` when all could.
    pub fn sweep_wait(&self) -> Option<Duration> {
        self.waiting().iter().any(|entry| entry.in_stage).then_some(TRASH_WAIT)
    }

    /// Files that are still in the trash: where each was, and where it is now, as [`Folder::open_file`] takes it.
    pub fn trashed(&self) -> HashMap<RelPath, RelPath> {
        let Ok(trash) = RelPath::parse(format!("{PRIVATE_DIR}/trash").as_bytes()) else {
            return HashMap::new();
        };
        let waiting = self.waiting();
        let files = waiting.iter().filter(|entry| !entry.in_stage);
        files.map(|entry| (entry.path.clone(), trash.join(&entry.name))).collect()
    }

    /// Files that wait in the trash.
    pub fn trash_len(&self) -> usize {
        self.waiting().len()
    }

    pub(super) fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sweep_one(
        &self,
        entry: &Waiting,
        names: &mut dyn FnMut(&Name, u32) -> Name,
    ) -> io::Result<Option<RelPath>> {
        let dir = if entry.in_stage { &self.stage } else { &self.trash };
        let Some(now) = dir.meta_if_there(&entry.name)? else { return Ok(None) };
        // With another name left (a hard link) its bytes are not lost with this one.
        if now.stamp == entry.stamp || now.links > 1 {
            dir.unlink(&entry.name)?;
            return Ok(None);
        }
        self.put_back(dir, &entry.name, &entry.path, names).map(Some)
    }

    /// Moves a file into the trash, as node `id` last agreed with the stamp `agreed`.
    pub(super) fn move_to_trash(
        &self,
        from: &Dir,
        from_name: &Name,
        id: NodeId,
        agreed: &Stamp,
    ) -> io::Result<Name> {
        let name = TrashName::of(id, agreed).to_name()?;
        from.rename_to_free(from_name, &self.trash, &name)?;
        Ok(name)
    }

    /// Takes note of a file in the trash that must be looked at again. `known` is how it looked when it was found to be
    /// replaceable: what was written to it since then goes back too.
    pub(super) fn watch_trash(&self, name: Name, path: RelPath, known: &Stamp) -> io::Result<()> {
        let found = self.trash.meta(&name)?.stamp;
        let now = self.disk.instant();
        // What an earlier run left has waited already.
        let since =
            if is_old(&found, self.disk.now_ns()) { now.checked_sub(TRASH_WAIT).unwrap_or(now) } else { now };
        let stamp = if found.same_bytes(known) { found } else { found.distrusted() };
        self.waiting().push(Waiting { in_stage: false, name, path, stamp, since });
        Ok(())
    }

    /// Takes note of what came out and could not be put anywhere, because the disk failed: as it was last agreed, or (`None`) an
    /// edit. It is the only copy of whatever it is.
    pub(super) fn watch_came_out(&self, dir: &Dir, name: Name, path: RelPath, agreed: Option<&Stamp>) {
        let now = dir.meta(&name).map(|meta| meta.stamp).ok();
        let unedited = now.filter(|now| agreed.is_some_and(|agreed| now.same_bytes(agreed)));
        let in_stage = std::ptr::eq(dir, &raw const self.stage);
        let stamp = unedited.unwrap_or(Stamp::NONE);
        self.waiting().push(Waiting { in_stage, name, path, stamp, since: self.disk.instant() });
    }

    /// Moves a private file out to its path, or beside it when the place is taken, or to the top when its folder is
    /// gone too.
    pub(super) fn put_back(
        &self,
        from: &Dir,
        from_name: &Name,
        path: &RelPath,
        names: &mut dyn FnMut(&Name, u32) -> Name,
    ) -> io::Result<RelPath> {
        let Some((parent, name)) = path.split_last() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let (dir, parent) = match self.root.open_below(&parent) {
            Ok(dir) => (dir, parent),
            Err(error) if super::is_absent(&error) => {
                (self.root.open_below(&RelPath::root())?, RelPath::root())
            }
            Err(error) => return Err(error),
        };
        match from.rename_to_free(from_name, &dir, name) {
            Ok(()) => return Ok(parent.join(name)),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
        }
        let mut attempt = 0;
        let beside = move_beside(from, from_name, &dir, &mut || {
            attempt += 1;
            names(name, attempt - 1)
        })?;
        Ok(parent.join(&beside))
    }
}

/// Moves a file to the first free name.
pub(super) fn move_beside(
    from: &Dir,
    from_name: &Name,
    dir: &Dir,
    names: &mut dyn FnMut() -> Name,
) -> io::Result<Name> {
    for _ in 0..NAMES_MAX {
        let name = names();
        match from.rename_to_free(from_name, dir, &name) {
            Ok(()) => return Ok(name),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// True when a file came into the trash longer than [`TRASH_WAIT`] ago (the rename set its change time).
fn is_old(stamp: &Stamp, now_ns: i64) -> bool {
    let age_ns = now_ns.saturating_sub(stamp.ctime_ns.max(0));
    u128::try_from(age_ns).is_ok_and(|age_ns| age_ns >= TRASH_WAIT.as_nanos())
}
