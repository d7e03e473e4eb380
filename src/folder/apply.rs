//! Single changes of the folder. Each looks at the world right before it acts, and at what came out afterwards.
//!
//! No change overwrites or deletes bytes that are not known: what is replaced or deleted goes to the trash, and when
//! it turns out not to be what was expected, it is an edit of the user and goes back into the folder. When the world
//! is not as expected beforehand, nothing happens and the outcome is `Raced`: scan the place and plan again.
//!
//! A stamp in an outcome is safe to record as agreed: where the file may have changed since the look before the
//! change, the stamp is one that no file has, so that the next scan reports the file as touched.

use super::fs::{self, Dir};
use super::meta::with_exec;
use super::names::StageName;
use super::trash::move_beside;
use super::{EntryKind, Folder, FolderError, Meta, Stamp, names, stage};
use crate::model::{FileContent, Name, NodeId, RelPath};
use stage::{Staged, StagedFile};
use std::collections::BTreeSet;
use std::io;

/// Up to this many folders are synced one by one.
const SINGLE_DIR_SYNCS_MAX: usize = 64;

/// How a change ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done {
        /// How the node looks on disk now.
        stamp: Stamp,
    },
    /// Done; what came out was not what the base says and is now beside it under this name.
    DoneBeside {
        /// How the node looks on disk now.
        stamp: Stamp,
        /// Where the user's version is, in the same folder.
        beside: Name,
    },
    /// Nothing was done: the place is not as expected.
    Raced,
    /// Nothing was done: the folder holds something.
    NotEmpty,
    /// Nothing was there to be removed. The wish is fulfilled.
    Gone,
}

impl Folder {
    /// Puts a staged file or symlink in its place. `expect: None`: the place must be free. `Some`: it must hold the
    /// file with this stamp, which goes to the trash; if it was edited in the last instant, it goes beside, under the
    /// first free name of `beside`. Permission bits of the replaced file are kept, except for the executable ones.
    ///
    /// Hard links of the replaced file keep the old content.
    pub fn place(
        &self,
        staged: &Staged,
        to: &RelPath,
        expect: Option<&Stamp>,
        beside: &mut dyn FnMut() -> Name,
    ) -> Result<Outcome, FolderError> {
        self.place_with(staged, to, expect, beside, &mut || {})
    }

    /// [`Folder::place`] with something to happen between look and swap: the race that tests provoke.
    pub(super) fn place_with(
        &self,
        staged: &Staged,
        to: &RelPath,
        expect: Option<&Stamp>,
        beside: &mut dyn FnMut() -> Name,
        between: &mut dyn FnMut(),
    ) -> Result<Outcome, FolderError> {
        let Some((dir, name)) = self.parent_dir(to)? else { return Ok(Outcome::Raced) };
        let failed = self.failed("replace", to);
        let Some(expect) = expect else {
            between();
            let placed = match &staged.nameless {
                Some(nameless) => dir.give_name(&nameless.file, name),
                None => self.stage.rename_to_free(&staged.name, &dir, name),
            };
            return match placed {
                Ok(()) => Ok(Outcome::Done { stamp: placed_stamp(&dir, name, staged) }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Outcome::Raced),
                Err(error) => Err(failed(error)),
            };
        };
        match dir.meta_if_there(name).map_err(&failed)? {
            Some(now) if now.stamp == *expect => self.keep_mode(staged, &now).map_err(&failed)?,
            _ => return Ok(Outcome::Raced),
        }
        between();
        let Some(out) = self.swap(staged, &dir, name, expect).map_err(&failed)? else {
            return Ok(Outcome::Raced);
        };
        let stamp = placed_stamp(&dir, name, staged);
        // In place. What came out is kept from here on, whatever fails.
        let found = out.dir.meta(&out.name);
        if found.as_ref().is_ok_and(|found| found.stamp.same_bytes(expect)) {
            if let Err(error) = self.retire(&out, staged.id, expect, to) {
                tracing::warn!(%error, path = %to, "what was replaced is not in the trash yet");
                self.watch_came_out(out.dir, out.name, to.clone(), Some(expect));
            }
            return Ok(Outcome::Done { stamp });
        }
        let moved = found.and_then(|_| move_beside(out.dir, &out.name, &dir, beside));
        let beside = moved.map_err(|error| {
            self.watch_came_out(out.dir, out.name, to.clone(), None);
            failed(error)
        })?;
        Ok(Outcome::DoneBeside { stamp, beside })
    }

    /// Puts a staged file or symlink in a place and what is there beside it, whatever it is: a conflict. `Raced` when
    /// nothing is there.
    pub fn displace(
        &self,
        staged: &Staged,
        to: &RelPath,
        beside: &mut dyn FnMut() -> Name,
    ) -> Result<Outcome, FolderError> {
        let Some((dir, name)) = self.parent_dir(to)? else { return Ok(Outcome::Raced) };
        let failed = self.failed("replace", to);
        let Some(now) = dir.meta_if_there(name).map_err(&failed)? else { return Ok(Outcome::Raced) };
        self.keep_mode(staged, &now).map_err(&failed)?;
        // In the trash it would look like an agreed file, so where names cannot be swapped it expects the impossible.
        let expect = now.stamp.distrusted();
        let expect = Stamp { mtime_ns: i64::MIN, ..expect };
        let Some(out) = self.swap(staged, &dir, name, &expect).map_err(&failed)? else {
            return Ok(Outcome::Raced);
        };
        let stamp = placed_stamp(&dir, name, staged);
        let beside = move_beside(out.dir, &out.name, &dir, beside).map_err(|error| {
            self.watch_came_out(out.dir, out.name, to.clone(), None);
            failed(error)
        })?;
        Ok(Outcome::DoneBeside { stamp, beside })
    }

    /// Swaps a staged file with what stands at a name. `None` when nothing stands there any more.
    ///
    /// Where the filesystem cannot swap, the old one goes to the trash first and the name is free for an instant; a
    /// crash then is repaired by [`Folder::recover`], which puts it back.
    fn swap<'a>(
        &'a self,
        staged: &Staged,
        dir: &Dir,
        name: &Name,
        expect: &Stamp,
    ) -> io::Result<Option<CameOut<'a>>> {
        let own = self.name_for_swap(staged)?;
        let out = self.swap_named((&own, staged.id), dir, name, expect);
        if own != staged.name && !matches!(out, Ok(Some(_))) {
            // Still staged under the name that the caller knows, if it had one; if that fails, recovery finds it by the other.
            let _ = self.unname(staged, &own);
        }
        out
    }

    fn swap_named<'a>(
        &'a self,
        (own, id): (&Name, NodeId),
        dir: &Dir,
        name: &Name,
        expect: &Stamp,
    ) -> io::Result<Option<CameOut<'a>>> {
        match self.stage.exchange(own, dir, name) {
            Ok(true) => return Ok(Some(CameOut { dir: &self.stage, name: own.clone() })),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let out = match self.move_to_trash(dir, name, id, expect) {
            Ok(out) => out,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match self.stage.rename_to_free(own, dir, name) {
            Ok(()) => Ok(Some(CameOut { dir: &self.trash, name: out })),
            // Somebody made a new file meanwhile: it stays, and so does the staged one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !self.trash.meta(&out)?.stamp.same_bytes(expect) {
                    move_beside(&self.trash, &out, dir, &mut attempts(name))?;
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Moves an agreed file that came out to the trash.
    fn retire(&self, out: &CameOut<'_>, id: NodeId, agreed: &Stamp, path: &RelPath) -> io::Result<()> {
        let name = if std::ptr::eq(out.dir, &raw const self.trash) {
            out.name.clone()
        } else {
            self.move_to_trash(out.dir, &out.name, id, agreed)?
        };
        self.watch_trash(name, path.clone(), agreed)
    }

    /// A file that others may not read stays so when its content is replaced.
    fn keep_mode(&self, staged: &Staged, old: &Meta) -> io::Result<()> {
        let mode = with_exec(old.mode, staged.stamp.exec);
        if staged.kind != EntryKind::File || old.kind != EntryKind::File || mode == staged.mode {
            return Ok(());
        }
        match &staged.nameless {
            Some(nameless) => fs::set_file_mode(&nameless.file, mode),
            None => fs::set_file_mode(&self.stage.open_own(&staged.name)?, mode),
        }
    }

    /// Makes a folder. An existing one is as good: `Done` with its stamp.
    pub fn make_folder(&self, path: &RelPath) -> Result<Outcome, FolderError> {
        self.make_folder_with(path, &mut || {})
    }

    pub(super) fn make_folder_with(
        &self,
        path: &RelPath,
        between: &mut dyn FnMut(),
    ) -> Result<Outcome, FolderError> {
        let Some((dir, name)) = self.parent_dir(path)? else { return Ok(Outcome::Raced) };
        let failed = self.failed("make", path);
        let made = match dir.make_dir(name, 0o755) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            made => made.is_ok(),
        };
        between();
        match dir.meta_if_there(name).map_err(&failed)? {
            // On a disk that folds names it may be another folder, the private one even.
            Some(_) if !made && !is_written(&dir, name).map_err(&failed)? => Ok(Outcome::Raced),
            Some(meta) if meta.kind == EntryKind::Folder => Ok(Outcome::Done { stamp: meta.stamp }),
            // The user has deleted or renamed it since then. Made once more, that would come to nothing.
            _ if made => Ok(Outcome::Done { stamp: Stamp::NONE }),
            _ => Ok(Outcome::Raced),
        }
    }

    /// Moves a file, symlink or folder to a free place. Only its identity must be as expected: an edit moves along.
    pub fn rename(&self, from: &RelPath, to: &RelPath, expect: &Stamp) -> Result<Outcome, FolderError> {
        let (Some((from_dir, from_name)), Some((to_dir, to_name))) =
            (self.parent_dir(from)?, self.parent_dir(to)?)
        else {
            return Ok(Outcome::Raced);
        };
        move_checked((&from_dir, from_name), (&to_dir, to_name), expect).map_err(self.failed("move", from))
    }

    /// What has the name of a path, when it is another name that is the same on this disk: some fold case, or the forms of
    /// accents. `None` when nothing stands there, or what stands there is called so.
    pub fn taken_by(&self, path: &RelPath) -> Result<Option<Name>, FolderError> {
        let Some((dir, name)) = self.parent_dir(path)? else { return Ok(None) };
        let failed = self.failed("look at", path);
        let Some(meta) = dir.meta_if_there(name).map_err(&failed)? else { return Ok(None) };
        if is_written(&dir, name).map_err(&failed)? {
            return Ok(None);
        }
        let is_it = |other: &Name| {
            let found = dir.meta_if_there(other).ok().flatten();
            found.is_some_and(|found| found.stamp.identity() == meta.stamp.identity())
        };
        let names = dir.list().map_err(&failed)?.into_iter().map(|listed| listed.name);
        Ok(names.into_iter().find(is_it))
    }

    /// Moves a node out of the way, to break a cycle of renames.
    pub fn park(&self, id: NodeId, from: &RelPath, expect: &Stamp) -> Result<Outcome, FolderError> {
        let Some((dir, name)) = self.parent_dir(from)? else { return Ok(Outcome::Raced) };
        let failed = self.failed("move", from);
        let parked = StageName::Park(id).to_name().map_err(&failed)?;
        move_checked((&dir, name), (&self.stage, &parked), expect).map_err(failed)
    }

    /// Moves a parked node to a free place.
    pub fn unpark(&self, id: NodeId, to: &RelPath, expect: &Stamp) -> Result<Outcome, FolderError> {
        let Some((dir, name)) = self.parent_dir(to)? else { return Ok(Outcome::Raced) };
        let failed = self.failed("move", to);
        let parked = StageName::Park(id).to_name().map_err(&failed)?;
        move_checked((&self.stage, &parked), (&dir, name), expect).map_err(failed)
    }

    /// Deletes a file or symlink by moving it to the trash, if it is as expected, also after it came out.
    pub fn trash(&self, id: NodeId, path: &RelPath, expect: &Stamp) -> Result<Outcome, FolderError> {
        self.trash_with(id, path, expect, &mut || {})
    }

    pub(super) fn trash_with(
        &self,
        id: NodeId,
        path: &RelPath,
        expect: &Stamp,
        between: &mut dyn FnMut(),
    ) -> Result<Outcome, FolderError> {
        let Some((dir, name)) = self.parent_dir(path)? else { return Ok(Outcome::Gone) };
        let failed = self.failed("delete", path);
        match dir.meta_if_there(name).map_err(&failed)? {
            None => return Ok(Outcome::Gone),
            Some(now) if now.stamp != *expect || now.kind == EntryKind::Folder => return Ok(Outcome::Raced),
            Some(_) => {}
        }
        between();
        let out = match self.move_to_trash(&dir, name, id, expect) {
            Ok(out) => out,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Outcome::Gone),
            Err(error) => return Err(failed(error)),
        };
        let now = self.trash.meta(&out).map_err(&failed)?;
        if now.stamp.same_bytes(expect) {
            self.watch_trash(out, path.clone(), expect).map_err(&failed)?;
            return Ok(Outcome::Done { stamp: now.stamp });
        }
        self.put_back(&self.trash, &out, path, &mut names::rescue_name).map_err(failed)?;
        Ok(Outcome::Raced)
    }

    /// Removes a folder if it is the expected one and holds nothing.
    pub fn remove_folder(&self, path: &RelPath, expect: &Stamp) -> Result<Outcome, FolderError> {
        let Some((dir, name)) = self.parent_dir(path)? else { return Ok(Outcome::Gone) };
        let failed = self.failed("delete", path);
        let stamp = match dir.meta_if_there(name).map_err(&failed)? {
            None => return Ok(Outcome::Gone),
            Some(now) if now.kind != EntryKind::Folder || now.stamp.identity() != expect.identity() => {
                return Ok(Outcome::Raced);
            }
            Some(now) => now.stamp,
        };
        match dir.remove_dir(name) {
            Ok(()) => Ok(Outcome::Done { stamp }),
            Err(error) => match error.kind() {
                io::ErrorKind::DirectoryNotEmpty => Ok(Outcome::NotEmpty),
                io::ErrorKind::NotFound => Ok(Outcome::Gone),
                io::ErrorKind::NotADirectory => Ok(Outcome::Raced),
                _ => Err(failed(error)),
            },
        }
    }

    /// Sets executable bit and modification time of a file, or the time of a symlink. `content` names the bytes, for
    /// the copy that is made when the file has other hard links, which are not to change.
    pub fn set_meta(
        &self,
        (id, content): (NodeId, &FileContent),
        path: &RelPath,
        expect: &Stamp,
        exec: bool,
        mtime_ns: i64,
    ) -> Result<Outcome, FolderError> {
        let Some((dir, name)) = self.parent_dir(path)? else { return Ok(Outcome::Raced) };
        let failed = self.failed("set the time of", path);
        let Some((file, now)) = dir.open_file(name).map_err(&failed)? else { return Ok(Outcome::Raced) };
        if now.stamp != *expect {
            return Ok(Outcome::Raced);
        }
        if now.links > 1 {
            let copy = StagedFile::create(self, id, content)?;
            if !copy.copy_from(&file, 0, 0, now.stamp.size)? || self.stamp_of(&file)? != *expect {
                copy.discard(self)?;
                return Ok(Outcome::Raced);
            }
            let staged = copy.finish(self, exec, mtime_ns)?;
            self.sync_staged(std::slice::from_ref(&staged))?;
            let outcome = self.place(&staged, path, Some(expect), &mut attempts(name))?;
            if outcome == Outcome::Raced {
                self.discard_staged(&staged)?;
            }
            return Ok(outcome);
        }
        fs::set_file_meta(&file, with_exec(now.mode, exec), mtime_ns).map_err(&failed)?;
        // An edit since the look above, of the same size, is hidden by the time just set: the bytes are read once more.
        Ok(Outcome::Done { stamp: fs::meta_of_file(&file).map_err(&failed)?.stamp.distrusted() })
    }

    /// Sets the modification time of a symlink.
    pub fn set_symlink_mtime(
        &self,
        path: &RelPath,
        expect: &Stamp,
        mtime_ns: i64,
    ) -> Result<Outcome, FolderError> {
        let Some((dir, name)) = self.parent_dir(path)? else { return Ok(Outcome::Raced) };
        let failed = self.failed("set the time of", path);
        match dir.meta_if_there(name).map_err(&failed)? {
            Some(now) if now.kind == EntryKind::Symlink && now.stamp == *expect => {}
            _ => return Ok(Outcome::Raced),
        }
        dir.set_mtime(name, mtime_ns).map_err(&failed)?;
        let wanted = Stamp { mtime_ns, ..*expect };
        let after = dir.meta(name).map_or(wanted.distrusted(), |meta| trust(meta.stamp, wanted));
        Ok(Outcome::Done { stamp: after })
    }

    /// Makes files of the user durable, and the names in these folders. Those that are gone are skipped.
    pub fn sync_users(
        &self,
        files: &BTreeSet<RelPath>,
        folders: &BTreeSet<RelPath>,
    ) -> Result<(), FolderError> {
        if files.len() > SINGLE_DIR_SYNCS_MAX {
            return self.root.sync_filesystem().map_err(self.failed("sync", &RelPath::root()));
        }
        for path in files {
            let Some((dir, name)) = self.parent_dir(path)? else { continue };
            match dir.open_file(name).and_then(|found| found.map_or(Ok(()), |(file, _)| file.sync_all())) {
                Err(error) if !super::is_absent(&error) => return Err(self.failed("sync", path)(error)),
                _ => {}
            }
        }
        self.sync_folders(folders)
    }

    /// Makes the names in these folders durable. Folders that are gone are skipped.
    pub fn sync_folders(&self, paths: &BTreeSet<RelPath>) -> Result<(), FolderError> {
        if paths.len() > SINGLE_DIR_SYNCS_MAX {
            return self.root.sync_filesystem().map_err(self.failed("sync", &RelPath::root()));
        }
        for path in paths {
            match self.root.open_below(path).and_then(|dir| dir.sync()) {
                Err(error) if !super::is_absent(&error) => return Err(self.failed("sync", path)(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What a swap brought out, and where it is now.
struct CameOut<'a> {
    dir: &'a Dir,
    name: Name,
}

/// Rescue names beside `name`, one after the other.
fn attempts(name: &Name) -> impl FnMut() -> Name {
    let (name, mut attempt) = (name.clone(), 0);
    move || {
        attempt += 1;
        names::rescue_name(&name, attempt - 1)
    }
}

/// `after` if it shows what was meant, otherwise what was meant in a form that the next scan will not believe.
fn trust(after: Stamp, wanted: Stamp) -> Stamp {
    if after.same_bytes(&wanted) && after.exec == wanted.exec { after } else { wanted.distrusted() }
}

fn placed_stamp(dir: &Dir, name: &Name, staged: &Staged) -> Stamp {
    dir.meta(name).map_or(staged.stamp.distrusted(), |meta| trust(meta.stamp, staged.stamp))
}

/// True when a folder lists just this name.
fn is_written(dir: &Dir, name: &Name) -> io::Result<bool> {
    Ok(dir.list()?.iter().any(|listed| listed.name == *name))
}

/// Moves a node to a free name if it is the expected one, before and after.
fn move_checked(from: (&Dir, &Name), to: (&Dir, &Name), expect: &Stamp) -> io::Result<Outcome> {
    let before = match from.0.meta_if_there(from.1)? {
        Some(now) if now.stamp.identity() == expect.identity() => now,
        _ => return Ok(Outcome::Raced),
    };
    match from.0.rename_to_free(from.1, to.0, to.1) {
        Ok(()) => {}
        Err(error) => match error.kind() {
            // Taken, gone, or a folder that would move into itself.
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound | io::ErrorKind::InvalidInput => {
                return Ok(Outcome::Raced);
            }
            _ => return Err(error),
        },
    }
    let Some(after) = to.0.meta_if_there(to.1)? else {
        return Ok(Outcome::Done { stamp: expect.distrusted() });
    };
    if after.stamp.identity() != expect.identity() {
        // Another file was moved: back with it. If its name was taken meanwhile, it stays where it is, a user's file.
        let _ = to.0.rename_to_free(to.1, from.0, from.1);
        return Ok(Outcome::Raced);
    }
    if before.kind == EntryKind::Folder {
        return Ok(Outcome::Done { stamp: after.stamp });
    }
    let unedited = before.stamp == *expect;
    Ok(Outcome::Done { stamp: if unedited { trust(after.stamp, *expect) } else { expect.distrusted() } })
}
