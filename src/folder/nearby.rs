//! Looking at many names one after the other that are mostly in one folder: it is opened once.
//!
//! For looks, and for files without a name, only. Between the opening and the use the folder may have moved, so whatever
//! changes a name goes through `Folder::parent_dir`, each time anew.

use super::fs::Dir;
use super::{EntryKind, Folder, Meta};
use crate::model::{Name, RelPath};
use std::io;

/// The folder that was looked into last. Not kept for longer than one batch.
#[derive(Debug)]
pub struct Nearby<'a> {
    folder: &'a Folder,
    last: Option<(RelPath, Dir)>,
}

impl Folder {
    /// True when a folder holds something, and nothing but sockets, fifos, devices and folders of which `like` holds.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn holds_only_special(&self, path: &RelPath, like: &dyn Fn(&RelPath) -> bool) -> io::Result<bool> {
        let dir = self.root.open_below(path)?;
        let names = dir.list()?;
        for listed in &names {
            let stays = match dir.meta_if_there(&listed.name)?.map(|meta| meta.kind) {
                Some(EntryKind::Special) => true,
                Some(EntryKind::Folder) => like(&path.join(&listed.name)),
                _ => false,
            };
            if !stays {
                return Ok(false);
            }
        }
        Ok(!names.is_empty())
    }

    /// No folder is open yet.
    pub const fn nearby(&self) -> Nearby<'_> {
        Nearby { folder: self, last: None }
    }
}

impl Nearby<'_> {
    /// The folder that holds a path, and the name in it. `None` when there is no such folder.
    pub(super) fn parent_of<'p>(&mut self, path: &'p RelPath) -> Option<(&Dir, &'p Name)> {
        let (name, parent) = path.names().split_last()?;
        let open = self.last.as_ref().is_some_and(|(at, _)| at.names() == parent);
        if !open {
            let parent = RelPath::from_names(parent.to_vec());
            let dir = self.folder.root.open_below(&parent).ok()?;
            self.last = Some((parent, dir));
        }
        self.last.as_ref().map(|(_, dir)| (dir, name))
    }

    /// What a path is. `None` when nothing is there, or it cannot be looked at.
    pub fn look(&mut self, path: &RelPath) -> Option<Meta> {
        let (dir, name) = self.parent_of(path)?;
        let found: io::Result<Option<Meta>> = dir.meta_if_there(name);
        found.ok().flatten()
    }
}
