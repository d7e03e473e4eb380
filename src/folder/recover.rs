//! After a crash: what lies in `stage/` and `trash/` is put back, kept for a resumed download, or thrown away.
//!
//! The names say what each file should be (see `names`), the file itself what it is, and the base where its node was.
//! Whatever may hold bytes of the user goes back into the folder; only files that are certainly our own, or certainly
//! an agreed version that was replaced or deleted, are removed.
//!
//! | found | it is | done |
//! |---|---|---|
//! | `get-…` | half a download | kept; removed when untouched for [`PARTIAL_KEEP_NS`] |
//! | `put-…` with the inode in its name | finished, never placed | kept as a download; a symlink is removed |
//! | `put-…` with another inode, as the base has it | the agreed version that was replaced | to the trash |
//! | `put-…` with another inode, not as the base has it | an edit of the user | put back |
//! | `park-…` | a node on its way | put back |
//! | trash, not as its name says | an edit of the user | put back |
//! | trash of a copied folder, of the size in its name | agreed: a copy has other inodes, perhaps other times | put back as if it fitted, or removed: nobody has it open |
//! | trash, as its name and the base say, its folder there, its place empty | deleted or replaced, never recorded | put back |
//! | trash, as its name says, otherwise | agreed and replaced or deleted | waits in the trash as ever |
//!
//! "Put back" means to the node's path in the base, beside it when taken, to the top when the folder is gone.

use super::fs::Dir;
use super::names::{StageName, TrashName, own};
use super::{EntryKind, Folder, FolderError, Meta, State};
use crate::chunk::{ChunkReader, V1};
use crate::manifest::Builder;
use crate::model::{BlockHash, Name, NodeId, RelPath};
use std::io;

/// How long half a download is kept for, ns: a week.
pub const PARTIAL_KEEP_NS: i64 = 7 * 24 * 3600 * 1_000_000_000;

/// What recovery did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Files and folders that are in the folder again. The next scan tells what they are.
    pub put_back: Vec<RelPath>,
    /// Downloads that can go on.
    pub partials: usize,
    /// Files removed.
    pub removed: usize,
}

impl Folder {
    /// True in a copy of a synced folder, or one that came back from a backup, until [`Folder::recover`]. Not on filesystems
    /// that give out other inodes each time: there every start would look like it.
    pub fn is_copied(&self) -> bool {
        match self.origin {
            super::Origin::Here | super::Origin::Unsaid => false,
            super::Origin::Elsewhere => self.root.keeps_inodes(),
            super::Origin::Lost => true,
        }
    }

    /// Cleans up after an earlier run, before the first scan. `now_ns` is the wall clock and decides only about the
    /// age of downloads; `names` as for [`Folder::sweep_trash`].
    pub fn recover(
        &self,
        state: &State,
        now_ns: i64,
        names: &mut dyn FnMut(&Name, u32) -> Name,
    ) -> Result<Recovered, FolderError> {
        let mut recovery = Recovery { folder: self, state, now_ns, names, done: Recovered::default() };
        recovery.run().map_err(self.failed_private("clean up"))?;
        let done = recovery.done;
        if self.origin != super::Origin::Here {
            // Not before: until all is cleaned up, its files are those of a copy.
            super::write_version(&self.private, self.private_meta.stamp.identity())
                .map_err(self.failed_private("clean up"))?;
        }
        Ok(done)
    }
}

impl Folder {
    /// Puts everything that is parked back: to the place that `place_of` knows, beside it when that is taken, to the top
    /// when nobody knows one. A node that stayed parked would look deleted. Returns where they are.
    pub fn put_back_parked(
        &self,
        place_of: &dyn Fn(NodeId) -> Option<RelPath>,
        names: &mut dyn FnMut(&Name, u32) -> Name,
    ) -> Result<Vec<RelPath>, FolderError> {
        let mut put_back = || -> io::Result<Vec<RelPath>> {
            let parked =
                names_in(&self.stage)?.into_iter().filter_map(|name| match StageName::parse(&name) {
                    Some(StageName::Park(id)) => Some((place_of(id), name, id)),
                    _ => None,
                });
            let mut parked: Vec<_> = parked.collect();
            // Folders before what belongs into them.
            parked.sort_by_key(|(place, ..)| place.as_ref().map_or(0, |place| place.names().len()));
            let mut places = Vec::with_capacity(parked.len());
            for (place, name, id) in parked {
                let place = place.map_or_else(|| fallback(id), Ok)?;
                places.push(self.put_back(&self.stage, &name, &place, names)?);
            }
            Ok(places)
        };
        put_back().map_err(self.failed_private("put parked files back from"))
    }
}

struct Recovery<'a> {
    folder: &'a Folder,
    state: &'a State,
    now_ns: i64,
    names: &'a mut dyn FnMut(&Name, u32) -> Name,
    done: Recovered,
}

impl Recovery<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut staged: Vec<_> = names_in(&self.folder.stage)?
            .into_iter()
            .filter_map(|name| StageName::parse(&name).map(|parsed| (self.rank(parsed), name, parsed)))
            .collect();
        // Parked folders before what belongs into them.
        staged.sort();
        for (_, name, parsed) in staged {
            self.staged(&name, parsed)?;
        }
        for name in names_in(&self.folder.trash)? {
            if let Some(parsed) = TrashName::parse(&name) {
                self.trashed(name, parsed)?;
            }
        }
        if !self.done.put_back.is_empty() {
            self.folder.root.sync_filesystem()?;
        }
        Ok(())
    }

    fn rank(&self, name: StageName) -> (bool, usize) {
        match name {
            StageName::Park(id) => (false, self.state.base.path_of(id).map_or(0, |path| path.names().len())),
            _ => (true, 0),
        }
    }

    fn staged(&mut self, name: &Name, parsed: StageName) -> io::Result<()> {
        let stage = &self.folder.stage;
        let Some(meta) = stage.meta_if_there(name)? else { return Ok(()) };
        match parsed {
            StageName::Get(..) => {
                let age_ns = self.now_ns.saturating_sub(meta.stamp.mtime_ns.max(meta.stamp.ctime_ns));
                if meta.kind == EntryKind::File && age_ns < PARTIAL_KEEP_NS {
                    self.done.partials += 1;
                    return Ok(());
                }
                self.remove(stage, name)
            }
            StageName::Put(id, root, identity) if meta.stamp.identity() == identity => {
                if meta.kind != EntryKind::File {
                    return self.remove(stage, name);
                }
                self.done.partials += 1;
                stage.rename_over(name, stage, &StageName::Get(id, root).to_name()?)
            }
            StageName::Put(id, root, _) => match self.state.stamp(id).copied() {
                Some(agreed) if agreed.same_bytes(&meta.stamp) && self.is_agreed(name, id, &meta)? => {
                    self.folder.move_to_trash(stage, name, id, &agreed).map(drop)
                }
                // A copied or restored folder has other inodes; what holds the bytes in its name is a download.
                _ if self.holds(name, root)? => self.remove(stage, name),
                _ => self.put_back(stage, name, id),
            },
            StageName::Park(id) => self.put_back(stage, name, id),
        }
    }

    /// True when what came out has the agreed bytes. It may be an edit that was to become a conflict copy, and was known for one
    /// by a time that the way out has changed.
    fn is_agreed(&self, name: &Name, id: NodeId, meta: &Meta) -> io::Result<bool> {
        let node = self.state.base.get(id).filter(|_| meta.kind == EntryKind::File);
        node.and_then(|node| node.state.kind.content())
            .map_or(Ok(meta.kind != EntryKind::File), |content| self.holds(name, content.root.hash))
    }

    /// True when a staged file has the bytes of this content.
    fn holds(&self, name: &Name, root: BlockHash) -> io::Result<bool> {
        let Some((file, _)) = self.folder.stage.open_file(name)? else { return Ok(false) };
        let mut builder = Builder::new(V1.id());
        let sound = ChunkReader::new(&V1).read(file, |_, chunk| {
            builder.push(BlockHash::of(chunk), chunk.len() as u64).map(drop).map_err(io::Error::other)
        });
        sound?;
        Ok(builder.finish().is_ok_and(|(content, _)| content.root.hash == root))
    }

    fn trashed(&mut self, name: Name, parsed: TrashName) -> io::Result<()> {
        let trash = &self.folder.trash;
        let Some(meta) = trash.meta_if_there(&name)? else { return Ok(()) };
        // An edit in the last instant keeps the inode, or has another time; and nobody edits the trash of a copy.
        let is_copied = self.folder.origin == super::Origin::Elsewhere && meta.stamp.size == parsed.size;
        if !parsed.fits(&meta.stamp) && !is_copied {
            return self.put_back(trash, &name, parsed.id);
        }
        let path = self.state.base.path_of(parsed.id);
        let is_base = self.state.stamp(parsed.id).is_some_and(|agreed| parsed.fits(agreed));
        if let Some(path) = path.as_ref().filter(|_| is_base)
            && self.is_free(path)?
        {
            return self.put_back(trash, &name, parsed.id);
        }
        if is_copied {
            return self.remove(trash, &name);
        }
        self.folder.watch_trash(name, path.unwrap_or(fallback(parsed.id)?), &meta.stamp)
    }

    fn is_free(&self, path: &RelPath) -> io::Result<bool> {
        let Some((parent, name)) = path.split_last() else { return Ok(false) };
        match self.folder.root.open_below(&parent).and_then(|dir| dir.meta_if_there(name)) {
            Ok(meta) => Ok(meta.is_none()),
            // The folder was deleted with it, or has another name by now and holds what replaced the file.
            Err(error) if super::is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn put_back(&mut self, from: &Dir, name: &Name, id: NodeId) -> io::Result<()> {
        let path = match self.state.base.path_of(id) {
            Some(path) => path,
            None => fallback(id)?,
        };
        let path = self.folder.put_back(from, name, &path, self.names)?;
        self.done.put_back.push(path);
        Ok(())
    }

    fn remove(&mut self, dir: &Dir, name: &Name) -> io::Result<()> {
        self.done.removed += 1;
        dir.unlink(name)
    }
}

/// Where a file goes whose node is not in the base: nobody remembers its name.
fn fallback(id: NodeId) -> io::Result<RelPath> {
    let hex = id.to_hex();
    let name = own(&format!("recovered file {}", hex.get(..8).unwrap_or(&hex)))?;
    Ok(RelPath::from_names(vec![name]))
}

fn names_in(dir: &Dir) -> io::Result<Vec<Name>> {
    let mut names: Vec<Name> = dir.list()?.into_iter().map(|listed| listed.name).collect();
    names.sort();
    Ok(names)
}
