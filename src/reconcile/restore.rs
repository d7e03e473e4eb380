//! Restore: which changes make a place of a share what something was at an earlier time. Pure.
//!
//! The rules, also in `docs/adr/0008-history.md`:
//! - Afterwards the place holds what it held then, names, contents and all; nothing outside of it changes.
//! - A node that is below the place now is moved and changed back, whatever it has become.
//! - Else a node of the same sort that has the name now takes the old content, as an edit of it.
//! - Else a node that was deleted comes back under its id.
//! - Else (it lives outside of the place now, and stays there) a new node is made: a copy.
//! - What else is below the place now, because it came later, is deleted. A restore to before the restore brings it back.
//! - Of a file whose old content is lost, only the place is restored: it keeps the content that it has now, a file that has its
//!   name now stays, and one that is not there any more does not come back.
//!
//! Content is named, never read: whoever commits the changes sends no bytes.

use crate::model::{Change, IdSource, Kind, Name, Node, NodeId, NodeState, RelPath, Seq};
use crate::tree::Tree;
use std::collections::{HashMap, HashSet};

/// One change of a restore, with its paths for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is committed.
    pub change: Change,
    /// Where the node is now; `None` for one that is not there.
    pub from: Option<RelPath>,
    /// Where it will be; `None` for one that is deleted.
    pub to: Option<RelPath>,
}

/// Where a restore goes.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder.
    pub parent: NodeId,
    /// The name in it.
    pub name: Name,
    /// The same as a path of the share.
    pub path: RelPath,
}

/// What a restore is made of.
#[derive(Debug)]
pub struct Restore<'a> {
    /// What was: `top` and all below it.
    pub then: &'a Tree,
    /// What is restored; the root for the whole share.
    pub top: NodeId,
    /// The share now: at least what is at the place and below it.
    pub now: &'a Tree,
    /// The nodes of `then` as they are now, wherever they are, tombstones too.
    pub standing: &'a HashMap<NodeId, Node>,
    /// Where it goes; `None` for the whole share.
    pub place: Option<Place>,
    /// Every node is made anew, and nothing is at the place.
    pub copy: bool,
    /// Files of `then` whose content does not exist any more.
    pub lost: &'a HashSet<NodeId>,
}

/// The changes, in an order in which every part of them can be committed before the rest, as far as there is one: names
/// that swap are next to each other.
pub fn plan(restore: &Restore<'_>, ids: &mut IdSource) -> Vec<Step> {
    let mut planner = Planner::new(restore);
    planner.give_homes(ids);
    planner.order()
}

/// The folders that lead to a place and are missing: made below `parent`, or brought back where one of that name was
/// deleted. Returns the innermost one too.
pub fn missing_folders(
    parent: NodeId,
    path: &RelPath,
    names: &[Name],
    deleted: &[Option<Node>],
    ids: &mut IdSource,
) -> (Vec<Step>, NodeId) {
    let (mut steps, mut parent, mut path) = (Vec::new(), parent, path.clone());
    for (place, name) in names.iter().enumerate() {
        let old = deleted.get(place).and_then(Option::as_ref).filter(|node| node.state.is_none());
        let (id, base) = old.map_or_else(|| (ids.node(), Seq::ZERO), |node| (node.id, node.version));
        let state = NodeState { parent, name: name.clone(), kind: Kind::Folder };
        path = path.join(name);
        steps.push(Step {
            change: Change { id, base, state: Some(state) },
            from: None,
            to: Some(path.clone()),
        });
        parent = id;
    }
    (steps, parent)
}

struct Planner<'a> {
    restore: &'a Restore<'a>,
    /// What is at the place and below it now, parents first.
    inside: Vec<NodeId>,
    /// Those of `inside` that are part of what will be.
    claimed: HashSet<NodeId>,
    /// Node of `then` -> the node that it will be, and its path.
    homes: HashMap<NodeId, (NodeId, RelPath)>,
    /// What will be, parents first, with its version now.
    wanted: Vec<(NodeId, Seq, NodeState, RelPath)>,
}

impl<'a> Planner<'a> {
    fn new(restore: &'a Restore<'a>) -> Self {
        let mut inside = Vec::new();
        match &restore.place {
            Some(place) => {
                if let Some(holder) = restore.now.child(place.parent, &place.name) {
                    inside.push(holder);
                    inside.extend(restore.now.descendants(holder));
                }
            }
            None => inside.extend(restore.now.descendants(NodeId::ROOT)),
        }
        let same_sort = |id: &NodeId| match (restore.now.get(*id), restore.then.get(*id)) {
            (Some(now), Some(then)) => now.state.kind.is_folder() == then.state.kind.is_folder(),
            _ => false,
        };
        let claimed = if restore.copy {
            HashSet::new()
        } else {
            inside.iter().filter(|id| same_sort(id)).copied().collect()
        };
        Self { restore, inside, claimed, homes: HashMap::new(), wanted: Vec::new() }
    }

    /// Decides which node each one of `then` will be.
    fn give_homes(&mut self, ids: &mut IdSource) {
        let Restore { then, top, place, .. } = self.restore;
        match place {
            None => drop(self.homes.insert(NodeId::ROOT, (NodeId::ROOT, RelPath::root()))),
            // A copy of the whole share: a folder stands for its root.
            Some(Place { parent, name, path }) if *top == NodeId::ROOT => {
                let state = NodeState { parent: *parent, name: name.clone(), kind: Kind::Folder };
                let id = ids.node();
                self.wanted.push((id, Seq::ZERO, state, path.clone()));
                self.homes.insert(NodeId::ROOT, (id, path.clone()));
            }
            Some(_) => {}
        }
        let below = then.descendants(*top);
        for old in place.iter().map(|_| *top).chain(below) {
            let Some(node) = then.get(old) else { continue };
            let (parent, name, path) = match place {
                Some(place) if old == *top => (place.parent, place.name.clone(), place.path.clone()),
                _ => match self.homes.get(&node.state.parent) {
                    Some((parent, path)) => (*parent, node.state.name.clone(), path.join(&node.state.name)),
                    None => continue,
                },
            };
            let mut state = NodeState { parent, name, kind: node.state.kind.clone() };
            if self.restore.lost.contains(&old) {
                match self.stand_in(old, &state) {
                    Some(now) => state.kind = now,
                    None => continue,
                }
            }
            let (id, version) = self.home(old, &state, ids);
            self.homes.insert(old, (id, path.clone()));
            self.wanted.push((id, version, state, path));
        }
    }

    /// What stays or goes to the place of a file whose old content is lost.
    fn stand_in(&self, old: NodeId, state: &NodeState) -> Option<Kind> {
        let now = self.restore.now;
        let file = |id| now.get(id).map(|node| &node.state.kind).filter(|kind| !kind.is_folder()).cloned();
        if self.restore.copy {
            None
        } else if self.claimed.contains(&old) {
            file(old)
        } else {
            let holder = now.child(state.parent, &state.name).filter(|id| !self.claimed.contains(id));
            holder.and_then(file)
        }
    }

    fn home(&mut self, old: NodeId, state: &NodeState, ids: &mut IdSource) -> (NodeId, Seq) {
        let now = self.restore.now;
        let version = |id| now.get(id).map_or(Seq::ZERO, |node| node.version);
        if self.restore.copy {
            return (ids.node(), Seq::ZERO);
        }
        if self.claimed.contains(&old) && self.restore.then.get(old).is_some() {
            return (old, version(old));
        }
        let holder = now.child(state.parent, &state.name).filter(|id| {
            let same_sort =
                now.get(*id).is_some_and(|node| node.state.kind.is_folder() == state.kind.is_folder());
            same_sort && !self.claimed.contains(id)
        });
        if let Some(holder) = holder {
            self.claimed.insert(holder);
            return (holder, version(holder));
        }
        match self.restore.standing.get(&old) {
            Some(node) if node.state.is_none() && node.version > Seq::ZERO => (old, node.version),
            _ => (ids.node(), Seq::ZERO),
        }
    }

    /// The steps: parents before what they hold, next to each the ones that free its name, deletions last and from the
    /// inside out.
    fn order(self) -> Vec<Step> {
        let now = self.restore.now;
        let mut waiting: HashMap<NodeId, Step> = HashMap::new();
        let mut order = Vec::new();
        for (id, version, state, path) in &self.wanted {
            let standing = now.get(*id).map(|node| &node.state);
            if standing == Some(state) {
                continue;
            }
            let change = Change { id: *id, base: *version, state: Some(state.clone()) };
            let from = standing.map(|_| self.path_now(*id));
            waiting.insert(*id, Step { change, from, to: Some(path.clone()) });
            order.push(*id);
        }
        for id in self.inside.iter().rev().filter(|id| !self.claimed.contains(id)) {
            let Some(node) = now.get(*id) else { continue };
            let change = Change { id: *id, base: node.version, state: None };
            waiting.insert(*id, Step { change, from: Some(self.path_now(*id)), to: None });
            order.push(*id);
        }
        let mut steps = Vec::with_capacity(order.len());
        for id in order {
            let mut next = Some(id);
            while let Some(step) = next.and_then(|id| waiting.remove(&id)) {
                let place = step.change.state.as_ref();
                next = place.and_then(|state| now.child(state.parent, &state.name));
                steps.push(step);
            }
        }
        steps
    }

    /// Where something inside the place is now.
    fn path_now(&self, id: NodeId) -> RelPath {
        let mut names = Vec::new();
        let top = self.inside.first().filter(|_| self.restore.place.is_some());
        let mut path = RelPath::root();
        for (at, node) in self.restore.now.upwards(id) {
            if Some(&at) == top {
                path = self.restore.place.as_ref().map(|place| place.path.clone()).unwrap_or_default();
                break;
            }
            names.push(&node.state.name);
        }
        names.iter().rev().fold(path, |path, name| path.join(name))
    }
}
