//! Matching a listing of the disk with the base: which name is which node. Pure.
//!
//! In this order, each step leaving the rest to the next:
//! 1. Folders in their place are walked in pairs, disk and base by name. Same kind and same stamp: unchanged. Same
//!    identity: touched. An identity that belongs to another node: left open, so that swaps and rotations come out as
//!    moves. Any other: a file saved by replacing it, touched.
//! 2. Folders left open, outermost first: by identity, if that node is gone from its place (a move; its children are
//!    then walked in pairs); else by place; else new, and all its names are left open.
//! 3. Files and symlinks left open: by identity, then by place, else new.
//!
//! What is left of the base is gone.

use super::scan::{Entry, Found, Scan};
use super::walk::{Disk, DiskEntry, Listing};
use super::{EntryKind, Stamp, State};
use crate::model::{IdSource, NodeId};
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::iter::Peekable;

/// Matches everything.
pub fn compare(state: &State, disk: &Disk, ids: &mut IdSource) -> Scan {
    let mut matching = Matching {
        state,
        disk,
        order: order(disk),
        nodes: vec![None; disk.listings.len()],
        missing: BTreeSet::new(),
        claimed: HashSet::new(),
        pairs: VecDeque::new(),
        open_folders: VecDeque::new(),
        open_files: Vec::new(),
        found: Vec::new(),
        special: Vec::new(),
    };
    // No walk of the base comes by them: they are elsewhere, or gone.
    matching.missing.extend(state.base.unreachable());
    matching.pairs.extend(disk.roots.iter().copied());
    matching.walk_pairs();
    matching.match_folders(ids);
    matching.match_files(ids);
    matching.finish()
}

/// A name on disk: its listing and its place in it.
type At = (usize, usize);

struct Matching<'a> {
    state: &'a State,
    disk: &'a Disk,
    /// Rank of each listing: outer folders first, then by name.
    order: Vec<usize>,
    /// The node of each listing.
    nodes: Vec<Option<NodeId>>,
    /// Nodes of the base whose folder was looked at and that are not there. What is below them is missing too.
    missing: BTreeSet<NodeId>,
    /// Nodes that were missing and came out elsewhere, or by place.
    claimed: HashSet<NodeId>,
    pairs: VecDeque<(NodeId, usize)>,
    open_folders: VecDeque<At>,
    open_files: Vec<At>,
    found: Vec<(At, Found)>,
    special: Vec<At>,
}

/// What stands at one name.
enum Side<'a> {
    Disk(usize, &'a DiskEntry),
    Base(NodeId),
    Both(usize, &'a DiskEntry, NodeId),
}

impl<'a> Matching<'a> {
    fn listing(&self, slot: usize) -> Option<&'a Listing> {
        self.disk.listings.get(slot)
    }

    fn entry(&self, at: At) -> Option<&'a DiskEntry> {
        self.listing(at.0)?.entries.get(at.1)
    }

    fn kind(&self, id: NodeId) -> Option<EntryKind> {
        Some(EntryKind::of(&self.state.base.get(id)?.state.kind))
    }

    fn walk_pairs(&mut self) {
        while let Some((id, slot)) = self.pairs.pop_front() {
            if let Some(node) = self.nodes.get_mut(slot) {
                *node = Some(id);
            }
            let Some(listing) = self.listing(slot).filter(|listing| !listing.unreadable) else { continue };
            if let Some(node) = listing.as_in {
                // The walk found it by the same names that lead here. Were it not so, nothing could be said about it.
                if node == id {
                    self.pair_folders(slot, listing, id);
                }
                continue;
            }
            for side in sides(listing, self.state, id) {
                match side {
                    Side::Disk(index, entry) => self.leave_open((slot, index), entry),
                    Side::Base(child) => {
                        let unknown = self
                            .state
                            .base
                            .get(child)
                            .is_some_and(|node| listing.unknown.contains(&node.state.name));
                        if !unknown {
                            self.miss(child);
                        }
                    }
                    Side::Both(index, entry, child) => self.pair((slot, index), entry, child),
                }
            }
        }
    }

    /// A folder in which all is as it was: only what lies in its folders is left to see.
    fn pair_folders(&mut self, slot: usize, listing: &Listing, id: NodeId) {
        for (index, entry) in listing.entries.iter().enumerate() {
            if let Some(child) = self.state.base.child(id, &entry.name) {
                self.pair((slot, index), entry, child);
            }
        }
    }

    /// A name that is in the base and on disk.
    fn pair(&mut self, at: At, entry: &DiskEntry, child: NodeId) {
        if self.kind(child) != Some(entry.kind) || self.claimed.contains(&child) {
            self.leave_open(at, entry);
            self.miss(child);
            return;
        }
        let known = self.state.stamp(child);
        let same_file = known.is_some_and(|known| known.identity() == entry.stamp.identity());
        if !same_file && self.owners(entry).any(|owner| owner != child) {
            self.leave_open(at, entry);
            self.miss(child);
            return;
        }
        let touched = match entry.kind {
            // A folder's own times change with every name in it and mean nothing.
            EntryKind::Folder => !same_file,
            _ => known != Some(&entry.stamp),
        };
        if touched {
            self.find(at, entry, child, Way::Touched);
        }
        self.pairs.extend(entry.listing.map(|listing| (child, listing)));
    }

    /// Nodes of the base that had this file and are of the same kind.
    fn owners<'b>(&self, entry: &'b DiskEntry) -> impl Iterator<Item = NodeId> + use<'a, 'b> {
        let state = self.state;
        state.owners(entry.stamp.identity()).filter(move |owner| {
            let Some(node) = state.base.get(*owner) else { return false };
            EntryKind::of(&node.state.kind) == entry.kind
                && state.stamp(*owner).is_some_and(|known| is_convincing(known, entry))
        })
    }

    fn leave_open(&mut self, at: At, entry: &DiskEntry) {
        match entry.kind {
            EntryKind::Folder => self.open_folders.push_back(at),
            EntryKind::Special => self.special.push(at),
            EntryKind::File | EntryKind::Symlink => self.open_files.push(at),
        }
    }

    fn miss(&mut self, id: NodeId) {
        if !self.claimed.contains(&id) {
            self.missing.insert(id);
        }
    }

    /// True for a node that is not in its place: itself or a folder above it is missing.
    fn has_left(&self, id: NodeId) -> bool {
        let mut above = self.state.base.upwards(id).map(|(id, _)| id);
        let decided = above.find(|at| self.claimed.contains(at) || self.missing.contains(at));
        decided.is_some_and(|at| !self.claimed.contains(&at))
    }

    /// Matches a name with a node that left its place. `false` when there is none.
    fn claim_by_identity(&mut self, at: At, entry: &DiskEntry) -> bool {
        let Some(id) = self.owners(entry).find(|owner| self.has_left(*owner)) else { return false };
        self.claim(at, entry, id, Way::Moved);
        true
    }

    /// Matches a name with the missing node of the same kind at the same place. `false` when there is none.
    fn claim_by_place(&mut self, at: At, entry: &DiskEntry) -> bool {
        let parent = self.nodes.get(at.0).copied().flatten();
        let Some(id) = parent.and_then(|parent| self.state.base.child(parent, &entry.name)) else {
            return false;
        };
        if !self.missing.contains(&id) || self.kind(id) != Some(entry.kind) {
            return false;
        }
        self.claim(at, entry, id, Way::Touched);
        true
    }

    fn claim(&mut self, at: At, entry: &DiskEntry, id: NodeId, way: Way) {
        self.missing.remove(&id);
        self.claimed.insert(id);
        self.find(at, entry, id, way);
        self.pairs.extend(entry.listing.map(|listing| (id, listing)));
        // At once: what else is missing inside must be known before the next name is matched.
        self.walk_pairs();
    }

    fn match_folders(&mut self, ids: &mut IdSource) {
        // Those without a match by identity wait until no other folder has one: a place could still be claimed.
        let mut later = VecDeque::new();
        loop {
            if let Some(at) = self.open_folders.pop_front() {
                if let Some(entry) = self.entry(at)
                    && !self.claim_by_identity(at, entry)
                {
                    later.push_back(at);
                }
            } else if let Some(at) = later.pop_front() {
                if let Some(entry) = self.entry(at)
                    && !self.claim_by_place(at, entry)
                {
                    self.take_as_new(at, entry, ids);
                }
            } else {
                return;
            }
        }
    }

    fn match_files(&mut self, ids: &mut IdSource) {
        let mut open = std::mem::take(&mut self.open_files);
        open.sort_unstable_by_key(|at| self.rank(*at));
        let mut later = Vec::new();
        for at in open {
            if let Some(entry) = self.entry(at)
                && !self.claim_by_identity(at, entry)
            {
                later.push((at, entry));
            }
        }
        for (at, entry) in later {
            if !self.claim_by_place(at, entry) {
                self.take_as_new(at, entry, ids);
            }
        }
    }

    fn take_as_new(&mut self, at: At, entry: &DiskEntry, ids: &mut IdSource) {
        let id = ids.node();
        self.find(at, entry, id, Way::New);
        let Some(slot) = entry.listing else { return };
        if let Some(node) = self.nodes.get_mut(slot) {
            *node = Some(id);
        }
        let Some(listing) = self.listing(slot) else { return };
        for (index, entry) in listing.entries.iter().enumerate() {
            self.leave_open((slot, index), entry);
        }
    }

    fn find(&mut self, at: At, entry: &DiskEntry, id: NodeId, way: Way) {
        let Some(parent) = self.nodes.get(at.0).copied().flatten() else { return };
        let stamp = entry.stamp;
        let seen = match entry.kind {
            EntryKind::Folder => Entry::Folder { stamp },
            EntryKind::Symlink => Entry::Symlink { stamp, target: entry.target.clone() },
            EntryKind::File | EntryKind::Special => Entry::File { stamp },
        };
        let touched = match way {
            Way::Moved if entry.kind == EntryKind::Folder => false,
            Way::Moved => self.state.stamp(id) != Some(&stamp),
            Way::Touched | Way::New => true,
        };
        let (new, moved) = (matches!(way, Way::New), matches!(way, Way::Moved));
        let found = Found { id, new, parent, name: entry.name.clone(), entry: seen, moved, touched };
        self.found.push((at, found));
    }

    fn rank(&self, at: At) -> At {
        (self.order.get(at.0).copied().unwrap_or(usize::MAX), at.1)
    }

    fn finish(mut self) -> Scan {
        let mut found = std::mem::take(&mut self.found);
        found.sort_by_key(|(at, _)| self.rank(*at));
        let mut special: Vec<_> = self
            .special
            .iter()
            .filter_map(|at| Some(self.listing(at.0)?.path.join(&self.entry(*at)?.name)))
            .collect();
        special.sort();
        let gone = self.gone();
        let missing = gone.iter().filter(|id| self.kind(**id) != Some(EntryKind::Folder)).count();
        Scan {
            found: found.into_iter().map(|(_, found)| found).collect(),
            gone,
            problems: self.disk.problems.clone(),
            special,
            tracked: self.state.tracked_files(),
            missing,
            moving: self.disk.has_moved(self.state),
        }
    }

    /// Missing nodes and what is below them, without what came out elsewhere.
    fn gone(&self) -> Vec<NodeId> {
        let mut gone: Vec<NodeId> = self.missing.iter().copied().collect();
        let mut next = 0;
        while let Some(id) = gone.get(next).copied() {
            let below = self.state.base.children(id).map(|(_, child)| child);
            gone.extend(below.filter(|child| !self.claimed.contains(child)));
            next += 1;
        }
        gone
    }
}

/// How a name came to its node.
#[derive(Clone, Copy)]
enum Way {
    Touched,
    Moved,
    New,
}

/// With a birth time, inode and birth time are one file. Without, an inode number may have been used again, so a file
/// must also look unedited.
fn is_convincing(known: &Stamp, entry: &DiskEntry) -> bool {
    known.btime_ns.is_some()
        || entry.kind == EntryKind::Folder
        || (known.size == entry.stamp.size && known.mtime_ns == entry.stamp.mtime_ns)
}

/// Names of a listing and of a folder of the base, merged in order.
fn sides<'a>(listing: &'a Listing, state: &'a State, id: NodeId) -> impl Iterator<Item = Side<'a>> {
    let mut disk = listing.entries.iter().enumerate().peekable();
    let mut base = state.base.children(id).peekable();
    std::iter::from_fn(move || next_side(&mut disk, &mut base))
}

fn next_side<'a, 'b>(
    disk: &mut Peekable<impl Iterator<Item = (usize, &'a DiskEntry)>>,
    base: &mut Peekable<impl Iterator<Item = (&'b crate::model::Name, NodeId)>>,
) -> Option<Side<'a>> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match (disk.peek(), base.peek()) {
        (Some((_, entry)), Some((name, _))) => entry.name.cmp(name),
        (Some(_), None) => Less,
        (None, Some(_)) => Greater,
        (None, None) => return None,
    };
    match order {
        Less => disk.next().map(|(index, entry)| Side::Disk(index, entry)),
        Greater => base.next().map(|(_, child)| Side::Base(child)),
        Equal => {
            disk.next().zip(base.next()).map(|((index, entry), (_, child))| Side::Both(index, entry, child))
        }
    }
}

/// Ranks listings: breadth first from the roots, by name.
fn order(disk: &Disk) -> Vec<usize> {
    let mut ranks = vec![usize::MAX; disk.listings.len()];
    let mut queue: VecDeque<usize> = disk.roots.iter().map(|(_, slot)| *slot).collect();
    let mut next = 0;
    while let Some(slot) = queue.pop_front() {
        if let Some(rank) = ranks.get_mut(slot) {
            *rank = next;
        }
        next += 1;
        let entries = disk.listings.get(slot).map(|listing| listing.entries.as_slice());
        queue.extend(entries.unwrap_or_default().iter().filter_map(|entry| entry.listing));
    }
    ranks
}
