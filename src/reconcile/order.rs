//! The order of disk operations: from the tree the disk shows to the merged tree, such that before each operation its
//! folder exists and its name is free. Pure; `folder::apply` carries the operations out and looks at the disk again
//! right before each.

use super::Merge;
use super::line::{Cause, Line, Task};
use crate::model::{Kind, Name, NodeId, NodeState};
use crate::tree::{Overlay, Tree};
use std::collections::{BTreeMap, BTreeSet};

/// One operation on the synced folder. Paths follow from the operations before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskOp {
    /// A file or symlink goes to the trash.
    Trash {
        /// The node.
        id: NodeId,
    },
    /// A folder that is empty by now goes.
    RemoveFolder {
        /// The node.
        id: NodeId,
    },
    /// A folder comes to exist.
    MakeFolder {
        /// The node.
        id: NodeId,
        /// The folder that will hold it.
        parent: NodeId,
        /// Its name.
        name: Name,
    },
    /// Something leaves the tree for a moment, because names are passed around in a ring.
    Park {
        /// The node.
        id: NodeId,
    },
    /// Something gets another name or another folder; also what was parked.
    Move {
        /// The node.
        id: NodeId,
        /// The folder that will hold it.
        parent: NodeId,
        /// Its name.
        name: Name,
    },
    /// New bytes (or a new link) at a place: created when nothing is there, swapped in otherwise.
    Place {
        /// The node.
        id: NodeId,
        /// What it shall be and where it is by now.
        state: NodeState,
        /// Where the bytes that are there now go, as a node of their own. `None`: to the trash.
        copy: Option<(NodeId, NodeState)>,
    },
    /// Same bytes, other time or exec bit.
    Meta {
        /// The node.
        id: NodeId,
        /// What it shall be.
        kind: Kind,
    },
}

impl DiskOp {
    /// The node it is about.
    pub const fn id(&self) -> NodeId {
        match self {
            Self::Trash { id }
            | Self::RemoveFolder { id }
            | Self::MakeFolder { id, .. }
            | Self::Park { id }
            | Self::Move { id, .. }
            | Self::Place { id, .. }
            | Self::Meta { id, .. } => *id,
        }
    }
}

/// Orders what must change on disk. Structure first (deletes, moves, folders), then contents by path.
pub fn plan_disk(base: &Tree, merge: &Merge) -> Vec<DiskOp> {
    let mut planner = Planner {
        now: Overlay::new(base, &merge.local),
        goal: Overlay::new(base, &merge.nodes),
        ops: Vec::new(),
    };
    let touched: BTreeSet<NodeId> = merge
        .nodes
        .keys()
        .chain(merge.local.keys())
        .copied()
        .filter(|id| !merge.copies.contains_key(id))
        .collect();
    planner.trash_files(&touched);
    planner.structure(&touched);
    planner.contents(&touched, &merge.copies);
    planner.ops
}

struct Planner<'a> {
    now: Overlay<'a>,
    goal: Overlay<'a>,
    ops: Vec<DiskOp>,
}

impl Planner<'_> {
    fn trash_files(&mut self, touched: &BTreeSet<NodeId>) {
        for id in touched {
            let gone = self.goal.state(*id).is_none();
            if gone && self.now.state(*id).is_some_and(|state| !state.kind.is_folder()) {
                self.ops.push(DiskOp::Trash { id: *id });
                self.now.set(*id, None);
            }
        }
    }

    /// Moves, new folders and removed folders, each as soon as it can be done: round after round in their order, until
    /// nothing is left. What cannot be done is tried again only when what it waits for has changed, so a long chain of
    /// names that are handed on costs no more than its length.
    fn structure(&mut self, touched: &BTreeSet<NodeId>) {
        let tasks: Vec<Task> = {
            let arrivals = self.arrivals(touched).into_iter().map(Task::Arrive);
            arrivals.chain(self.removals(touched).into_iter().map(Task::Remove)).collect()
        };
        let mut line = Line::new(tasks, |folder| self.now.children(folder).len());
        let mut parked: BTreeMap<NodeId, NodeState> = BTreeMap::new();
        loop {
            while let Some((number, task)) = line.next() {
                let was = self.now.state(task.id()).cloned();
                let outcome = match task {
                    Task::Arrive(id) => self.try_arrive(id, &mut parked),
                    Task::Remove(id) => self.try_remove(id),
                };
                match outcome {
                    Ok(()) => {
                        line.done(number);
                        let is = self.now.state(task.id());
                        line.changed(task.id(), was.as_ref(), is);
                    }
                    Err(cause) => line.wait(number, cause),
                }
            }
            if line.is_empty() {
                return;
            }
            line.start_over();
            let Some((out, was)) = self.park_one(&mut line, &mut parked) else {
                // Only what reconcile never makes gets here; the next cycle looks again.
                return;
            };
            line.changed(out, Some(&was), None);
        }
    }

    /// Folders to make and nodes to move, outermost goal first.
    fn arrivals(&self, touched: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let mut found: Vec<(usize, NodeId)> = Vec::new();
        for id in touched {
            let Some(goal) = self.goal.state(*id) else { continue };
            let due = match self.now.state(*id) {
                None => goal.kind.is_folder(),
                Some(now) => !now.same_place(goal),
            };
            if due {
                found.push((self.goal.depth_of(*id).unwrap_or(usize::MAX), *id));
            }
        }
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Folders to remove, innermost first.
    fn removals(&self, touched: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let mut found: Vec<(usize, NodeId)> = Vec::new();
        for id in touched {
            if self.goal.state(*id).is_none() && self.now.is_live_folder(*id) {
                found.push((self.now.depth_of(*id).unwrap_or(0), *id));
            }
        }
        found.sort_unstable();
        found.into_iter().rev().map(|(_, id)| id).collect()
    }

    fn try_arrive(&mut self, id: NodeId, parked: &mut BTreeMap<NodeId, NodeState>) -> Result<(), Cause> {
        let Some(goal) = self.goal.state(id).cloned() else { return Ok(()) };
        if !self.now.is_live_folder(goal.parent) {
            return Err(Cause::Absent(goal.parent));
        }
        if self.now.depth_of(goal.parent).is_none() || self.is_inside(goal.parent, id) {
            return Err(Cause::Folders);
        }
        if !self.now.is_free(goal.parent, &goal.name) {
            return Err(Cause::Taken(goal.parent, goal.name));
        }
        let (parent, name) = (goal.parent, goal.name.clone());
        let was = self.now.state(id).cloned().or_else(|| parked.remove(&id));
        let kind = match was {
            Some(was) => {
                self.ops.push(DiskOp::Move { id, parent, name: name.clone() });
                was.kind
            }
            None => {
                self.ops.push(DiskOp::MakeFolder { id, parent, name: name.clone() });
                Kind::Folder
            }
        };
        self.now.set(id, Some(NodeState { parent, name, kind }));
        Ok(())
    }

    fn try_remove(&mut self, id: NodeId) -> Result<(), Cause> {
        if self.now.has_children(id) {
            return Err(Cause::Full(id));
        }
        if self.now.depth_of(id).is_none() {
            return Err(Cause::Folders);
        }
        self.ops.push(DiskOp::RemoveFolder { id });
        self.now.set(id, None);
        Ok(())
    }

    /// True when `folder` is `id` or lies below it now.
    fn is_inside(&self, folder: NodeId, id: NodeId) -> bool {
        let mut at = folder;
        while at != NodeId::ROOT {
            if at == id {
                return true;
            }
            let Some(state) = self.now.state(at) else { return false };
            at = state.parent;
        }
        false
    }

    /// Breaks a knot: takes one node out of the way. Best the holder of a name that itself waits (a ring of names); else
    /// any that waits (a folder that must go below its own child, or leave a folder whose name it takes). Never one with
    /// another inside that waits: that would be out of reach, and the way back may lead through it.
    fn park_one(
        &mut self,
        line: &mut Line,
        parked: &mut BTreeMap<NodeId, NodeState>,
    ) -> Option<(NodeId, NodeState)> {
        let reachable = |planner: &Self, id: NodeId| {
            planner.now.state(id).is_some() && planner.now.depth_of(id).is_some()
        };
        let ring = line.first_arrival(|line, id| {
            let goal = self.goal.state(id)?;
            let holders = self.now.at(goal.parent, &goal.name);
            holders.into_iter().find(|holder| line.is_to_arrive(*holder) && reachable(self, *holder))
        });
        let out = ring.or_else(|| line.arrivals().find(|id| reachable(self, *id)))?;
        let out = self.innermost_waiting(line, out);
        let state = self.now.state(out).cloned()?;
        self.ops.push(DiskOp::Park { id: out });
        parked.insert(out, state.clone());
        self.now.set(out, None);
        Some((out, state))
    }

    /// The deepest of the nodes in a folder that have not arrived; the folder itself when there are none.
    fn innermost_waiting(&self, line: &Line, folder: NodeId) -> NodeId {
        let (mut innermost, mut level) = (folder, vec![folder]);
        while !level.is_empty() {
            innermost = level.iter().copied().find(|id| line.is_to_arrive(*id)).unwrap_or(innermost);
            level = level.into_iter().flat_map(|id| self.now.children(id)).collect();
        }
        innermost
    }

    /// Bytes, links, times and exec bits, ordered by path so that work stays in one folder at a time.
    fn contents(&mut self, touched: &BTreeSet<NodeId>, copies: &BTreeMap<NodeId, NodeId>) {
        let copy_of: BTreeMap<NodeId, NodeId> =
            copies.iter().map(|(copy, source)| (*source, *copy)).collect();
        let mut found = Vec::new();
        for id in touched {
            let Some(goal) = self.goal.state(*id) else { continue };
            if goal.kind.is_folder() {
                continue;
            }
            let op = match self.now.state(*id) {
                Some(now) if now.kind == goal.kind => continue,
                Some(now) if now.kind.same_content(&goal.kind) => {
                    DiskOp::Meta { id: *id, kind: goal.kind.clone() }
                }
                _ => {
                    let copy =
                        copy_of.get(id).and_then(|copy| Some((*copy, self.goal.state(*copy)?.clone())));
                    DiskOp::Place { id: *id, state: goal.clone(), copy }
                }
            };
            found.push((self.goal.path_of(*id), op));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        self.ops.extend(found.into_iter().map(|(_, op)| op));
    }
}
