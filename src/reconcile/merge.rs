//! The merge: the table for one node, then the structure (folders that must come back, cycles, names).

use crate::model::{IdSource, Kind, Name, NodeId, NodeState};
use crate::tree::{Diff, Overlay, Tree};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The three trees: a base, and what differs from it on either side.
#[derive(Debug, Clone, Copy)]
pub struct Sides<'a> {
    /// What both sides agreed on last.
    pub base: &'a Tree,
    /// What the disk shows, where it differs from the base.
    pub local: &'a Diff,
    /// What the server has, where it differs from the base.
    pub remote: &'a Diff,
}

/// Who makes conflict copies, and when; part of their names.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// This device.
    pub device: &'a str,
    /// `DATE TIME`.
    pub when: &'a str,
}

/// What both sides shall have.
#[derive(Debug, Clone, Default)]
pub struct Merge {
    /// Every node that a side changed or that the merge touched, as it shall be.
    pub nodes: Diff,
    /// What the disk shows, with the ids that nodes have from now on.
    pub local: Diff,
    /// A new node that holds the local bytes of another one, whose own bytes are the server's.
    pub copies: BTreeMap<NodeId, NodeId>,
    /// What the disk has under the first id it has under the second from now on: nodes made on both sides that are one.
    pub adopted: BTreeMap<NodeId, NodeId>,
}

/// Merges. Every id in `local` or `remote` is in [`Merge::nodes`]; deterministic in its arguments.
pub fn reconcile(sides: Sides<'_>, origin: Origin<'_>, ids: &mut IdSource) -> Merge {
    let mut merger = Merger::new(sides, origin);
    merger.merge_nodes();
    merger.make_copies(ids);
    merger.settle();
    Merge {
        nodes: merger.merged.into_changed(),
        local: merger.local.into_changed(),
        copies: merger.copies,
        adopted: merger.adopted,
    }
}

pub(super) struct Merger<'a> {
    base: &'a Tree,
    pub(super) origin: Origin<'a>,
    pub(super) local: Overlay<'a>,
    pub(super) remote: Overlay<'a>,
    pub(super) merged: Overlay<'a>,
    pub(super) copies: BTreeMap<NodeId, NodeId>,
    pub(super) adopted: BTreeMap<NodeId, NodeId>,
    /// Nodes whose bytes differ on both sides.
    conflicts: Vec<NodeId>,
    /// Targets of `adopted`, and sources of `copies`: so that most adoptions need not look through them.
    pub(super) adopters: BTreeSet<NodeId>,
    /// Conflict copies per folder, listed once.
    copies_in: RefCell<BTreeMap<NodeId, Vec<NodeId>>>,
    /// Nodes whose place must be looked at (again).
    pub(super) queue: VecDeque<NodeId>,
}

impl<'a> Merger<'a> {
    fn new(sides: Sides<'a>, origin: Origin<'a>) -> Self {
        Self {
            base: sides.base,
            origin,
            local: Overlay::new(sides.base, sides.local),
            remote: Overlay::new(sides.base, sides.remote),
            merged: Overlay::on(sides.base),
            copies: BTreeMap::new(),
            adopted: BTreeMap::new(),
            adopters: BTreeSet::new(),
            copies_in: RefCell::default(),
            conflicts: Vec::new(),
            queue: VecDeque::new(),
        }
    }

    /// Sets the merged state of a node and has its place looked at.
    pub(super) fn put(&mut self, id: NodeId, state: Option<NodeState>) {
        if state.is_some() {
            self.queue.push_back(id);
        }
        self.merged.set(id, state);
    }

    /// The table of `docs/RECONCILE.md`, node by node.
    fn merge_nodes(&mut self) {
        let mut ids: Vec<NodeId> = self.local.changed_ids().chain(self.remote.changed_ids()).collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let base = self.base.get(id).map(|node| &node.state);
            let (local, remote) = (self.local.state(id), self.remote.state(id));
            let merged = match (local, remote) {
                _ if local == base => match remote {
                    None if self.moved_above(id, &self.local, &self.remote) => local.cloned(),
                    _ => remote.cloned(),
                },
                _ if remote == base => match local {
                    None if self.moved_above(id, &self.remote, &self.local) => remote.cloned(),
                    _ => local.cloned(),
                },
                (None, None) => None,
                // Edit, move or touch beats delete, whichever side it is on.
                (None, Some(kept)) | (Some(kept), None) => Some(kept.clone()),
                (Some(local), Some(remote)) => {
                    let place = merged_place(base, local, remote);
                    let (kind, conflict) = merged_kind(base.map(|b| &b.kind), &local.kind, &remote.kind);
                    if conflict {
                        self.conflicts.push(id);
                    }
                    Some(NodeState { parent: place.parent, name: place.name.clone(), kind })
                }
            };
            self.put(id, merged);
        }
    }

    /// True when a folder above `id` was moved on one side (`mover`) while the other side deleted it with all it holds.
    /// The move wins, and what is in the folder belongs to it.
    fn moved_above(&self, id: NodeId, mover: &Overlay<'_>, deleter: &Overlay<'_>) -> bool {
        let mut at = mover.state(id).map(|state| state.parent);
        let mut steps = 0;
        while let Some(folder) = at {
            steps += 1;
            if folder == NodeId::ROOT || steps > crate::model::limits::PATH_DEPTH_MAX {
                return false;
            }
            let Some(now) = mover.state(folder) else { return false };
            let moved = self.base.get(folder).is_some_and(|node| !node.state.same_place(now));
            if moved && deleter.state(folder).is_none() {
                return true;
            }
            at = Some(now.parent);
        }
        false
    }

    /// Gives the local bytes of every conflict a node and a name of their own.
    fn make_copies(&mut self, ids: &mut IdSource) {
        for id in std::mem::take(&mut self.conflicts) {
            let (Some(merged), Some(local)) = (self.merged.state(id).cloned(), self.local.state(id).cloned())
            else {
                continue;
            };
            if self.has_copy(id, merged.parent, &merged.name, &local.kind) {
                continue;
            }
            let copy = ids.node();
            let name = self.free_name(merged.parent, &merged.name);
            self.copies.insert(copy, id);
            self.adopters.insert(id);
            self.put(copy, Some(NodeState { parent: merged.parent, name, kind: local.kind }));
        }
    }

    /// A conflict name for `original` that is free in `parent`.
    pub(super) fn free_name(&self, parent: NodeId, original: &Name) -> Name {
        let taken = |name: &Name| {
            !self.merged.is_free(parent, name)
                || !self.local.is_free(parent, name)
                || !self.remote.is_free(parent, name)
        };
        super::conflict_name(original, self.origin.device, self.origin.when, &taken)
    }

    /// True when a conflict copy of `original` with the same bytes, and which is not `id` itself, is new beside it: this very
    /// conflict was met before.
    pub(super) fn has_copy(&self, id: NodeId, parent: NodeId, original: &Name, kind: &Kind) -> bool {
        let bare = super::names::original_of(original).unwrap_or_else(|| original.as_bytes().to_vec());
        let mut lists = self.copies_in.borrow_mut();
        // Copies made by this merge are of other files, so a list of what was there is enough.
        let list = lists.entry(parent).or_insert_with(|| {
            let is_copy = |id: &NodeId| {
                self.merged.state(*id).is_some_and(|state| super::names::original_of(&state.name).is_some())
            };
            self.merged.children(parent).into_iter().filter(is_copy).collect()
        });
        let others = list.iter().filter(|other| **other != id && self.base.get(**other).is_none());
        let others = others.filter_map(|other| self.merged.state(*other));
        others.filter(|state| state.parent == parent).any(|state| {
            state.kind.same_content(kind)
                && super::names::original_of(&state.name).as_ref() == Some(&bare)
                && !self.is_shared(state)
        })
    }

    /// True when both sides have this at its place. It is a file like any other then, which somebody may have put over the
    /// original here while somebody else replaces it.
    fn is_shared(&self, copy: &NodeState) -> bool {
        [&self.local, &self.remote].into_iter().all(|side| {
            let mut there = side.at(copy.parent, &copy.name).into_iter();
            there.any(|id| side.state(id).is_some_and(|state| state.kind.same_content(&copy.kind)))
        })
    }
}

/// First commit wins the place: the server's, unless only this side moved.
fn merged_place<'s>(base: Option<&NodeState>, local: &'s NodeState, remote: &'s NodeState) -> &'s NodeState {
    match base {
        Some(base) if remote.same_place(base) => local,
        _ => remote,
    }
}

/// Bytes, time and exec bit of a node that lives on both sides, and whether the bytes are in conflict.
fn merged_kind(base: Option<&Kind>, local: &Kind, remote: &Kind) -> (Kind, bool) {
    let unchanged = |side: &Kind| base.is_some_and(|base| base.same_content(side));
    if local.same_content(remote) || unchanged(local) {
        (merged_meta(base, local, remote, remote), false)
    } else if unchanged(remote) {
        (merged_meta(base, local, remote, local), false)
    } else {
        (remote.clone(), true)
    }
}

/// `content` with the exec bit, and where both sides have the same bytes the time, of the side that changed it; the
/// server's when both did.
fn merged_meta(base: Option<&Kind>, local: &Kind, remote: &Kind, content: &Kind) -> Kind {
    let (
        Kind::File { mtime_ns: l_time, exec: l_exec, .. },
        Kind::File { mtime_ns: r_time, exec: r_exec, .. },
    ) = (local, remote)
    else {
        return content.clone();
    };
    let (b_time, b_exec) = match base {
        Some(Kind::File { mtime_ns, exec, .. }) => (Some(*mtime_ns), Some(*exec)),
        _ => (None, None),
    };
    let Kind::File { content: bytes, mtime_ns: content_time, .. } = content else { return content.clone() };
    let mtime_ns = match () {
        () if !local.same_content(remote) => *content_time,
        () if b_time == Some(*r_time) => *l_time,
        () => *r_time,
    };
    let exec = if b_exec == Some(*r_exec) { *l_exec } else { *r_exec };
    Kind::File { content: bytes.clone(), mtime_ns, exec }
}
