//! Listing the disk: one look at every name in the scope, by two threads. Decides nothing.
//!
//! Work is a queue of folders, not recursion, and a folder is opened by its path from the top when its turn comes, so
//! neither depth nor width needs stack or descriptors. A folder that is not the one its parent showed any more (moved
//! during the scan) counts as unreadable: what it held is not taken for gone.

use super::fs::Dir;
use super::scan::{Cause, Problem};
use super::{EntryKind, Folder, FolderError, Identity, Meta, Stamp, State};
use crate::model::{Kind, Name, NodeId, RelPath, limits};
use crate::work::Work;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// More than this gains nothing: the folder's own locks in the kernel are what is waited for.
const THREADS: usize = 2;

/// One name on disk.
#[derive(Debug)]
pub struct DiskEntry {
    /// The name.
    pub name: Name,
    /// What it is.
    pub kind: EntryKind,
    /// How it looks.
    pub stamp: Stamp,
    /// A symlink's text.
    pub target: Vec<u8>,
    /// Where the folder's listing is; `None` when it was not asked for.
    pub listing: Option<usize>,
}

/// The names in one folder.
#[derive(Debug, Default)]
pub struct Listing {
    /// From the top of the share.
    pub path: RelPath,
    /// Ordered by name.
    pub entries: Vec<DiskEntry>,
    /// Names that are there but could not be looked at.
    pub unknown: BTreeSet<Name>,
    /// The folder could not be listed: its names are not known.
    pub unreadable: bool,
    /// All names are as the base has them in this node's folder; only folders are among the entries then. Most folders
    /// are so in most looks, and all their names at once would be most of what the client ever holds.
    pub as_in: Option<NodeId>,
}

/// What was listed.
#[derive(Debug, Default)]
pub struct Disk {
    /// Listings, in no particular order.
    pub listings: Vec<Listing>,
    /// Folders of the base that are in their place and were listed, parents first.
    pub roots: Vec<(NodeId, usize)>,
    /// What could not be looked at, ordered by path.
    pub problems: Vec<Problem>,
}

impl Disk {
    /// True when a folder was met at two places: it moved while this was listed, and what it holds would be taken for twice as
    /// much as there is.
    pub fn has_moved(&self, state: &State) -> bool {
        let folders = self.listings.iter().flat_map(|listing| {
            let folders = listing.entries.iter().filter(|entry| entry.kind == EntryKind::Folder);
            folders.map(move |entry| (entry.stamp.identity(), (listing, &entry.name)))
        });
        let mut met = HashMap::new();
        for (identity, place) in folders {
            if met.insert(identity, place).is_some() {
                return true;
            }
        }
        self.roots.iter().any(|(id, slot)| {
            let path = self.listings.get(*slot).map(|listing| &listing.path);
            let place = state.stamp(*id).and_then(|stamp| met.get(&stamp.identity()));
            place.is_some_and(|(listing, name)| path != Some(&listing.path.join(name)))
        })
    }
}

/// A folder to list.
struct Task {
    slot: usize,
    path: RelPath,
    /// Who it should be.
    identity: Option<Identity>,
    /// The node of the base that it is, when it and all folders above it are in their place.
    node: Option<NodeId>,
    /// The node whose folders that are in place are not descended into; `None`: descend into all.
    shallow: Option<NodeId>,
}

/// Lists everything.
pub fn full(folder: &Folder, state: &State) -> Result<Disk, FolderError> {
    let mut disk =
        Disk { listings: vec![Listing::default()], roots: vec![(NodeId::ROOT, 0)], problems: vec![] };
    let node = Some(NodeId::ROOT);
    let top = Task { slot: 0, path: RelPath::root(), identity: None, node, shallow: None };
    run(folder, state, vec![top], &mut disk)?;
    disk.problems.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(disk)
}

/// Lists some folders, and those from which something may have moved into them.
pub fn scoped(folder: &Folder, state: &State, paths: &BTreeSet<RelPath>) -> Result<Disk, FolderError> {
    let mut disk = Disk::default();
    let mut listed: BTreeMap<RelPath, (NodeId, usize)> = BTreeMap::new();
    let mut wanted = paths.clone();
    let mut seen_listings = 0;
    while !wanted.is_empty() {
        let mut tasks = Vec::new();
        for path in std::mem::take(&mut wanted) {
            let (path, id) = nearest_in_place(folder, state, &path)?;
            if listed.contains_key(&path) {
                continue;
            }
            let slot = disk.listings.len();
            disk.listings.push(Listing::default());
            listed.insert(path.clone(), (id, slot));
            let identity = state.stamp(id).map(Stamp::identity);
            tasks.push(Task { slot, path, identity, node: Some(id), shallow: Some(id) });
        }
        run(folder, state, tasks, &mut disk)?;
        // A name with the identity of a node elsewhere is a move only if that node left its place: look there too.
        for listing in disk.listings.get(seen_listings..).unwrap_or_default() {
            let here = listed.get(&listing.path).map(|(id, _)| *id);
            for entry in &listing.entries {
                wanted.extend(places_to_check(state, here, entry));
            }
        }
        seen_listings = disk.listings.len();
    }
    disk.roots = listed.into_values().collect();
    disk.problems.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(disk)
}

/// The deepest folder on the way to `path` that is in the base and on disk as the same folder.
fn nearest_in_place(
    folder: &Folder,
    state: &State,
    path: &RelPath,
) -> Result<(RelPath, NodeId), FolderError> {
    let (mut id, mut reached) = (NodeId::ROOT, Vec::new());
    let mut dir = folder.root.open_below(&RelPath::root()).map_err(folder.failed("open", path))?;
    for name in path.names() {
        let Some(child) = state.base.child(id, name) else { break };
        match dir.meta(name) {
            Ok(meta) if is_folder_in_place(state, child, meta.kind, &meta.stamp) => {}
            _ => break,
        }
        let Ok(next) = dir.open_child(name) else { break };
        (dir, id) = (next, child);
        reached.push(name.clone());
    }
    Ok((RelPath::from_names(reached), id))
}

/// True when a node is a folder and this is what it looks like. A file can have the identity of a folder: an inode that is used
/// again, or a look that came too late.
fn is_folder_in_place(state: &State, id: NodeId, kind: EntryKind, stamp: &Stamp) -> bool {
    kind == EntryKind::Folder
        && state.base.get(id).is_some_and(|node| node.state.kind.is_folder())
        && state.stamp(id).is_some_and(|known| known.identity() == stamp.identity())
}

/// The folders of the base that held the nodes whose identity this entry has, unless it is in its own place.
fn places_to_check<'a>(
    state: &'a State,
    here: Option<NodeId>,
    entry: &'a DiskEntry,
) -> impl Iterator<Item = RelPath> + 'a {
    let own = here.and_then(|parent| state.base.child(parent, &entry.name));
    state
        .owners(entry.stamp.identity())
        .take_while(move |owner| Some(*owner) != own)
        .filter_map(|owner| state.base.path_of(state.base.get(owner)?.state.parent))
}

/// What the threads share.
struct Queue {
    tasks: VecDeque<Task>,
    busy: usize,
    next_slot: usize,
    done: Vec<(usize, Listing)>,
    problems: Vec<Problem>,
    failed: Option<FolderError>,
}

struct Walk<'a> {
    folder: &'a Folder,
    state: &'a State,
    queue: Mutex<Queue>,
    changed: Condvar,
}

fn run(folder: &Folder, state: &State, tasks: Vec<Task>, disk: &mut Disk) -> Result<(), FolderError> {
    let next_slot = disk.listings.len();
    let queue = Queue {
        tasks: tasks.into(),
        busy: 0,
        next_slot,
        done: Vec::new(),
        problems: Vec::new(),
        failed: None,
    };
    let walk = Walk { folder, state, queue: Mutex::new(queue), changed: Condvar::new() };
    walk.start();
    let queue = walk.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = queue.failed {
        return Err(error);
    }
    disk.listings.resize_with(queue.next_slot, Listing::default);
    for (slot, listing) in queue.done {
        if let Some(place) = disk.listings.get_mut(slot) {
            *place = listing;
        }
    }
    disk.problems.extend(queue.problems);
    Ok(())
}

impl Walk<'_> {
    fn start(&self) {
        // The first folder alone: most scans of a few folders end here, without the cost of a thread.
        while self.lock().tasks.len() == 1 {
            self.step();
        }
        if self.lock().tasks.is_empty() {
            return;
        }
        if self.folder.work() == Work::Inline {
            while self.step() {}
            return;
        }
        std::thread::scope(|scope| {
            for _ in 1..THREADS {
                scope.spawn(|| while self.step() {});
            }
            while self.step() {}
        });
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists one folder. `false` when nothing is left to do.
    fn step(&self) -> bool {
        let mut queue = self.lock();
        let task = loop {
            if let Some(task) = queue.tasks.pop_front() {
                break task;
            }
            if queue.busy == 0 {
                return false;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        queue.busy += 1;
        drop(queue);
        let result = self.list(&task);
        let mut queue = self.lock();
        queue.busy -= 1;
        match result {
            Ok((listing, problems)) => Self::finish(&mut queue, &task, listing, problems, self.state),
            Err(error) => {
                queue.tasks.clear();
                queue.failed = Some(error);
            }
        }
        drop(queue);
        self.changed.notify_all();
        true
    }

    fn finish(queue: &mut Queue, task: &Task, mut listing: Listing, problems: Vec<Problem>, state: &State) {
        for entry in listing.entries.iter_mut().filter(|entry| entry.kind == EntryKind::Folder) {
            let child = task.node.and_then(|parent| state.base.child(parent, &entry.name));
            let node = child.filter(|id| is_folder_in_place(state, *id, entry.kind, &entry.stamp));
            if task.shallow.is_some() && node.is_some() {
                continue;
            }
            let slot = queue.next_slot;
            queue.next_slot += 1;
            entry.listing = Some(slot);
            let (path, identity) = (task.path.join(&entry.name), Some(entry.stamp.identity()));
            queue.tasks.push_back(Task { slot, path, identity, node, shallow: None });
        }
        queue.problems.extend(problems);
        queue.done.push((task.slot, listing));
    }

    fn list(&self, task: &Task) -> Result<(Listing, Vec<Problem>), FolderError> {
        let mut listing = Listing { path: task.path.clone(), ..Listing::default() };
        let mut problems = Vec::new();
        if task.path.names().len() >= limits::PATH_DEPTH_MAX {
            listing.unreadable = true;
            problems.push(Problem { path: task.path.clone(), cause: Cause::TooDeep });
            return Ok((listing, problems));
        }
        match self.read(task, &mut listing, &mut problems) {
            Ok(()) => {
                listing.as_in = task.node.filter(|node| is_as_in(self.state, *node, &listing));
                if listing.as_in.is_some() {
                    listing.entries.retain(|entry| entry.kind == EntryKind::Folder);
                    listing.entries.shrink_to_fit();
                }
            }
            Err(error) if task.path.is_root() => return Err(self.folder.failed("list", &task.path)(error)),
            Err(error) => {
                listing.unreadable = true;
                listing.entries.clear();
                // Gone between the look at its parent and now: not worth a word, the next scan sees how it ended.
                if !super::is_absent(&error) {
                    problems.push(Problem { path: task.path.clone(), cause: Cause::from(&error) });
                }
            }
        }
        Ok((listing, problems))
    }

    fn read(&self, task: &Task, listing: &mut Listing, problems: &mut Vec<Problem>) -> io::Result<()> {
        let dir = self.folder.root.open_below(&task.path)?;
        let own = dir.own_meta()?;
        if task.identity.is_some_and(|identity| own.stamp.identity() != identity) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut names = dir.list()?;
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        listing.entries.reserve(names.len());
        for listed in names {
            if task.path.is_root() && listed.name.is_private_dir() {
                continue;
            }
            match look(&dir, &listed.name) {
                Ok(Some((meta, target))) => {
                    if meta.kind == EntryKind::Folder && (meta.device, meta.mount) != (own.device, own.mount)
                    {
                        let path = task.path.join(&listed.name);
                        problems.push(Problem { path, cause: Cause::OtherFilesystem });
                        listing.unknown.insert(listed.name);
                        continue;
                    }
                    let (name, kind, stamp) = (listed.name, meta.kind, meta.stamp);
                    listing.entries.push(DiskEntry { name, kind, stamp, target, listing: None });
                }
                Ok(None) => {}
                Err(error) => {
                    let path = task.path.join(&listed.name);
                    problems.push(Problem { path, cause: Cause::from(&error) });
                    listing.unknown.insert(listed.name);
                }
            }
        }
        Ok(())
    }
}

/// True when a listing shows what the base has in the folder of a node, and nothing was touched.
fn is_as_in(state: &State, node: NodeId, listing: &Listing) -> bool {
    let mut entries = listing.entries.iter();
    let same = state.base.children(node).all(|(name, child)| {
        let (Some(entry), Some(known), Some(base)) =
            (entries.next(), state.stamp(child), state.base.get(child))
        else {
            return false;
        };
        let same_look = match base.state.kind {
            Kind::Folder => entry.kind == EntryKind::Folder && known.identity() == entry.stamp.identity(),
            Kind::File { .. } => entry.kind == EntryKind::File && *known == entry.stamp,
            Kind::Symlink { .. } => entry.kind == EntryKind::Symlink && *known == entry.stamp,
        };
        entry.name == *name && same_look
    });
    same && entries.next().is_none() && listing.unknown.is_empty()
}

/// One look at a name; `None` when it is gone meanwhile.
fn look(dir: &Dir, name: &Name) -> io::Result<Option<(Meta, Vec<u8>)>> {
    loop {
        let Some(meta) = dir.meta_if_there(name)? else { return Ok(None) };
        if meta.kind != EntryKind::Symlink {
            return Ok(Some((meta, Vec::new())));
        }
        match dir.read_link(name) {
            Ok(target) => return Ok(Some((meta, target))),
            // It was replaced since: look again at what it is now.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {}
            Err(error) => return Err(error),
        }
    }
}
