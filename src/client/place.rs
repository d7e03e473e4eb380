//! Carrying out disk operations: paths from nodes, one call of the folder per operation, and what came of it.
//!
//! Blocking. An operation that finds the world changed is left; its folder is looked at again and the next plan knows.

use crate::folder::apply::Outcome;
use crate::folder::stage::Staged;
use crate::folder::{EntryKind, Folder, FolderError, Identity, Meta, Stamp};
use crate::model::{Kind, Name, NodeId, NodeState, RelPath};
use crate::reconcile::{DiskOp, conflict_name};
use crate::tree::Overlay;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What the disk shows after operations.
#[derive(Debug, Default)]
pub struct Report {
    /// Nodes as they are on disk now.
    pub done: Vec<(NodeId, Option<NodeState>, Option<Stamp>)>,
    /// Folders that are not as expected: look again.
    pub dirty: BTreeSet<RelPath>,
    /// Nodes whose operation was left.
    pub left: BTreeSet<NodeId>,
    /// Folders that are gone elsewhere and hold only what is not synced: they stay, and that is no failure.
    pub stays: BTreeMap<NodeId, RelPath>,
    /// Operations that the system refused, with the place.
    pub problems: Vec<FolderError>,
    /// Nodes whose bytes came from the stage, which are durable.
    pub placed: Vec<NodeId>,
    /// Nodes that hold what the user had there: nobody knows whether it is durable.
    pub copied: Vec<NodeId>,
    /// Folders whose names must be made durable.
    pub touched: BTreeSet<RelPath>,
}

impl Report {
    /// Looked at again with everything else that is left, not at once: it may be blocked for long.
    fn leave(&mut self, id: NodeId) {
        self.left.insert(id);
    }

    fn touch(&mut self, path: &RelPath) {
        if let Some((parent, _)) = path.split_last() {
            self.touched.insert(parent);
        }
    }
}

/// A full disk or a folder that has gone concerns everything; any other refusal concerns one path.
pub const fn concerns_all(error: &FolderError) -> bool {
    matches!(
        error,
        FolderError::NoSpace { .. }
            | FolderError::ReadOnly { .. }
            | FolderError::Replaced { .. }
            | FolderError::StateBroken { .. }
    )
}

/// Makes, moves, parks, removes and touches up, in the planned order; leaves [`DiskOp::Place`] to [`place_all`].
///
/// `disk` is the tree on disk; it follows the operations. Nothing stays parked: what finds its way blocked goes back to
/// where it was, or beside it under a name of `names`, because the next scan would take it for deleted.
pub fn structure(
    folder: &Folder,
    ops: &[DiskOp],
    disk: &mut Overlay<'_>,
    stamp_of: &dyn Fn(NodeId) -> Option<Stamp>,
    names: &mut dyn FnMut(&Name, u32) -> Name,
) -> Result<Report, FolderError> {
    let mut builder = Builder {
        folder,
        disk,
        stamp_of,
        stamps: BTreeMap::new(),
        links: links(ops, stamp_of),
        parked: BTreeMap::new(),
        report: Report::default(),
    };
    let mut stopped = None;
    for op in ops {
        match builder.run(op) {
            Err(error) if concerns_all(&error) => {
                stopped = Some(error);
                break;
            }
            Err(error) => builder.report.problems.push(error),
            Ok(()) => {}
        }
    }
    let Builder { mut report, parked, .. } = builder;
    if !parked.is_empty() {
        let place_of = |id| parked.get(&id).map(|(_, path)| path.clone());
        for path in folder.put_back_parked(&place_of, names)? {
            report.touch(&path);
            report.dirty.extend(path.split_last().map(|(parent, _)| parent));
        }
        parked.into_keys().for_each(|id| report.leave(id));
    }
    stopped.map_or(Ok(report), Err)
}

/// Files with several names among those that are worked on: each rename of one changes the look of the others.
fn links(ops: &[DiskOp], stamp_of: &dyn Fn(NodeId) -> Option<Stamp>) -> HashMap<Identity, BTreeSet<NodeId>> {
    let mut links: HashMap<Identity, BTreeSet<NodeId>> = HashMap::new();
    for op in ops {
        let (DiskOp::Park { id } | DiskOp::Move { id, .. } | DiskOp::Place { id, .. }) = op else { continue };
        if let Some(stamp) = stamp_of(*id) {
            links.entry(stamp.identity()).or_default().insert(*id);
        }
    }
    links.retain(|_, ids| ids.len() > 1);
    links
}

struct Builder<'a, 'b> {
    folder: &'a Folder,
    disk: &'a mut Overlay<'b>,
    stamp_of: &'a dyn Fn(NodeId) -> Option<Stamp>,
    /// Stamps that changed on the way.
    stamps: BTreeMap<NodeId, Stamp>,
    /// Nodes that are one file.
    links: HashMap<Identity, BTreeSet<NodeId>>,
    /// What is out of the tree for a moment, and where it was.
    parked: BTreeMap<NodeId, (NodeState, RelPath)>,
    report: Report,
}

impl Builder<'_, '_> {
    fn stamp(&self, id: NodeId) -> Option<Stamp> {
        self.stamps.get(&id).copied().or_else(|| (self.stamp_of)(id))
    }

    /// A rename made `now` of what looked as it `was`. Of a file with several names all look like that from here on, if they did
    /// before; otherwise somebody else did something, and they are left.
    fn renamed(&mut self, id: NodeId, was: &Stamp, now: Stamp) {
        self.stamps.insert(id, now);
        let others = self.links.get(&was.identity()).cloned().unwrap_or_default();
        for other in others.into_iter().filter(|other| *other != id) {
            if self.stamp(other).as_ref() == Some(was) {
                self.stamps.insert(other, now);
                for done in self.report.done.iter_mut().filter(|done| done.0 == other) {
                    done.2 = Some(now);
                }
            }
        }
    }

    fn run(&mut self, op: &DiskOp) -> Result<(), FolderError> {
        match op {
            DiskOp::Place { .. } => Ok(()),
            DiskOp::Trash { id } => self.remove(*id, |folder, path, stamp| folder.trash(*id, path, stamp)),
            DiskOp::RemoveFolder { id } => self.remove(*id, Folder::remove_folder),
            DiskOp::MakeFolder { id, parent, name } => {
                let Some(path) = self.path_in(*parent, name) else { return self.lost(*id) };
                let outcome = self.folder.make_folder(&path)?;
                let state = NodeState { parent: *parent, name: name.clone(), kind: Kind::Folder };
                self.settle(*id, &path, outcome, state)
            }
            DiskOp::Park { id } => {
                let (Some(path), Some(stamp)) = (self.disk.path_of(*id), self.stamp(*id)) else {
                    return self.lost(*id);
                };
                match self.folder.park(*id, &path, &stamp)? {
                    Outcome::Done { stamp: now } => {
                        self.renamed(*id, &stamp, now);
                        if let Some(state) = self.disk.state(*id).cloned() {
                            self.parked.insert(*id, (state, path.clone()));
                        }
                        self.disk.set(*id, None);
                        self.report.touch(&path);
                    }
                    _ => self.report.leave(*id),
                }
                Ok(())
            }
            DiskOp::Move { id, parent, name } => self.move_to(*id, *parent, name),
            DiskOp::Meta { id, kind } => self.meta(*id, kind),
        }
    }

    fn move_to(&mut self, id: NodeId, parent: NodeId, name: &Name) -> Result<(), FolderError> {
        let (Some(to), Some(stamp)) = (self.path_in(parent, name), self.stamp(id)) else {
            return self.lost(id);
        };
        let was = match self.parked.get(&id) {
            Some((state, _)) => state.clone(),
            None => match self.disk.state(id) {
                Some(state) => state.clone(),
                None => return self.lost(id),
            },
        };
        let outcome = if self.parked.contains_key(&id) {
            self.folder.unpark(id, &to, &stamp)?
        } else {
            let Some(from) = self.disk.path_of(id) else { return self.lost(id) };
            self.report.touch(&from);
            match self.folder.rename(&from, &to, &stamp)? {
                // The disk takes both names for one, so the node stands in its own way.
                Outcome::Raced if self.is_respelled(&from, &to, &stamp)? => {
                    self.run(&DiskOp::Park { id })?;
                    let (true, Some(stamp)) = (self.parked.contains_key(&id), self.stamp(id)) else {
                        return Ok(());
                    };
                    self.folder.unpark(id, &to, &stamp)?
                }
                outcome => outcome,
            }
        };
        if let Outcome::Done { stamp: now } = outcome {
            self.parked.remove(&id);
            self.renamed(id, &stamp, now);
        }
        self.settle(id, &to, outcome, NodeState { parent, name: name.clone(), kind: was.kind })
    }

    /// True when what stands at both paths is this one thing, under the first name.
    fn is_respelled(&self, from: &RelPath, to: &RelPath, stamp: &Stamp) -> Result<bool, FolderError> {
        let is_it = |meta: Option<Meta>| meta.is_some_and(|meta| meta.stamp.identity() == stamp.identity());
        if !is_it(self.folder.look(to)?) || !is_it(self.folder.look(from)?) {
            return Ok(false);
        }
        let taken = self.folder.taken_by(to)?;
        Ok(taken.is_some() && taken.as_ref() == from.split_last().map(|(_, name)| name))
    }

    fn meta(&mut self, id: NodeId, kind: &Kind) -> Result<(), FolderError> {
        let (Some(path), Some(stamp), Some(state)) =
            (self.disk.path_of(id), self.stamp(id), self.disk.state(id).cloned())
        else {
            return self.lost(id);
        };
        let outcome = match kind {
            Kind::File { content, mtime_ns, exec } => {
                self.folder.set_meta((id, content), &path, &stamp, *exec, *mtime_ns)?
            }
            Kind::Symlink { mtime_ns, .. } => self.folder.set_symlink_mtime(&path, &stamp, *mtime_ns)?,
            Kind::Folder => return Ok(()),
        };
        self.settle(id, &path, outcome, NodeState { kind: kind.clone(), ..state })
    }

    fn remove(
        &mut self,
        id: NodeId,
        call: impl Fn(&Folder, &RelPath, &Stamp) -> Result<Outcome, FolderError>,
    ) -> Result<(), FolderError> {
        let (Some(path), Some(stamp)) = (self.disk.path_of(id), self.stamp(id)) else { return self.lost(id) };
        let here = self.disk.state(id).map(|state| self.disk.at(state.parent, &state.name));
        if here.is_some_and(|here| here.len() > 1) {
            // There is one thing at one place: what goes could be what stays.
            return self.lost(id);
        }
        match call(self.folder, &path, &stamp)? {
            Outcome::Done { .. } | Outcome::Gone => {
                self.disk.set(id, None);
                self.report.done.push((id, None, None));
                self.report.touch(&path);
            }
            Outcome::NotEmpty if self.holds_only_special(&path) => drop(self.report.stays.insert(id, path)),
            _ => self.report.leave(id),
        }
        Ok(())
    }

    /// A folder that cannot be looked at is left, and looked at again.
    fn holds_only_special(&self, path: &RelPath) -> bool {
        let stays = |path: &RelPath| self.report.stays.values().any(|stays| stays == path);
        self.folder.holds_only_special(path, &stays).unwrap_or(false)
    }

    fn settle(
        &mut self,
        id: NodeId,
        path: &RelPath,
        outcome: Outcome,
        state: NodeState,
    ) -> Result<(), FolderError> {
        match outcome {
            Outcome::Done { stamp } | Outcome::DoneBeside { stamp, .. } => {
                self.stamps.insert(id, stamp);
                self.disk.set(id, Some(state.clone()));
                self.report.done.push((id, Some(state), Some(stamp)));
                self.report.touch(path);
            }
            _ => self.report.leave(id),
        }
        Ok(())
    }

    fn path_in(&self, parent: NodeId, name: &Name) -> Option<RelPath> {
        self.disk.path_of(parent).map(|folder| folder.join(name))
    }

    /// An earlier operation was left, so this one has no ground.
    fn lost(&mut self, id: NodeId) -> Result<(), FolderError> {
        self.report.left.insert(id);
        Ok(())
    }
}

/// A staged file on its way to its place.
#[derive(Debug)]
pub struct Placing {
    /// The node.
    pub id: NodeId,
    /// What it becomes.
    pub state: NodeState,
    /// Where.
    pub path: RelPath,
    /// The new bytes.
    pub staged: Staged,
    /// What is there now, as last seen; `None`: nothing.
    pub expect: Option<Stamp>,
    /// Where what is there now goes as a node of its own; `None`: to the trash.
    pub copy: Option<(NodeId, NodeState, RelPath)>,
}

/// Makes staged files durable and swaps them in.
pub fn place_all(
    folder: &Folder,
    list: Vec<Placing>,
    device: &str,
    when: &str,
) -> Result<Report, FolderError> {
    let staged: Vec<Staged> = list.iter().map(|placing| placing.staged.clone()).collect();
    folder.sync_staged(&staged)?;
    drop(staged);
    let mut report = Report::default();
    for placing in list {
        match place_one(folder, &placing, device, when, &mut report) {
            Err(error) if concerns_all(&error) => return Err(error),
            Err(error) => {
                discard(folder, &placing.staged);
                report.problems.push(error);
            }
            Ok(()) => {}
        }
    }
    folder.sync_folders(&report.touched)?;
    Ok(report)
}

fn place_one(
    folder: &Folder,
    placing: &Placing,
    device: &str,
    when: &str,
    report: &mut Report,
) -> Result<(), FolderError> {
    let Some((_, own_name)) = placing.path.split_last() else { return Ok(()) };
    // The first name is the planned one; the others are for when someone has taken it meanwhile.
    let planned = placing.copy.as_ref().map(|(_, state, _)| state.name.clone());
    let mut tried: BTreeSet<Name> = BTreeSet::new();
    let mut beside = || {
        let name = match &planned {
            Some(name) if tried.is_empty() => name.clone(),
            _ => conflict_name(own_name, device, when, &|name| tried.contains(name)),
        };
        tried.insert(name.clone());
        name
    };
    let outcome = match &placing.copy {
        Some(_) => folder.displace(&placing.staged, &placing.path, &mut beside)?,
        None => folder.place(&placing.staged, &placing.path, placing.expect.as_ref(), &mut beside)?,
    };
    let (stamp, aside) = match outcome {
        Outcome::Done { stamp } => (stamp, None),
        Outcome::DoneBeside { stamp, beside } => (stamp, Some(beside)),
        _ => {
            discard(folder, &placing.staged);
            report.leave(placing.id);
            return Ok(());
        }
    };
    report.touch(&placing.path);
    report.done.push((placing.id, Some(placing.state.clone()), Some(stamp)));
    report.placed.push(placing.id);
    match (&placing.copy, aside) {
        (Some((copy, state, path)), Some(name)) if name == state.name => {
            // The next scan reads it again: it was being edited a moment ago. What is a folder by now, or gone, is not the copy.
            if let Some(meta) = folder.look(path)?.filter(|meta| meta.kind == EntryKind::of(&state.kind)) {
                report.done.push((*copy, Some(state.clone()), Some(meta.stamp.distrusted())));
                report.copied.push(*copy);
            }
            report.dirty.extend(path.split_last().map(|(parent, _)| parent));
        }
        (_, Some(_)) => report.dirty.extend(placing.path.split_last().map(|(parent, _)| parent)),
        _ => {}
    }
    Ok(())
}

/// Bytes that could not be placed would be fetched again and fill the disk.
fn discard(folder: &Folder, staged: &Staged) {
    if let Err(error) = folder.discard_staged(staged) {
        tracing::debug!(%error, "staged file not removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BlockHash, FileContent, Root, Seq};
    use crate::tree::{Diff, Tree, TreeNode};
    use std::fs;

    #[test]
    fn what_is_parked_and_finds_its_way_blocked_is_in_the_folder_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), true).unwrap();
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let mut base = Tree::new();
        let ids: Vec<NodeId> = (1..=2).map(|n| NodeId::from_bytes([n; 16])).collect();
        for (id, text) in ids.iter().zip(["d", "e"]) {
            fs::create_dir(dir.path().join(text)).unwrap();
            fs::write(dir.path().join(text).join("x"), text).unwrap();
            let state = NodeState { parent: NodeId::ROOT, name: name(text), kind: Kind::Folder };
            base.insert(*id, TreeNode { version: Seq(1), state });
        }
        // Somebody made these a moment ago.
        fs::write(dir.path().join("taken"), "t").unwrap();
        let stamps: BTreeMap<NodeId, Stamp> = ids
            .iter()
            .zip(["d", "e"])
            .map(|(id, text)| {
                (*id, folder.look(&RelPath::parse(text.as_bytes()).unwrap()).unwrap().unwrap().stamp)
            })
            .collect();
        let ops = [
            DiskOp::Park { id: ids[0] },
            DiskOp::Move { id: ids[1], parent: NodeId::ROOT, name: name("d") },
            DiskOp::Move { id: ids[0], parent: NodeId::ROOT, name: name("taken") },
        ];
        let diff = Diff::new();
        let mut disk = Overlay::new(&base, &diff);
        let mut names = |name: &Name, n: u32| crate::folder::rescue_name(name, n);
        let report = structure(&folder, &ops, &mut disk, &|id| stamps.get(&id).copied(), &mut names).unwrap();
        assert!(report.left.contains(&ids[0]) && report.dirty.contains(&RelPath::root()));
        let found = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut texts: Vec<String> =
            found.filter_map(|path| fs::read_to_string(path.join("x")).ok()).collect();
        texts.sort();
        assert_eq!(texts, ["d", "e"]);
        assert_eq!(fs::read_to_string(dir.path().join("d/x")).unwrap(), "e");
        assert_eq!(fs::read_dir(dir.path().join(".dropblock/stage")).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_took_the_name_in_between_is_not_recorded_as_the_copy_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), true).unwrap();
        let content = FileContent { size: 1, root: Root { params: 1, level: 0, hash: BlockHash::of(b"n") } };
        let kind = Kind::File { content: content.clone(), mtime_ns: 7, exec: false };
        let state = |name: &str| {
            let name = Name::new(name.as_bytes()).unwrap();
            NodeState { parent: NodeId::ROOT, name, kind: kind.clone() }
        };
        let path = |name: &str| RelPath::parse(name.as_bytes()).unwrap();
        let (id, copy) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
        let file = crate::folder::stage::StagedFile::create(&folder, id, &content).unwrap();
        file.write_at(0, b"n").unwrap();
        let staged = file.finish(&folder, false, 7).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/b"), "b").unwrap();
        let copy = Some((copy, state("d (conflict)"), path("d (conflict)")));
        let placing = Placing { id, state: state("d"), path: path("d"), staged, expect: None, copy };
        let report = place_all(&folder, vec![placing], "pc", "now").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("d")).unwrap(), "n");
        assert_eq!(fs::read_to_string(dir.path().join("d (conflict)/b")).unwrap(), "b");
        assert_eq!(report.done.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [id]);
        assert!(report.dirty.contains(&RelPath::root()) && report.copied.is_empty());
    }

    #[test]
    fn of_two_nodes_at_one_place_none_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), true).unwrap();
        fs::write(dir.path().join("x"), "only").unwrap();
        let path = RelPath::parse(b"x").unwrap();
        let stamp = folder.look(&path).unwrap().unwrap().stamp;
        let root = Root { params: 1, level: 0, hash: BlockHash::of(b"only") };
        let kind =
            Kind::File { content: FileContent { size: 4, root }, mtime_ns: stamp.mtime_ns, exec: false };
        let state = NodeState { parent: NodeId::ROOT, name: Name::new(b"x").unwrap(), kind };
        let ids = [NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16])];
        let (base, diff) = (Tree::new(), Diff::from(ids.map(|id| (id, Some(state.clone())))));
        let mut disk = Overlay::new(&base, &diff);
        let mut names = |name: &Name, n: u32| crate::folder::rescue_name(name, n);
        let ops = [DiskOp::Trash { id: ids[1] }];
        let report = structure(&folder, &ops, &mut disk, &|_| Some(stamp), &mut names).unwrap();
        assert!(report.left.contains(&ids[1]) && report.done.is_empty());
        assert!(dir.path().join("x").exists());
    }
}
